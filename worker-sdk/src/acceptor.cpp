#include "acceptor.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <string>
#include <system_error>
#include <utility>

#include "wake_signal.hpp"

namespace ostler {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kStarvedPause{100};
// Between two signals to a thread that was about to block when the first came.
constexpr milliseconds kNudgePause{1};

int socket_option(int descriptor, int option) {
  int value = 0;
  socklen_t size = sizeof value;
  if (::getsockopt(descriptor, SOL_SOCKET, option, &value, &size) != 0) {
    throw std::system_error(errno, std::generic_category(),
                            "examine the listener on descriptor " + std::to_string(descriptor));
  }
  return value;
}

int checked_family(int listener) {
  if (socket_option(listener, SO_TYPE) != SOCK_STREAM ||
      socket_option(listener, SO_ACCEPTCONN) == 0) {
    throw std::system_error(
        EINVAL, std::generic_category(),
        "serve descriptor " + std::to_string(listener) + ", which is no listening stream socket");
  }
  return socket_option(listener, SO_DOMAIN);
}

// These belong to one connection that went away before it was accepted; see accept(2).
bool is_about_one_connection(int error) {
  switch (error) {
    case ECONNABORTED:
    case EPROTO:
    case EPERM:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case ENETUNREACH:
      return true;
    default:
      return false;
  }
}

// A thread started with all signals blocked, so that none of the program's handlers runs in it.
template <class Function>
std::thread start_quietly(Function function) {
  const int wake = wake_signal::number();
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread thread;
  try {
    thread = std::thread(std::move(function));
  } catch (...) {
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  static_cast<void>(wake);
  return thread;
}

}  // namespace

void Gate::take() {
  const std::lock_guard lock(mutex_);
  --room_;
}

void Gate::give(long room) {
  const std::lock_guard lock(mutex_);
  const bool was_shut = room_ <= 0;
  room_ += room;
  if (was_shut && room_ > 0) changed_.notify_all();
}

bool Gate::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return room_ > 0 || closed_; });
  return !closed_;
}

bool Gate::pause(milliseconds time) {
  std::unique_lock lock(mutex_);
  return !changed_.wait_for(lock, time, [this] { return closed_; });
}

void Gate::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

Acceptor::Acceptor(Gate& gate, int listener, Deliver deliver)
    : gate_(gate),
      listener_(listener),
      family_(checked_family(listener)),
      deliver_(std::move(deliver)),
      thread_(start_quietly([this] { run(); })) {}

Acceptor::~Acceptor() {
  gate_.close();
  {
    std::unique_lock lock(mutex_);
    while (!has_ended_) {
      ::pthread_kill(thread_.native_handle(), wake_signal::number());
      ended_.wait_for(lock, kNudgePause);
    }
  }
  thread_.join();
}

void Acceptor::run() {
  wake_signal::block_others();
  while (gate_.wait() && accept_one()) {
  }
  const std::lock_guard lock(mutex_);
  has_ended_ = true;
  ended_.notify_one();
}

bool Acceptor::accept_one() {
  Arrival arrival;
  arrival.family = family_;
  arrival.fd = ::accept4(listener_, reinterpret_cast<sockaddr*>(&arrival.peer), &arrival.peer_size,
                         SOCK_CLOEXEC);
  if (arrival.fd < 0) return on_error(errno);
  starved_ = false;
  gate_.take();
  if (family_ != AF_UNIX) {
    const int on = 1;
    ::setsockopt(arrival.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  deliver_(arrival);
  return true;
}

// False: accept no more.
bool Acceptor::on_error(int error) {
  if (error == EINTR || is_about_one_connection(error)) return true;
  if (error == EAGAIN) {
    // Whoever shares the listener has made it non-blocking.
    pollfd wanted{listener_, POLLIN, 0};
    ::poll(&wanted, 1, -1);
    return true;
  }
  // Out of descriptors or memory, in this process or the system: others may accept meanwhile, and
  // to try again at once would only burn the CPU.
  if (!std::exchange(starved_, true)) {
    std::fprintf(stderr, "accept a connection: %s; trying again every %lld ms\n",
                 std::generic_category().message(error).c_str(),
                 static_cast<long long>(kStarvedPause.count()));
  }
  return gate_.pause(kStarvedPause);
}

}  // namespace ostler
