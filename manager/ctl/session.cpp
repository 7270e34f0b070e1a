#include "ctl/session.hpp"

#include <sys/socket.h>
#include <sys/time.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/error.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "ctl/limits.hpp"
#include "ctl/text.hpp"

namespace ostler::ctl {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::use_awaitable;
using boost::system::error_code;
using boost::system::system_error;

// There is no manager, or not the same one any more.
class Gone : public Failed {
 public:
  explicit Gone(const std::string& sentence) : Failed(kNoManager, sentence) {}
};

using Stream = beast::basic_stream<asio::local::stream_protocol>;
using Parser = http::response_parser<http::string_body>;

bool closed_by_peer(const error_code& error) {
  return error == asio::error::eof || error == asio::error::broken_pipe ||
         error == asio::error::connection_reset || error == asio::error::not_connected ||
         error == http::error::end_of_stream || error == http::error::partial_message;
}

asio::awaitable<void> send(Stream& stream, const Request& request) {
  http::request<http::string_body> message;
  message.method_string(request.method);
  message.target(request.target);
  message.version(11);
  message.keep_alive(false);
  message.set(http::field::host, "ostler");
  message.set(http::field::user_agent, "ostlerctl/" OSTLER_VERSION);
  if (!request.body.empty()) message.set(http::field::content_type, "application/json");
  message.body() = request.body;
  message.prepare_payload();
  try {
    co_await http::async_write(stream, message, use_awaitable);
  } catch (const system_error& error) {
    // A manager that refuses a connection answers without reading: the answer says why.
    if (!closed_by_peer(error.code())) throw;
  }
}

// `patient`: the request must go out in time, the answer need not come in time.
asio::awaitable<Response> exchange(Stream stream, Request request,
                                   std::chrono::milliseconds patience, bool patient) {
  stream.expires_after(patience);
  co_await send(stream, request);
  if (patient) stream.expires_never();
  beast::flat_buffer buffer;
  Parser parser;
  parser.header_limit(limits::kHeader);
  parser.body_limit(limits::kBody);
  co_await http::async_read(stream, buffer, parser, use_awaitable);
  co_return Response{parser.get().result_int(), std::move(parser.get().body())};
}

// Takes the complete lines out of `text`.
void tell_lines(std::string& text, const OnLine& on_line) {
  std::size_t begin = 0;
  for (std::size_t end = 0; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    if (end > begin) on_line(std::string_view(text).substr(begin, end - begin));
  }
  text.erase(0, begin);
}

struct Follow {
  std::string target;
  std::chrono::milliseconds patience;
  bool endless;
  OnLine on_line;
  std::function<void()> on_open;
};

// Returns {200, ""} after the last line, or at once the answer that is no stream.
asio::awaitable<Response> read_lines(Stream stream, Follow follow) {
  stream.expires_after(follow.patience);
  const Request request{"GET", follow.target, ""};
  co_await send(stream, request);
  beast::flat_buffer buffer;
  Parser parser;
  parser.header_limit(limits::kHeader);
  parser.body_limit(boost::none);
  parser.eager(true);
  co_await http::async_read_header(stream, buffer, parser, use_awaitable);
  const unsigned status = parser.get().result_int();
  const bool lines = status == 200;
  if (lines) follow.on_open();
  if (lines && follow.endless) stream.expires_never();
  std::string text;
  for (;;) {
    text += std::exchange(parser.get().body(), {});
    if (lines) tell_lines(text, follow.on_line);
    if (text.size() > limits::kLine) throw system_error(make_error_code(http::error::body_limit));
    if (parser.is_done()) break;
    co_await http::async_read_some(stream, buffer, parser, use_awaitable);
  }
  if (!lines) co_return Response{status, std::move(text)};
  if (!text.empty()) follow.on_line(text);
  co_return Response{status, {}};
}

}  // namespace

Session::Session(std::string socket, std::chrono::milliseconds patience)
    : path_(std::move(socket)), patience_(patience) {}

void Session::catch_interrupt() {
  signals_.add(SIGINT);
  signals_.async_wait(
      [this](const error_code& error, int) { interrupted_ = interrupted_ || !error; });
}

// A blocking connect with a limit: to a unix socket it waits only while the backlog is full, and
// then a non-blocking one would fail at once.
Session::Socket Session::connect() {
  sockaddr_un address{};
  if (path_.size() >= sizeof address.sun_path)
    throw Failed(kUsage, "the socket's path is too long for a socket: " + printable(path_));
  address.sun_family = AF_UNIX;
  path_.copy(address.sun_path, path_.size());
  Socket socket(io_, asio::local::stream_protocol());
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(patience_);
  const timeval limit{seconds.count(), std::chrono::microseconds(patience_ - seconds).count()};
  setsockopt(socket.native_handle(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  while (::connect(socket.native_handle(), reinterpret_cast<const sockaddr*>(&address),
                   sizeof address) != 0) {
    const int error = errno;
    if (error == EINTR) {
      io_.restart();
      io_.poll();
      if (interrupted_) throw Interrupted();
      continue;
    }
    const std::string path = printable(path_);
    if (error == EACCES || error == EPERM)
      throw Failed(kNotPermitted, "not permitted to connect to " + path + ": " + strerror(error));
    if (error == EAGAIN) throw Failed(kNoManager, "the manager at " + path + " does not answer");
    throw Gone("no manager answers at " + path + ": " + strerror(error));
  }
  ucred peer{};
  socklen_t size = sizeof peer;
  getsockopt(socket.native_handle(), SOL_SOCKET, SO_PEERCRED, &peer, &size);
  if (manager_ == 0) manager_ = peer.pid;
  if (manager_ != peer.pid) throw Gone("another manager answers at " + printable(path_));
  return socket;
}

void Session::turn_until(const std::function<bool()>& done) {
  while (!done()) {
    io_.restart();
    io_.run_one();
    if (interrupted_) throw Interrupted();
    if (event_failure_) std::rethrow_exception(event_failure_);
  }
}

template <class T>
T Session::finish(asio::awaitable<T> work) {
  std::optional<T> result;
  std::exception_ptr error;
  asio::co_spawn(io_, std::move(work), [&](std::exception_ptr thrown, T value) {
    error = std::move(thrown);
    result = std::move(value);
  });
  turn_until([&result] { return result.has_value(); });
  if (error) std::rethrow_exception(error);
  return std::move(*result);
}

Failed Session::failure(const system_error& error, std::string_view closed) const {
  const std::string path = printable(path_);
  const error_code code = error.code();
  if (code == beast::error::timeout)
    return {kNoManager, "the manager at " + path + " does not answer"};
  if (closed_by_peer(code)) return {kNotDone, "the manager " + std::string(closed)};
  if (code == http::error::body_limit || code == http::error::header_limit)
    return {kNotDone, "the answer from " + path + " is too large"};
  return {kNotDone, "the answer from " + path + " is not the control API's: " + code.message()};
}

Response Session::ask(const Request& request) {
  try {
    return finish(exchange(Stream(connect()), request, patience_, false));
  } catch (const system_error& error) {
    throw failure(error, "closed the connection before it answered");
  }
}

Response Session::wait(const Request& request, std::string_view doing) {
  try {
    Response response = finish(exchange(Stream(connect()), request, patience_, true));
    io_.restart();
    for (int i = 0; i < limits::kLastTurns && io_.poll_one() > 0; ++i) {
    }
    if (event_failure_) std::rethrow_exception(event_failure_);
    return response;
  } catch (const system_error& error) {
    throw failure(error, "went away " + std::string(doing));
  }
}

void Session::open_stream() {
  watching_ = Watching::kOpening;
  const auto tell = [this](std::string_view line) {
    try {
      on_event_(line);
    } catch (...) {
      event_failure_ = std::current_exception();
      throw;
    }
  };
  Follow follow{"/v1/events", patience_, true, tell, [this] { watching_ = Watching::kYes; }};
  asio::co_spawn(io_, read_lines(Stream(connect()), std::move(follow)),
                 [this](const std::exception_ptr&, const Response&) { watching_ = Watching::kNo; });
}

void Session::watch(OnLine on_line) {
  on_event_ = std::move(on_line);
  open_stream();
  turn_until([this] { return watching_ != Watching::kOpening; });
}

void Session::until_gone() try {
  for (bool first = true;; first = false) {
    turn_until([this] { return watching_ == Watching::kNo; });
    // A stream may end before the manager does; the next one will do as well.
    if (!first) pause();
    open_stream();
  }
} catch (const Gone&) {
}

void Session::pause() {
  bool rung = false;
  asio::steady_timer timer(io_, limits::kLookAgain);
  timer.async_wait([&rung](const error_code&) { rung = true; });
  turn_until([&rung] { return rung; });
}

Response Session::follow(const std::string& target, bool endless, const OnLine& on_line) {
  try {
    return finish(read_lines(Stream(connect()), {target, patience_, endless, on_line, [] {}}));
  } catch (const system_error& error) {
    throw failure(error, "went away");
  }
}

}  // namespace ostler::ctl
