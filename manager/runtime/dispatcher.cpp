#include "runtime/dispatcher.hpp"

#include <spdlog/spdlog.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <iterator>
#include <set>
#include <system_error>
#include <tuple>
#include <utility>

#include "runtime/clock.hpp"
#include "runtime/limits.hpp"

namespace ostler::runtime {

Dispatcher::Dispatcher(boost::asio::io_context& context, Listeners& listeners, Doorbell& doorbell,
                       WaitedFor waited_for)
    : context_(context),
      listeners_(listeners),
      doorbell_(doorbell),
      waited_for_(std::move(waited_for)),
      timer_(context),
      random_(std::random_device{}()) {}

void Dispatcher::serve(std::map<core::PoolId, Pool> pools) {
  std::erase_if(pools_, [&](const auto& entry) { return !pools.contains(entry.first); });
  const auto arm = [this](const std::string& key) { arm_doorbell(key); };
  for (auto& [id, pool] : pools) {
    State& state = pools_[id];
    for (auto& [worker, channel] : state.pool.workers) {
      if (!pool.workers.contains(worker)) state.leaving.push_back(std::move(channel));
    }
    state.pool = std::move(pool);
    std::erase_if(state.paces, [&state](const auto& entry) {
      return !state.pool.workers.contains(entry.first);
    });
    if (state.pool.workers.empty()) std::ranges::for_each(state.pool.keys, arm);
    pump(id, state);
  }
}

bool Dispatcher::serves(const std::string& key) const {
  const auto has = [&](const auto& worker) {
    return std::ranges::count(worker.second->listeners(), key) > 0;
  };
  return std::ranges::any_of(pools_, [&](const auto& entry) {
    const Pool& pool = entry.second.pool;
    return std::ranges::count(pool.keys, key) > 0 && std::ranges::any_of(pool.workers, has);
  });
}

bool Dispatcher::accepts(const std::string& key) const {
  return serves(key) || std::ranges::any_of(pools_, [&](const auto& entry) {
           const Pool& pool = entry.second.pool;
           return pool.closing.contains(key) && !pool.workers.empty();
         });
}

void Dispatcher::rung(const std::string& key) {
  for (auto& [id, state] : pools_) {
    if (std::ranges::count(state.pool.keys, key) > 0) return pump(id, state);
  }
}

void Dispatcher::has_room(core::PoolId pool) {
  const auto found = pools_.find(pool);
  if (found != pools_.end()) pump(pool, found->second);
}

void Dispatcher::give_to_others(core::PoolId pool, std::vector<Connection> connections) {
  const auto found = pools_.find(pool);
  if (found == pools_.end() || connections.empty()) return;
  for (Connection& connection : connections) {
    found->second.homeless.push_back(std::move(connection));
  }
  pump(pool, found->second);
}

// Where a request takes no longer than a hand-over, the next connection is given in advance: else
// the worker would wait for each. Idle time counts, so that only who is busy all the time is quick.
bool Dispatcher::is_quick(Pace& pace, const Figures& figures, core::Time at) {
  const std::uint64_t done = figures.requests - pace.requests;
  if (done < limits::kPaceRequests && at - pace.at < limits::kPaceSpan) return pace.quick;
  const bool quick =
      done >= limits::kPaceRequests && (at - pace.at) / limits::kPaceRequests < limits::kQuick;
  pace = {figures.requests, at, quick};
  return quick;
}

// Reads the scoreboards once a turn: what is handed over meanwhile is added to what they said.
std::vector<Dispatcher::Desk> Dispatcher::desks(State& state) {
  std::vector<Desk> all;
  std::vector<Desk> late;
  const core::Time at = now();
  for (const auto& [worker, channel] : state.pool.workers) {
    if (!channel->speaks() || !channel->is_open()) continue;
    Desk desk;
    desk.worker = worker;
    desk.channel = channel.get();
    const std::uint64_t coming = channel->untaken();
    const Figures figures = channel->scoreboard().figures(at);
    desk.connections = figures.connections + coming;
    desk.busy = figures.active + coming;
    desk.concurrency = figures.concurrency;
    const std::uint64_t ahead =
        figures.concurrency == 1 && is_quick(state.paces[worker], figures, at) ? 1 : 0;
    const std::uint64_t most =
        std::min(figures.capacity + ahead, figures.connections + limits::kUntaken);
    desk.room = most > desk.connections ? most - desk.connections : 0;
    const bool stands = coming > 0 && at - channel->untaken_since() >= limits::kStandsStill;
    (stands ? late : all).push_back(std::move(desk));
  }
  // Whoever stands still gets something only if nobody else is there.
  state.passed_over = !all.empty() && !late.empty();
  return all.empty() ? std::move(late) : std::move(all);
}

bool Dispatcher::Desk::serves(const std::string& key) const {
  return key.empty() || std::ranges::count(channel->listeners(), key) > 0;
}

Dispatcher::Desk* Dispatcher::choose(State& state, std::vector<Desk>& desks,
                                     const std::string& key) {
  const auto load = [](const Desk& desk) {
    const bool waits = desk.concurrency > 0 && desk.busy >= desk.concurrency;
    return std::tuple(desk.room == 0, waits, desk.connections, desk.busy);
  };
  const auto less = [&](const Desk& a, const Desk& b) { return load(a) < load(b); };
  Desk* chosen = nullptr;
  if (state.pool.policy == config::DispatchPolicy::kRandom && !desks.empty()) {
    Desk& one = desks[random_() % desks.size()];
    Desk& other = desks[random_() % desks.size()];
    chosen = less(other, one) ? &other : &one;
    if (chosen->room > 0 && chosen->serves(key)) return chosen;
    chosen = nullptr;
  }
  // Round robin takes the first that has room after the one it took last; the others the best of
  // all, and of equals the first after that one.
  const std::uint64_t begin = state.turn;
  const bool in_turn = state.pool.policy == config::DispatchPolicy::kRoundRobin;
  for (std::size_t i = 0; i < desks.size(); ++i) {
    Desk& desk = desks[(begin + i) % desks.size()];
    if (desk.room == 0 || !desk.serves(key)) continue;
    if (chosen == nullptr || (!in_turn && less(desk, *chosen))) chosen = &desk;
  }
  return chosen;
}

// By the listener that it comes in by, which may be about to be closed.
Dispatcher::Desk* Dispatcher::choose_by(State& state, std::vector<Desk>& desks,
                                        const std::string& key) {
  const auto serves = [&](const Desk& desk) { return desk.serves(key); };
  const bool orphaned = state.pool.closing.contains(key) && std::ranges::none_of(desks, serves);
  return choose(state, desks, orphaned ? "" : key);
}

// If nobody serves its listener any more, anybody will do: its client need not know.
Dispatcher::Desk* Dispatcher::choose_for(State& state, std::vector<Desk>& desks,
                                         const Connection& connection) {
  const auto serves = [&](const Desk& desk) { return desk.serves(connection.listener); };
  return choose(state, desks, std::ranges::any_of(desks, serves) ? connection.listener : "");
}

std::optional<Connection> Dispatcher::next(State& state, std::vector<Desk>& desks, Desk*& desk,
                                           bool& full) {
  const std::string* blocked = nullptr;
  for (auto one = state.homeless.begin(); one != state.homeless.end(); ++one) {
    if (blocked != nullptr && one->listener == *blocked) continue;
    desk = choose_for(state, desks, *one);
    if (desk == nullptr) {
      blocked = &one->listener;
      continue;
    }
    Connection connection = std::move(*one);
    state.homeless.erase(one);
    return connection;
  }
  full = blocked != nullptr;
  state.starved = false;
  for (std::size_t i = 0; i < state.pool.keys.size(); ++i) {
    const std::string& key = state.pool.keys[state.next_key++ % state.pool.keys.size()];
    desk = choose_by(state, desks, key);
    full = full || desk == nullptr;
    if (desk == nullptr) continue;
    if (auto connection = accept_from(state, key)) return connection;
  }
  return std::nullopt;
}

// While workers of another generation still accept from a socket, it is theirs.
std::optional<Connection> Dispatcher::accept_from(State& state, const std::string& key) {
  for (const int fd : listeners_.own(key)) {
    const int connection = ::accept4(fd, nullptr, nullptr, SOCK_CLOEXEC);
    if (connection >= 0) {
      starvation_told_ = false;
      return Connection{UniqueFd(connection), key};
    }
    if (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR) continue;
    state.starved = true;
    if (std::exchange(starvation_told_, true)) continue;
    spdlog::error("accept from {}: {}", key, std::generic_category().message(errno));
  }
  return std::nullopt;
}

// Connections of a batch come from one listener each. False: it takes nothing more now.
bool Dispatcher::deliver(State& state, Desk& desk) {
  while (!desk.batch.empty()) {
    std::vector<Connection> part;
    const std::string listener = desk.batch.front().listener;
    while (!desk.batch.empty() && desk.batch.front().listener == listener &&
           part.size() < OSTLER_BATCH) {
      part.push_back(std::move(desk.batch.front()));
      desk.batch.erase(desk.batch.begin());
    }
    if (desk.channel->dispatch(part) == 0) continue;
    std::ranges::move(desk.batch, std::back_inserter(part));
    desk.batch.clear();
    std::ranges::move(part, std::inserter(state.homeless, state.homeless.begin()));
    return false;
  }
  return true;
}

void Dispatcher::pump(core::PoolId id, State& state) {
  std::vector<Desk> all = desks(state);
  if (all.empty()) return;  // somebody who becomes ready will serve
  bool more = true;
  bool full = false;
  for (int left = limits::kDispatchPerTurn; left > 0; --left) {
    Desk* desk = nullptr;
    auto connection = next(state, all, desk, full);
    more = connection.has_value();
    if (!more) break;
    state.turn = static_cast<std::uint64_t>(desk - all.data()) + 1;
    --desk->room;
    ++desk->connections;
    ++desk->busy;
    desk->batch.push_back(std::move(*connection));
  }
  bool handed = false;
  bool refused = false;
  for (Desk& desk : all) {
    handed = handed || !desk.batch.empty();
    refused = !deliver(state, desk) || refused;
  }
  if (handed || refused) look_after(limits::kLookAtTaken);
  if (refused) return;  // until the next look
  // The doorbell would ring at once, for connections that cannot be had.
  if (state.starved) return look_after(limits::kAcceptAgain);
  if (more) return pump_soon(id, state);
  for (const std::string& key : state.pool.keys) {
    if (!full || choose_by(state, all, key) != nullptr) arm_doorbell(key);
  }
  if (!full) return;
  want_room(id, state, unserved(state, all));
  if (state.passed_over) look_after(limits::kStandsStill);  // nobody says that he goes on
}

// After the manager's other duties.
void Dispatcher::pump_soon(core::PoolId id, State& state) {
  if (std::exchange(state.posted, true)) return;
  boost::asio::post(context_, [this, id] {
    const auto found = pools_.find(id);
    if (found == pools_.end()) return;
    found->second.posted = false;
    pump(id, found->second);
  });
}

// How many listeners, and connections that wait for a worker, nobody has room for. Of the latter
// the first stands for all.
std::size_t Dispatcher::unserved(State& state, std::vector<Desk>& desks) {
  const auto full = [&](const std::string& key) { return choose_by(state, desks, key) == nullptr; };
  auto count = static_cast<std::size_t>(std::ranges::count_if(state.pool.keys, full));
  if (!state.homeless.empty() && choose_for(state, desks, state.homeless.front()) == nullptr) {
    ++count;
  }
  return count;
}

// Somebody may be waiting: whoever has room next says so. Somebody may have got it before he could
// know that we want it.
void Dispatcher::want_room(core::PoolId id, State& state, std::size_t unserved_before) {
  for (const auto& [worker, channel] : state.pool.workers) channel->want_room();
  std::vector<Desk> all = desks(state);
  if (unserved(state, all) < unserved_before) pump_soon(id, state);
}

void Dispatcher::arm_doorbell(const std::string& key) {
  for (const int fd : listeners_.own(key)) doorbell_.arm(fd, key);
}

void Dispatcher::look_after(core::Duration wait) {
  const core::Time when = now() + wait;
  if (armed_ && *armed_ <= when) return;
  armed_ = when;
  timer_.expires_after(wait);
  timer_.async_wait([this](const boost::system::error_code& error) {
    if (error) return;
    armed_.reset();
    look();
  });
}

// Lets go of the copies of what was taken: until then the client would not see the end of a
// connection that the worker closes without a word.
void Dispatcher::look() {
  const core::Time at = now();
  std::set<core::WorkerId> late;
  bool some = false;
  for (auto& [id, state] : pools_) {
    std::erase_if(state.leaving, [](const auto& channel) { return channel->untaken() == 0; });
    if (!state.homeless.empty() || state.starved || state.passed_over) pump_soon(id, state);
    some = some || !state.leaving.empty();
    for (const auto& [worker, channel] : state.pool.workers) {
      if (channel->untaken() == 0) continue;
      some = true;
      if (at - channel->untaken_since() < limits::kStandsStill) continue;
      late.insert(worker);
      if (told_.try_emplace(worker, at).second) waited_for_(worker);
    }
  }
  std::erase_if(told_, [&](const auto& entry) { return !late.contains(entry.first); });
  if (some) look_after(late.empty() ? limits::kLookAtTaken : limits::kStandsStill);
}

std::size_t Dispatcher::homeless(core::PoolId pool) const {
  const auto found = pools_.find(pool);
  return found == pools_.end() ? 0 : found->second.homeless.size();
}

std::optional<Dispatcher::Waiting> Dispatcher::waiting(core::WorkerId worker) const {
  for (const auto& [id, state] : pools_) {
    const auto found = state.pool.workers.find(worker);
    if (found == state.pool.workers.end()) continue;
    const std::size_t count = found->second->untaken();
    if (count > 0) return Waiting{count, found->second->untaken_since()};
  }
  return std::nullopt;
}

}  // namespace ostler::runtime
