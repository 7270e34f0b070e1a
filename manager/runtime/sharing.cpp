// How workers share the listeners: which sockets a worker gets, and who gets new connections.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <set>
#include <string>

#include "runtime/runtime.hpp"

namespace ostler::runtime {

Steering::Hooks Runtime::steering_hooks() {
  Steering::Hooks hooks;
  hooks.standing = [this](core::WorkerId worker) { return standing(worker); };
  hooks.emptied = [this](core::WorkerId worker) { enqueue(core::QueueEmptied{worker}); };
  hooks.waited_for = [this](core::WorkerId worker) {
    note_cpu(worker);
    enqueue(core::WorkerSigned{worker, core::WorkerSign::kAwake});
  };
  hooks.stranded = [this](const std::string& key) {
    for (const auto& [id, pool] : core_.state().pools) {
      if (std::ranges::count(pool.plan().listeners, key) > 0) enqueue(core::Stranded{id});
    }
  };
  return hooks;
}

Steering::Standing Runtime::standing(core::WorkerId worker) const {
  const auto process = processes_.find(worker);
  const core::Worker* const known = core::find_worker(core_.state(), worker);
  if (process == processes_.end() || known == nullptr) return {};
  const WorkerChannel& channel = *process->second.channel;
  Steering::Standing standing;
  if (channel.speaks()) standing.board = &channel.scoreboard();
  standing.seat = known->ready()    ? Steering::Seat::kReady
                  : known->active() ? Steering::Seat::kStarting
                  : known->emptying ? Steering::Seat::kEmptying
                                    : Steering::Seat::kLeaving;
  return standing;
}

// Gives a worker that is about to be started its sockets. False: `failure` says why not.
bool Runtime::give_sockets(const core::Spawn& action, const config::Pool& pool,
                           ListenError& failure) {
  if (pool.accept == config::Accept::kDispatch) return true;
  std::set<core::WorkerId> hopeless;
  for (const auto& [id, worker] : core_.state().pools.at(action.pool).workers) {
    const bool over =
        worker.state == core::WorkerState::kAborting || worker.state == core::WorkerState::kKilling;
    if (over && worker.slot == action.slot) hopeless.insert(id);
  }
  for (const config::Listener& listener : pool.listen) {
    const std::string key = Listeners::key(pool.name, listener);
    const int fd = pool.accept == config::Accept::kReuseport
                       ? listeners_.claim(key, action.worker, hopeless, failure)
                       : listeners_.share(key, action.worker, failure);
    if (fd < 0) return false;
  }
  return true;
}

// Those whose workers have sockets of their own, now or still.
void Runtime::steer_listeners() {
  std::set<std::string> keys;
  for (const auto& [id, pool] : core_.state().pools) {
    for (const auto& [generation, plan] : pool.generations) {
      for (const std::string& key : plan.listeners) {
        const bool several = listeners_.members(key).size() > 1;
        if (plan.accept == core::Accept::kReuseport || several) keys.insert(key);
      }
    }
  }
  steering_.steer(keys);
  steering_.look();
}

void Runtime::perform(const core::EmptyQueue& action) {
  const auto found = processes_.find(action.worker);
  if (found == processes_.end()) return;
  spdlog::debug("{}[{}]: new connections go elsewhere", found->second.name(), found->second.pid);
}

}  // namespace ostler::runtime
