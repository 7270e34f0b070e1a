// All that can happen to the core. Events may be late, doubled or out of order: one that names a
// worker or a pool that is not there (any more) is counted and ignored.
#pragma once

#include <cstdint>

#include <optional>
#include <string>
#include <variant>
#include <vector>

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

// Start with this configuration. Once, before all else.
struct PlanAccepted {
  OperationId op;
  Plan plan;
  bool operator==(const PlanAccepted&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(op)(plan);
  }
};

// Read the configuration again and replace the workers; or replace them with the settings they
// have. One runs; those who ask meanwhile are merged into the one that waits.
struct ReloadRequested {
  OperationId op;
  std::string pool;  // "": all
  bool restart = false;
  bool operator==(const ReloadRequested&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(op)(pool)(restart);
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

// The configuration, as it is now; or its faults.
struct PlanRead {
  Plan plan;
  std::vector<Failure> faults;
  bool operator==(const PlanRead&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(plan)(faults);
  }
};

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
  kReady,      // READY=1
  kStopping,   // STOPPING=1: it is leaving by itself
  kHeartbeat,  // WATCHDOG=1
  kTrigger,    // WATCHDOG=trigger: it asks to be treated as hung
  kSpeaks,     // it speaks the channel
  kAwake,      // it has work, and its scoreboard tells of it
  kWorn,       // it has served as many requests as it was to
  kGarbled,    // what it sent on the channel is no message: the channel is closed
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

// What a look at a starting worker, and at its descendants, has shown.
enum class Sight {
  kWaiting,  // for connections, on a listener of its pool
  kNothing,  // all was looked at, and nobody waits
  kUnknown,  // not all could be looked at, and nobody was seen waiting
};
struct Seen {
  WorkerId worker;
  Sight sight = Sight::kWaiting;
  Time since{};        // when the look began
  std::string detail;  // kUnknown: what could not be looked at, and why
  bool operator==(const Seen&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(worker)(sight)(since)(detail);
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

enum class ProbeResult {
  kPassed,
  kFailed,
  kBusy,  // the worker does one thing at a time, and was at another
};
struct Probed {
  WorkerId worker;
  int warmup = -1;  // as in Probe
  ProbeResult result = ProbeResult::kPassed;
  std::string detail;  // kFailed: "GET /healthz was answered with 500"
  bool operator==(const Probed&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(worker)(warmup)(result)(detail);
  }
};

// Something that lasts, and when it has lasted too long.
struct Lasting {
  Time since{};
  Time until{};
  std::string what;  // "GET /slow"; "" if it is not one request
  bool operator==(const Lasting&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(since)(until)(what);
  }
};

// What a worker's scoreboard says.
struct Looked {
  WorkerId worker;
  bool awake = false;              // it goes on telling; otherwise its next kAwake is waited for
  std::optional<Lasting> silent;   // the work whose silence will be too long first
  std::optional<Lasting> request;  // the request that will have taken too long first
  std::optional<Lasting> waiting;  // connections that it does not take; what: "12 connections"
  bool operator==(const Looked&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(worker)(awake)(silent)(request)(waiting);
  }
};

// Nothing waits on the socket of a worker that is to go.
struct QueueEmptied {
  WorkerId worker;
  bool operator==(const QueueEmptied&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(worker);
  }
};

// Nothing waits any more for the workers of a pool that is to end.
struct BacklogServed {
  PoolId pool;
  bool operator==(const BacklogServed&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(pool);
  }
};

// Connections wait on a socket whose worker is gone, and nobody is about to take its place.
struct Stranded {
  PoolId pool;
  bool operator==(const Stranded&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(pool);
  }
};

struct Measured {
  WorkerId worker;
  std::optional<std::uint64_t> memory;  // bytes; none: not to be had
  bool operator==(const Measured&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(worker)(memory);
  }
};

struct Exited {
  WorkerId worker;
  bool signaled = false;
  int code = 0;  // exit code, or the signal
  bool core_dumped = false;
  std::string left_running = {};  // "4711 (nginx)": a process that it put into the background
  bool answered = false;          // it is known to have answered somebody's request
  bool operator==(const Exited&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(worker)(signaled)(code)(core_dumped)(left_running)(answered);
  }
};

// What a pool's workers are at. Whoever tells it is not trusted: what cannot be is cut to what can.
struct LoadSeen {
  PoolId pool;
  // Thousandths of a worker, of all ready workers that tell: in use on average since the last
  // answer (an instant says little: one worker is busy, or is not), and in all. Capacity 0: nobody
  // tells.
  std::int64_t used = 0;
  std::int64_t capacity = 0;
  std::int64_t waiting = 0;  // connections in the listen queues
  bool full = false;         // a listen queue is at its limit
  bool operator==(const LoadSeen&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(pool)(used)(capacity)(waiting)(full);
  }
};

// Somebody connected to a listener of a pool whose load nobody watches.
struct Demand {
  PoolId pool;
  bool operator==(const Demand&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(pool);
  }
};

using Event = std::variant<Tick, PlanAccepted, ReloadRequested, PlanRead, ScaleRequested,
                           WorkerRequested, StopRequested, ListenerOpened, ListenerFailed, Spawned,
                           SpawnFailed, WorkerSigned, Seen, TimeoutExtended, Exited, Probed, Looked,
                           Measured, QueueEmptied, Stranded, LoadSeen, Demand, BacklogServed>;

}  // namespace ostler::core
