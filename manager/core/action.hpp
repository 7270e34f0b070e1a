// All that the core can ask of the shell. Whatever can fail comes back as an event.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/failure.hpp"
#include "core/ids.hpp"

namespace ostler::core {

// Read the configuration: the turn of a reload has come. Answered by one PlanRead.
struct ReadPlan {
  bool operator==(const ReadPlan&) const = default;
  template <class Archive>
  void fields(Archive&) {}
};

// Tell who asked for a reload or restart that it waits for the one that runs.
struct ReloadQueued {
  OperationId op;  // none: nobody waits for the answer
  std::string pool;
  OperationId behind;  // the first of those who asked for the one that runs; none: as above
  bool start = false;  // what runs is the manager's start
  bool operator==(const ReloadQueued&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(op)(pool)(behind)(start);
  }
};

// Bind and listen, or adopt. Answered by ListenerOpened or ListenerFailed.
struct OpenListener {
  std::string key;
  LaunchId launch;  // a pool that has this listener; its configuration holds the details
  bool operator==(const OpenListener&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(key)(launch);
  }
};

struct CloseListener {
  std::string key;
  bool operator==(const CloseListener&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(key);
  }
};

// Start a process. Answered by Spawned or SpawnFailed; after Spawned, by one Exited.
struct Spawn {
  WorkerId worker;
  PoolId pool;
  std::string pool_name;
  int slot = 0;
  Generation generation = 0;
  LaunchId launch;
  std::uint64_t recycle_requests = 0;  // it asks to be replaced after so many; 0: never
  bool operator==(const Spawn&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(worker)(pool)(pool_name)(slot)(generation)(launch)(recycle_requests);
  }
};

enum class SignalKind {
  kStop,   // the pool's stop signal, to the worker
  kAbort,  // SIGABRT, to the worker
  kKill,   // SIGKILL, to the worker and everything it started
};
// Sent only between Spawned and Exited.
struct SignalWorker {
  WorkerId worker;
  SignalKind kind = SignalKind::kStop;
  bool operator==(const SignalWorker&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(worker)(kind);
  }
};

// Send a worker a request of our own. Answered by one Probed.
struct Probe {
  WorkerId worker;
  int warmup = -1;  // which of the warm-up requests, from 0; -1: a health check
  bool operator==(const Probe&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(worker)(warmup);
  }
};

// Send new connections elsewhere. Answered by one QueueEmptied, as soon as nothing waits any more
// on the worker's own socket, and at the listeners that it is the last to serve: from those, new
// connections are turned away.
struct EmptyQueue {
  WorkerId worker;
  std::vector<std::string> listeners;
  bool operator==(const EmptyQueue&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(worker)(listeners);
  }
};

// The pool is to end: turn new connections away from these listeners, which nobody else wants.
// Answered by one BacklogServed, as soon as nothing waits there for a worker that serves.
struct TurnAway {
  PoolId pool;
  std::string pool_name;
  std::vector<std::string> listeners;
  bool operator==(const TurnAway&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(pool)(pool_name)(listeners);
  }
};

// Its warm-up is over: it may accept connections.
struct LetAccept {
  WorkerId worker;
  bool operator==(const LetAccept&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(worker);
  }
};

// Read a worker's scoreboard and say when its limits are exceeded. Answered by one Looked.
struct Look {
  WorkerId worker;
  std::optional<Duration> heartbeat;  // the longest that work may go without a sign of progress
  std::optional<Duration> request;    // the longest that one request may take
  bool operator==(const Look&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(worker)(heartbeat)(request);
  }
};

// Measure a worker's memory. Answered by one Measured.
struct Measure {
  WorkerId worker;
  bool operator==(const Measure&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(worker);
  }
};

// Say what a pool's workers are at. Answered by one LoadSeen. Ends an AwaitDemand of the pool.
struct Watch {
  PoolId pool;
  std::string pool_name;
  bool operator==(const Watch&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(pool)(pool_name);
  }
};

// From now on nobody asks for the load of this pool: say Demand, once, when somebody connects to
// one of its listeners.
struct AwaitDemand {
  PoolId pool;
  std::string pool_name;
  bool operator==(const AwaitDemand&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(pool)(pool_name);
  }
};

// No worker and no plan refers to this launch any more.
struct DropLaunch {
  LaunchId launch;
  bool operator==(const DropLaunch&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(launch);
  }
};

// Why a worker was told to go, or kNone.
enum class StopCause {
  kNone,
  kReplaced,    // by a reload or a restart, or because an operator asked: its successor serves
  kRecycled,    // because it has served its time (Wear): its successor serves
  kUnhealthy,   // because its health checks failed: its successor serves
  kRolledBack,  // it belongs to a generation that failed
  kScaledDown,
  kRemoved,    // its pool is gone from the configuration
  kStop,       // the manager stops
  kRequested,  // an operator drained or killed it
  kItself,     // it said STOPPING=1
  kFault,      // it hung, or never became ready
};
// One word for logs and events: "replaced", "scaled-down"…
const char* word(StopCause cause);

// Why a worker is to be replaced, though it serves.
enum class Wear {
  kNone,
  kRequests,
  kLifetime,
  kMemory,
  kUnhealthy,
  kStranded,  // connections wait on the socket of a worker that is gone: its successor gets it
};
const char* word(Wear wear);

// Why a pool's target changed.
enum class ScaleReason {
  kAsked,    // by an operator
  kBusy,     // too much of the workers' capacity was in use
  kBacklog,  // too many connections waited
  kFull,     // a listen queue is full
  kDemand,   // somebody waits, and there is no worker
  kCalm,     // fewer were enough
};
const char* word(ScaleReason reason);

struct ScaleDecision {
  ScaleReason reason = ScaleReason::kAsked;
  int from = 0;              // the old target
  std::int64_t load = 0;     // kBusy: thousandths in use; kBacklog, kFull, kDemand: how many wait
  std::int64_t allowed = 0;  // kBusy, kBacklog: thousandths, the `target` of the plan
  Duration lasted{};         // kBusy, kBacklog, kCalm
  bool idle = false;         // kCalm: nothing at all was to be done
  bool operator==(const ScaleDecision&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(reason)(from)(load)(allowed)(lasted)(idle);
  }
};
// Half a sentence: "busy 0.83 of 0.70 for 2s", "12 waiting for 4 workers for 2s", "idle for 1m0s".
std::string describe(const ScaleDecision& decision);

enum class NoteKind {
  kWorkerStarting,
  kWorkerReady,
  kWorkerStopping,  // cause
  kWorkerExited,    // as expected; cause
  kWorkerFailed,    // failure; value: milliseconds until the slot tries again, 0 at once, -1 not
  kWorkerUnkillable,
  kWorkerWorn,    // wear: it is to be replaced; value: bytes, if that is why
  kHealthFailed,  // failure; value: how often in a row
  // It failed its health checks and counts as if it had died, but serves until its successor does:
  // failure; value as for kWorkerFailed.
  kWorkerUnfit,
  kReloadStarted,
  kReloadFailing,   // failure: why it is being rolled back
  kReloadFinished,  // outcome
  kPoolScaled,      // value: the new target; decision
  kPoolReady,       // reached its target for the first time, or again
  kPoolRemoved,
  kPoolKept,  // the file has it no more, but a pool that got one of its listeners was rolled back
  kManagerReady,  // every pool has reached its target once
  kManagerStopping,
  kClockJumped,  // value: milliseconds the manager stood still
};

enum class Outcome {
  kDone,
  kReloaded,
  kRolledBack,
  kRejected,  // nothing was changed: `errors`
  kFailed,    // a recycle whose successor failed: `reason`
  kNotFound,
  kStopping,  // the manager stops; what was asked is not done (any more)
  kBusy,      // too many requests wait
  // Of one pool in a reload, both: the file has it no more.
  kRemoved,
  kKept,  // a pool that got one of its listeners was rolled back
};

// Something worth telling: becomes a log line and an event for those who follow.
struct Note {
  NoteKind kind = NoteKind::kWorkerStarting;
  std::string pool;
  int slot = -1;  // -1: not about a worker
  WorkerId worker;
  Generation generation = 0;
  StopCause cause = StopCause::kNone;
  std::optional<Failure> failure;
  std::int64_t value = 0;
  Wear wear = Wear::kNone;
  Outcome outcome = Outcome::kDone;
  std::optional<ScaleDecision> decision;
  bool operator==(const Note&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(kind)(pool)(slot)(worker)(generation)(cause)(failure)(value)(wear)(outcome)(decision);
  }
};

// How a reload went for one pool.
struct PoolOutcome {
  std::string pool;
  Outcome outcome = Outcome::kReloaded;
  Generation generation = 0;  // the one in force now; 0: none, a new pool that failed
  int replaced = 0;           // workers replaced, those replaced back included
  Duration took{};
  int cut_off = 0;  // workers that had to be killed because their drain took too long
  std::optional<Failure> reason;
  WorkerId failed;  // the worker `reason` is about: the shell has its last output
  bool operator==(const PoolOutcome&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(pool)(outcome)(generation)(replaced)(took)(cut_off)(reason)(failed);
  }
};

struct Reply {
  OperationId op;
  Outcome outcome = Outcome::kDone;
  std::vector<PoolOutcome> pools;  // reload, restart
  std::vector<Failure> errors;     // kRejected: faults of the file, or of its listeners
  std::optional<Failure> reason;   // kFailed
  WorkerId worker;                 // recycle: the successor, or the one that failed
  bool operator==(const Reply&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(op)(outcome)(pools)(errors)(reason)(worker);
  }
};

enum class ExitReason {
  kStopped,
  kNoListener,     // at first start: a socket could not be opened
  kAllPoolsFailed  // at first start: no pool got a single worker ready
};
// Everything is over; nothing follows.
struct ExitManager {
  ExitReason reason = ExitReason::kStopped;
  bool operator==(const ExitManager&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(reason);
  }
};

using Action = std::variant<OpenListener, CloseListener, Spawn, SignalWorker, DropLaunch, Note,
                            Reply, ExitManager, Probe, LetAccept, Look, Measure, EmptyQueue, Watch,
                            AwaitDemand, ReadPlan, ReloadQueued, TurnAway>;
using Actions = std::vector<Action>;

}  // namespace ostler::core
