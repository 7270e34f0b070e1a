// The core's values in words.
#include <array>
#include <csignal>
#include <cstdio>
#include <system_error>
#include <utility>

#include "core/action.hpp"
#include "core/core.hpp"
#include "core/failure.hpp"
#include "core/limits.hpp"

namespace ostler::core {
namespace {

// "250ms", "4.2s", "5m0s"
std::string spell(Duration duration) {
  using std::chrono::duration_cast;
  using std::chrono::milliseconds;
  const auto ms = duration_cast<milliseconds>(duration).count();
  if (ms < 1000) return std::to_string(ms) + "ms";
  if (ms < 60'000) {
    const auto tenths = (ms % 1000) / 100;
    const std::string seconds = std::to_string(ms / 1000);
    return tenths == 0 ? seconds + "s" : seconds + "." + std::to_string(tenths) + "s";
  }
  return std::to_string(ms / 60'000) + "m" + std::to_string(ms % 60'000 / 1000) + "s";
}

// Thousandths, as the file writes them: "0.83"
std::string share(std::int64_t thousandths) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", static_cast<double>(thousandths) / 1000.0);
  return text;
}

std::string reason(int error) {
  return std::generic_category().message(error);
}

// Of what a worker that ended left running.
std::string in_background(const std::string& process) {
  if (process.empty()) return {};
  return "; it left process " + process +
         " running in the background: run it in the foreground (gunicorn: without --daemon; nginx: "
         "`daemon off;`)";
}

}  // namespace

std::string signal_name(int signal) {
  static constexpr auto kNames =
      std::to_array<std::pair<int, const char*>>({{SIGHUP, "SIGHUP"},
                                                  {SIGINT, "SIGINT"},
                                                  {SIGQUIT, "SIGQUIT"},
                                                  {SIGILL, "SIGILL"},
                                                  {SIGTRAP, "SIGTRAP"},
                                                  {SIGABRT, "SIGABRT"},
                                                  {SIGBUS, "SIGBUS"},
                                                  {SIGFPE, "SIGFPE"},
                                                  {SIGKILL, "SIGKILL"},
                                                  {SIGUSR1, "SIGUSR1"},
                                                  {SIGSEGV, "SIGSEGV"},
                                                  {SIGUSR2, "SIGUSR2"},
                                                  {SIGPIPE, "SIGPIPE"},
                                                  {SIGALRM, "SIGALRM"},
                                                  {SIGTERM, "SIGTERM"},
                                                  {SIGXCPU, "SIGXCPU"},
                                                  {SIGXFSZ, "SIGXFSZ"},
                                                  {SIGSYS, "SIGSYS"},
                                                  {SIGWINCH, "SIGWINCH"}});
  for (const auto& [number, name] : kNames) {
    if (number == signal) return name;
  }
  return "signal " + std::to_string(signal);
}

std::string describe(const Failure& failure) {
  const std::string when =
      " after " + spell(failure.after) + (failure.was_ready ? "" : ", before it was ready");
  switch (failure.kind) {
    case FailureKind::kSpawn:
      return "could not be started: " + failure.stage +
             (failure.error == 0 ? "" : ": " + reason(failure.error));
    case FailureKind::kExited:
      return "exited with code " + std::to_string(failure.code) + when +
             in_background(failure.stage);
    case FailureKind::kSignaled:
      return "was killed by " + signal_name(failure.code) +
             (failure.core_dumped ? " (core dumped)" : "") + when;
    case FailureKind::kStartTimeout:
      return "was not ready within " + spell(failure.after) + " (timeouts.start)" +
             (failure.stage.empty() ? "" : ": " + failure.stage);
    case FailureKind::kHeartbeatTimeout:
      return "sent no heartbeat for " + spell(failure.after) + " (timeouts.heartbeat)";
    case FailureKind::kRequestTimeout:
      return "served one request for " + spell(failure.after) +
             " (timeouts.request): " + failure.stage;
    case FailureKind::kSilent:
      return "had work and made no progress for " + spell(failure.after) + " (timeouts.heartbeat)" +
             (failure.stage.empty() ? "" : ": " + failure.stage);
    case FailureKind::kStalled:
      return "did not accept what waited for it for " + spell(failure.after) +
             " (timeouts.heartbeat): " + failure.stage;
    case FailureKind::kNoChannel:
      return "does not speak the worker channel, which `warmup` and `health: {request}` need: use "
             "a worker built on the SDK, `accept: reuseport`, or `health: {exec}`";
    case FailureKind::kNotDispatchable:
      return "did not speak the worker channel within " + spell(failure.after) +
             ", which `accept: dispatch` needs: use a worker built on the SDK, or another `accept`";
    case FailureKind::kGarbled:
      return "sent what is no message on its channel" + when + "; its pool needs the channel";
    case FailureKind::kWarmup:
      return "failed its warm-up: " + failure.stage;
    case FailureKind::kUnhealthy:
      return "failed a health check: " + failure.stage;
    case FailureKind::kTrigger:
      return "asked to be treated as hung (WATCHDOG=trigger)" + when;
    case FailureKind::kStopTimeout:
      return "was still there " + spell(failure.after) +
             " after it was asked to stop (timeouts.stop)";
    case FailureKind::kListener:
      return failure.error == 0 ? failure.stage : failure.stage + ": " + reason(failure.error);
    case FailureKind::kConfiguration:
      return failure.stage;
  }
  return {};
}

std::string describe_exit(const State& state) {
  std::string text;
  switch (state.exit_reason) {
    case ExitReason::kStopped:
      return "stopped as asked";
    case ExitReason::kNoListener:
      text = "giving up: a socket could not be opened: ";
      break;
    case ExitReason::kAllPoolsFailed:
      text = "giving up: no pool got a worker ready in " +
             std::to_string(limits::kFirstStartTries) +
             (state.exit_causes.size() == 1 ? " tries: " : " tries each: ");
      break;
  }
  std::string separator;
  for (const ExitCause& cause : state.exit_causes) {
    text += std::exchange(separator, "; ") + (cause.pool.empty() ? "" : cause.pool + ": ") +
            describe(cause.failure);
  }
  return text;
}

std::string why_not_ready(const PoolPlan& plan, const Worker& worker) {
  const bool both = plan.ready_by == ReadyBy::kWordAndSight;
  if (!both && plan.ready_by != ReadyBy::kSight) return {};
  const Starting& starting = worker.starting;
  const bool said = both && starting.said;
  if (both && worker.care.speaks) return "it speaks the worker channel, and did not say READY=1";
  if (!starting.seen) return "no look at it has come back";
  switch (*starting.seen) {
    case Sight::kWaiting:
      return said ? "it was not seen waiting for connections after it said READY=1" : "";
    case Sight::kNothing:
      if (said) {
        return "it said READY=1, but neither it nor a descendant is seen waiting for connections "
               "on its listener; `ready: notify` believes READY=1 alone";
      }
      return std::string("neither it nor a descendant is seen waiting for connections on its ") +
             (both ? "listener, and it did not say READY=1" : "listener");
    case Sight::kUnknown:
      return "whether it waits for connections cannot be seen: " + starting.detail +
             (both ? "; it did not say READY=1, and `ready: {after: 2s}` needs neither"
                   : "; `ready: notify` and `ready: {after: 2s}` need no look");
  }
  return {};
}

const char* word(StopCause cause) {
  switch (cause) {
    case StopCause::kNone:
      return "none";
    case StopCause::kReplaced:
      return "replaced";
    case StopCause::kRecycled:
      return "recycled";
    case StopCause::kUnhealthy:
      return "unhealthy";
    case StopCause::kRolledBack:
      return "rolled-back";
    case StopCause::kScaledDown:
      return "scaled-down";
    case StopCause::kRemoved:
      return "removed";
    case StopCause::kStop:
      return "stop";
    case StopCause::kRequested:
      return "requested";
    case StopCause::kItself:
      return "itself";
    case StopCause::kFault:
      return "fault";
  }
  return "";
}

const char* word(Accept accept) {
  switch (accept) {
    case Accept::kShared:
      return "shared";
    case Accept::kReuseport:
      return "reuseport";
    case Accept::kDispatch:
      return "dispatch";
  }
  return "";
}

const char* word(ScaleBy by) {
  switch (by) {
    case ScaleBy::kBusy:
      return "busy";
    case ScaleBy::kBacklog:
      return "backlog";
  }
  return "";
}

const char* word(Wear wear) {
  switch (wear) {
    case Wear::kNone:
      return "none";
    case Wear::kRequests:
      return "requests";
    case Wear::kLifetime:
      return "lifetime";
    case Wear::kMemory:
      return "memory";
    case Wear::kUnhealthy:
      return "unhealthy";
    case Wear::kStranded:
      return "stranded-connections";
  }
  return "";
}

const char* word(ScaleReason reason) {
  switch (reason) {
    case ScaleReason::kAsked:
      return "asked";
    case ScaleReason::kBusy:
      return "busy";
    case ScaleReason::kBacklog:
      return "backlog";
    case ScaleReason::kFull:
      return "full";
    case ScaleReason::kDemand:
      return "demand";
    case ScaleReason::kCalm:
      return "calm";
  }
  return "";
}

std::string describe(const ScaleDecision& decision) {
  const std::string waiting = std::to_string(decision.load) + " waiting";
  const std::string workers = std::to_string(decision.from) + " workers";
  const std::string span = " for " + spell(decision.lasted);
  switch (decision.reason) {
    case ScaleReason::kAsked:
      return "asked for";
    case ScaleReason::kBusy:
      return "busy " + share(decision.load) + " of " + share(decision.allowed) + span;
    case ScaleReason::kBacklog:
      return waiting + " for " + workers + span;
    case ScaleReason::kFull:
      return "the listen queue is full, " + waiting;
    case ScaleReason::kDemand:
      return "somebody waits, and no worker runs";
    case ScaleReason::kCalm:
      return decision.idle ? "idle" + span : "fewer were enough" + span;
  }
  return {};
}

const char* word(ManagerState state) {
  switch (state) {
    case ManagerState::kStarting:
      return "starting";
    case ManagerState::kRunning:
      return "running";
    case ManagerState::kReloading:
      return "reloading";
    case ManagerState::kStopping:
      return "stopping";
  }
  return "";
}

const char* word(PoolState state) {
  switch (state) {
    case PoolState::kStarting:
      return "starting";
    case PoolState::kRunning:
      return "running";
    case PoolState::kReloading:
      return "reloading";
    case PoolState::kDegraded:
      return "degraded";
    case PoolState::kStopping:
      return "stopping";
    case PoolState::kStopped:
      return "stopped";
  }
  return "";
}

const char* word(WorkerState state) {
  switch (state) {
    case WorkerState::kSpawning:
    case WorkerState::kStarting:
      return "starting";
    case WorkerState::kReady:
      return "ready";
    case WorkerState::kDraining:
    case WorkerState::kAborting:
    case WorkerState::kKilling:
      return "draining";
  }
  return "";
}

const char* word(Outcome outcome) {
  switch (outcome) {
    case Outcome::kDone:
      return "done";
    case Outcome::kReloaded:
      return "reloaded";
    case Outcome::kRolledBack:
      return "rolled_back";
    case Outcome::kRejected:
      return "rejected";
    case Outcome::kFailed:
      return "failed";
    case Outcome::kNotFound:
      return "not_found";
    case Outcome::kRemoved:
      return "removed";
    case Outcome::kKept:
      return "kept";
    case Outcome::kStopping:
      return "stopping";
    case Outcome::kBusy:
      return "busy";
  }
  return "";
}

}  // namespace ostler::core
