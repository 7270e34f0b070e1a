// The end of a pool, or of the manager.
//
// New connections are turned away first. Those that wait in the listen queue are served by the
// workers that are ready; only then is anybody told to go. Serving them takes no more than half of
// the shortest `timeouts.stop`, and what it takes is part of every worker's stop time. If nobody is
// ready, nobody is waited for.
#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/machine.hpp"

namespace ostler::core {

void Machine::on(const StopRequested& event) {
  reply(event.op, Outcome::kDone);
  begin_stop(event.now);
}

void Machine::begin_stop(bool now) {
  if (!state_.stopping) {
    state_.stopping = true;
    Note stopping;
    stopping.kind = NoteKind::kManagerStopping;
    act(stopping);
    abandon_reload();
    std::erase_if(state_.operations, [&](const WorkerOperation& operation) {
      if (operation.request != WorkerRequest::kRecycle) return false;
      reply(operation.op, Outcome::kStopping);
      return true;
    });
  }
  if (now) kill_everything();
  for (auto& [id, pool] : state_.pools) begin_closing(pool);
  touch_all();
}

void Machine::kill_everything() {
  state_.stopping_now = true;
  for (auto& [id, pool] : state_.pools) {
    for (auto& [worker_id, worker] : pool.workers) {
      if (worker.active()) worker.cause = StopCause::kStop;
      if (worker.state != WorkerState::kKilling) kill(worker);
    }
  }
}

// Of all its generations, those that nobody else has or is about to get.
std::vector<std::string> Machine::own_listeners(const Pool& pool) const {
  std::set<std::string> own;
  std::set<std::string> others;
  for (const auto& [id, other] : state_.pools) {
    if (&other != &pool && (other.removed || state_.stopping)) continue;
    std::set<std::string>& keys = &other == &pool ? own : others;
    for (const Generation generation : generations_in_use(other)) {
      const PoolPlan& plan = other.generations.at(generation);
      keys.insert(plan.listeners.begin(), plan.listeners.end());
    }
  }
  std::vector<std::string> keys;
  std::ranges::set_difference(own, others, std::back_inserter(keys));
  return keys;
}

// Listeners that the generation in force does not have, no other pool has, and no other worker
// serves. A new connection goes to another listener of the same port, if there is one.
std::vector<std::string> Machine::last_served_by(const Pool& pool, const Worker& worker) const {
  const std::vector<std::string>& had = pool.generations.at(worker.generation).listeners;
  std::set<std::string> last(had.begin(), had.end());
  const auto leave_out = [&](const PoolPlan& plan) {
    for (const std::string& key : plan.listeners) last.erase(key);
  };
  leave_out(pool.plan());
  for (const auto& [id, other] : pool.workers) {
    if (id != worker.id && other.ready()) leave_out(pool.generations.at(other.generation));
  }
  if (last.empty()) return {};
  for (const auto& [id, other] : state_.pools) {
    if (&other == &pool || other.removed) continue;
    for (const Generation generation : generations_in_use(other)) {
      leave_out(other.generations.at(generation));
    }
  }
  return {last.begin(), last.end()};
}

void Machine::begin_closing(Pool& pool) {
  if (pool.closing) return;  // it was removed before
  Closing closing;
  closing.since = closing.until = now_;
  std::optional<Duration> shortest;
  for (const auto& [id, worker] : pool.workers) {
    if (!worker.ready()) continue;
    const Duration stop = pool.generations.at(worker.generation).stop_timeout;
    shortest = std::min(stop, shortest.value_or(stop));
  }
  std::vector<std::string> keys = own_listeners(pool);
  const bool served = shortest && !keys.empty();
  if (served) closing.until += *shortest / 2;
  pool.closing = closing;
  if (!keys.empty()) act(TurnAway{pool.id, pool.name, std::move(keys)});
  if (!served) end_closing(pool);
  touch(pool);
}

void Machine::on(const BacklogServed& event) {
  const auto found = state_.pools.find(event.pool);
  if (found == state_.pools.end() || !found->second.serves_backlog()) {
    ++state_.ignored;
    return;
  }
  end_closing(found->second);
  touch(found->second);
}

void Machine::check_closing(Pool& pool) {
  if (!pool.serves_backlog()) return;
  if (now_ >= pool.closing->until || pool.count_ready() == 0) end_closing(pool);
}

// From here on all are told to go, those too whose own queue was being emptied.
void Machine::end_closing(Pool& pool) {
  pool.closing->over = true;
  state_.listeners_touched = true;
  for (auto& [id, worker] : pool.workers) {
    if (worker.emptying) ask_to_stop(pool, worker);
  }
}

// Whoever has not begun to serve will not be needed.
void Machine::retire_unready(Pool& pool) {
  std::set<int> served;
  for (auto& [id, worker] : pool.workers) {
    if (worker.ready()) served.insert(worker.slot);
    if (!worker.active() || worker.ready()) continue;
    retire(pool, worker, state_.stopping ? StopCause::kStop : StopCause::kRemoved);
  }
  std::erase_if(pool.slots, [&](const auto& entry) { return !served.contains(entry.first); });
}

// What the backlog has taken is part of the time that a worker has to drain, up to half of that.
Time Machine::gone_by(const Pool& pool, const Worker& worker) const {
  const Duration stop = pool.generations.at(worker.generation).stop_timeout;
  if (!pool.closing) return now_ + stop;
  return now_ + stop - std::min(now_ - pool.closing->since, stop / 2);
}

}  // namespace ostler::core
