#include "serving/engine.hpp"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
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

// Messages taken in one turn of the loop; the others wait for the next.
constexpr int kMessagesPerTurn = 64;
// Clients that do not close their end have this many connections beyond the limit for a while.
constexpr std::size_t kMostOver = 64;

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

Engine::Engine(ostler::worker& worker, serve_options options,
               std::initializer_list<worker_class> able)
    : worker_(worker),
      scoreboard_(worker_internals::of(worker).scoreboard),
      options_(checked(options, choose_class(options, able))),
      kind_(choose_class(options, able)),
      stop_event_(context_, worker.stop_fd()),
      channel_event_(context_),
      gate_(static_cast<long>(options_.connections)) {
  scoreboard_.describe(class_number(kind_), static_cast<std::uint32_t>(options_.connections));
}

Engine::~Engine() {
  stop_accepting();
  if (pool_) pool_->join();
  // These descriptors are the worker's.
  stop_event_.release();
  if (channel_event_.is_open()) channel_event_.release();
  for (const int each : listeners_) ::close(each);
  if (!own_path_.empty()) ::unlink(own_path_.c_str());
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
  if (worker_.channel_fd() >= 0) {
    channel_event_.assign(worker_.channel_fd());
    watch_channel();
  }
  if (worker_.may_accept()) start_accepting();
  if (!worker_.ready() && worker_.managed()) {
    throw std::system_error(errno, std::generic_category(), "tell the manager READY=1");
  }
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
  if (listeners_.empty()) {
    throw std::invalid_argument(
        "no listener was inherited; to run without a manager, give --listen tcp://IP:PORT");
  }
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

void Engine::arrive(const Acceptor::Arrival& arrival) {
  const Origin origin{.peer = to_endpoint(arrival.peer, arrival.peer_size)};
  scoreboard_.connection_opened();
  Socket socket(context_);
  Error error;
  socket.assign(Protocol(arrival.family, 0), arrival.fd, error);
  if (!error) return give(std::move(socket), origin);
  ::close(arrival.fd);
  std::fprintf(stderr, "serve a connection: %s\n", error.message().c_str());
  ended(origin);
}

void Engine::take_over(const channel_message& message) {
  Acceptor::Arrival arrival;
  arrival.fd = message.fd;
  socklen_t size = sizeof arrival.peer;
  sockaddr_storage own{};
  if (::getsockname(message.fd, reinterpret_cast<sockaddr*>(&own), &size) != 0) size = 0;
  Origin origin{.is_private = message.is_private, .is_accepted = false, .peer = {}};
  if (::getpeername(message.fd, reinterpret_cast<sockaddr*>(&arrival.peer), &arrival.peer_size) ==
      0) {
    origin.peer = to_endpoint(arrival.peer, arrival.peer_size);
  }
  ++open_;
  if (!origin.is_private) {
    gate_.take();
    scoreboard_.connection_opened();
  }
  Socket socket(context_);
  Error error;
  socket.assign(Protocol(own.ss_family, 0), message.fd, error);
  if (!error) return give(std::move(socket), origin);
  ::close(message.fd);
  std::fprintf(stderr, "serve a connection of the manager's: %s\n", error.message().c_str());
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
  if (origin.is_private || origin.is_over || over_ >= kMostOver) return;
  origin.is_over = true;
  ++over_;
  scoreboard_.connection_closed();
  gate_.give();
}

void Engine::ended(const Origin& origin) {
  --open_;
  if (origin.is_over) {
    --over_;
  } else if (!origin.is_private) {
    scoreboard_.connection_closed();
    gate_.give();
  }
  finish_if_drained();
}

void Engine::watch_stop() {
  stop_event_.async_read_some(asio::buffer(&stop_count_, sizeof stop_count_),
                              [this](const Error& error, std::size_t) {
                                if (!error) on_stop();
                              });
}

void Engine::on_stop() {
  worker_.stopping();
  stop_accepting();
  worker_.status("draining " + std::to_string(open_) + " connections");
  stop_.request_stop();
  finish_if_drained();
}

void Engine::watch_channel() {
  channel_event_.async_wait(Descriptor::wait_read, [this](const Error& error) {
    if (!error) on_channel();
  });
}

void Engine::on_channel() {
  using kind = channel_message::kind;
  for (int i = 0; i < kMessagesPerTurn; ++i) {
    const auto message = worker_.receive();
    if (message.what == kind::nothing) break;
    if (message.what == kind::may_accept) start_accepting();
    if (message.what == kind::connection) take_over(message);
  }
  if (!draining() || open_ > 0) watch_channel();
}

void Engine::finish_if_drained() {
  // With this, nothing is left to wait for, and run() returns.
  if (draining() && open_ == 0 && channel_event_.is_open()) channel_event_.cancel();
}

}  // namespace ostler::serving
