#include "ctl/render.hpp"

#include <doctest/doctest.h>

#include <sstream>

namespace ostler::ctl {
namespace {

template <class Print>
std::string printed(const Print& print) {
  std::ostringstream out;
  print(Terminal{out, out, false});
  return out.str();
}

std::string status(const char* json) {
  return printed([&](const Terminal& t) { print_status(t, Json::parse(json)); });
}

std::string outcome(const char* json, const char* done = "reloaded") {
  return printed([&](const Terminal& t) { print_outcome(t, Json::parse(json), done); });
}

}  // namespace

TEST_CASE("status: the manager, its pools, their workers") {
  CHECK(status(R"({"version": "0.1.0", "pid": 4242, "state": "running", "uptime": 12.5,
    "config": "/etc/ostler/ostler.yaml", "pools": {
    "web": {"state": "running", "generation": 1, "target": 2, "ready": 2, "starting": 0,
      "draining": 1, "listeners": [{"address": "tcp://127.0.0.1:8080"}, {"address": "unix:/w"}],
      "restarts": 10, "reloads": 0, "last_error": null, "workers": [
      {"worker": "web.0", "slot": 0, "pid": 4243, "generation": 1, "state": "ready",
       "uptime": 12.4, "memory": 5242880, "cpu": 0.31, "requests": 460, "connections": 3, "active": 3,
       "serving": [{"request": "GET /slow", "seconds": 1.25}], "status": "serving"},
      {"worker": "web.10", "slot": 10, "pid": 99, "generation": 12, "state": "draining",
       "uptime": 7475, "memory": null, "cpu": null, "status": null}]},
    "mailer": {"state": "stopped", "generation": 1, "target": 0, "ready": 0, "starting": 0,
      "draining": 0, "listeners": [], "restarts": 0, "reloads": 0, "last_error": null,
      "workers": []}}})") ==
        R"(ostlerd 0.1.0 running, pid 4242, up 12s, /etc/ostler/ostler.yaml

POOL    STATE    READY/TARGET  STARTING  DRAINING  GEN  RESTARTS  RELOADS  LISTEN
mailer  stopped           0/0         0         0    1         0        0  -
web     running           2/2         0         1    1        10        0  tcp://127.0.0.1:8080 unix:/w

WORKER   PID  GEN  STATE     UPTIME    CPU   MEMORY  REQUESTS  CONNS  SERVING            STATUS
web.0   4243    1  ready        12s  0.31s  5.0 MiB       460      3  GET /slow 1.2s +2  serving
web.10    99   12  draining   2h04m      -        -         -      -  -                  -
)");
}

TEST_CASE("status: what is wrong, and what is going on, stands under the pools") {
  CHECK(status(R"({"version": "0.1.0", "pid": 1, "state": "running", "uptime": 1, "config": null,
    "pools": {
    "app": {"state": "degraded", "generation": 3, "target": 1, "ready": 0, "starting": 0,
      "draining": 0, "listeners": [], "restarts": 7, "reloads": 2, "workers": [],
      "backing_off": 2.5, "last_error": {"message": "app.0 exited with code 3", "slot": 0, "pid": 77,
        "generation": 3, "time": "2026-01-02T03:04:05Z", "output": ["Traceback", "  no \u001b[1m"]}},
    "web": {"state": "reloading", "generation": 1, "target": 2, "ready": 2, "starting": 1,
      "draining": 0, "listeners": [], "restarts": 0, "reloads": 0, "workers": [],
      "rollout": {"generation": 2, "replaced": 1, "rolling_back": false}, "scaled": true,
      "workers_configured": 4, "last_error": null}}})") ==
        R"(ostlerd 0.1.0 running, pid 1, up 1.0s

POOL  STATE      READY/TARGET  STARTING  DRAINING  GEN  RESTARTS  RELOADS  LISTEN
app   degraded            0/1         0         0    3         7        2  -
web   reloading           2/2         1         0    1         0        0  -
app: next try in 2.5s
app: last error: app.0 exited with code 3 (pid 77, generation 3, time 2026-01-02T03:04:05Z)
    Traceback
      no \x1b[1m
web: rolling out generation 2, 1 worker replaced
web: scaled by hand; the configuration says 4 workers
)");
}

TEST_CASE("status: an error that is a mere text is shown as well") {
  const Json pool = Json::parse(R"({"state": "degraded", "last_error": "no such file"})");
  CHECK(printed([&](const Terminal& t) {
          print_pool(t, "web", pool);
        }).find("web: last error: no such file") != std::string::npos);
}

TEST_CASE("status: members of the wrong type, or none, are shown as dashes") {
  CHECK(status(R"({"pools": {"web": {"state": 7, "ready": "x", "listeners": {"a": 1},
                   "workers": [3, {"pid": [], "worker": null, "memory": "lots"}]}}})") ==
        R"(ostlerd - -, pid -, up -

POOL  STATE  READY/TARGET  STARTING  DRAINING  GEN  RESTARTS  RELOADS  LISTEN
web   -               -/-         -         -    -         -        -  -

WORKER  PID  GEN  STATE  UPTIME  CPU  MEMORY  REQUESTS  CONNS  SERVING  STATUS
-         -    -  -           -    -       -         -      -  -        -
-         -    -  -           -    -       -         -      -  -        -
)");
}

TEST_CASE("status: what a worker says of itself cannot reach the terminal") {
  const std::string text = status(R"({"pools": {"web": {"workers": [
      {"worker": "web.0", "status": "a\nb\u001b]0;owned\u0007\u009b2J"}]}}})");
  CHECK(text.find("a\\nb\\x1b]0;owned\\x07\\x9b2J") != std::string::npos);
  CHECK(text.find('\x1b') == std::string::npos);
}

TEST_CASE("events are sentences") {
  const auto text = [](const char* json) { return event_text(Json::parse(json)); };
  CHECK(text(R"({"time": "t", "event": "worker.ready", "pool": "web", "worker": "web.0", "slot": 0,
                 "pid": 123, "generation": 2})") == "web.0 ready (pid 123, generation 2)");
  CHECK(text(R"({"event": "worker.failed", "pool": "web", "slot": 1, "pid": 9, "exit_code": 3,
                 "reason": "exited with code 3", "retry_in": 0.5, "output": ["x"]})") ==
        "web.1 failed (pid 9, exit_code 3, retry_in 0.5): exited with code 3");
  CHECK(text(R"({"event": "pool.scaled", "pool": "web", "target": 8})") == "web scaled (target 8)");
  CHECK(text(R"({"event": "reload.finished", "outcome": "reloaded"})") ==
        "reload finished (outcome reloaded)");
  CHECK(text(R"({"event": "reload.started", "pool": "web"})") == "web reload started");
  CHECK(text(R"({"event": "manager.stopping"})") == "manager stopping");
  CHECK(text(R"({"event": "new"})") == "new");
  CHECK(text(R"({"event": 3, "cause": "\u001b[2J"})") == "- (cause \\x1b[2J)");
  CHECK(text("{}") == "-");
  CHECK(event_line(Json::parse(R"({"time": "12:00", "event": "manager.stopping"})")) ==
        "12:00  manager stopping");
}

TEST_CASE("outcomes: reloaded") {
  CHECK(outcome(R"({"outcome": "reloaded", "pools": {
    "a": {"outcome": "reloaded", "generation": 2, "replaced": 4, "took": 1.25, "cut": 0},
    "b": {"outcome": "reloaded", "generation": 9, "replaced": 1, "took": 61, "cut": null}}})") ==
        "a: reloaded in 1.2s: generation 2, 4 workers replaced, 0 requests cut\n"
        "b: reloaded in 1m01s: generation 9, 1 worker replaced, requests cut: not known\n");
  CHECK(outcome(R"({"pools": {"a": {"outcome": "reloaded", "generation": 2, "replaced": 4,
                   "took": 2, "cut": 1}}})",
                "restarted") ==
        "a: restarted in 2.0s: generation 2, 4 workers replaced, 1 request cut\n");
}

TEST_CASE("outcomes: rolled back, with the reason and the worker's last words") {
  CHECK(outcome(R"({"outcome": "rolled_back", "pools": {"web": {"outcome": "rolled_back",
    "generation": 1, "replaced": 1, "took": 0.2, "cut": 0, "reason": "exited with code 3",
    "output": ["Traceback:", "  \u001b[31mImportError"]}}})") ==
        "web: rolled back to generation 1 after 0.20s: exited with code 3\n"
        "    Traceback:\n"
        "      \\x1b[31mImportError\n");
}

TEST_CASE("outcomes: rejected, with each fault's place") {
  CHECK(outcome(R"({"outcome": "rejected", "pools": {}, "errors": [
    {"file": "shop.yaml", "line": 3, "column": 5, "key": "pools.web.wrokers", "message": "unknown"},
    {"file": "", "line": null, "column": null, "key": "", "message": "bind tcp://:80: denied"},
    {"file": "a.yaml", "line": 0, "column": 0, "key": "k", "message": "m\n"}]})") ==
        "shop.yaml:3:5: pools.web.wrokers: unknown\n"
        "bind tcp://:80: denied\n"
        "a.yaml: k: m\\n\n");
}

}  // namespace ostler::ctl
