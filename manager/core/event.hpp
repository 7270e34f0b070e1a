// All that can happen to the core. Events may be late, doubled or out of order: one that names a
// worker or a pool that is not there (any more) is counted and ignored.
#pragma once

#include <string>
#include <variant>

#include "core/failure.hpp"
#include "core/ids.hpp"
#include "core/plan.hpp"

namespace ostler::core {

// Time has passed; nothing else.
struct Tick {
  bool operator==(const Tick&) const = default;
  template <class Archive>
  void fields(Archive&) {}
};

// Requests. Each has an operation that is answered exactly once, if it is not none.

// A configuration was read and found good. The first one starts the manager; later ones reload.
struct PlanAccepted {
  OperationId op;
  Plan plan;
  std::string only;  // reload this pool alone; "": all
  bool operator==(const PlanAccepted&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(op)(plan)(only);
  }
};

// Replace the workers with the settings they have.
struct RestartRequested {
  OperationId op;
  std::string only;  // "": all pools
  bool operator==(const RestartRequested&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(op)(only);
  }
};

enum class ScaleKind { kSet, kAdd, kReset };
struct ScaleRequested {
  OperationId op;
  std::string pool;
  ScaleKind kind = ScaleKind::kSet;
  int value = 0;  // kSet: the target; kAdd: the difference
  bool operator==(const ScaleRequested&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(op)(pool)(kind)(value);
  }
};

// Replace one worker, its successor ready first; drain it now; kill it.
enum class WorkerRequest { kRecycle, kDrain, kKill };
struct WorkerRequested {
  OperationId op;
  WorkerId worker;
  WorkerRequest request = WorkerRequest::kRecycle;
  bool operator==(const WorkerRequested&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(op)(worker)(request);
  }
};

struct StopRequested {
  OperationId op;
  bool now = false;  // kill instead of drain
  bool operator==(const StopRequested&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(op)(now);
  }
};

// Reports on actions.

struct ListenerOpened {
  std::string key;
  bool operator==(const ListenerOpened&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(key);
  }
};

struct ListenerFailed {
  std::string key;
  Failure failure;
  bool operator==(const ListenerFailed&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(key)(failure);
  }
};

struct Spawned {
  WorkerId worker;
  bool operator==(const Spawned&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(worker);
  }
};

// The process never ran the command. No Exited follows.
struct SpawnFailed {
  WorkerId worker;
  std::string stage;
  int error = 0;
  bool operator==(const SpawnFailed&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(worker)(stage)(error);
  }
};

// What workers do.

enum class WorkerSign {
  kReady,      // READY=1, or seen waiting for connections
  kStopping,   // STOPPING=1: it is leaving by itself
  kHeartbeat,  // WATCHDOG=1
  kTrigger,    // WATCHDOG=trigger: it asks to be treated as hung
};
struct WorkerSigned {
  WorkerId worker;
  WorkerSign sign = WorkerSign::kReady;
  bool operator==(const WorkerSigned&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(worker)(sign);
  }
};

struct TimeoutExtended {
  WorkerId worker;
  Duration by{};
  bool operator==(const TimeoutExtended&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(worker)(by);
  }
};

struct Exited {
  WorkerId worker;
  bool signaled = false;
  int code = 0;  // exit code, or the signal
  bool core_dumped = false;
  bool operator==(const Exited&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(worker)(signaled)(code)(core_dumped);
  }
};

using Event = std::variant<Tick, PlanAccepted, RestartRequested, ScaleRequested, WorkerRequested,
                           StopRequested, ListenerOpened, ListenerFailed, Spawned, SpawnFailed,
                           WorkerSigned, TimeoutExtended, Exited>;

}  // namespace ostler::core
