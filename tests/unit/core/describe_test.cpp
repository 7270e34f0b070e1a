#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <cerrno>
#include <csignal>
#include <string>
#include <utility>

#include "core/action.hpp"
#include "core/core.hpp"
#include "core/failure.hpp"

using namespace ostler::core;
using namespace std::chrono_literals;

namespace {

Failure failure(FailureKind kind, std::string stage = {}, Duration after = {}) {
  Failure result;
  result.kind = kind;
  result.stage = std::move(stage);
  result.after = after;
  return result;
}

}  // namespace

TEST_CASE("a failure is told with what it was about, how long it took and which limit it broke") {
  Failure spawn = failure(FailureKind::kSpawn, "exec");
  spawn.error = ENOENT;
  CHECK(describe(spawn) == "could not be started: exec: No such file or directory");
  CHECK(describe(failure(FailureKind::kSpawn, "open a.log: it is a device")) ==
        "could not be started: open a.log: it is a device");
  CHECK(describe(failure(FailureKind::kSpawn, "chdir /srv/app as www-data: Permission denied")) ==
        "could not be started: chdir /srv/app as www-data: Permission denied");
  CHECK(describe(failure(FailureKind::kStartTimeout, "", 60s)) ==
        "was not ready within 1m0s (timeouts.start)");
  CHECK(describe(failure(FailureKind::kHeartbeatTimeout, "", 4200ms)) ==
        "sent no heartbeat for 4.2s (timeouts.heartbeat)");
  CHECK(describe(failure(FailureKind::kRequestTimeout, "GET /report", 5s)) ==
        "served one request for 5s (timeouts.request): GET /report");
  CHECK(describe(failure(FailureKind::kSilent, "GET /lock", 30s)) ==
        "had work and made no progress for 30s (timeouts.heartbeat): GET /lock");
  CHECK(describe(failure(FailureKind::kSilent, "", 30s)) ==
        "had work and made no progress for 30s (timeouts.heartbeat)");
  CHECK(describe(failure(FailureKind::kStalled, "12 connections", 30s)) ==
        "did not accept what waited for it for 30s (timeouts.heartbeat): 12 connections");
  CHECK(describe(failure(FailureKind::kWarmup, "GET / was answered with 500")) ==
        "failed its warm-up: GET / was answered with 500");
  CHECK(describe(failure(FailureKind::kUnhealthy, "GET /healthz timed out after 2s")) ==
        "failed a health check: GET /healthz timed out after 2s");
  CHECK(describe(failure(FailureKind::kStopTimeout, "", 250ms)) ==
        "was still there 250ms after it was asked to stop (timeouts.stop)");
}

TEST_CASE("a worker that lacks the channel is told with the ways out") {
  const std::string text = describe(failure(FailureKind::kNoChannel));
  CHECK(text.starts_with("does not speak the worker channel"));
  CHECK(text.find("a worker built on the SDK") != std::string::npos);
  CHECK(text.find("`accept: reuseport`") != std::string::npos);
  CHECK(text.find("`health: {exec}`") != std::string::npos);
  const std::string dispatch = describe(failure(FailureKind::kNotDispatchable, "", 300ms));
  CHECK(dispatch.starts_with("did not speak the worker channel within 300ms"));
  CHECK(dispatch.find("a worker built on the SDK, or another `accept`") != std::string::npos);
}

TEST_CASE("an end that nobody asked for is told with its signal, and whether it had served") {
  Failure exited = failure(FailureKind::kExited, "", 200ms);
  exited.code = 3;
  CHECK(describe(exited) == "exited with code 3 after 200ms, before it was ready");
  exited.code = 0;
  exited.stage = "4711 (nginx)";
  CHECK(describe(exited) ==
        "exited with code 0 after 200ms, before it was ready; it left process 4711 (nginx) running "
        "in "
        "the background: run it in the foreground (gunicorn: without --daemon; nginx: `daemon "
        "off;`)");
  Failure killed = failure(FailureKind::kSignaled, "", 90min);
  killed.code = SIGSEGV;
  killed.core_dumped = killed.was_ready = true;
  CHECK(describe(killed) == "was killed by SIGSEGV (core dumped) after 90m0s");
  CHECK(signal_name(99) == "signal 99");
}

TEST_CASE("each reason to replace a worker has a word of its own") {
  CHECK(std::string(word(Wear::kRequests)) == "requests");
  CHECK(std::string(word(Wear::kLifetime)) == "lifetime");
  CHECK(std::string(word(Wear::kMemory)) == "memory");
  CHECK(std::string(word(Wear::kUnhealthy)) == "unhealthy");
  CHECK(std::string(word(Wear::kStranded)) == "stranded-connections");
  CHECK(std::string(word(StopCause::kRecycled)) == "recycled");
  CHECK(std::string(word(StopCause::kUnhealthy)) == "unhealthy");
}

TEST_CASE("a manager that gives up says what each pool died of, or which sockets it lacks") {
  State state;
  CHECK(describe_exit(state) == "stopped as asked");
  state.exit_reason = ExitReason::kAllPoolsFailed;
  Failure exited = failure(FailureKind::kExited, "", 200ms);
  exited.code = 3;
  state.exit_causes = {{"web", exited}};
  CHECK(describe_exit(state) ==
        "giving up: no pool got a worker ready in 5 tries: "
        "web: exited with code 3 after 200ms, before it was ready");
  Failure spawn = failure(FailureKind::kSpawn, "exec");
  spawn.error = ENOENT;
  state.exit_causes.push_back({"api", spawn});
  CHECK(describe_exit(state) ==
        "giving up: no pool got a worker ready in 5 tries each: "
        "web: exited with code 3 after 200ms, before it was ready; "
        "api: could not be started: exec: No such file or directory");
  state.exit_reason = ExitReason::kNoListener;
  Failure bind = failure(FailureKind::kListener, "bind tcp://127.0.0.1:80");
  bind.error = EADDRINUSE;
  state.exit_causes = {{"", bind}};
  CHECK(describe_exit(state) ==
        "giving up: a socket could not be opened: bind tcp://127.0.0.1:80: Address already in use");
}
