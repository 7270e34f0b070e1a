// One worker process, as the core sees it.
//
//   spawning --Spawned--> starting --ready--> ready --told to go--> draining --Exited--> (gone)
//       |                    |                  |                      |
//       | SpawnFailed        | start timeout    | silent               | stop timeout
//       v                    v                  v                      v
//     (gone)              aborting  <-----------+                   killing --Exited--> (gone)
//                            |  1 s                                    ^
//                            +-----------------------------------------+
//
// A worker is `active` while it may come to serve or serves (spawning, starting, ready), `leaving`
// from the moment it was told to go. Exited is the only way out once Spawned was reported.
// A worker in `spawning` that is told to go becomes `draining` at once; the signal follows its
// Spawned. One that has a socket of its own (`accept: reuseport`), or is the last to serve a
// listener that its pool gives up, gets it when nothing waits there any more.
#pragma once

#include <optional>

#include "core/action.hpp"
#include "core/event.hpp"
#include "core/failure.hpp"
#include "core/ids.hpp"

namespace ostler::core {

enum class WorkerState { kSpawning, kStarting, kReady, kDraining, kAborting, kKilling };

// What is known of a worker that is not ready yet.
struct Starting {
  std::optional<Time> said;  // READY=1, for the first time
  std::optional<Sight> seen;
  std::string detail;  // of what was seen
  bool operator==(const Starting&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(said)(seen)(detail);
  }
};

// What is done for a worker that runs: warm-up, health checks, a watch on its work, its wear.
struct Care {
  bool speaks = false;  // on the channel
  bool warming = false;
  int warmed = 0;         // warm-up requests that were answered
  bool probing = false;   // a health check is under way
  bool passed = false;    // a health check, or it was at work when one came
  int failed_checks = 0;  // in a row
  std::optional<Time> probe_at;
  std::optional<Time> look_at;  // at its scoreboard
  std::optional<Time> measure_at;
  std::optional<Time> expires_at;
  bool excused = false;  // the manager stood still while it was asked: a failure proves nothing
  bool operator==(const Care&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(speaks)(warming)(warmed)(probing)(passed)(failed_checks)(excused);
    a(probe_at)(look_at)(measure_at)(expires_at);
  }
};

struct Worker {
  WorkerId id;
  int slot = 0;
  Generation generation = 0;
  WorkerState state = WorkerState::kSpawning;
  bool spawned = false;  // Spawned was reported: there is a process to signal
  bool was_ready = false;
  bool proven = false;  // ready, and stayed up for `settle`; on trial, it passed a check, too
  bool failed = false;  // its health checks failed, and that was counted as if it had died
  bool stuck = false;   // SIGKILL did not end it in time: counted upon no more
  // Draining, but not asked to stop yet: what waits for it alone is served first.
  bool emptying = false;
  bool recycle = false;     // to be replaced, though nothing is outdated
  Wear wear = Wear::kNone;  // why it is, unless an operator asked for it
  StopCause cause = StopCause::kNone;
  std::optional<Failure> fault;   // why it was aborted or killed
  Time started{};                 // when its Spawn was asked for
  Time ready_at{};                // when it became ready
  std::optional<Time> deadline;   // starting: ready by; draining, aborting, killing: gone by
  std::optional<Time> last_beat;  // once it has heartbeat
  Starting starting;
  Care care;

  [[nodiscard]] bool active() const {
    return state == WorkerState::kSpawning || state == WorkerState::kStarting ||
           state == WorkerState::kReady;
  }
  [[nodiscard]] bool ready() const { return state == WorkerState::kReady; }
  bool operator==(const Worker&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(id)(slot)(
        generation)(state)(spawned)(was_ready)(proven)(failed)(stuck)(emptying)(recycle)(wear)(cause)(fault)(started)(ready_at)(deadline)(last_beat)(starting)(care);
  }
};

}  // namespace ostler::core
