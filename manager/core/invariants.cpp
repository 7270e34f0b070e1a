#include "core/invariants.hpp"

#include <map>
#include <set>

#include "core/limits.hpp"

namespace ostler::core {
namespace {

std::string of(const Pool& pool, const Worker& worker) {
  return pool.name + "." + std::to_string(worker.slot) + " (worker " +
         std::to_string(worker.id.value) + ")";
}

// What must hold while a worker that is to go is not asked to stop yet.
std::string broken_emptying(const State& state, const Pool& pool, const Worker& worker) {
  if (!worker.emptying) return {};
  if (worker.state != WorkerState::kDraining || !worker.spawned || !worker.was_ready) {
    return of(pool, worker) + " has its queue emptied and is " + word(worker.state);
  }
  const PoolPlan& plan = pool.generations.at(worker.generation);
  if (plan.accept != Accept::kReuseport && plan.listeners.empty()) {
    return of(pool, worker) + " has its queue emptied and has none";
  }
  if ((pool.removed || state.stopping) && !pool.serves_backlog()) {
    return of(pool, worker) + " waits for a queue that nobody else takes over";
  }
  return {};
}

std::string broken(const State& state, const Pool& pool, const Worker& worker) {
  if (!pool.generations.contains(worker.generation)) {
    return of(pool, worker) + " is of generation " + std::to_string(worker.generation) +
           ", which is forgotten";
  }
  const bool waits =
      worker.state == WorkerState::kDraining || worker.state == WorkerState::kAborting ||
      worker.state == WorkerState::kKilling || worker.state == WorkerState::kSpawning ||
      worker.state == WorkerState::kStarting;
  if (waits && !worker.deadline) return of(pool, worker) + " has no deadline";
  if (worker.ready() && worker.deadline) return of(pool, worker) + " is ready and has a deadline";
  if (worker.state != WorkerState::kSpawning && worker.active() && !worker.spawned) {
    return of(pool, worker) + " is " + word(worker.state) + " but was never started";
  }
  if (worker.active() && worker.cause != StopCause::kNone) {
    return of(pool, worker) + " is told to go and still counted upon";
  }
  if (!worker.active() && worker.cause == StopCause::kNone) {
    return of(pool, worker) + " is leaving for no reason";
  }
  if (worker.active() && !pool.slots.contains(worker.slot)) {
    return of(pool, worker) + " serves in a slot that was given up";
  }
  if (worker.ready() && worker.wear != Wear::kNone && !worker.recycle) {
    return of(pool, worker) + " has served its time and is not to be replaced";
  }
  if (worker.care.warming && worker.ready()) return of(pool, worker) + " is ready before its time";
  const bool serves_backlog = pool.serves_backlog() && worker.ready();
  if (worker.active() && state.stopping && !serves_backlog)
    return of(pool, worker) + " outlives the stop";
  return broken_emptying(state, pool, worker);
}

std::string broken_scaling(const State& state, const Pool& pool) {
  const Scaling& scaling = pool.scaling;
  const auto& plan = pool.plan().scaling;
  if (!plan) return {};
  if (scaling.target < plan->min || scaling.target > plan->max) {
    return pool.name + " is scaled to " + std::to_string(scaling.target) + ", out of its bounds";
  }
  if (scaling.calm && scaling.calm->peak >= scaling.target) {
    return pool.name + " could spare workers that it needs";
  }
  if (scaling.doublings < 0 || scaling.doublings > limits::kCalmDoublings) {
    return pool.name + " waits without bound for a scale-down";
  }
  const bool heard_of = scaling.watching || scaling.watch_at || scaling.awaiting;
  const bool settled = !state.stopping && !state.touched.contains(pool.id);
  if (settled && pool.follows_load() && !heard_of) {
    return pool.name + " would not notice its load";
  }
  return {};
}

std::string broken(const State& state, const Pool& pool) {
  if (!pool.generations.contains(pool.desired))
    return pool.name + " desires a forgotten generation";
  if (pool.slots.size() > static_cast<std::size_t>(limits::kWorkersPerPool)) {
    return pool.name + " has too many slots";
  }
  if (pool.rollout) {
    const Rollout& rollout = *pool.rollout;
    if (!pool.generations.contains(rollout.to)) return pool.name + " rolls to nowhere";
    if (rollout.from != 0 && !pool.generations.contains(rollout.from)) {
      return pool.name + " cannot roll back";
    }
    if (pool.desired != (rollout.rolling_back && rollout.from != 0 ? rollout.from : rollout.to)) {
      return pool.name + " rolls in two directions";
    }
    if (!state.reload || !state.reload->waiting.contains(pool.id)) {
      return pool.name + " rolls, and no reload waits for it";
    }
  }
  if (pool.closing && !pool.removed && !state.stopping) return pool.name + " ends, and is wanted";
  if (pool.serves_backlog() && pool.count_ready() == 0) {
    return pool.name + " waits for a backlog that nobody serves";
  }
  if (std::string what = broken_scaling(state, pool); !what.empty()) return what;
  std::map<int, int> active;
  for (const auto& [id, worker] : pool.workers) {
    if (std::string what = broken(state, pool, worker); !what.empty()) return what;
    // Predecessor, successor, and one that replaces a predecessor which died on the way.
    if (worker.active() && ++active[worker.slot] > 3) return of(pool, worker) + " is one too many";
  }
  return {};
}

}  // namespace

std::string broken_invariant(const State& state) {
  for (const auto& [id, pool] : state.pools) {
    if (std::string what = broken(state, pool); !what.empty()) return what;
  }
  if (state.operations.size() > limits::kOperations) return "too many operations";
  if (state.waiting.size() > limits::kReloadAskers) return "too many wait for a reload";
  if (!state.waiting.empty() && !state.reload) return "a reload waits for nothing";
  if (state.reload) {
    if (state.reload->askers.empty()) return "nobody asked for the reload";
    if (state.reload->reading && state.reload->committed) return "a reload reads what it has done";
    for (const PoolId id : state.reload->waiting) {
      if (!state.pools.contains(id)) return "a reload waits for a pool that is gone";
    }
  }
  for (const auto& [id, pool] : state.pools) {
    if (pool.removed || state.stopping) continue;
    for (const std::string& key : pool.plan().listeners) {
      if (!state.listeners.contains(key)) return pool.name + " lacks its listener " + key;
    }
  }
  return {};
}

}  // namespace ostler::core
