#include <doctest/doctest.h>

#include <algorithm>

#include "stable.hpp"

namespace ostler::config {
namespace {

using Options = std::vector<std::pair<std::string, std::string>>;

Lines faults(const Stable& stable, const Options& options, const Lines& command = {"app"}) {
  return texts(load_options(stable.host, options, command, {}).faults);
}

}  // namespace

TEST_CASE("the ad-hoc form is a file with one pool") {
  const Stable stable;
  const Loaded loaded = load_options(stable.host,
                                     {{"listen", "tcp://127.0.0.1:8080"},
                                      {"listen", "unix:@x"},
                                      {"workers", "3"},
                                      {"accept", "shared"},
                                      {"directory", "bin"},
                                      {"env", "A=1"},
                                      {"env", "B.C=x=y: {z}"},
                                      {"inherit-env", "LANG,TZ"},
                                      {"user", "root"},
                                      {"umask", "22"},
                                      {"ready", "2s"},
                                      {"timeouts-heartbeat", "off"},
                                      {"timeouts-stop", "5s"},
                                      {"stop-signal", "INT"},
                                      {"leave-behind", "true"},
                                      {"sandbox-no-new-privileges", "true"},
                                      {"replace-surge", "50%"},
                                      {"restart-backoff-max", "1m"},
                                      {"restart-reset-after", "3"},
                                      {"output", "null"},
                                      {"socket", "c.sock"},
                                      {"log-level", "debug"},
                                      {"log-output", "./log"}},
                                     {"app", "--fd", "{fd:http1}", "a: [b"}, {});
  REQUIRE(texts(loaded.faults) == Lines{});
  const Loaded file = stable.load(R"(
control: {socket: c.sock}
log: {level: debug, output: ./log}
pools:
  app:
    command: [app, --fd, "{fd:http1}", "a: [b"]
    listen: [tcp://127.0.0.1:8080, unix:@x]
    workers: 3
    directory: bin
    env: {A: 1, B.C: "x=y: {z}"}
    inherit_env: [LANG, TZ]
    user: root
    umask: 022
    ready: {after: 2s}
    timeouts: {heartbeat: off, stop: 5s}
    stop_signal: INT
    leave_behind: true
    sandbox:
      no_new_privileges: true
    replace: {surge: 50%}
    restart: {backoff_max: 1m, reset_after: 3}
    output: null
)");
  REQUIRE(texts(file.faults) == Lines{});
  CHECK(loaded.config.file.empty());
  CHECK(loaded.config.pools == file.config.pools);
  CHECK(loaded.config.control == file.config.control);
  CHECK(loaded.config.log == file.config.log);
}

TEST_CASE("ready and inherit-env as words") {
  const Stable stable;
  const auto pool = [&](const Options& options) {
    return load_options(stable.host, options, {"app"}, {}).config.pools.at("app");
  };
  CHECK(pool({{"ready", "notify"}}).ready.mode == ReadyMode::kNotify);
  CHECK(pool({{"ready", "auto"}}).ready.mode == ReadyMode::kAuto);
  CHECK(pool({{"inherit-env", "false"}}).inherit_env == InheritEnv::kMinimal);
  CHECK(pool({{"inherit-env", "true"}}).inherit_env == InheritEnv::kAll);
}

TEST_CASE("faults name the option") {
  const Stable stable;
  CHECK(faults(stable, {{"workers", "x"}}) ==
        Lines{"--workers: must be auto, a whole number from 0 to 10000, or a map such as {min: 2, "
              "max: 8}, not 'x'"});
  CHECK(faults(stable, {{"timeouts-stop", "5 s"}, {"listen", "8080"}}).size() == 2);
  CHECK(has(faults(stable, {{"listen", "8080"}}), {"--listen: must be tcp://HOST:PORT"}));
  CHECK(has(faults(stable, {{"listen", "tcp://:80"}, {"listen", "tcp://:80"}}),
            {"--listen: tcp://*:80 is taken", "(--listen)"}));
  CHECK(has(faults(stable, {{"ready", "soon"}}),
            {"--ready: must be auto, notify or listening or {after: 2s}, not 'soon'"}));
  CHECK(has(faults(stable, {{"env", "A"}}), {"--env: must be NAME=VALUE, not 'A'"}));
  CHECK(has(faults(stable, {{"env", "=A"}}), {"--env: is not a variable's name"}));
  CHECK(has(faults(stable, {{"env", "A=1"}, {"env", "A=2"}}), {"--env: sets 'A' twice"}));
  CHECK(has(faults(stable, {{"workers", "1"}, {"workers", "2"}}), {"--workers: is given twice"}));
  CHECK(has(faults(stable, {{"wrokers", "1"}}),
            {"--wrokers: unknown option; did you mean 'workers'?"}));
  CHECK(has(faults(stable, {{"user", ""}}), {"--user: must be a name or a number"}));
  CHECK(has(faults(stable, {{"user", "\xFF"}}), {"--user: is not valid UTF-8"}));
  CHECK(has(faults(stable, {{"log-level", "loud"}}), {"--log-level: must be trace"}));
  CHECK(has(faults(stable, {{"socket", "/" + std::string(100, 'x')}}),
            {"--socket: must be at most 90 bytes long"}));
}

TEST_CASE("the command") {
  const Stable stable;
  CHECK(faults(stable, {}, {}) == Lines{"COMMAND: names no executable"});
  CHECK(has(faults(stable, {}, {"none"}), {"COMMAND: 'none' is in no folder of PATH"}));
  CHECK(has(faults(stable, {}, {"app", "{fd}"}),
            {"COMMAND[1]: holds {fd}, but the pool has no listener"}));
  CHECK(has(faults(stable, {}, {"app", "\xFF"}), {"COMMAND: is not valid UTF-8"}));
}

TEST_CASE("--set goes with the ad-hoc form too") {
  const Stable stable;
  LoadOptions options;
  options.overrides = {{"pools.app.workers", "2"}};
  CHECK(std::get<int>(
            load_options(stable.host, {}, {"app"}, options).config.pools.at("app").workers) == 2);
}

TEST_CASE("options about how workers serve and are looked after") {
  const Stable stable;
  const Options options{{"listen", "tcp://:0"},      {"worker-class", "threads"},
                        {"worker-threads", "8"},     {"worker-trusted-proxies", "127.0.0.1,unix"},
                        {"recycle-requests", "100"}, {"health-exec", "app --check {slot}"},
                        {"health-interval", "5s"},   {"warmup", "GET /a,b"},
                        {"warmup", "GET /c"}};
  const Loaded loaded = load_options(stable.host, options, {"app"}, {});
  CHECK(texts(loaded.faults) == Lines{});
  const Pool& pool = loaded.config.pools.at("app");
  CHECK(pool.worker.worker_class == WorkerClass::kThreads);
  CHECK(pool.worker.threads == 8);
  CHECK(pool.worker.trusted_proxies == Lines{"127.0.0.1", "unix"});
  CHECK(pool.recycle.requests == 100U);
  CHECK(pool.health->exec == Lines{"app", "--check", "{slot}"});
  CHECK(pool.warmup == std::vector<ProbeRequest>{{"GET", "/a,b"}, {"GET", "/c"}});
}

TEST_CASE("options about a health check's request") {
  const Stable stable;
  const Options options{{"listen", "tcp://:0"},       {"health-headers", "X-A=1=2"},
                        {"health-headers", "X.B=y"},  {"health-request", "GET /"},
                        {"health-host", "shop.test"}, {"health-expect", "200,300-308"}};
  const Loaded loaded = load_options(stable.host, options, {"app"}, {});
  CHECK(texts(loaded.faults) == Lines{});
  CHECK(loaded.config.pools.at("app").health->request ==
        ProbeRequest{
            "GET", "/", "shop.test", {{"X-A", "1=2"}, {"X.B", "y"}}, {{200, 200}, {300, 308}}});
  CHECK(has(faults(stable, {{"health-headers", "X-A"}}),
            {"--health-headers: must be NAME=VALUE, not 'X-A'"}));
  CHECK(has(faults(stable, {{"health-headers", "X-A=1"}, {"health-headers", "X-A=2"}}),
            {"--health-headers: sets 'X-A' twice"}));
  CHECK(has(faults(stable, {{"health-headers", "Host=a"}}),
            {"--health-headers: is given by 'host'"}));
  CHECK(has(faults(stable, {{"health-headers", "X-A=1"}, {"health", "off"}}),
            {"--health: contradicts --health-headers"}));
}

TEST_CASE("options about who gets a connection, and how many workers there are") {
  const Stable stable;
  const Options options{
      {"listen", "tcp://:0"},     {"accept", "dispatch"},     {"dispatch", "random"},
      {"workers-min", "2"},       {"workers-max", "8"},       {"workers-by", "busy"},
      {"workers-target", "0.55"}, {"workers-up-after", "3s"}, {"workers-down-after", "2m"}};
  const Loaded loaded = load_options(stable.host, options, {"app"}, {});
  CHECK(texts(loaded.faults) == Lines{});
  const Pool& pool = loaded.config.pools.at("app");
  CHECK(pool.accept == Accept::kDispatch);
  CHECK(pool.dispatch == DispatchPolicy::kRandom);
  CHECK(std::get<ScaledWorkers>(pool.workers) == ScaledWorkers{2, 8, ScaleBy::kBusy, 0.55,
                                                               std::chrono::seconds(3),
                                                               std::chrono::minutes(2)});
  CHECK(faults(stable, {{"workers-target", "2"}, {"workers-max", "4"}, {"listen", "tcp://:0"}}) ==
        Lines{"--workers-target: is a share of the workers' capacity with by: busy, above 0 and up "
              "to 1, not '2'; or use by: backlog"});
  CHECK(has(faults(stable, {{"workers-min", "2"}}), {"--workers-min: needs a 'max'"}));
  CHECK(has(faults(stable, {{"accept", "reuseport"}}), {"--accept: ", "'app' has none"}));
  CHECK(has(faults(stable, {{"dispatch", "random"}}), {"--dispatch: goes with accept: dispatch"}));
}

TEST_CASE("a whole and a part of it contradict each other, whichever comes first") {
  const Stable stable;
  CHECK(has(faults(stable, {{"recycle-requests", "5"}, {"recycle", "off"}}),
            {"--recycle: ", "contradicts --recycle-requests"}));
  CHECK(has(faults(stable, {{"health", "off"}, {"health-interval", "5s"}}),
            {"--health-interval: ", "contradicts --health"}));
  CHECK(has(faults(stable, {{"workers", "auto"}, {"workers-max", "8"}}),
            {"--workers-max: ", "contradicts --workers"}));
  CHECK(has(faults(stable, {{"workers-max", "8"}, {"workers", "4"}}),
            {"--workers: ", "contradicts --workers-max"}));
  CHECK(faults(stable, {{"restart-backoff", "1s"}, {"restart-backoff-max", "2s"}}).empty());
}

TEST_CASE("options of what is not available yet are refused by name") {
  const Stable stable;
  for (const Options& options : {Options{{"affinity", "auto"}}, Options{{"spawn", "template"}},
                                 Options{{"limits-memory", "1G"}}}) {
    CAPTURE(options.front().first);
    const Lines lines = faults(stable, options);
    REQUIRE(lines.size() == 1);
    CHECK(lines.front().starts_with("--" + options.front().first + ": "));
    CHECK(lines.front().ends_with("is not available in this version"));
  }
}

TEST_CASE("the list of options") {
  Lines names;
  for (const AdHocOption& option : ad_hoc_options()) {
    CAPTURE(option.name);
    CHECK(option.help.size() > 5);
    CHECK(option.help.find('\n') == std::string::npos);
    names.push_back(option.name);
  }
  CHECK(names == Lines{"listen",
                       "workers",
                       "workers-min",
                       "workers-max",
                       "workers-by",
                       "workers-target",
                       "workers-up-after",
                       "workers-down-after",
                       "directory",
                       "env",
                       "env-file",
                       "inherit-env",
                       "user",
                       "group",
                       "umask",
                       "accept",
                       "dispatch",
                       "socket-protocol",
                       "worker-class",
                       "worker-threads",
                       "worker-connections",
                       "worker-keepalive",
                       "worker-header-limit",
                       "worker-body-limit",
                       "worker-header-timeout",
                       "worker-body-timeout",
                       "worker-write-timeout",
                       "worker-access-log",
                       "worker-trusted-proxies",
                       "spawn",
                       "ready",
                       "timeouts-start",
                       "timeouts-heartbeat",
                       "timeouts-request",
                       "timeouts-stop",
                       "stop-signal",
                       "leave-behind",
                       "sandbox-no-new-privileges",
                       "replace-surge",
                       "replace-settle",
                       "replace-attempts",
                       "restart-backoff",
                       "restart-backoff-max",
                       "restart-burst",
                       "restart-reset-after",
                       "recycle",
                       "recycle-requests",
                       "recycle-requests-jitter",
                       "recycle-lifetime",
                       "recycle-lifetime-jitter",
                       "recycle-memory",
                       "health",
                       "health-request",
                       "health-host",
                       "health-headers",
                       "health-expect",
                       "health-exec",
                       "health-interval",
                       "health-timeout",
                       "health-failures",
                       "warmup",
                       "output",
                       "socket",
                       "log-level",
                       "log-format",
                       "log-output"});
  const auto stop =
      std::find_if(ad_hoc_options().begin(), ad_hoc_options().end(),
                   [](const AdHocOption& option) { return option.name == "timeouts-stop"; });
  CHECK(stop->help == "from the stop signal to SIGKILL (default 30s)");
}

}  // namespace ostler::config
