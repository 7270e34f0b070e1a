// The listeners, the connections accepted from them, and how they come to an end.
#pragma once

#include <cstddef>

#include <functional>
#include <list>

#include "http/net.hpp"
#include "ostler/http.hpp"

namespace ostler::http {

// Single-threaded; outlives the io_context's run().
class Server {
 public:
  // Throws std::invalid_argument if there is no handler or not one connection is allowed.
  Server(asio::io_context& context, http::handler answer, http::options options);

  // Serves a listening stream socket, tcp or unix, which becomes the server's to close. Throws
  // std::system_error if it is none.
  void serve(int listener);

  // Accepts no more. `drained` is called when the last connection has ended.
  void drain(std::function<void()> drained);

  [[nodiscard]] bool draining() const { return draining_; }
  [[nodiscard]] const http::handler& handler() const { return handler_; }
  [[nodiscard]] const http::options& options() const { return options_; }
  [[nodiscard]] std::size_t sessions() const { return sessions_; }
  void on_session_end();

 private:
  struct Listener {
    explicit Listener(asio::io_context& context) : acceptor(context), pause(context) {}
    Acceptor acceptor;
    Timer pause;
    bool busy = false;     // an accept or a pause is under way
    bool starved = false;  // the last accept failed, and that was said
    bool is_tcp = false;
  };

  void accept(Listener& listener);
  void on_accept(Listener& listener, const Error& error, Socket socket);
  void accept_later(Listener& listener, const Error& error);
  void accept_where_possible();
  void stop_accepting();
  void finish_if_drained();

  asio::io_context& context_;
  http::handler handler_;
  http::options options_;
  std::list<Listener> listeners_;
  std::size_t sessions_ = 0;
  bool draining_ = false;
  std::function<void()> drained_;
};

}  // namespace ostler::http
