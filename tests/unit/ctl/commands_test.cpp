// What each command asks, prints and exits with, against a manager that follows the API.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "fake_manager.hpp"

namespace ostler::ctl {
namespace {

using Requests = std::vector<std::string>;

constexpr const char* kStatus = R"({"version": "0.1.0", "pid": 42, "state": "running",
 "uptime": 3, "config": "/etc/shop.yaml", "pools": {"web": {"state": "running", "generation": 1,
 "target": 2, "ready": 2, "starting": 0, "draining": 1, "listeners": [], "restarts": 0,
 "reloads": 0, "last_error": null, "workers": [
 {"worker": "web.0", "slot": 0, "pid": 100, "generation": 1, "state": "draining"},
 {"worker": "web.0", "slot": 0, "pid": 101, "generation": 2, "state": "ready"},
 {"worker": "web.1", "slot": 1, "pid": 102, "generation": 1, "state": "starting"},
 {"worker": "web.2", "slot": 2, "pid": 103, "generation": 1, "state": "draining"},
 {"worker": "web.2", "slot": 2, "pid": 104, "generation": 1, "state": "starting"}]}}})";

std::string event(const std::string& name, const std::string& pool, int slot, int pid) {
  return R"({"time":"12:00:00","event":")" + name + R"(","pool":")" + pool + R"(","slot":)" +
         std::to_string(slot) + R"(,"pid":)" + std::to_string(pid) + R"(,"generation":2})";
}

void check(const Result& result, int code, const std::string& out, const std::string& err) {
  CHECK(result.code == code);
  CHECK(result.out == out);
  CHECK(result.err == err);
}

}  // namespace

TEST_CASE("status") {
  FakeManager manager({{"GET /v1/status", answer(200, kStatus)}});
  const Result text = run_at(manager.socket(), {"status"});
  CHECK(text.code == 0);
  CHECK(text.err.empty());
  CHECK(text.out.find("ostlerd 0.1.0 running, pid 42, up 3.0s, /etc/shop.yaml\n") == 0);
  CHECK(text.out.find("web.1   102    1  starting") != std::string::npos);
  check(run_at(manager.socket(), {"status", "--json"}), 0, kStatus + std::string("\n"), "");
  CHECK(manager.requests() == Requests{"GET /v1/status", "GET /v1/status"});
}

TEST_CASE("status of one pool") {
  const std::string pool = R"({"state": "stopped", "generation": 5, "workers": []})";
  FakeManager manager(
      {{"GET /v1/pools/web", answer(200, pool + "\n")},
       {"GET /v1/pools/app", problem(404, "No such pool", "there is no pool 'app'")}});
  const Result text = run_at(manager.socket(), {"status", "web"});
  CHECK(text.code == 0);
  CHECK(text.out.find("web   stopped") != std::string::npos);
  check(run_at(manager.socket(), {"status", "web", "--json"}), 0, pool + "\n", "");
  check(run_at(manager.socket(), {"status", "app"}), 4, "",
        "ostlerctl: No such pool: there is no pool 'app'\n");
}

TEST_CASE("status of 10000 workers fits") {
  std::string workers;
  for (int i = 0; i < 10000; ++i)
    workers += std::string(i > 0 ? "," : "") + R"({"worker":"web.)" + std::to_string(i) +
               R"(","slot":)" + std::to_string(i) + R"(,"state":"ready","status":")" +
               std::string(1000, 's') + "\"}";
  FakeManager manager(
      {{"GET /v1/status", answer(200, R"({"pools":{"web":{"workers":[)" + workers + "]}}}")}});
  const Result result = run_at(manager.socket(), {"status"});
  CHECK(result.code == 0);
  CHECK(result.out.find("\nweb.9999 ") != std::string::npos);
}

TEST_CASE("reload tells what happens while it waits, then the outcome") {
  const std::string done = R"({"outcome": "reloaded", "pools": {"web": {"outcome": "reloaded",
    "generation": 2, "replaced": 1, "took": 0.5, "cut": 0}}})";
  const auto happens =
      events({event("worker.starting", "web", 0, 200), R"({"event":"reload.started"})", "not JSON",
              event("worker.ready", "web", 0, 200), event("worker.ready", "app", 3, 300),
              event("worker.exited", "web", 0, 100)});
  FakeManager manager({{"GET /v1/events", stream({event("worker.failed", "web", 9, 9)})},
                       {"POST /v1/reload", all_of({happens, answer(200, done)})},
                       {"POST /v1/pools/web/reload", all_of({happens, answer(200, done)})},
                       {"POST /v1/pools/web/restart", all_of({happens, answer(200, done)})},
                       {"POST /v1/restart", all_of({happens, answer(200, done)})}});
  const std::string starting =
      "web.9 failed (pid 9, generation 2)\n"
      "web.0 starting (pid 200, generation 2)\n"
      "web.0 ready (pid 200, generation 2)\n";
  const std::string exited = "web.0 exited (pid 100, generation 2)\n";
  const std::string app = "app.3 ready (pid 300, generation 2)\n";
  const std::string outcome = " in 0.50s: generation 2, 1 worker replaced, 0 requests cut\n";
  check(run_at(manager.socket(), {"reload"}), 0,
        starting + app + exited + "web: reloaded" + outcome, "");
  check(run_at(manager.socket(), {"reload", "web"}), 0,
        starting + exited + "web: reloaded" + outcome, "");
  check(run_at(manager.socket(), {"restart"}), 0,
        starting + app + exited + "web: restarted" + outcome, "");
  check(run_at(manager.socket(), {"restart", "web"}), 0,
        starting + exited + "web: restarted" + outcome, "");
  CHECK(manager.requests() == Requests{"GET /v1/events", "POST /v1/reload",            //
                                       "GET /v1/events", "POST /v1/pools/web/reload",  //
                                       "GET /v1/events", "POST /v1/restart",           //
                                       "GET /v1/events", "POST /v1/pools/web/restart"});
}

TEST_CASE("reload with --json prints the answer and nothing else") {
  const std::string done = R"({"outcome":"reloaded","pools":{}})";
  FakeManager manager({{"POST /v1/reload", answer(200, done)}});
  check(run_at(manager.socket(), {"reload", "--json"}), 0, done + "\n", "");
  CHECK(manager.requests() == Requests{"POST /v1/reload"});
}

TEST_CASE("reload without waiting") {
  FakeManager manager({{"POST /v1/reload?wait=false", answer(202, R"({"outcome":"accepted"})")},
                       {"POST /v1/pools/web/reload?wait=false",
                        problem(503, "The manager is stopping", "not done")}});
  check(run_at(manager.socket(), {"reload", "--no-wait"}), 0, "the reload has begun\n", "");
  check(run_at(manager.socket(), {"--json", "reload", "--no-wait"}), 0,
        "{\"outcome\":\"accepted\"}\n", "");
  check(run_at(manager.socket(), {"reload", "--no-wait", "web"}), 1, "",
        "ostlerctl: The manager is stopping: not done\n");
  CHECK(manager.requests() == Requests{"POST /v1/reload?wait=false", "POST /v1/reload?wait=false",
                                       "POST /v1/pools/web/reload?wait=false"});
}

TEST_CASE("a reload that is rolled back: exit code 1, the reason, the last lines") {
  const std::string body = R"({"type": "x", "title": "The reload was rolled back", "status": 409,
    "detail": "d", "outcome": "rolled_back", "pools": {
    "app": {"outcome": "reloaded", "generation": 2, "replaced": 2, "took": 1, "cut": 0},
    "web": {"outcome": "rolled_back", "generation": 1, "replaced": 0, "took": 0.2, "cut": 0,
    "reason": "exited with code 3 after 0.1s, before it was ready", "output": ["boom\u001b[2J"]}}})";
  FakeManager manager({{"GET /v1/events", stream()},
                       {"POST /v1/reload", answer(409, body, "application/problem+json")}});
  check(
      run_at(manager.socket(), {"reload"}), 1,
      "app: reloaded in 1.0s: generation 2, 2 workers replaced, 0 requests cut\n",
      "web: rolled back to generation 1 after 0.20s: exited with code 3 after 0.1s, before it was "
      "ready\n    boom\\x1b[2J\nostlerctl: the reload was rolled back\n");
  check(run_at(manager.socket(), {"reload", "--json"}), 1, body + "\n",
        "ostlerctl: the reload was rolled back\n");
}

TEST_CASE("a reload that is rejected: exit code 1, every fault") {
  FakeManager manager({{"GET /v1/events", stream()},
                       {"POST /v1/reload", answer(422, R"({"outcome": "rejected", "pools": {},
      "errors": [{"file": "a.yaml", "line": 3, "column": 5, "key": "pools.web.wrokers",
                  "message": "unknown key"},
                 {"file": "a.yaml", "line": 9, "column": 1, "key": "", "message": "what is this"}]})")}});
  check(run_at(manager.socket(), {"reload"}), 1, "",
        "a.yaml:3:5: pools.web.wrokers: unknown key\na.yaml:9:1: what is this\n"
        "ostlerctl: the reload was rejected; nothing was changed\n");
}

TEST_CASE("a reload that ends otherwise says how") {
  FakeManager manager(
      {{"GET /v1/events", stream()},
       {"POST /v1/reload", answer(503, R"({"title": "The reload was not completed",
          "detail": "the outcome is stopping", "outcome": "stopping", "pools": {}})")},
       {"POST /v1/pools/web/reload", problem(404, "No such pool", "there is no pool 'web'")}});
  check(run_at(manager.socket(), {"reload"}), 1, "",
        "ostlerctl: The reload was not completed: the outcome is stopping\n");
  check(run_at(manager.socket(), {"reload", "web"}), 4, "",
        "ostlerctl: No such pool: there is no pool 'web'\n");
}

TEST_CASE("a reload is waited for without progress if there are no events to be had") {
  FakeManager manager({{"GET /v1/events", problem(503, "Too many", "no more streams")},
                       {"POST /v1/reload", answer(200, R"({"outcome":"reloaded","pools":{}})")}});
  check(run_at(manager.socket(), {"reload"}), 0, "", "");
}

TEST_CASE("scale") {
  const std::string pool = R"({"target": 8, "ready": 4})";
  FakeManager manager({{"POST /v1/pools/web/scale", answer(200, pool)},
                       {"POST /v1/pools/app/scale", problem(400, "The request is not understood",
                                                            "'workers' must be a number")}});
  for (const char* workers : {"8", "+2", "-1", "auto", "reset"})
    check(run_at(manager.socket(), {"scale", "web", workers}), 0, "web: target 8, ready 4\n", "");
  check(run_at(manager.socket(), {"scale", "web", "0", "--json"}), 0, pool + "\n", "");
  check(run_at(manager.socket(), {"scale", "app", "10001"}), 1, "",
        "ostlerctl: The request is not understood: 'workers' must be a number\n");
  const std::string request = "POST /v1/pools/web/scale ";
  CHECK(manager.requests() ==
        Requests{request + R"({"workers":8})", request + R"({"workers":"+2"})",
                 request + R"({"workers":"-1"})", request + R"({"workers":"auto"})",
                 request + R"({"workers":"reset"})", request + R"({"workers":0})",
                 R"(POST /v1/pools/app/scale {"workers":10001})"});
}

TEST_CASE("recycle, drain and kill by process id") {
  FakeManager manager(
      {{"POST /v1/workers/7/recycle",
        answer(200, R"({"outcome":"recycled","worker":"web.0","pid":9})")},
       {"POST /v1/workers/7/stop", answer(200, R"({"outcome":"stopped","worker":"web.0"})")},
       {"POST /v1/workers/7/kill", answer(200, R"({"outcome":"killed","worker":"web.0"})")},
       {"POST /v1/workers/8/kill", problem(404, "No such worker", "no worker has pid 8")}});
  check(run_at(manager.socket(), {"recycle", "7"}), 0, "web.0: recycled, pid 7 replaced by 9\n",
        "");
  check(run_at(manager.socket(), {"drain", "007"}), 0, "web.0: stopped, pid 7\n", "");
  check(run_at(manager.socket(), {"kill", "7"}), 0, "web.0: killed, pid 7\n", "");
  check(run_at(manager.socket(), {"kill", "7", "--json"}), 0,
        "{\"outcome\":\"killed\",\"worker\":\"web.0\"}\n", "");
  check(run_at(manager.socket(), {"kill", "8"}), 4, "",
        "ostlerctl: No such worker: no worker has pid 8\n");
}

TEST_CASE("a recycle whose successor fails says why, with its last lines") {
  FakeManager manager({{"POST /v1/workers/7/recycle",
                        answer(409, R"({"title": "It was tried and failed", "detail": "web.0 stays",
      "reason": "exited with code 1", "output": ["one", "two\u0007"]})")}});
  check(run_at(manager.socket(), {"recycle", "7"}), 1, "",
        "ostlerctl: It was tried and failed: web.0 stays: exited with code 1\n    one\n"
        "    two\\x07\n");
}

TEST_CASE("a worker by its slot is looked up; of two, the one that is ready is meant") {
  const auto killed = answer(200, R"({"outcome":"killed","worker":"web.0"})");
  FakeManager manager({{"GET /v1/status", answer(200, kStatus)},
                       {"POST /v1/workers/101/kill", killed},
                       {"POST /v1/workers/102/kill", killed}});
  CHECK(run_at(manager.socket(), {"kill", "web.0"}).code == 0);
  CHECK(run_at(manager.socket(), {"kill", "web.1"}).code == 0);
  check(run_at(manager.socket(), {"kill", "web.2"}), 1, "",
        "ostlerctl: web.2 is 2 workers just now, pid 103 (draining), pid 104 (starting): name one "
        "by its process id\n");
  check(run_at(manager.socket(), {"kill", "web.3"}), 4, "", "ostlerctl: no such worker: web.3\n");
  check(run_at(manager.socket(), {"kill", "app.0"}), 4, "", "ostlerctl: no such pool: app\n");
  CHECK(manager.requests() == Requests{"GET /v1/status", "POST /v1/workers/101/kill",
                                       "GET /v1/status", "POST /v1/workers/102/kill",
                                       "GET /v1/status", "GET /v1/status", "GET /v1/status"});
}

TEST_CASE("stop waits until the manager is gone") {
  const auto leave = [](FakeManager& manager, FakeManager::Socket&) {
    manager.tell(event("worker.exited", "web", 0, 100));
    manager.leave();
  };
  const std::string accepted = R"({"state":"stopping"})";
  for (const bool now : {false, true}) {
    FakeManager manager({{"GET /v1/events", stream()},
                         {"POST /v1/stop", all_of({events({R"({"event":"manager.stopping"})"}),
                                                   answer(202, accepted), leave})}});
    std::vector<std::string> words = {"stop"};
    if (now) words.insert(words.end(), {"--now", "--json"});
    const std::string progress =
        "manager stopping\nweb.0 exited (pid 100, generation 2)\nstopped\n";
    check(run_at(manager.socket(), words), 0, now ? accepted + "\n" : progress, "");
    CHECK(manager.requests() == Requests{"GET /v1/events", now ? R"(POST /v1/stop {"now":true})"
                                                               : R"(POST /v1/stop {"now":false})"});
  }
}

TEST_CASE("stop does not take the end of a stream for the end of the manager") {
  int streams = 0;
  const auto opened = [&streams](FakeManager& manager, FakeManager::Socket& socket) {
    stream()(manager, socket);
    if (++streams == 4) manager.leave();
    if (streams > 1) manager.end_streams(streams % 2 == 0);
  };
  const auto end = [](FakeManager& manager, FakeManager::Socket&) { manager.end_streams(true); };
  FakeManager manager({{"GET /v1/events", opened},
                       {"POST /v1/stop", all_of({answer(202, R"({"state":"stopping"})"), end})}});
  check(run_at(manager.socket(), {"stop"}), 0, "stopped\n", "");
  CHECK(manager.requests().size() == 5);
}

TEST_CASE("events: those of late, and from now on") {
  const std::string first = event("worker.ready", "web", 0, 100);
  const std::string second =
      R"({"time":"12:01","event":"worker.failed","pool":"web","slot":1,"output":["a\u0007"]})";
  FakeManager manager({{"GET /v1/events?follow=false", lines({first, second})},
                       {"GET /v1/events", lines({second})}});
  check(run_at(manager.socket(), {"events"}), 0,
        "12:00:00  web.0 ready (pid 100, generation 2)\n12:01  web.1 failed\n    a\\x07\n", "");
  check(run_at(manager.socket(), {"events", "--json"}), 0, first + "\n" + second + "\n", "");
  check(run_at(manager.socket(), {"events", "--follow"}), 0, "12:01  web.1 failed\n    a\\x07\n",
        "");
}

TEST_CASE("config show prints the YAML as it is") {
  FakeManager manager({{"GET /v1/config", answer(200, "pools:\n  web: {}\n", "application/yaml")}});
  check(run_at(manager.socket(), {"config", "show"}), 0, "pools:\n  web: {}\n", "");
}

TEST_CASE("reopen") {
  FakeManager manager({{"POST /v1/reopen", answer(200, R"({"reopened":3})")}});
  check(run_at(manager.socket(), {"reopen"}), 0, "files reopened: 3\n", "");
  CHECK(manager.requests() == Requests{"POST /v1/reopen"});
}

TEST_CASE("a log that could not be reopened: exit code 1, and every file with its reason") {
  const std::string web = R"({"file": "/l/web.log", "operation": "open", "reason": "gone"})";
  const std::string api = R"({"file": "/l/api.log", "operation": "open", "reason": "not yours"})";
  const std::string title = R"({"title": "A log file could not be opened anew", "detail": )";
  const std::string one = title + R"("open /l/web.log: gone", "errors": [)" + web + "]}";
  const std::string two = title + R"("2 files", "errors": [)" + web + "," + api + "]}";
  const std::string failed = "ostlerctl: A log file could not be opened anew: ";
  {
    FakeManager manager({{"POST /v1/reopen", answer(409, one, "application/problem+json")}});
    check(run_at(manager.socket(), {"reopen"}), 1, "", failed + "open /l/web.log: gone\n");
  }
  FakeManager manager({{"POST /v1/reopen", answer(409, two, "application/problem+json")}});
  check(run_at(manager.socket(), {"reopen"}), 1, "",
        "open /l/web.log: gone\nopen /l/api.log: not yours\n" + failed + "2 files\n");
}

TEST_CASE("version, with and without a manager") {
  std::string path;
  {
    FakeManager manager({{"GET /v1/status", answer(200, kStatus)}});
    path = manager.socket();
    check(run_at(path, {"version"}), 0, "ostlerctl " OSTLER_VERSION "\nostlerd 0.1.0, pid 42\n",
          "");
  }
  check(run_at(path, {"version"}), 0,
        "ostlerctl " OSTLER_VERSION "\nno manager answers at " + path +
            ": No such file or directory\n",
        "");
  check(run_at(path, {"version", "--json"}), 0,
        "{\"ostlerctl\":\"" OSTLER_VERSION "\",\"ostlerd\":null}\n", "");
}

}  // namespace ostler::ctl
