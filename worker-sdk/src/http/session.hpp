// One connection, from its first request to its end.
//
// It is in one phase at a time, and each phase but the handler's has a deadline. A connection is
// only ever closed with its last answer marked "Connection: close" and the peer given time to read
// it, or after it was idle for the whole keep-alive period with nothing left to read: a client that
// sends the next request when it has the answer to the last one never finds the connection closed
// under it. One that the manager gave goes back to it, open, when its worker drains and nothing of
// the next request has been read.
//
// It lives on the loop. In class threads the handler, and a stream that blocks, run on a thread of
// the pool; meanwhile (kHandling) the loop leaves the connection alone.
#pragma once

#include <cstddef>

#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>

#include "http/header_scan.hpp"
#include "http/message.hpp"
#include "http/service.hpp"

namespace ostler::http {

using serving::Clock;
using serving::Error;
using serving::Socket;

// Owned by its own pending operations, and ends when close() leaves none.
class Session : public std::enable_shared_from_this<Session> {
 public:
  // `service` outlives the session.
  Session(Socket socket, const Service& service, serving::Origin origin);
  void start() { await_request(); }

 private:
  friend class request;  // what its handler asks of it
  class AsyncWriter;
  enum class Phase { kIdle, kReading, kHandling, kWriting, kLingering, kClosed };

  void await_request();
  void wait_for_request();
  void on_no_request(const Error& error);
  void leave_if_idle();
  void hand_back();
  void forget_request();
  void read_header();
  void make_parser();
  void look_at_header();
  void on_header();
  void on_other_version();
  void send_continue();
  void read_body();
  void take_body();
  void on_body();
  void on_bad_read(const Error& error);

  void handle();
  void call_handler() noexcept;
  void on_handled();
  void call_coroutine(const async_handler& answer);
  void begin_mark();
  void on_failed(const std::exception_ptr& error);
  void complain(const std::exception_ptr& error) const;

  void respond();
  void block_on_stream(const stream& write);
  void begin_stream(const async_stream& write);
  boost::asio::awaitable<void> run_stream(const async_stream& write);
  void wait_for_client();
  void discount_wait();
  void upgrade(const connection_handler& next);
  void on_upgrade_ended(const std::exception_ptr& error);
  void refuse(status status);
  void answer(bool keep_alive);
  void on_answered();
  void on_unanswered();
  void log(unsigned status, std::uint64_t bytes) const;
  void linger();
  void close();

  [[nodiscard]] bool may_keep_alive();
  void enter_handling();
  void enter(Phase phase, Clock::duration limit);
  void wait_for_deadline();
  void on_deadline();

  const Service& service_;
  serving::Origin origin_;
  Socket socket_;
  serving::Timer timer_;
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

  // The request that is being served, and what came of it.
  request request_;
  std::optional<in_flight> mark_;
  std::optional<response> response_;
  std::exception_ptr failure_;
  Head head_;
  bool streamed_ = false;     // the head was sent, and no other answer can be
  bool client_gone_ = false;  // that is why a stream ended
  // Of a stream in class async that waits for its client: how much of that was discounted, and when
  // it is enough.
  Clock::time_point waited_until_;
  Clock::time_point patience_ends_;
  std::optional<connection> upgraded_;
  Clock::time_point begun_;

  // Of one that may be handed back. The last: it uses the others.
  std::optional<std::stop_callback<std::function<void()>>> leaving_;
};

}  // namespace ostler::http
