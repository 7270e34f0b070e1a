// One connection, from its first request to its end.
//
// It is in one phase at a time, and each phase but the handler's has a deadline. A connection is
// only ever closed with its last answer marked "Connection: close" and the peer given time to read
// it, or after it was idle for the whole keep-alive period with nothing left to read: a client that
// sends the next request when it has the answer to the last one never finds the connection closed
// under it.
#pragma once

#include <cstddef>

#include <exception>
#include <memory>
#include <optional>

#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>

#include "http/header_scan.hpp"
#include "http/message.hpp"
#include "http/net.hpp"

namespace ostler::http {

class Server;

// Owned by its own pending operations, and ends when close() leaves none. Single-threaded.
class Session : public std::enable_shared_from_this<Session> {
 public:
  // `server` outlives the session and is told once when it ends.
  Session(Socket socket, Server& server);
  void start() { await_request(); }

 private:
  enum class Phase { kIdle, kReading, kHandling, kWriting, kLingering, kClosed };

  void await_request();
  void read_header();
  void look_at_header();
  void on_header();
  void send_continue();
  void read_body();
  void on_body(const Error& error);
  void on_bad_read(const Error& error);
  void handle();
  void call_coroutine(const async_handler& answer);
  void on_handler_failed(const std::exception_ptr& error);
  void respond(response response);
  void refuse(status status);
  void write(Message message);
  void linger();
  void close();

  [[nodiscard]] bool may_keep_alive();
  void enter(Phase phase, Clock::duration limit);
  void wait_for_deadline();
  void on_deadline();

  Server& server_;
  Socket socket_;
  Timer timer_;
  Phase phase_ = Phase::kIdle;
  Clock::time_point deadline_;
  int waits_ = 0;  // handlers of timer_ that are still to come
  bool timed_out_ = false;
  std::size_t discarded_ = 0;        // while lingering
  int answered_while_draining_ = 0;  // with "Connection: keep-alive"
  boost::beast::flat_buffer buffer_;
  HeaderScan scan_;
  std::optional<boost::beast::http::request_parser<boost::beast::http::string_body>> parser_;
  // Of a request whose body comes in chunks: Beast adds the trailer to it, which may hold any name.
  std::optional<boost::beast::http::fields> header_;
  Message message_;
};

}  // namespace ostler::http
