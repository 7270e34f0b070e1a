// How workers share the listeners: which sockets a worker gets, and who gets new connections.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <string>
#include <system_error>
#include <utility>

#include "runtime/runtime.hpp"

namespace ostler::runtime {

Steering::Hooks Runtime::steering_hooks() {
  Steering::Hooks hooks;
  hooks.standing = [this](core::WorkerId worker) { return standing(worker); };
  hooks.emptied = [this](core::WorkerId worker) { enqueue(core::QueueEmptied{worker}); };
  hooks.waited_for = [this](core::WorkerId worker) { waits_for(worker); };
  hooks.accepted = [this](const std::string& key) { return dispatcher_.serves(key); };
  hooks.stranded = [this](const std::string& key) {
    for (const auto& [id, pool] : core_.state().pools) {
      if (pool.plan().accept == core::Accept::kDispatch) continue;  // we accept from that one
      if (std::ranges::count(pool.plan().listeners, key) > 0) enqueue(core::Stranded{id});
    }
  };
  return hooks;
}

// Connections wait for it: from now on the core looks whether it takes them.
void Runtime::waits_for(core::WorkerId worker) {
  note_cpu(worker);
  enqueue(core::WorkerSigned{worker, core::WorkerSign::kAwake});
}

void Runtime::on_knock(const std::string& key) {
  std::erase_if(awaiting_demand_, [&](core::PoolId id) {
    const auto pool = core_.state().pools.find(id);
    if (pool == core_.state().pools.end()) return true;
    if (std::ranges::count(pool->second.plan().listeners, key) == 0) return false;
    enqueue(core::Demand{id});
    return true;
  });
  steering_.rung(key);
  dispatcher_.rung(key);
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

std::vector<LoadMeter::Source> Runtime::load_sources(core::PoolId id) const {
  std::vector<LoadMeter::Source> sources;
  const auto pool = core_.state().pools.find(id);
  if (pool == core_.state().pools.end()) return sources;
  for (const auto& [worker, known] : pool->second.workers) {
    const auto process = processes_.find(worker);
    if (!known.ready() || process == processes_.end()) continue;
    const WorkerChannel& channel = *process->second.channel;
    const Scoreboard* const board = channel.speaks() ? &channel.scoreboard() : nullptr;
    sources.push_back({worker, process->second.pid, board});
  }
  return sources;
}

void Runtime::perform(const core::Watch& action) {
  const LoadMeter::Load load = load_.measure(action.pool);
  core::LoadSeen seen;
  seen.pool = action.pool;
  seen.used = load.used;
  seen.capacity = load.capacity;
  seen.waiting = static_cast<std::int64_t>(dispatcher_.pending(action.pool));
  for (const std::string& key : core_.state().pools.at(action.pool).plan().listeners) {
    const ListenerFigures figures = listeners_.figures(key);
    seen.waiting += std::max<std::int64_t>(figures.backlog, 0);
    seen.full =
        seen.full || (figures.backlog_limit > 0 && figures.backlog >= figures.backlog_limit);
  }
  enqueue(seen);
}

// Nothing is to be done until somebody connects.
void Runtime::perform(const core::AwaitDemand& action) {
  awaiting_demand_.insert(action.pool);
  for (const std::string& key : core_.state().pools.at(action.pool).plan().listeners) {
    for (const Member& member : listeners_.members(key)) doorbell_.arm(member.fd.get(), key);
  }
}

// The manager accepts for it.
bool Runtime::admit_all(const config::Pool& pool, ListenError& failure) {
  return std::ranges::all_of(pool.listen, [&](const config::Listener& listener) {
    return listeners_.admit(Listeners::key(pool.name, listener), failure);
  });
}

// Gives a worker that is about to be started its sockets. False: `failure` says why not.
bool Runtime::give_sockets(const core::Spawn& action, const config::Pool& pool,
                           ListenError& failure) {
  if (pool.accept == config::Accept::kDispatch) return admit_all(pool, failure);
  std::set<core::WorkerId> hopeless;
  for (const auto& [id, worker] : core_.state().pools.at(action.pool).workers) {
    const bool over =
        worker.state == core::WorkerState::kAborting || worker.state == core::WorkerState::kKilling;
    if (over && worker.slot == action.slot) hopeless.insert(id);
  }
  for (const config::Listener& listener : pool.listen) {
    const std::string key = Listeners::key(pool.name, listener);
    const bool beside = dispatcher_.serves(key);
    const int fd = pool.accept == config::Accept::kReuseport
                       ? listeners_.claim(key, action.worker, hopeless, failure, beside)
                       : listeners_.share(key, action.worker, failure, beside);
    if (fd < 0) return false;
  }
  return true;
}

// After something has changed: workers, pools, listeners.
void Runtime::share_out() {
  steer_listeners();
  dispatch_connections();
}

void Runtime::dispatch_connections() {
  std::map<core::PoolId, Dispatcher::Pool> pools;
  for (const auto& [id, pool] : core_.state().pools) {
    Dispatcher::Pool dispatched;
    const auto add = [&](const std::vector<std::string>& keys) {
      for (const std::string& key : keys) {
        if (std::ranges::count(dispatched.keys, key) == 0) dispatched.keys.push_back(key);
      }
    };
    // Until the generation that is wanted has come up, the one that serves goes on as it is.
    for (const auto& [worker, known] : pool.workers) {
      const auto process = processes_.find(worker);
      if (process == processes_.end() || !known.ready()) continue;
      if (process->second.launch->pool.accept != config::Accept::kDispatch) continue;
      dispatched.policy = process->second.launch->pool.dispatch;
      dispatched.workers.emplace(worker, process->second.channel);
      add(process->second.channel->listeners());
    }
    for (const auto& [generation, plan] : pool.generations) {
      if (plan.accept != core::Accept::kDispatch) continue;
      for (const std::string& key : plan.listeners) {
        if (!listeners_.turned_away(key)) continue;
        add({key});
        dispatched.closing.insert(key);
      }
    }
    const auto launch = launches_.find(pool.plan().launch);
    const bool wanted = pool.plan().accept == core::Accept::kDispatch && launch != launches_.end();
    if (!wanted && dispatched.workers.empty()) continue;
    if (wanted) {
      dispatched.policy = launch->second->pool.dispatch;
      add(pool.plan().listeners);
    }
    pools.emplace(id, std::move(dispatched));
  }
  dispatcher_.serve(std::move(pools));
  for (auto& [pool, connections] : std::exchange(left_behind_, {})) {
    dispatcher_.give_to_others(pool, std::move(connections));
  }
}

// What a worker that is gone has not taken.
void Runtime::left_behind(const Process& process) {
  for (Connection& connection : process.channel->take_back()) {
    left_behind_[process.pool_id].push_back(std::move(connection));
  }
}

// A worker that is told to go hands its idle connections to others, if others there will be.
void Runtime::tell_to_return(const Process& process) const {
  const auto pool = core_.state().pools.find(process.pool_id);
  if (pool == core_.state().pools.end() || pool->second.removed || core_.state().stopping) return;
  const bool others =
      pool->second.plan().accept == core::Accept::kDispatch && pool->second.target() > 0;
  if (!others || process.launch->pool.accept != config::Accept::kDispatch) return;
  if (const int error = process.channel->tell_to_return(); error != 0 && error != EPIPE) {
    log_event(spdlog::level::err, about(process), "tell {}[{}] to return its connections: {}",
              process.name(), process.pid, std::generic_category().message(error));
  }
}

// Those whose workers have sockets of their own, now or still.
void Runtime::steer_listeners() {
  std::set<std::string> keys;
  for (const auto& [id, pool] : core_.state().pools) {
    for (const auto& [generation, plan] : pool.generations) {
      for (const std::string& key : plan.listeners) {
        // None: a pool that is removed has its listeners closed while its workers drain.
        const std::size_t sockets = listeners_.members(key).size();
        if (sockets > 1 || (sockets == 1 && plan.accept == core::Accept::kReuseport)) {
          keys.insert(key);
        }
      }
    }
  }
  steering_.steer(keys);
  steering_.look();
}

}  // namespace ostler::runtime
