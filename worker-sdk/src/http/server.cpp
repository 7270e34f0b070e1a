#include "http/server.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <system_error>
#include <utility>
#include <variant>

#include <boost/asio/ip/tcp.hpp>

#include "http/session.hpp"

namespace ostler::http {
namespace {

constexpr std::chrono::milliseconds kAcceptPause{100};

int socket_option(int descriptor, int option) {
  int value = 0;
  socklen_t size = sizeof value;
  if (::getsockopt(descriptor, SOL_SOCKET, option, &value, &size) != 0) {
    throw std::system_error(errno, std::generic_category(),
                            "examine the listener on descriptor " + std::to_string(descriptor));
  }
  return value;
}

// These belong to one connection that went away before it was accepted; see accept(2).
bool is_about_one_connection(const Error& error) {
  switch (error.value()) {
    case ECONNABORTED:
    case EPROTO:
    case EPERM:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ECANCELED:  // or of none: see stop_accepting()
      return true;
    default:
      return false;
  }
}

}  // namespace

Server::Server(asio::io_context& context, http::handler answer, http::options options)
    : context_(context), handler_(std::move(answer)), options_(std::move(options)) {
  if (!std::visit([](const auto& function) { return static_cast<bool>(function); }, handler_)) {
    throw std::invalid_argument("the handler is empty");
  }
  if (options_.connections == 0) throw std::invalid_argument("options::connections is 0");
}

void Server::serve(int listener) {
  if (socket_option(listener, SO_TYPE) != SOCK_STREAM ||
      socket_option(listener, SO_ACCEPTCONN) == 0) {
    throw std::system_error(
        EINVAL, std::generic_category(),
        "serve descriptor " + std::to_string(listener) + ", which is no listening stream socket");
  }
  const int family = socket_option(listener, SO_DOMAIN);
  auto& added = listeners_.emplace_back(context_);
  added.is_tcp = family == AF_INET || family == AF_INET6;
  added.acceptor.assign(Protocol(family, 0), listener);
  // Without it, Asio would wait for another connection after one that was aborted, though more
  // may be queued.
  added.acceptor.set_option(asio::socket_base::enable_connection_aborted(true));
  accept(added);
}

void Server::accept(Listener& listener) {
  listener.busy = true;
  listener.acceptor.async_accept([this, &listener](const Error& error, Socket socket) {
    on_accept(listener, error, std::move(socket));
  });
}

void Server::on_accept(Listener& listener, const Error& error, Socket socket) {
  listener.busy = false;
  if (!error) {
    // Also while draining: this one was accepted before the listener was let go.
    Error ignored;
    if (listener.is_tcp) socket.set_option(asio::ip::tcp::no_delay(true), ignored);
    listener.starved = false;
    ++sessions_;
    std::make_shared<Session>(std::move(socket), *this)->start();
  }
  if (draining_) return finish_if_drained();
  if (error && !is_about_one_connection(error)) return accept_later(listener, error);
  sessions_ < options_.connections ? accept(listener) : stop_accepting();
}

void Server::accept_later(Listener& listener, const Error& error) {
  // Out of descriptors or memory, in this process or the system: others may accept meanwhile, and
  // to try again at once would only burn the CPU.
  if (!std::exchange(listener.starved, true)) {
    std::fprintf(stderr, "accept a connection: %s; trying again every %lld ms\n",
                 error.message().c_str(), static_cast<long long>(kAcceptPause.count()));
  }
  listener.busy = true;
  listener.pause.expires_after(kAcceptPause);
  listener.pause.async_wait([this, &listener](const Error&) {
    listener.busy = false;
    if (draining_) return finish_if_drained();
    if (sessions_ < options_.connections) accept(listener);
  });
}

void Server::stop_accepting() {
  Error ignored;
  for (auto& listener : listeners_) listener.acceptor.cancel(ignored);
}

void Server::accept_where_possible() {
  if (sessions_ >= options_.connections) return;
  for (auto& listener : listeners_) {
    if (!listener.busy) accept(listener);
  }
}

void Server::drain(std::function<void()> drained) {
  draining_ = true;
  drained_ = std::move(drained);
  for (auto& listener : listeners_) {
    // The manager has the socket open too, so it must leave the epoll set first. Asio sees to that
    // for a descriptor that it did not open itself.
    listener.acceptor.close();
    listener.pause.cancel();
  }
  finish_if_drained();
}

void Server::on_session_end() {
  --sessions_;
  draining_ ? finish_if_drained() : accept_where_possible();
}

void Server::finish_if_drained() {
  const bool accepting = std::any_of(listeners_.begin(), listeners_.end(),
                                     [](const Listener& listener) { return listener.busy; });
  if (sessions_ > 0 || accepting || !drained_) return;
  std::exchange(drained_, nullptr)();
}

}  // namespace ostler::http
