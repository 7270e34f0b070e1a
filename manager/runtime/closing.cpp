// The end of a pool, and of a listener: what waits there is served first.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "runtime/backlog.hpp"
#include "runtime/log.hpp"
#include "runtime/runtime.hpp"

namespace ostler::runtime {

// Whether a worker has it that accepts, or the manager accepts for one.
bool Runtime::is_served(const std::string& key, const Member& member) const {
  if (member.owners.empty()) return dispatcher_.accepts(key);
  return std::ranges::any_of(member.owners, [this](core::WorkerId worker) {
    const Steering::Seat seat = standing(worker).seat;
    return seat == Steering::Seat::kReady || seat == Steering::Seat::kEmptying;
  });
}

// What waits where nobody serves is not counted: it would be waited for in vain.
std::int64_t Runtime::backlog_of(const std::vector<std::string>& keys) const {
  std::int64_t waiting = 0;
  for (const std::string& key : keys) {
    if (!listeners_.turned_away(key)) continue;
    for (const Member& member : listeners_.members(key)) {
      if (!is_served(key, member)) continue;
      waiting += std::max<std::int64_t>(queue_of(member.fd.get()).waiting, 0);
    }
  }
  return waiting;
}

void Runtime::perform(const core::TurnAway& action) {
  for (const std::string& key : action.listeners) listeners_.turn_away(key);
  const auto waiting = [this, action]() -> std::optional<std::int64_t> {
    const auto pool = core_.state().pools.find(action.pool);
    if (pool == core_.state().pools.end() || !pool->second.serves_backlog()) return std::nullopt;
    std::int64_t some =
        backlog_of(action.listeners) + static_cast<std::int64_t>(dispatcher_.pending(action.pool));
    for (const auto& [worker, known] : pool->second.workers) {
      if (const auto untaken = dispatcher_.waiting(worker)) {
        some += static_cast<std::int64_t>(untaken->count);
      }
    }
    return some;
  };
  backlog_watch_.watch(waiting, [this, action] { enqueue(core::BacklogServed{action.pool}); });
}

// Steering looks after a worker's own sockets.
void Runtime::perform(const core::EmptyQueue& action) {
  const auto found = processes_.find(action.worker);
  if (found == processes_.end()) return;
  log_event(spdlog::level::debug, about(found->second), "{}[{}]: new connections go elsewhere",
            found->second.name(), found->second.pid);
  for (const std::string& key : action.listeners) listeners_.turn_away(key);
  if (found->second.launch->pool.accept == config::Accept::kReuseport) return;
  const auto waiting = [this, action]() -> std::optional<std::int64_t> {
    const core::Worker* const worker = core::find_worker(core_.state(), action.worker);
    if (worker == nullptr || !worker->emptying) return std::nullopt;
    return backlog_of(action.listeners);
  };
  backlog_watch_.watch(waiting, [this, action] { enqueue(core::QueueEmptied{action.worker}); });
}

void Runtime::perform(const core::CloseListener& action) {
  spdlog::info("closing {}", listeners_.figures(action.key).address);
  listeners_.close(action.key);
  tell_cut(false);
}

// Sockets that nobody has any more are let go of.
void Runtime::tell_cut(bool all) {
  for (const Listeners::Cut& cut : listeners_.close_former(all)) {
    spdlog::warn("{}: {} waiting connection{} cut: no worker took {} in time", cut.address,
                 cut.connections, cut.connections == 1 ? " was" : "s were",
                 cut.connections == 1 ? "it" : "them");
  }
}

}  // namespace ostler::runtime
