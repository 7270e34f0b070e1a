#include "text.hpp"

#include <cstdio>

#include "core/core.hpp"
#include "core/failure.hpp"

namespace ostler::sim {
namespace {

using namespace core;  // every word here is the core's

const char* word_of(NoteKind kind) {
  switch (kind) {
    case NoteKind::kWorkerStarting:
      return "starting";
    case NoteKind::kWorkerReady:
      return "ready";
    case NoteKind::kWorkerStopping:
      return "stopping";
    case NoteKind::kWorkerExited:
      return "exited";
    case NoteKind::kWorkerFailed:
      return "failed";
    case NoteKind::kWorkerUnkillable:
      return "unkillable";
    case NoteKind::kWorkerWorn:
      return "worn";
    case NoteKind::kHealthFailed:
      return "not healthy";
    case NoteKind::kWorkerUnfit:
      return "unfit";
    case NoteKind::kReloadStarted:
      return "reload started";
    case NoteKind::kReloadFailing:
      return "reload failing";
    case NoteKind::kReloadFinished:
      return "reload finished";
    case NoteKind::kPoolScaled:
      return "scaled";
    case NoteKind::kPoolReady:
      return "pool ready";
    case NoteKind::kPoolRemoved:
      return "pool removed";
    case NoteKind::kPoolKept:
      return "pool kept";
    case NoteKind::kManagerReady:
      return "manager ready";
    case NoteKind::kManagerStopping:
      return "manager stopping";
    case NoteKind::kClockJumped:
      return "manager stood still";
  }
  return "?";
}

const char* word_of(SignalKind kind) {
  switch (kind) {
    case SignalKind::kStop:
      return "stop";
    case SignalKind::kAbort:
      return "abort";
    case SignalKind::kKill:
      return "kill";
  }
  return "?";
}

const char* word_of(Sight sight) {
  switch (sight) {
    case Sight::kWaiting:
      return "seen waiting";
    case Sight::kNothing:
      return "seen not waiting";
    case Sight::kUnknown:
      return "cannot be seen:";
  }
  return "";
}

const char* word_of(WorkerSign sign) {
  switch (sign) {
    case WorkerSign::kReady:
      return "ready";
    case WorkerSign::kStopping:
      return "stopping";
    case WorkerSign::kHeartbeat:
      return "beat";
    case WorkerSign::kTrigger:
      return "trigger";
    case WorkerSign::kSpeaks:
      return "speaks";
    case WorkerSign::kAwake:
      return "awake";
    case WorkerSign::kWorn:
      return "worn";
    case WorkerSign::kGarbled:
      return "garbled";
  }
  return "?";
}

const char* word_of(ProbeResult result) {
  switch (result) {
    case ProbeResult::kPassed:
      return "passed";
    case ProbeResult::kFailed:
      return "failed";
    case ProbeResult::kBusy:
      return "busy";
  }
  return "?";
}

const char* word_of(WorkerRequest request) {
  switch (request) {
    case WorkerRequest::kRecycle:
      return "recycle";
    case WorkerRequest::kDrain:
      return "drain";
    case WorkerRequest::kKill:
      return "kill";
  }
  return "?";
}

const char* word_of(ExitReason reason) {
  switch (reason) {
    case ExitReason::kStopped:
      return "stopped";
    case ExitReason::kNoListener:
      return "no listener";
    case ExitReason::kAllPoolsFailed:
      return "all pools failed";
  }
  return "?";
}

std::string op_text(OperationId op) {
  return op ? " op " + std::to_string(op.value) : "";
}
std::string generation_text(Generation generation) {
  return " (generation " + std::to_string(generation) + ")";
}

std::string probe_text(int warmup) {
  return warmup < 0 ? " health" : " warm-up " + std::to_string(warmup);
}
std::string lasting_text(const char* what, const std::optional<Lasting>& work) {
  if (!work) return {};
  return std::string(", ") + what + " since " + text(work->since) + ", may until " +
         text(work->until);
}

std::string plan_text(const Plan& plan) {
  std::string result;
  for (const PoolPlan& pool : plan.pools) {
    result += " " + pool.name + "=" + std::to_string(pool.workers) + "[";
    for (const std::string& key : pool.listeners) result += key + " ";
    if (result.back() == ' ') result.pop_back();
    result += "]";
  }
  return result;
}

std::string scale_text(const ScaleRequested& scale) {
  switch (scale.kind) {
    case ScaleKind::kSet:
      return std::to_string(scale.value);
    case ScaleKind::kAdd:
      return std::string(scale.value < 0 ? "" : "+").append(std::to_string(scale.value));
    case ScaleKind::kReset:
      return "reset";
  }
  return "?";
}

std::string pool_outcome_text(const PoolOutcome& outcome, const Names& names) {
  std::string result = outcome.pool + " " + word(outcome.outcome) +
                       generation_text(outcome.generation) + ", " +
                       std::to_string(outcome.replaced) + " replaced in " + text(outcome.took);
  if (outcome.cut_off > 0) result += ", " + std::to_string(outcome.cut_off) + " cut off";
  if (outcome.failed) result += ", because of " + names.of(outcome.failed);
  if (outcome.reason) result += ": " + describe(*outcome.reason);
  return result;
}

std::string load_text(const LoadSeen& load) {
  return std::to_string(load.used) + " of " + std::to_string(load.capacity) + " in use, " +
         std::to_string(load.waiting) + " waiting" + (load.full ? ", full" : "");
}

std::string pool_text(PoolId pool) {
  return "pool " + std::to_string(pool.value);
}

struct EventText {
  const Names& names;

  std::string operator()(const Tick&) const { return "tick"; }
  std::string operator()(const PlanAccepted& e) const {
    return "plan" + plan_text(e.plan) + op_text(e.op);
  }
  std::string operator()(const ReloadRequested& e) const {
    return (e.restart ? "restart " : "reload ") + (e.pool.empty() ? "all" : e.pool) + op_text(e.op);
  }
  std::string operator()(const PlanRead& e) const {
    return e.faults.empty() ? "read" + plan_text(e.plan)
                            : "read, with a fault: " + describe(e.faults.front());
  }
  std::string operator()(const ScaleRequested& e) const {
    return "scale " + e.pool + " " + scale_text(e) + op_text(e.op);
  }
  std::string operator()(const WorkerRequested& e) const {
    return std::string(word_of(e.request)) + " " + names.of(e.worker) + op_text(e.op);
  }
  std::string operator()(const StopRequested& e) const {
    return std::string(e.now ? "stop now" : "stop") + op_text(e.op);
  }
  std::string operator()(const ListenerOpened& e) const { return "opened " + e.key; }
  std::string operator()(const ListenerFailed& e) const {
    return "not opened " + e.key + ": " + describe(e.failure);
  }
  std::string operator()(const Spawned& e) const { return "spawned " + names.of(e.worker); }
  std::string operator()(const SpawnFailed& e) const {
    return "not spawned " + names.of(e.worker) + ": " + e.stage + ", error " +
           std::to_string(e.error);
  }
  std::string operator()(const WorkerSigned& e) const {
    return std::string(word_of(e.sign)) + " " + names.of(e.worker);
  }
  std::string operator()(const Seen& e) const {
    return std::string(word_of(e.sight)) + " " + names.of(e.worker) + " since " +
           text(e.since.time_since_epoch());
  }
  std::string operator()(const TimeoutExtended& e) const {
    return "extend " + names.of(e.worker) + " by " + text(e.by);
  }
  std::string operator()(const Exited& e) const {
    return "exit " + names.of(e.worker) + (e.signaled ? " signal " : " code ") +
           std::to_string(e.code) + (e.answered ? ", answered" : "");
  }
  std::string operator()(const Probed& e) const {
    return "probed " + names.of(e.worker) + probe_text(e.warmup) + ": " + word_of(e.result);
  }
  std::string operator()(const Looked& e) const {
    return "looked at " + names.of(e.worker) + (e.awake ? ", awake" : "") +
           lasting_text("silent", e.silent) + lasting_text("request", e.request) +
           lasting_text("waiting", e.waiting);
  }
  std::string operator()(const Measured& e) const {
    return "measured " + names.of(e.worker) + ": " +
           (e.memory ? std::to_string(*e.memory) : std::string("nothing"));
  }
  std::string operator()(const QueueEmptied& e) const { return "emptied " + names.of(e.worker); }
  std::string operator()(const BacklogServed& e) const {
    return "backlog of pool " + std::to_string(e.pool.value) + " served";
  }
  std::string operator()(const Stranded& e) const {
    return "stranded, pool " + std::to_string(e.pool.value);
  }
  std::string operator()(const LoadSeen& e) const {
    return "load of " + pool_text(e.pool) + ": " + load_text(e);
  }
  std::string operator()(const Demand& e) const { return "demand for " + pool_text(e.pool); }
};

struct ActionText {
  const Names& names;

  std::string operator()(const ReadPlan&) const { return "read the file"; }
  std::string operator()(const ReloadQueued& a) const {
    return "a reload of " + (a.pool.empty() ? "all" : a.pool) + op_text(a.op) + " waits for" +
           (a.start ? std::string(" the start") : op_text(a.behind));
  }
  std::string operator()(const OpenListener& a) const { return "open " + a.key; }
  std::string operator()(const CloseListener& a) const { return "close " + a.key; }
  std::string operator()(const Spawn& a) const {
    return "spawn " + names.of(a.worker) + generation_text(a.generation) + " as launch " +
           std::to_string(a.launch.value);
  }
  std::string operator()(const SignalWorker& a) const {
    return std::string("signal ") + word_of(a.kind) + " " + names.of(a.worker);
  }
  std::string operator()(const Probe& a) const {
    return "probe " + names.of(a.worker) + probe_text(a.warmup);
  }
  std::string operator()(const EmptyQueue& a) const {
    std::string text = "empty queue " + names.of(a.worker);
    for (const std::string& key : a.listeners) text += ", turn away from " + key;
    return text;
  }
  std::string operator()(const TurnAway& a) const { return "turn away from " + a.pool_name; }
  std::string operator()(const LetAccept& a) const { return "let accept " + names.of(a.worker); }
  std::string operator()(const Look& a) const { return "look at " + names.of(a.worker); }
  std::string operator()(const Measure& a) const { return "measure " + names.of(a.worker); }
  std::string operator()(const Watch& a) const { return "watch " + a.pool_name; }
  std::string operator()(const AwaitDemand& a) const { return "await demand for " + a.pool_name; }
  std::string operator()(const DropLaunch& a) const {
    return "drop launch " + std::to_string(a.launch.value);
  }
  std::string operator()(const Note& a) const {
    std::string result = "note: ";
    if (a.worker) {
      result += names.of(a.worker) + " ";
    } else if (!a.pool.empty()) {
      result += a.pool + " ";
    }
    result += word_of(a.kind);
    if (a.cause != StopCause::kNone) result += std::string(", ") + word(a.cause);
    if (a.kind == NoteKind::kReloadFinished) result += std::string(", ") + word(a.outcome);
    if (a.kind == NoteKind::kPoolScaled) result += " to " + std::to_string(a.value);
    if (a.decision) {
      result += " from " + std::to_string(a.decision->from) + ": " + describe(*a.decision);
    }
    if (a.kind == NoteKind::kWorkerWorn) result += std::string(", ") + word(a.wear);
    if (a.failure) result += ": " + describe(*a.failure);
    if (a.kind == NoteKind::kWorkerFailed && a.value > 0) {
      result += "; again in " + std::to_string(a.value) + "ms";
    }
    if (a.kind == NoteKind::kClockJumped) result += " for " + std::to_string(a.value) + "ms";
    return result;
  }
  std::string operator()(const Reply& a) const {
    std::string result = "reply" + op_text(a.op) + ": " + word(a.outcome);
    if (a.worker) result += ", " + names.of(a.worker);
    if (a.reason) result += ": " + describe(*a.reason);
    for (const Failure& error : a.errors) result += "; " + describe(error);
    for (const PoolOutcome& outcome : a.pools) result += "; " + pool_outcome_text(outcome, names);
    return result;
  }
  std::string operator()(const ExitManager& a) const {
    return std::string("exit manager: ") + word_of(a.reason);
  }
};

}  // namespace

void Names::learn(const Spawn& spawn) {
  const int count = ++counts_[{spawn.pool_name, spawn.slot}];
  names_[spawn.worker] =
      spawn.pool_name + "." + std::to_string(spawn.slot) + "/" + std::to_string(count);
}

std::string Names::of(WorkerId worker) const {
  const auto found = names_.find(worker);
  return found == names_.end() ? "worker " + std::to_string(worker.value) : found->second;
}

std::string text(Duration duration) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.3fs", static_cast<double>(duration.count()) / 1e9);
  return buffer;
}

std::string text(Time time) {
  return text(time.time_since_epoch());
}

std::string text(const Event& event, const Names& names) {
  return std::visit(EventText{names}, event);
}

std::string text(const Action& action, const Names& names) {
  return std::visit(ActionText{names}, action);
}

}  // namespace ostler::sim
