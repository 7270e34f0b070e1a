// A worker for any protocol: give it a function that serves one connection, and it does the rest.
//
//   int main(int argc, char** argv) {
//     return ostler::serve(argc, argv, [](ostler::connection& peer) -> asio::awaitable<void> {
//       std::string line;
//       co_await asio::async_read_until(peer.socket(), asio::dynamic_buffer(line, 4096), '\n',
//                                       asio::use_awaitable);
//       const auto work = peer.work("line");  // from here to the end it has work
//       co_await asio::async_write(peer.socket(), asio::buffer(line), asio::use_awaitable);
//     });
//   }
//
// It serves the inherited listeners until the process is asked to stop; then it accepts no more and
// closes them, lets the handlers know (stop_token()), waits for them, and ends.
//
// Link ostler::worker. It needs Boost.Asio 1.81.
#pragma once

#include <concepts>
#include <functional>
#include <stop_token>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/basic_stream_socket.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>

#include "ostler/options.hpp"
#include "ostler/worker.hpp"

namespace ostler {

// One connection, for as long as its handler runs; then it is closed.
class connection {
 public:
  // Tcp (with TCP_NODELAY) or unix.
  using socket_type = boost::asio::basic_stream_socket<boost::asio::generic::stream_protocol,
                                                       boost::asio::io_context::executor_type>;

  // The SDK makes them. `worker` must outlive the connection.
  connection(const ostler::worker& worker, socket_type socket, std::string peer,
             std::stop_token stop_token, bool is_private)
      : worker_(worker),
        socket_(std::move(socket)),
        peer_(std::move(peer)),
        stop_token_(std::move(stop_token)),
        is_private_(is_private) {}

  // In the classes sync and threads it is blocking, in class async only what is asynchronous is
  // allowed. A handler need not close it; if it does, it should shut it down before, because with
  // `accept: dispatch` the manager may have it open, too.
  [[nodiscard]] socket_type& socket() noexcept { return socket_; }

  // "192.0.2.1:4711", "[2001:db8::1]:4711" or "unix".
  [[nodiscard]] const std::string& peer() const noexcept { return peer_; }

  // Stop is requested when the worker begins to drain. Callbacks are called on the thread that
  // called serve(); in class sync that is the handler's own, which therefore learns of it only when
  // it has returned: it should limit how long it waits for its client.
  [[nodiscard]] const std::stop_token& stop_token() const noexcept { return stop_token_; }

  // The manager's own, for a health check or a warm-up: answered like any other, but not counted.
  [[nodiscard]] bool is_private() const noexcept { return is_private_; }

  // A connection by itself is no work: it may be idle. This marks that a request is being served,
  // until the returned object ends (see in_flight).
  [[nodiscard]] in_flight work(std::string_view what) const noexcept {
    return in_flight(worker_, what, is_private_);
  }

 private:
  const ostler::worker& worker_;
  socket_type socket_;
  std::string peer_;
  std::stop_token stop_token_;
  bool is_private_;
};

// A function or lambda of either kind. What it throws is one line on stderr; the connection is
// closed and the worker goes on.
class connection_handler {
 public:
  // For the classes sync and threads. A connection holds its thread until the handler returns, so
  // class threads accepts no more connections than it has threads.
  using blocking_type = std::function<void(connection&)>;
  // For class async.
  using async_type = std::function<boost::asio::awaitable<void>(connection&)>;

  template <class Function>
  requires(!std::same_as<Function, connection_handler> &&
           std::is_invocable_v<Function&, connection&>) connection_handler(Function function) {
    if constexpr (std::is_void_v<std::invoke_result_t<Function&, connection&>>) {
      blocking_ = std::move(function);
    } else {
      async_ = std::move(function);
    }
  }

  // One of them is empty; both, if they were made of an empty std::function.
  [[nodiscard]] const blocking_type& blocking() const noexcept { return blocking_; }
  [[nodiscard]] const async_type& async() const noexcept { return async_; }

 private:
  blocking_type blocking_;
  async_type async_;
};

// Serves until the process is asked to stop, and drains. Says READY=1 once it can serve, STOPPING=1
// when it begins to drain. Does not throw; why it could not serve is one line on stderr. Returns an
// exit code (see options.hpp). The listeners are closed when it begins to drain. Call it on the
// main thread, before others are started (see worker).
int serve(connection_handler handler, const serve_options& options = {}) noexcept;

// The same for a program with a flag `--listen ADDRESS`, which is options.listen, and `--help`.
// Anything else on the command line is an error of usage.
int serve(int argc, char** argv, connection_handler handler, serve_options options = {}) noexcept;

// The same for a program that has its worker already.
int serve(worker& worker, connection_handler handler, const serve_options& options = {}) noexcept;

}  // namespace ostler
