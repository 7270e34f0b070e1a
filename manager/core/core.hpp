// The machine that decides: who is started, who is told to go, when to give up.
//
// A value in, value out machine: no clock, no I/O, no randomness, no logging. The shell calls
// `step` with what happened and performs the actions; the result is when to step again at the
// latest. `apply` and `reconcile` are the two halves of a step, for a shell that has a batch.
//
// How it decides. `apply` turns an event into facts (a worker is gone) or wishes (a target is 8).
// `reconcile` then closes the gap between wishes and facts, pool by pool, for those pools that were
// touched or whose deadline has come:
//   1. deadlines that passed: start, heartbeat, stop, abort;
//   2. slots: as many as the target, lowest free number first; surplus slots are given up, not
//      ready ones first, then outdated ones, then those that have been up longest;
//   3. each slot: a good worker (of the desired generation, not marked for recycling) that is ready
//      and settled retires all others in the slot; an empty slot is filled; an outdated worker
//      gets a successor as far as the surge budget allows: workers that run, draining ones
//      included, may not exceed the target by more than `surge`. Only the death of a worker may,
//      because its replacement never waits. With `surge: 0` an outdated worker goes first, one at a
//      time, and its slot is filled when it is gone;
//   4. the rollout: finished when every slot of the target has a good worker and nobody else is
//      left; turned round when new workers failed `attempts` times;
//   5. operations and listeners that have nothing left to wait for.
//
// While a rollout is unproven in a slot, a slot that loses its old worker gets another old one:
// a generation that may never become ready is not relied upon. A slot that is backing off is the
// exception: there the old generation is the one that fails.
//
// Not thread-safe: one owner, one thread.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/action.hpp"
#include "core/event.hpp"
#include "core/ids.hpp"
#include "core/operation.hpp"
#include "core/pool.hpp"

namespace ostler::core {

enum class ManagerState { kStarting, kRunning, kReloading, kStopping };

// The manager stood still until `woke`, and owes `lost` to whatever had begun before.
struct Stall {
  Time woke{};
  Duration lost{};
  bool operator==(const Stall&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(woke)(lost);
  }
};

// One of the failures for which the manager gives up.
struct ExitCause {
  std::string pool;  // "": a listener's
  Failure failure;
  bool operator==(const ExitCause&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(pool)(failure);
  }
};

// Everything the core knows. A value: it can be compared, written out and read back (snapshot.hpp).
struct State {
  std::uint64_t last_id = 0;  // pools and workers draw from it
  std::uint64_t jitter = 0;   // the state of the generator that spreads back-off
  std::map<PoolId, Pool> pools;
  std::set<std::string> listeners;  // open ones, by key
  std::optional<Reload> reload;
  std::vector<Asker> waiting;  // for the reload after the one that runs
  std::vector<WorkerOperation> operations;
  bool configured = false;  // the first plan was accepted
  bool was_ready = false;   // every pool has reached its target once
  bool any_ready = false;   // some worker has been ready once
  bool stopping = false;
  bool stopping_now = false;
  bool exited = false;
  ExitReason exit_reason = ExitReason::kStopped;
  std::vector<ExitCause> exit_causes;  // why the manager gives up
  std::optional<Time> promised;        // what the last step returned
  std::deque<Stall> stalls;            // the last few
  Time now{};                          // of the last step
  std::uint64_t ignored = 0;           // events that named nobody
  std::set<PoolId> touched;            // to be looked at by the next reconcile
  bool listeners_touched = true;       // whether a listener may have become superfluous

  bool operator==(const State&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(last_id)(jitter)(pools)(listeners)(reload)(waiting)(operations);
    a(configured)(was_ready)(any_ready)(stopping)(stopping_now)(exited)(exit_reason)(exit_causes);
    a(promised)(stalls)(now)(ignored)(touched)(listeners_touched);
  }
};

class Core {
 public:
  // `seed` spreads the back-off of workers that fail together.
  explicit Core(std::uint64_t seed = 1);
  // Goes on from a state that was written out; every decision is as it would have been.
  explicit Core(State state);

  // One event at `now`, which never goes backwards. Appends to `actions`. Returns when to step
  // again at the latest; none: only when something happens.
  std::optional<Time> step(const Event& event, Time now, Actions& actions);

  // The halves of a step: any number of `apply`, then one `reconcile`, all with the same `now`.
  void apply(const Event& event, Time now, Actions& actions);
  std::optional<Time> reconcile(Time now, Actions& actions);

  [[nodiscard]] const State& state() const { return state_; }

 private:
  State state_;
};

// Questions, answered from the state alone.
ManagerState manager_state(const State& state);
// Why the manager ends, in words: "giving up: no pool got a worker ready in 5 tries: web: …".
std::string describe_exit(const State& state);
PoolState pool_state(const State& state, const Pool& pool);
const Pool* find_pool(const State& state, const std::string& name);
// What is known of a worker that is not ready yet, where being seen counts: "neither it nor …".
std::string why_not_ready(const PoolPlan& plan, const Worker& worker);
const Worker* find_worker(const State& state, WorkerId id, const Pool** pool = nullptr);
const char* word(ManagerState state);
const char* word(PoolState state);
const char* word(WorkerState state);  // starting, ready, draining: as users see it
const char* word(Outcome outcome);    // reloaded, rolled_back, rejected…

}  // namespace ostler::core
