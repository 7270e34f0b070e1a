#include "runtime/dispatcher.hpp"

#include <spdlog/spdlog.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <iterator>
#include <random>
#include <set>
#include <system_error>
#include <utility>

#include "runtime/background_acceptor.hpp"
#include "runtime/clock.hpp"
#include "runtime/limits.hpp"

namespace ostler::runtime {
namespace {

HandoverPolicy policy_of(config::DispatchPolicy policy) {
  switch (policy) {
    case config::DispatchPolicy::kLeastConnections:
      return HandoverPolicy::kLeastConnections;
    case config::DispatchPolicy::kRoundRobin:
      return HandoverPolicy::kRoundRobin;
    case config::DispatchPolicy::kRandom:
      return HandoverPolicy::kRandom;
  }
  return HandoverPolicy::kLeastConnections;
}

}  // namespace

// What the decisions of one pool are made of, and about.
class Dispatcher::Port final : public HandoverPort {
 public:
  Port(Dispatcher& dispatcher, core::PoolId id)
      : dispatcher_(dispatcher), id_(id), handover_(std::random_device{}()) {}

  void configure(Pool pool);
  void hand_over() { handover_.hand_over(*this); }
  std::vector<core::WorkerId> look();
  void add_pending(std::vector<Connection> connections);
  void rung(const std::string& listener);
  void forget(int fd) { acceptors_.erase(fd); }
  // Connections that may be on their way from a thread that accepts.
  [[nodiscard]] std::size_t being_accepted() const;
  void table_full(core::WorkerId worker) { handover_.table_full(*this, worker); }
  [[nodiscard]] const Pool& pool() const { return pool_; }

  // HandoverPort
  [[nodiscard]] core::Time now() const override { return runtime::now(); }
  [[nodiscard]] std::vector<WorkerLoad> loads() override;
  [[nodiscard]] std::size_t pending() const override { return pending_.size(); }
  [[nodiscard]] const std::string& pending_listener(std::size_t index) const override {
    return pending_[index].listener;
  }
  void take_pending(std::size_t index, core::WorkerId worker) override;
  Accepted accept(const std::string& listener, core::WorkerId worker) override;
  bool deliver(core::WorkerId worker) override;
  void await_connection(const std::string& listener) override;
  void await_capacity() override;
  void continue_soon() override;
  void look_after(core::Duration wait) override { dispatcher_.look_after(wait); }

 private:
  [[nodiscard]] bool accepts_aside(int fd) const;
  void accept_aside(int fd, const std::string& listener);
  void failed_to_accept(const std::string& listener, int error);

  Dispatcher& dispatcher_;
  core::PoolId id_;
  Pool pool_;
  Handover handover_;
  std::deque<Connection> pending_;
  std::map<core::WorkerId, std::deque<Connection>> batches_;  // in one call of hand_over
  std::vector<std::shared_ptr<WorkerChannel>> leaving_;       // with something they may yet take
  std::map<int, std::unique_ptr<BackgroundAcceptor>> acceptors_;  // by listening socket
  std::set<std::string> failing_;                                 // listeners: and not told yet
  bool posted_ = false;
};

void Dispatcher::Port::configure(Pool pool) {
  for (auto& [worker, channel] : pool_.workers) {
    if (!pool.workers.contains(worker)) leaving_.push_back(std::move(channel));
  }
  pool_ = std::move(pool);
  handover_.configure(policy_of(pool_.policy), pool_.keys, pool_.closing);
  if (!pool_.workers.empty()) return;
  for (const std::string& key : pool_.keys) await_connection(key);
}

std::vector<WorkerLoad> Dispatcher::Port::loads() {
  std::vector<WorkerLoad> loads;
  loads.reserve(pool_.workers.size());
  const core::Time at = now();
  for (const auto& [worker, channel] : pool_.workers) {
    if (!channel->speaks() || !channel->is_open()) continue;
    const std::uint64_t untaken = channel->untaken();
    const Figures figures = channel->scoreboard().figures(at);
    loads.push_back({worker, &channel->listeners(), figures.connections, figures.active,
                     figures.capacity, figures.concurrency, figures.requests, untaken,
                     channel->untaken_since()});
  }
  return loads;
}

void Dispatcher::Port::take_pending(std::size_t index, core::WorkerId worker) {
  const auto one = pending_.begin() + static_cast<std::ptrdiff_t>(index);
  batches_[worker].push_back(std::move(*one));
  pending_.erase(one);
}

// While workers of another generation still accept from a socket, it is theirs.
HandoverPort::Accepted Dispatcher::Port::accept(const std::string& listener,
                                                core::WorkerId worker) {
  bool failed = failing_.erase(listener) > 0;
  for (const auto& [fd, lent] : dispatcher_.listeners_.own(listener)) {
    if (lent) continue;  // they come by themselves
    const int connection = ::accept4(fd, nullptr, nullptr, SOCK_CLOEXEC);
    if (connection >= 0) {
      dispatcher_.starvation_told_ = false;
      batches_[worker].push_back({UniqueFd(connection), listener});
      return Accepted::kOne;
    }
    if (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR) continue;
    failed = true;
    failed_to_accept(listener, errno);
  }
  return failed ? Accepted::kFailed : Accepted::kNone;
}

// EINVAL: the socket was shut down.
void Dispatcher::Port::failed_to_accept(const std::string& listener, int error) {
  ListenError lost;
  if (error == EINVAL && dispatcher_.listeners_.mend(listener, lost)) return;
  if (std::exchange(dispatcher_.starvation_told_, true)) return;
  spdlog::error("accept from {}: {}", listener, std::generic_category().message(error));
}

bool Dispatcher::Port::accepts_aside(int fd) const {
  const auto found = acceptors_.find(fd);
  return found != acceptors_.end() && found->second->busy();
}

void Dispatcher::Port::accept_aside(int fd, const std::string& listener) {
  std::unique_ptr<BackgroundAcceptor>& acceptor = acceptors_[fd];
  if (!acceptor) {
    BackgroundAcceptor::Hooks hooks;
    hooks.accepted = [this, listener](std::vector<UniqueFd> accepted) {
      dispatcher_.starvation_told_ = false;
      for (UniqueFd& one : accepted) {
        Connection connection{std::move(one), listener};
        pending_.push_back(std::move(connection));
      }
      hand_over();
    };
    hooks.over = [this, listener](int error) {
      if (error != 0) failed_to_accept(listener, error);
      if (error != 0) failing_.insert(listener);
      hand_over();
    };
    acceptor = std::make_unique<BackgroundAcceptor>(dispatcher_.context_, fd, std::move(hooks));
  }
  acceptor->accept();
}

void Dispatcher::Port::rung(const std::string& listener) {
  for (const auto& [fd, lent] : dispatcher_.listeners_.own(listener)) {
    if (lent) accept_aside(fd, listener);
  }
  hand_over();
}

std::size_t Dispatcher::Port::being_accepted() const {
  return static_cast<std::size_t>(
      std::ranges::count_if(acceptors_, [](const auto& entry) { return entry.second->busy(); }));
}

// Connections of a batch come from one listener each.
bool Dispatcher::Port::deliver(core::WorkerId worker) {
  std::deque<Connection> batch = std::exchange(batches_[worker], {});
  const auto channel = pool_.workers.at(worker);
  while (!batch.empty()) {
    std::vector<Connection> part;
    const std::string listener = batch.front().listener;
    while (!batch.empty() && batch.front().listener == listener && part.size() < OSTLER_BATCH) {
      part.push_back(std::move(batch.front()));
      batch.pop_front();
    }
    if (channel->dispatch(part) == 0) continue;
    std::ranges::move(batch, std::back_inserter(part));
    std::ranges::move(part, std::inserter(pending_, pending_.begin()));
    return false;
  }
  return true;
}

void Dispatcher::Port::await_connection(const std::string& listener) {
  for (const auto& [fd, lent] : dispatcher_.listeners_.own(listener)) {
    if (!accepts_aside(fd)) dispatcher_.doorbell_.arm(fd, listener);
  }
}

void Dispatcher::Port::await_capacity() {
  for (const auto& [worker, channel] : pool_.workers) channel->want_room();
}

// After the manager's other duties.
void Dispatcher::Port::continue_soon() {
  if (std::exchange(posted_, true)) return;
  boost::asio::post(dispatcher_.context_, [&dispatcher = dispatcher_, id = id_] {
    const auto found = dispatcher.pools_.find(id);
    if (found == dispatcher.pools_.end()) return;
    found->second->posted_ = false;
    found->second->hand_over();
  });
}

// Lets go of the copies of what was taken: until then the client would not see the end of a
// connection that the worker closes without a word.
std::vector<core::WorkerId> Dispatcher::Port::look() {
  std::erase_if(leaving_, [](const auto& channel) { return channel->untaken() == 0; });
  if (!leaving_.empty()) look_after(limits::kLookAtTaken);
  return handover_.look(*this);
}

void Dispatcher::Port::add_pending(std::vector<Connection> connections) {
  std::ranges::move(connections, std::back_inserter(pending_));
}

Dispatcher::Dispatcher(boost::asio::io_context& context, Listeners& listeners, Doorbell& doorbell,
                       WaitedFor waited_for)
    : context_(context),
      listeners_(listeners),
      doorbell_(doorbell),
      waited_for_(std::move(waited_for)),
      timer_(context) {}

Dispatcher::~Dispatcher() = default;

void Dispatcher::serve(std::map<core::PoolId, Pool> pools) {
  std::erase_if(pools_, [&](const auto& entry) { return !pools.contains(entry.first); });
  for (auto& [id, pool] : pools) {
    std::unique_ptr<Port>& port = pools_[id];
    if (!port) port = std::make_unique<Port>(*this, id);
    port->configure(std::move(pool));
    port->hand_over();
  }
}

bool Dispatcher::serves(const std::string& key) const {
  const auto has = [&](const auto& worker) {
    return std::ranges::count(worker.second->listeners(), key) > 0;
  };
  return std::ranges::any_of(pools_, [&](const auto& entry) {
    const Pool& pool = entry.second->pool();
    return std::ranges::count(pool.keys, key) > 0 && std::ranges::any_of(pool.workers, has);
  });
}

bool Dispatcher::accepts(const std::string& key) const {
  return serves(key) || std::ranges::any_of(pools_, [&](const auto& entry) {
           const Pool& pool = entry.second->pool();
           return pool.closing.contains(key) && !pool.workers.empty();
         });
}

void Dispatcher::rung(const std::string& key) {
  for (const auto& [id, port] : pools_) {
    if (std::ranges::count(port->pool().keys, key) > 0) port->rung(key);
  }
}

void Dispatcher::forget(int fd) {
  for (const auto& [id, port] : pools_) port->forget(fd);
}

void Dispatcher::has_room(core::PoolId pool) {
  const auto found = pools_.find(pool);
  if (found != pools_.end()) found->second->hand_over();
}

void Dispatcher::give_to_others(core::PoolId pool, std::vector<Connection> connections) {
  const auto found = pools_.find(pool);
  if (found == pools_.end() || connections.empty()) return;
  found->second->add_pending(std::move(connections));
  found->second->hand_over();
}

void Dispatcher::not_taken(core::PoolId pool, core::WorkerId worker,
                           std::vector<Connection> connections) {
  const auto found = pools_.find(pool);
  if (found != pools_.end()) found->second->table_full(worker);
  give_to_others(pool, std::move(connections));
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

void Dispatcher::look() {
  const core::Time at = now();
  std::set<core::WorkerId> late;
  for (const auto& [id, port] : pools_) {
    for (const core::WorkerId worker : port->look()) {
      late.insert(worker);
      if (told_.try_emplace(worker, at).second) waited_for_(worker);
    }
  }
  std::erase_if(told_, [&](const auto& entry) { return !late.contains(entry.first); });
}

std::size_t Dispatcher::pending(core::PoolId pool) const {
  const auto found = pools_.find(pool);
  if (found == pools_.end()) return 0;
  return found->second->pending() + found->second->being_accepted();
}

std::optional<Dispatcher::Waiting> Dispatcher::waiting(core::WorkerId worker) const {
  for (const auto& [id, port] : pools_) {
    const auto found = port->pool().workers.find(worker);
    if (found == port->pool().workers.end()) continue;
    const std::size_t count = found->second->untaken();
    if (count > 0) return Waiting{count, found->second->untaken_since()};
  }
  return std::nullopt;
}

}  // namespace ostler::runtime
