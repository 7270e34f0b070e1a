#include "serving/engine.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <system_error>

#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>

#include "serving/abort_report.hpp"
#include "serving/own_listener.hpp"
#include "serving/pool_options.hpp"

namespace ostler::serving {
namespace {

// What the manager had sent before it asked to stop is heard first; so many messages of it.
constexpr int kHeardBeforeStop = 1024;
// For all connections of one turn, while the manager's queue is full.
constexpr std::chrono::milliseconds kReturnPatience{500};

std::uint32_t class_number(worker_class kind) {
  switch (kind) {
    case worker_class::sync:
      return OSTLER_CLASS_SYNC;
    case worker_class::threads:
      return OSTLER_CLASS_THREADS;
    case worker_class::async:
      return OSTLER_CLASS_ASYNC;
  }
  return OSTLER_CLASS_OTHER;
}

serve_options checked(serve_options options, worker_class kind) {
  if (options.connections == 0) throw std::invalid_argument("options::connections is 0");
  if (options.threads < 1 || options.threads > kMostThreads) {
    throw std::invalid_argument("options::threads is " + std::to_string(options.threads) +
                                ", and not from 1 to " + std::to_string(kMostThreads));
  }
  if (kind == worker_class::sync) options.connections = 1;
  return options;
}

// What a hook throws is no fault of usage, whatever its type.
void call_hook(const std::function<void()>& hook, const char* name) {
  if (!hook) return;
  try {
    hook();
  } catch (const std::exception& error) {
    throw std::runtime_error(std::string(name) + ": " + error.what());
  } catch (...) {
    throw std::runtime_error(std::string(name) + ": an exception that is no std::exception");
  }
}

Endpoint to_endpoint(const sockaddr_storage& address, socklen_t size) {
  return {&address, std::min<std::size_t>(size, sizeof address)};
}

}  // namespace

std::string text_of(const Endpoint& peer) {
  const int family = peer.protocol().family();
  if (family != AF_INET && family != AF_INET6) return "unix";
  asio::ip::tcp::endpoint tcp;
  if (peer.size() > tcp.capacity()) return "unknown";
  std::copy_n(reinterpret_cast<const char*>(peer.data()), peer.size(),
              reinterpret_cast<char*>(tcp.data()));
  const std::string ip = tcp.address().to_string();
  return (tcp.address().is_v6() ? "[" + ip + "]" : ip) + ":" + std::to_string(tcp.port());
}

worker_class choose_class(const serve_options& options, std::initializer_list<worker_class> able) {
  if (!options.worker_class) return *able.begin();
  if (std::ranges::find(able, *options.worker_class) != able.end()) return *options.worker_class;
  std::string names;
  for (const auto each : able) names += (names.empty() ? "" : ", ") + std::string(name_of(each));
  throw std::invalid_argument("this program's handler cannot run in class " +
                              std::string(name_of(*options.worker_class)) + ", only in " + names);
}

Engine::Engine(ostler::worker& worker, const serve_options& options,
               std::initializer_list<worker_class> able)
    : worker_(worker),
      scoreboard_(worker_internals::of(worker).scoreboard),
      options_(checked(options, choose_class(options, able))),
      kind_(choose_class(options, able)),
      stop_event_(context_, worker.stop_fd()),
      channel_event_(context_),
      timer_event_(context_) {}

Engine::~Engine() {
  stop_accepting();
  if (pool_) pool_->join();
  // These descriptors are the worker's.
  for (auto* each : {&stop_event_, &channel_event_, &timer_event_}) {
    if (each->is_open()) each->release();
  }
  for (const auto& each : returning_) ::close(each.fd);
  close_listeners();
}

void Engine::run(OnConnection on_connection) {
  on_connection_ = std::move(on_connection);
  open_listeners();
  call_hook(options_.on_load, "on_load");
  call_hook(options_.on_start, "on_start");
  Scoreboard::run_loop();
  const AbortReport report(scoreboard_);
  if (kind_ == worker_class::threads) pool_.emplace(static_cast<std::size_t>(options_.threads));
  worker_internals::of(worker_).stop.leave_at_second(kFailed);
  watch_stop();
  offer();
  if (worker_.channel_fd() >= 0) {
    channel_event_.assign(worker_internals::of(worker_).channel.fd());
    timer_event_.assign(scoreboard_.timer_fd());
    watch_channel();
    watch_timer();
  }
  // Whoever serves unheard is taken for one that does not start, and ended under load.
  if (!worker_.ready() && worker_.managed()) {
    throw std::system_error(errno, std::generic_category(), "tell the manager READY=1");
  }
  if (worker_.may_accept()) start_accepting();
  context_.run();
  if (pool_) pool_->join();
  call_hook(options_.on_stop, "on_stop");
}

void Engine::open_listeners() {
  for (const auto& listener : worker_.listeners()) listeners_.push_back(listener.fd);
  if (!options_.listen.empty()) {
    const auto own = open_own_listener(options_.listen);
    listeners_.push_back(own.fd);
    own_path_ = own.path;
  }
  if (listeners_.empty() && !worker_.dispatched()) {
    throw std::invalid_argument(
        "no listener was inherited; to run without a manager, give --listen tcp://IP:PORT");
  }
}

// After the hooks, which may have opened files.
void Engine::offer() {
  const auto room = worker_internals::of(worker_).room_for(options_.connections);
  most_over_ = room.over;
  gate_.give(static_cast<long>(room.connections));
  const int at_once = kind_ == worker_class::sync      ? 1
                      : kind_ == worker_class::threads ? options_.threads
                                                       : 0;
  scoreboard_.describe(class_number(kind_), static_cast<std::uint32_t>(room.connections),
                       static_cast<std::uint32_t>(at_once));
}

void Engine::start_accepting() {
  if (draining() || !acceptors_.empty()) return;
  for (const int listener : listeners_) {
    acceptors_.emplace_back(gate_, listener, [this](const Acceptor::Arrival& arrival) {
      // Counted at once, so that a drain waits for it.
      ++open_;
      asio::post(context_, [this, arrival] { arrive(arrival); });
    });
  }
}

void Engine::stop_accepting() {
  gate_.close();
  acceptors_.clear();
}

// From the beginning of a drain on, so that what waits goes to others, and so that nobody finds the
// address in use, or waits at it in vain, while the last requests are served.
void Engine::close_listeners() {
  for (const int each : std::exchange(listeners_, {})) ::close(each);
  if (!own_path_.empty()) ::unlink(std::exchange(own_path_, {}).c_str());
}

void Engine::arrive(const Acceptor::Arrival& arrival) {
  scoreboard_.connection_opened();
  adopt(arrival.fd, arrival.family, {.peer = to_endpoint(arrival.peer, arrival.peer_size)});
}

void Engine::take_over(const channel_message& message) {
  Origin origin{.is_private = message.is_private,
                .is_dispatched = message.is_dispatched,
                .listener = message.listener,
                .peer = {}};
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (::getpeername(message.fd, reinterpret_cast<sockaddr*>(&address), &size) == 0) {
    origin.peer = to_endpoint(address, size);
  } else if (size = sizeof address;  // its client is gone already
             ::getsockname(message.fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    address.ss_family = AF_UNSPEC;
  }
  ++open_;
  if (!origin.is_private) {
    gate_.take();
    scoreboard_.connection_opened();
  }
  if (hands_back(origin)) return return_later(message.fd, origin);
  if (origin.is_dispatched && address.ss_family != AF_UNIX) {
    const int on = 1;
    ::setsockopt(message.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  adopt(message.fd, address.ss_family, origin);
}

void Engine::adopt(int fd, int family, const Origin& origin) {
  Socket socket(context_);
  Error error;
  socket.assign(Protocol(family, 0), fd, error);
  if (!error) return give(std::move(socket), origin);
  ::close(fd);
  std::fprintf(stderr, "serve a connection: %s\n", error.message().c_str());
  ended(origin);
}

void Engine::give(Socket socket, const Origin& origin) {
  try {
    on_connection_(std::move(socket), origin);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "serve a connection: %s\n", error.what());
    ended(origin);
  }
}

void Engine::over(Origin& origin) {
  if (origin.is_private || origin.is_over || over_ >= most_over_) return;
  origin.is_over = true;
  ++over_;
  scoreboard_.connection_closed();
  worker_internals::of(worker_).offer_room();
  gate_.give();
}

void Engine::ended(const Origin& origin) {
  --open_;
  if (origin.is_over) {
    --over_;
  } else if (!origin.is_private) {
    scoreboard_.connection_closed();
    worker_internals::of(worker_).offer_room();
    gate_.give();
  }
  finish_if_drained();
}

void Engine::close(Socket& socket, const Origin& origin) {
  Error ignored;
  if (origin.is_dispatched) socket.shutdown(Socket::shutdown_both, ignored);
  socket.close(ignored);
}

void Engine::hand_back(Socket& socket, const Origin& origin) {
  Error error;
  const int fd = socket.release(error);
  if (!error) return return_later(fd, origin);
  close(socket, origin);
  ended(origin);
}

// With all others of this turn, in few messages.
void Engine::return_later(int fd, const Origin& origin) {
  if (returning_.empty()) asio::post(context_, [this] { return_all(); });
  returning_.push_back({fd, origin});
}

void Engine::return_all() {
  auto all = std::exchange(returning_, {});
  std::ranges::stable_sort(all, {}, [](const Returning& each) { return each.origin.listener; });
  const auto deadline = Clock::now() + kReturnPatience;
  for (auto first = all.begin(); first != all.end();) {
    const auto most = first + std::min<std::ptrdiff_t>(OSTLER_BATCH, all.end() - first);
    const auto last = std::find_if(first, most, [&](const Returning& each) {
      return each.origin.listener != first->origin.listener;
    });
    return_batch({first, last}, deadline);
    first = last;
  }
}

void Engine::return_batch(std::span<const Returning> batch, Clock::time_point deadline) {
  std::vector<int> descriptors;
  for (const auto& each : batch) descriptors.push_back(each.fd);
  const auto& channel = worker_internals::of(worker_).channel;
  // Once it failed, nobody is there to take them: they are drained as others are.
  hands_back_ = hands_back_ && channel.hand_back(descriptors, batch[0].origin.listener, deadline);
  for (const auto& each : batch) {
    if (hands_back_) {
      ::close(each.fd);
      ended(each.origin);
    } else {
      adopt(each.fd, each.origin.peer.protocol().family(), each.origin);
    }
  }
}

void Engine::watch_stop() {
  stop_event_.async_read_some(asio::buffer(&stop_count_, sizeof stop_count_),
                              [this](const Error& error, std::size_t) {
                                if (!error) on_stop();
                              });
}

void Engine::on_stop() {
  stop_accepting();
  close_listeners();
  worker_.stopping();
  worker_.status("draining " + std::to_string(open_) + " connections");
  if (channel_event_.is_open()) hear(kHeardBeforeStop);
  stop_.request_stop();
  finish_if_drained();
}

// Each is one message for each wake-up: a connection costs no second look, by which nothing is
// found, and one that is busy with a connection leaves the others to be given to somebody else.
void Engine::watch_channel() {
  if (worker_internals::of(worker_).channel_ended || (draining() && open_ == 0)) return;
  channel_event_.async_wait(Descriptor::wait_read, [this](const Error& error) {
    if (error) return;
    hear(1);
    watch_channel();
  });
}

void Engine::watch_timer() {
  timer_event_.async_wait(Descriptor::wait_read, [this](const Error& error) {
    if (error) return;
    scoreboard_.tick();
    if (!draining() || open_ > 0) watch_timer();
  });
}

// Takes what the manager has sent, so many messages at most, and all connections of each.
void Engine::hear(int most) {
  using kind = channel_message::kind;
  auto& state = worker_internals::of(worker_);
  int heard = 0;
  for (auto message = state.receive(); message.what != kind::nothing; message = state.receive()) {
    if (message.what == kind::may_accept) start_accepting();
    if (message.what == kind::connection) take_over(message);
    if (message.what == kind::drain) begin_to_hand_back();
    if (++heard >= most && !state.channel.has_more()) return;
  }
}

void Engine::begin_to_hand_back() {
  if (!worker_.dispatched() || hand_back_.stop_requested()) return;
  hands_back_ = true;
  hand_back_.request_stop();
}

void Engine::finish_if_drained() {
  if (!draining() || open_ > 0) return;
  // With this, nothing is left to wait for, and run() returns.
  for (auto* each : {&channel_event_, &timer_event_}) {
    if (each->is_open()) each->cancel();
  }
}

}  // namespace ostler::serving
