#include "core/pool.hpp"

#include <algorithm>

#include "core/core.hpp"

namespace ostler::core {

int Surge::of(int target) const {
  if (!percent || count == 0) return count;
  return std::max(1, (target * count + 99) / 100);
}

bool Pool::stops_first() const {
  const auto has_none = [&](Generation one) { return generations.at(one).surge.count == 0; };
  if (has_none(desired)) return true;
  if (!rollout) return false;
  return has_none(rollout->to) || (rollout->from != 0 && has_none(rollout->from));
}

int Pool::target() const {
  if (scaled) return *scaled;
  return plan().scaling ? scaling.target : plan().workers;
}

bool Pool::follows_load() const {
  const auto& bounds = plan().scaling;
  return !removed && !scaled && bounds && bounds->min < bounds->max;
}

bool Pool::only_stuck() const {
  return std::ranges::all_of(workers, [](const auto& entry) { return entry.second.stuck; });
}

int Pool::slot_goal() const {
  const int wanted = target();
  if (!rollout || rollout->rescaled || rollout->rolling_back || rollout->from == 0) return wanted;
  const int before = rollout->target_before;
  if (before <= wanted) return wanted;
  const auto proven = std::ranges::count_if(
      slots, [&](const auto& entry) { return entry.second.proven == desired; });
  return proven >= wanted ? wanted : before;
}

namespace {

template <class Predicate>
int count(const Pool& pool, Predicate predicate) {
  return static_cast<int>(std::ranges::count_if(
      pool.workers, [&](const auto& entry) { return predicate(entry.second); }));
}

}  // namespace

int Pool::count_ready() const {
  return count(*this, [](const Worker& worker) { return worker.ready(); });
}

int Pool::count_starting() const {
  return count(*this, [](const Worker& worker) { return worker.active() && !worker.ready(); });
}

int Pool::count_leaving() const {
  return count(*this, [](const Worker& worker) { return !worker.active(); });
}

bool Pool::backing_off() const {
  return (rollout && rollout->retry_at) || std::ranges::any_of(slots, [](const auto& entry) {
           return entry.second.retry_at.has_value();
         });
}

bool Pool::unhealthy() const {
  return std::ranges::any_of(slots, [](const auto& entry) { return entry.second.unhealthy; });
}

bool Pool::trusted() const {
  return !rolling() || std::ranges::any_of(slots, [&](const auto& entry) {
    return entry.second.proven == desired;
  });
}

ManagerState manager_state(const State& state) {
  if (state.stopping) return ManagerState::kStopping;
  if (state.reload && !state.reload->first) return ManagerState::kReloading;
  return state.was_ready ? ManagerState::kRunning : ManagerState::kStarting;
}

PoolState pool_state(const State& state, const Pool& pool) {
  if (state.stopping || pool.removed) {
    return pool.workers.empty() ? PoolState::kStopped : PoolState::kStopping;
  }
  if (pool.rollout) return PoolState::kReloading;
  if (pool.unhealthy()) return PoolState::kDegraded;
  if (pool.count_ready() >= pool.target()) return PoolState::kRunning;
  return pool.was_full || pool.backing_off() ? PoolState::kDegraded : PoolState::kStarting;
}

const Pool* find_pool(const State& state, const std::string& name) {
  const Pool* found = nullptr;
  for (const auto& [id, pool] : state.pools) {
    if (pool.name == name && (found == nullptr || !pool.removed)) found = &pool;
  }
  return found;
}

const Worker* find_worker(const State& state, WorkerId id, const Pool** pool) {
  for (const auto& [pool_id, candidate] : state.pools) {
    const auto found = candidate.workers.find(id);
    if (found == candidate.workers.end()) continue;
    if (pool != nullptr) *pool = &candidate;
    return &found->second;
  }
  return nullptr;
}

}  // namespace ostler::core
