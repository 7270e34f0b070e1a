// One pool: what it should be, what it is, and the change of generation it is going through.
//
// A pool wants `target` slots filled with workers of the generation `desired`. How many are
// missing, outdated or surplus is always read off the worker table, never counted along.
//
// A rollout is the time between a reload and its outcome. It changes `desired` to the new
// generation at its start; failing turns `desired` back. In both directions the same rule replaces
// whoever is outdated, so that a rollback is no special case.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "core/failure.hpp"
#include "core/ids.hpp"
#include "core/plan.hpp"
#include "core/worker.hpp"

namespace ostler::core {

struct Slot {
  // The generation that last proved itself here; 0: none yet.
  Generation proven = 0;
  Generation fallback = 0;  // what that was when the rollout began
  // Deaths in a row, each before `reset_after` of being ready; and how often the wait was doubled.
  int quick_deaths = 0;
  int doublings = 0;
  std::optional<Time> retry_at;  // backing off until then
  // In this rollout its worker was stopped so that its successor can start (`surge: 0`).
  bool vacated = false;
  bool unhealthy = false;  // the last worker that was judged never passed a health check
  void forget_failures() {
    quick_deaths = doublings = 0;
    retry_at.reset();
    unhealthy = false;
  }
  bool operator==(const Slot&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(proven)(fallback)(quick_deaths)(doublings)(retry_at)(unhealthy)(vacated);
  }
};

struct Rollout {
  Generation from = 0;  // 0: the pool is new
  Generation to = 0;
  std::optional<int> scaled_before;  // what a rollback gives back
  int target_before = 0;
  bool rescaled = false;  // the new target holds, proven or not
  bool rolling_back = false;
  int failures = 0;              // new workers that died or failed their checks
  std::optional<Time> retry_at;  // the next try, after a failure within `attempts`
  Time started{};
  int replaced = 0;
  int cut_off = 0;
  std::optional<Failure> reason;
  WorkerId failed;
  bool operator==(const Rollout&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(from)(to)(scaled_before)(target_before)(rescaled)(rolling_back)(failures)(retry_at)(started);
    a(replaced)(cut_off)(reason)(failed);
  }
};

// A time in which fewer workers than there are would do: see scaling.cpp.
struct Calm {
  Time since{};
  Time part_since{};
  // Sums over the part: thousandths of workers at work, connections that waited, answers.
  std::int64_t work = 0;
  std::int64_t waiting = 0;
  std::int64_t answers = 0;
  int peak = 0;  // workers that the busiest part needed
  bool operator==(const Calm&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(since)(part_since)(work)(waiting)(answers)(peak);
  }
};

// What the load of a pool has led to, and what it may lead to next.
struct Scaling {
  int target = 0;  // within the plan's min and max, if the plan has them
  // When to ask for the load; none: not before somebody has work for the pool.
  std::optional<Time> watch_at;
  bool watching = false;        // asked for, not answered yet
  bool awaiting = false;        // the shell is to say Demand
  std::optional<Time> seen_at;  // the last answer, while they follow one another
  std::optional<Time> above_since;
  std::optional<Calm> calm;
  std::optional<Time> gave_up_at;  // the last scale-down that has not proven right yet
  int doublings = 0;               // of `down_after`, for those that were wrong
  bool operator==(const Scaling&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(target)(watch_at)(watching)(awaiting)(seen_at)(above_since)(calm)(gave_up_at)(doublings);
  }
};

struct LastError {
  Failure failure;
  int slot = -1;
  WorkerId worker;
  Generation generation = 0;
  Time at{};
  bool operator==(const LastError&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(failure)(slot)(worker)(generation)(at);
  }
};

// The pool is to end. Until `over`, new connections are turned away and its ready workers serve
// those that wait; then they are told to go. See closing.cpp.
struct Closing {
  Time since{};
  Time until{};  // over by then at the latest
  bool over = false;
  bool operator==(const Closing&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(since)(until)(over);
  }
};

enum class PoolState { kStarting, kRunning, kReloading, kDegraded, kStopping, kStopped };

struct Pool {
  PoolId id;
  std::string name;
  bool removed = false;            // draining for good: its workers go, then the pool
  std::optional<Closing> closing;  // it is removed, or the manager stops
  // Every generation that a worker or the pool still refers to.
  std::map<Generation, PoolPlan> generations;
  Generation desired = 0;
  Generation last_generation = 0;  // numbers given out so far
  std::optional<int> scaled;       // a target set by hand
  Scaling scaling;                 // a target set by the load
  std::map<int, Slot> slots;       // the places to fill, by number
  std::map<WorkerId, Worker> workers;
  std::optional<Rollout> rollout;
  bool was_full = false;       // it has reached its target once
  bool full = false;           // it had its target when last looked at
  std::uint64_t restarts = 0;  // workers replaced because they died
  std::uint64_t reloads = 0;
  std::optional<LastError> last_error;
  std::optional<Time> next_deadline;

  [[nodiscard]] const PoolPlan& plan() const { return generations.at(desired); }
  // The number of workers there should be: set by hand, else by the load, else as the file says.
  [[nodiscard]] int target() const;
  // The number of slots to hold: the target, or the old one too while a rollout that asks for fewer
  // workers is unproven.
  [[nodiscard]] int slot_goal() const;
  [[nodiscard]] int count_ready() const;
  [[nodiscard]] int count_starting() const;
  [[nodiscard]] int count_leaving() const;
  [[nodiscard]] bool backing_off() const;
  // A worker stops before its successor starts: that is so in the generation that is desired, or in
  // one of the two between which a rollout goes.
  [[nodiscard]] bool stops_first() const;
  // It is to end, and its ready workers still serve what waits for them.
  [[nodiscard]] bool serves_backlog() const { return closing && !closing->over; }
  // No worker is left but those that SIGKILL did not end.
  [[nodiscard]] bool only_stuck() const;
  // Some slot has a worker that has never passed a health check, or the successor of one.
  [[nodiscard]] bool unhealthy() const;
  [[nodiscard]] bool rolling() const { return rollout && !rollout->rolling_back; }
  // Of the generation that is being rolled out: what becomes of it decides the reload.
  [[nodiscard]] bool on_trial(const Worker& worker) const {
    return rolling() && worker.generation == rollout->to;
  }
  // Whether the desired generation works is known: it was in force before, or one of its workers
  // has proven itself. From then on its workers replace others as soon as they are ready.
  [[nodiscard]] bool trusted() const;
  // The load decides how many workers there are: the file says so, and no operator says otherwise.
  [[nodiscard]] bool follows_load() const;
  bool operator==(const Pool&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(id)(name)(
        removed)(closing)(generations)(desired)(last_generation)(scaled)(scaling)(slots)(workers)(rollout)(was_full)(full)(restarts)(reloads)(last_error)(next_deadline);
  }
};

}  // namespace ostler::core
