// How workers serve and how they are looked after: `worker`, `recycle`, `health`, `warmup`.
#include "config/src/care.hpp"

#include <doctest/doctest.h>

#include "stable.hpp"

namespace ostler::config {

using namespace std::chrono_literals;

TEST_CASE("settings of workers built on the SDK, each only if it is given") {
  const Stable stable;
  CHECK(stable.pool("").worker == WorkerSettings{});
  CHECK(stable.pool("  worker: {}").worker == WorkerSettings{});
  const WorkerSettings worker = stable
                                    .pool(R"(
  worker:
    class: threads
    threads: 64
    connections: 1
    keepalive: 0
    header_limit: 16KiB
    body_limit: 2G
    header_timeout: 250ms
    body_timeout: 1m
    write_timeout: 1h
    access_log: json
    trusted_proxies: [127.0.0.1, "2001:db8::/32", 10.0.0.0/8, unix])")
                                    .worker;
  CHECK(worker.worker_class == WorkerClass::kThreads);
  CHECK(worker.threads == 64);
  CHECK(worker.connections == 1);
  CHECK(worker.keepalive == Duration(0));
  CHECK(worker.header_limit == 16U << 10U);
  CHECK(worker.body_limit == std::uint64_t{2} << 30U);
  CHECK(worker.header_timeout == Duration(250ms));
  CHECK(worker.body_timeout == Duration(1min));
  CHECK(worker.write_timeout == Duration(1h));
  CHECK(worker.access_log == AccessLog::kJson);
  CHECK(worker.trusted_proxies == Lines{"127.0.0.1", "2001:db8::/32", "10.0.0.0/8", "unix"});
  CHECK(stable.pool("  worker: {access_log: off}").worker.access_log == AccessLog::kOff);
}

TEST_CASE("faulty settings of workers") {
  const Stable stable;
  const auto faults = [&](const char* text) {
    return stable.pool_faults("  worker: {" + std::string(text) + "}");
  };
  CHECK(faults("thread: 8") ==
        Lines{"t.yaml:4:12: pools.app.worker.thread: unknown key 'thread'; did you mean "
              "'threads'?"});
  CHECK(has(faults("class: asynch"), {"worker.class: must be", "did you mean 'async'?"}));
  CHECK(has(faults("threads: 65"), {"worker.threads: must be", "1 to 64"}));
  CHECK(has(faults("threads: 0"), {"worker.threads"}));
  CHECK(has(faults("class: async, threads: 4"),
            {"worker.threads: is for class: threads; leave it out, or change the class"}));
  CHECK(faults("threads: 4").empty());  // the program's own class may be threads
  CHECK(has(faults("connections: 0"), {"worker.connections"}));
  CHECK(has(faults("header_limit: 10"), {"must be from 256 to 1MiB, not '10'"}));
  CHECK(has(faults("body_limit: 1TB"), {"must be a size such as 512MiB"}));
  CHECK(has(faults("body_timeout: 0"), {"must be from 1ms"}));
  CHECK(has(faults("access_log: apache"), {"worker.access_log: must be off, common or json"}));
  for (const char* proxy : {"localhost", "10.0.0.0/33", "::1/129", "10.0.0.0/", "/8", "10.0.0/8",
                            "::ffff:10.0.0.0/8", "::ffff:10.0.0.0/104"}) {
    CAPTURE(proxy);
    CHECK(has(faults(("trusted_proxies: [\"" + std::string(proxy) + "\"]").c_str()),
              {"worker.trusted_proxies[0]: must be an IP address, a network such as 10.0.0.0/8"}));
  }
  CHECK(has(faults("trusted_proxies: 127.0.0.1"), {"must be a list such as [127.0.0.1"}));
  CHECK(faults("trusted_proxies: [\"::ffff:10.0.0.1\"]").empty());
  CHECK(faults("trusted_proxies: [a, 10.0.0.1, b]").size() == 2);  // not just the first
  std::string many = "trusted_proxies: [";
  for (int i = 0; i <= 1000; ++i) many += "unix, ";
  CHECK(has(faults((many + "]").c_str()), {"must be a list of at most 1000 proxies"}));
  CHECK(has(stable.pool_faults("  worker: sync"), {"must be a map with class, threads"}));
}

TEST_CASE("recycling") {
  const Stable stable;
  CHECK(stable.pool("  recycle: off").recycle == Recycle{});
  const Recycle recycle =
      stable
          .pool(
              "  recycle: {requests: 1000, requests_jitter: 100, lifetime: 1d, lifetime_jitter: 1h,"
              " memory: 512MiB}")
          .recycle;
  CHECK(recycle == Recycle{1000, 100, 24h, 1h, std::uint64_t{512} << 20U});
  const auto faults = [&](const char* text) {
    return stable.pool_faults("  recycle: " + std::string(text));
  };
  CHECK(has(faults("on"), {"recycle: must be off, or a map such as {requests: 10000"}));
  CHECK(has(faults("{}"), {"recycle: needs 'requests', 'lifetime' or 'memory'; or off"}));
  CHECK(has(faults("{requests: 0}"), {"recycle.requests: must be"}));
  CHECK(has(faults("{requests_jitter: 5}"), {"goes with 'requests', which is not given"}));
  CHECK(has(faults("{memory: 1G, lifetime_jitter: 5s}"), {"goes with 'lifetime'"}));
  CHECK(faults("{requests_jitter: 5, lifetime_jitter: 5s}").size() == 2);
  CHECK(has(faults("{memory: 0}"), {"recycle.memory: must be from 1"}));
  CHECK(has(faults("{request: 5}"), {"unknown key 'request'; did you mean 'requests'?"}));
}

TEST_CASE("health checks by a request") {
  const Stable stable;
  CHECK(!stable.pool("  health: off").health);
  const auto health = stable.pool("  listen: [tcp://:0]\n  health: {request: GET /healthz}").health;
  REQUIRE(health);
  CHECK(health->request == ProbeRequest{"GET", "/healthz"});
  CHECK(health->interval == 10s);
  CHECK(health->timeout == 2s);
  CHECK(health->failures == 3);
  const auto faults = [&](const std::string& text) {
    return stable.pool_faults("  listen: [tcp://:0]\n  health: " + text);
  };
  CHECK(has(faults("on"), {"health: must be off, or a map"}));
  CHECK(has(faults("{}"), {"health: needs a 'request' such as \"GET /healthz\", or an 'exec'"}));
  CHECK(has(faults("{request: GET /, exec: app}"), {"has both 'request' and 'exec'"}));
  for (const char* request : {"GET", "/healthz", "get /", "GET healthz", "GET  /", "GET /a b",
                              "GET http://localhost/", "[GET]"}) {
    CAPTURE(request);
    CHECK(has(faults("{request: " + std::string(request) + "}"),
              {"health.request: must be a method and a path, such as \"GET /healthz\""}));
  }
  CHECK(has(faults("{request: GET /, interval: 1s}"),
            {"the interval, which is 1s, must not be below the timeout, which is 2s"}));
  CHECK(faults("{interval: 1s}").size() == 2);  // that, and that nothing is asked
  CHECK(has(faults("{request: GET /, failures: 0}"), {"health.failures"}));
  CHECK(has(stable.pool_faults("  health: {request: GET /}"),
            {"health.request: is for workers that serve HTTP, and the pool has no listener"}));
  CHECK(has(stable.pool_faults(
                "  listen: [unix:///x]\n  socket_protocol: fastcgi\n  health: {request: GET /}"),
            {"this pool's speak fastcgi; use health: {exec}"}));
  CHECK(stable.pool_faults("  health: {request: GET /}\n  warmup: [GET /]").size() == 2);
}

TEST_CASE("a health check says whom it asks for, with which headers, and what is a good answer") {
  const Stable stable;
  const auto request = [&](const std::string& more) {
    return stable.pool("  listen: [tcp://:0]\n  health: {request: GET /, " + more + "}")
        .health->request.value();
  };
  CHECK(request("interval: 9s").host == "localhost");
  CHECK(request("interval: 9s").headers.empty());
  CHECK(request("interval: 9s").expect == std::vector<StatusRange>{{200, 399}});
  CHECK(request("host: shop.example:8080").host == "shop.example:8080");
  CHECK(request("host: \"[::1]\"").host == "[::1]");
  CHECK(request("headers: {X-Forwarded-Proto: https, Accept: \"*/*\", X-Empty: \"\", A: 1}")
            .headers ==
        std::map<std::string, std::string>{
            {"X-Forwarded-Proto", "https"}, {"Accept", "*/*"}, {"X-Empty", ""}, {"A", "1"}});
  CHECK(request("expect: 404").expect == std::vector<StatusRange>{{404, 404}});
  CHECK(request("expect: 200-499").expect == std::vector<StatusRange>{{200, 499}});
  CHECK(request("expect: [200, 300-308, \"404\"]").expect ==
        std::vector<StatusRange>{{200, 200}, {300, 308}, {404, 404}});
  // In any order.
  const auto health = stable
                          .pool(
                              "  listen: [tcp://:0]\n  health: {expect: 204, host: a.b, headers: "
                              "{X: y}, request: POST /ping}")
                          .health;
  CHECK(health->request == ProbeRequest{"POST", "/ping", "a.b", {{"X", "y"}}, {{204, 204}}});
}

TEST_CASE("faults of a request that a worker is asked, each with its place") {
  const Stable stable;
  const auto faults = [&](const std::string& text) {
    return stable.pool_faults("  listen: [tcp://:0]\n  health: {request: GET /, " + text + "}");
  };
  for (const char* host :
       {"\"\"", "a b", "\"a\\r\\nX: y\"", "http://a", "a/b", "ü.example", "[a]"}) {
    CAPTURE(host);
    CHECK(has(faults("host: " + std::string(host)), {"health.host: must be a host, such as"}));
  }
  for (const char* name : {"\"X Y\"", "\"\"", "\"X:\"", "\"a\\r\\nX\"", "ü"}) {
    CAPTURE(name);
    CHECK(has(faults("headers: {" + std::string(name) + ": y}"), {"is not a header's name"}));
  }
  for (const char* value :
       {"\"a\\r\\nX: y\"", "\"a\\n\"", "\" a\"", "\"a\\t\"", "[a]", "\"\\x7F\"", "~"}) {
    CAPTURE(value);
    CHECK(has(faults("headers: {X: " + std::string(value) + "}"),
              {"health.headers.X: must be text without control characters"}));
  }
  CHECK(faults("headers: {HOST: a}") ==
        Lines{"t.yaml:5:38: pools.app.health.headers.HOST: is given by 'host'"});
  for (const char* name : {"Content-Length", "transfer-encoding", "Connection", "Upgrade"}) {
    CAPTURE(name);
    CHECK(has(faults("headers: {" + std::string(name) + ": 1}"),
              {"health.headers." + std::string(name) + ": is the manager's own to send"}));
  }
  CHECK(has(faults("headers: {X-A: 1, x-a: 2}"), {"headers.x-a: is the same header as 'X-A'"}));
  CHECK(has(faults("headers: [X]"), {"health.headers: must be a map such as"}));
  CHECK(faults("headers: {Host: a, TE: b}, host: \"\", expect: 1").size() == 4);
  for (const char* expect : {"ok", "100", "199-300", "200-600", "300-200", "200-", "-200", "2xx",
                             "[]", "{}", "200 - 300", "0200"}) {
    CAPTURE(expect);
    CHECK(has(faults("expect: " + std::string(expect)), {"health.expect: must be a status from"}));
  }
  CHECK(has(faults("expect: [200, 1000]"), {"health.expect[1]: must be a status from"}));
  CHECK(stable.pool_faults("  health: {exec: app, host: a, headers: {X: y}, expect: 200}").size() ==
        3);
  CHECK(has(stable.pool_faults("  health: {exec: app, host: a}"),
            {"health.host: goes with 'request', and the check is a program"}));
}

TEST_CASE("health checks by a program") {
  const Stable stable;
  const auto health =
      stable.pool("  health: {exec: [app, \"{slot}\"], interval: 1s, timeout: 1s, failures: 1}")
          .health;
  REQUIRE(health);
  CHECK(health->exec == Lines{"app", "{slot}"});
  CHECK(health->executable == stable.scratch / "bin/app");
  CHECK(stable.pool("  health: {exec: app --deep 'a b'}").health->exec ==
        Lines{"app", "--deep", "a b"});
  CHECK(has(stable.pool_faults("  health: {exec: nothing}"),
            {"health.exec: 'nothing' is in no folder of PATH"}));
  CHECK(has(stable.pool_faults("  health: {exec: []}"), {"health.exec: names no executable"}));
  CHECK(has(stable.pool_faults("  health: {exec: \"{slot}\"}"), {"cannot hold a token"}));
  CHECK(has(stable.pool_faults("  listen: [tcp://:0]\n  health: {exec: [app, \"{fd}\"]}"),
            {"health.exec[1]: holds {fd}, but a check is not given the pool's listeners"}));
  CHECK(has(stable.pool_faults("  listen: [tcp://:0]\n  health: {exec: \"app {fd:http}\"}"),
            {"health.exec: holds {fd}"}));
  // A folder that is not there is blamed alone.
  CHECK(stable.pool_faults("  directory: none\n  health: {exec: ./check}").size() == 1);
}

TEST_CASE("warm-up requests") {
  const Stable stable;
  const auto faults = [&](const std::string& text) {
    return stable.pool_faults("  listen: [tcp://:0]\n  warmup: " + text);
  };
  CHECK(stable.pool("  listen: [tcp://:0]\n  warmup: [GET /, POST /cache]").warmup ==
        std::vector<ProbeRequest>{{"GET", "/"}, {"POST", "/cache"}});
  CHECK(stable.pool("  warmup: []").warmup.empty());
  CHECK(stable
            .pool("  listen: [tcp://:0]\n  warmup: [GET /, {request: GET /account, host: a.b, "
                  "headers: {X: y}, expect: [200, 401]}]")
            .warmup ==
        std::vector<ProbeRequest>{
            {"GET", "/"}, {"GET", "/account", "a.b", {{"X", "y"}}, {{200, 200}, {401, 401}}}});
  CHECK(has(faults("[GET /, {host: a}]"), {"warmup[1]: needs a 'request' such as"}));
  CHECK(has(faults("[{request: GET /, hosts: a}]"),
            {"warmup[0].hosts: unknown key 'hosts'; did you mean 'host'?"}));
  CHECK(has(faults("[GET /, {request: GET}]"), {"warmup[1].request: must be a method"}));
  CHECK(faults("[{request: GET}, {request: GET /, expect: x}]").size() == 2);
  CHECK(has(faults("GET /"), {"warmup: must be a list such as [\"GET /\"]"}));
  CHECK(has(faults("[GET /, GET]"), {"warmup[1]: must be a method and a path"}));
  CHECK(faults("[GET, GET /, POST]").size() == 2);
  std::string many = "[";
  for (int i = 0; i <= 100; ++i) many += "GET /, ";
  CHECK(has(faults(many + "]"), {"at most 100 requests"}));
  CHECK(has(stable.pool_faults("  warmup: [GET /]"), {"the pool has no listener"}));
}

TEST_CASE("sizes") {
  const Stable stable;
  const auto memory = [&](const char* text) {
    return stable.pool("  recycle: {memory: " + std::string(text) + "}").recycle.memory.value();
  };
  CHECK(memory("1") == 1);
  CHECK(memory("1K") == 1024);
  CHECK(memory("1KiB") == 1024);
  CHECK(memory("3M") == std::uint64_t{3} << 20U);
  CHECK(memory("1024GiB") == std::uint64_t{1} << 40U);
  for (const char* text : {"1.5G", "1KB", "KiB", "-1", "1 K", "01K", "99999999999999999999G"}) {
    CAPTURE(text);
    CHECK(has(stable.pool_faults("  recycle: {memory: " + std::string(text) + "}"),
              {"recycle.memory: must be "}));
  }
}

}  // namespace ostler::config
