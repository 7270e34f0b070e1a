// One command's conversation with the manager, over its control socket.
//
// A session owns its connections: one for each request, and one for a stream of events. All run in
// the loop that a call to it turns; between calls nothing moves. What the manager sends is bounded
// (ctl/limits.hpp) and never trusted to be what the API promises. Every failure is thrown as
// `Failed`; after that, or after `Interrupted`, a session may only be destroyed.
// Thread safety: none.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/system/system_error.hpp>
#include <chrono>
#include <exception>
#include <functional>
#include <string>
#include <string_view>

#include "ctl/failed.hpp"

namespace ostler::ctl {

struct Request {
  std::string method;
  std::string target;
  std::string body;  // JSON, or empty
  bool operator==(const Request&) const = default;
};

struct Response {
  unsigned status = 0;
  std::string body;
};

// One line of a stream, without its end.
using OnLine = std::function<void(std::string_view)>;

class Session {
 public:
  // Connects to nothing yet. `patience`: see limits::kPatience.
  Session(std::string socket, std::chrono::milliseconds patience);

  // From now on Ctrl-C ends a wait with `Interrupted`.
  void catch_interrupt();

  // The answer, whatever its status, which must come within `patience`.
  Response ask(const Request& request);
  // The same, however long it takes. `doing` completes "the manager went away ".
  Response wait(const Request& request, std::string_view doing);

  // Opens the stream of events from now on. Its lines are told while `wait` and `until_gone` run,
  // those that came before an answer before `wait` returns. A manager that does not offer the
  // stream is waited for without.
  void watch(OnLine on_line);
  // Until no manager is there any more, or another one is.
  void until_gone();

  // Tells the lines of `target` until the manager ends them. The answer has a body only if it is
  // no stream of lines (its status is not 200). Not `endless`: all of it must come in time.
  Response follow(const std::string& target, bool endless, const OnLine& on_line);

 private:
  using Socket = boost::asio::local::stream_protocol::socket;
  enum class Watching { kNo, kOpening, kYes };

  Socket connect();
  template <class T>
  T finish(boost::asio::awaitable<T> work);
  void turn_until(const std::function<bool()>& done);
  void open_stream();
  void pause();
  [[nodiscard]] Failed failure(const boost::system::system_error& error,
                               std::string_view closed) const;

  std::string path_;
  std::chrono::milliseconds patience_;
  int manager_ = 0;  // the pid at the other end of the first connection
  boost::asio::io_context io_;
  boost::asio::signal_set signals_{io_};
  bool interrupted_ = false;
  Watching watching_ = Watching::kNo;
  OnLine on_event_;
  std::exception_ptr event_failure_;  // what `on_event_` threw
};

}  // namespace ostler::ctl
