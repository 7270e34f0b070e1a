// One connection, from its first request to its end.
//
// It is in one phase at a time, and each phase has a deadline. A connection is only ever closed
// with its last answer marked "Connection: close" and the peer given time to read it, or after it
// was idle for the whole keep-alive period with nothing left to read: a client that sends the next
// request when it has the answer to the last one never finds the connection closed under it.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>

#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>

#include "answer.hpp"
#include "net.hpp"

namespace ostler::example {

class Server;

// Owned by its own pending operations, and ends when close() leaves none. Single-threaded.
class Session : public std::enable_shared_from_this<Session> {
 public:
  // `server` outlives the session and is told once when it ends.
  Session(Socket socket, Server& server);
  void start() { await_request(); }

 private:
  enum class Phase { kIdle, kReading, kPausing, kWriting, kLingering, kClosed };

  void await_request();
  void read_header();
  void on_header(const Error& error);
  void read_body();
  void on_bad_read(const Error& error);
  void handle();
  void respond(Answer answer, bool may_keep_alive);
  void linger();
  void close();

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
  std::optional<http::request_parser<http::string_body>> parser_;
  Answer pending_;
  Response response_;
};

}  // namespace ostler::example
