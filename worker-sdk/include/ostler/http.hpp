// An HTTP server as a worker: give it a function from request to response, and it does the rest.
//
//   int main(int argc, char** argv) {
//     return ostler::http::serve(argc, argv, [](const ostler::http::request& request) {
//       return ostler::http::response{.body = "hello, " + std::string(request.target()) + "\n"};
//     });
//   }
//
// It serves HTTP/1.1 and 1.0 (RFC 9110, RFC 9112) on the inherited listeners, in one of three
// classes (options.hpp), with keep-alive, pipelining, bodies in chunks both ways, streams,
// `Expect: 100-continue`, HEAD and upgrades. A worker that is asked to stop accepts no more,
// answers what its clients have sent, and ends; no request is lost.
//
// What cannot be served is refused without asking the handler, and the connection is closed: 400
// for what is malformed or could be read in two ways (Content-Length with Transfer-Encoding, more
// than one length, a field on several lines, a line that does not end in CR LF, no Host field in
// HTTP/1.1), 408 for what does not arrive in time, 413, 414 and 431 for what is too large, 417 for
// an expectation other than 100-continue, 501 for CONNECT and for a transfer coding other than
// chunked, 505 for a version other than 1. All other methods are the handler's.
//
// Link ostler::worker. It needs Boost.Asio and Boost.Beast 1.81.
#pragma once

#include <cstddef>
#include <cstdint>

#include <chrono>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <boost/asio/awaitable.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/status.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/verb.hpp>

#include "ostler/options.hpp"
#include "ostler/serve.hpp"
#include "ostler/worker.hpp"

namespace ostler::http {

using boost::beast::http::field;
using boost::beast::http::status;
using boost::beast::http::verb;

using ostler::kDrained;
using ostler::kFailed;
using ostler::kUsageError;

class Session;

// method(), target(), version() (10 or 11), body(), and the fields: request[field::host]. The
// target begins with '/', or is "*": where it named a host, that is the Host field now. A body that
// came in chunks is put together; the fields that came after it are left out.
//
// A copy may be kept for what it says, but client(), extend() and progress() are those of the
// request that is being served, and end with the handler: keep what client() returned instead.
class request : public boost::beast::http::request<boost::beast::http::string_body> {
 public:
  using nanoseconds = std::chrono::nanoseconds;
  using message_type = boost::beast::http::request<boost::beast::http::string_body>;

  // Only what the server reads has a client; one made by hand is for tests of handlers.
  request() = default;
  explicit request(message_type read) : message_type(std::move(read)) {}

  // Who is at the other end of the connection: "192.0.2.1:4711", "[2001:db8::1]:4711" or "unix".
  [[nodiscard]] const std::string& peer() const noexcept { return peer_; }

  // The address of who asks, without a port: the peer's, or, if that is one of
  // options::trusted_proxies, the one it names in X-Forwarded-For or Forwarded (RFC 7239).
  [[nodiscard]] std::string client() const;

  // The manager's own, for a health check or a warm-up.
  [[nodiscard]] bool is_private() const noexcept { return is_private_; }

  // This request may take that long from now on, whatever the pool's limits say. In any thread.
  void extend(nanoseconds time) const noexcept;
  // A sign of progress, for a handler that holds its thread for long. In any thread.
  void progress() const noexcept;
  // Stop is requested when the worker begins to drain; in class sync the handler learns of it only
  // when it has returned.
  [[nodiscard]] const std::stop_token& stop_token() const noexcept { return stop_token_; }

 private:
  friend class Session;
  std::string peer_;
  bool is_private_ = false;
  std::stop_token stop_token_;
  Session* session_ = nullptr;  // that serves it
};

// The body of a response that is made while it is sent. write() sends what it is given, and
// returns when there is room for more; nothing is sent for no bytes. If the client is gone, or
// takes nothing in for options::write_timeout, it throws boost::system::system_error. How long the
// client takes is not counted against the request's limits.
class body_writer {
 public:
  virtual ~body_writer() = default;
  virtual void write(std::string_view data) = 0;
};
class async_body_writer {
 public:
  virtual ~async_body_writer() = default;
  // `data` must last until it is done.
  virtual boost::asio::awaitable<void> write(std::string_view data) = 0;
};

// Writes the whole body, then returns. One that throws ends the connection, so that the client sees
// that something is missing (not one of HTTP/1.0 where no length was said: its bodies end like
// that). The first is for the classes sync and threads, on the handler's thread; the second for
// class async. In the other classes it is as if the handler had thrown.
using stream = std::function<void(body_writer&)>;
using async_stream = std::function<boost::asio::awaitable<void>(async_body_writer&)>;

// What the handler answers. Date, Content-Length and what concerns the connection are added, and
// the body is left out where there must be none (HEAD, 204, 304).
struct response {
  http::status status = http::status::ok;
  std::string body{};
  std::string content_type = "text/plain; charset=utf-8";  // empty: no such field
  // Further fields, in this order; a name may come twice (Set-Cookie). Connection, Content-Length,
  // Date, Keep-Alive, Trailer, Transfer-Encoding and Upgrade are the server's.
  std::vector<std::pair<std::string, std::string>> fields{};
  // Instead of `body`. It is sent in chunks, or, to a client of HTTP/1.0, until the connection is
  // closed; unless its length is known: then it must write exactly so many bytes.
  std::variant<std::monostate, http::stream, http::async_stream> stream{};
  std::optional<std::uint64_t> stream_length{};
  // Instead of an answer: the connection becomes another protocol's (RFC 9110 section 7.8), to
  // begin with that protocol's own 101, as beast::websocket::stream::accept(request) sends it. The
  // request lasts as long as the function runs. Its kind is that of the class, as for serve.hpp.
  std::optional<connection_handler> upgrade{};
};

// A function is called on the thread that called serve() (class sync, the usual), or on one of the
// pool's (threads). It may also serve in class async: while it runs nothing else happens there, so
// it must be quick. If it throws, or its response cannot be sent (a field of the server's, a line
// break in a field, a 1xx status), that is one line on stderr and 500 for the client, and the
// worker goes on.
using sync_handler = std::function<response(const request&)>;

// A coroutine, for class async; it may co_await, and meanwhile others run on the same thread, each
// for a connection of its own. The request is there until it ends. Otherwise like sync_handler.
using async_handler = std::function<boost::asio::awaitable<response>(const request&)>;

// Either; a function or a lambda becomes the right one by itself.
using handler = std::variant<sync_handler, async_handler>;

enum class access_log {
  off,
  common,  // a line as web servers have written it since NCSA's
  json     // one object a line: time, client, method, target, version, status, bytes, duration…
};

// The pool's `worker:` settings win over what the program says here.
struct options : serve_options {
  using milliseconds = std::chrono::milliseconds;

  // How long a connection is kept without a request. 0: each is closed after one answer, as it
  // always is in class sync.
  milliseconds keepalive{5'000};

  // The most that a request may have, in bytes: request line and fields together, else 431; the
  // body, chunked or not, else 413.
  std::uint32_t header_limit = 8 * 1024;
  std::uint64_t body_limit = 1024 * 1024;

  // How long the client may take from the first byte of a request to the end of its fields, and
  // from there to the end of its body, else 408; and to take in a response, else it is dropped.
  milliseconds header_timeout{10'000};
  milliseconds body_timeout{30'000};
  milliseconds write_timeout{30'000};

  // A line on stdout for each request but the manager's own.
  http::access_log access_log = http::access_log::off;

  // Whose word on who the client is is taken: addresses, networks ("10.0.0.0/8"), "unix".
  std::vector<std::string> trusted_proxies{};
};

// Serves the inherited listeners until the process is asked to stop, and then drains: says READY=1
// once it can serve, STOPPING=1 when it begins to drain. Does not throw; why it could not serve is
// one line on stderr. Returns an exit code (options.hpp). The listeners are closed when it
// begins to drain. Call it on the main thread, before others are started (see worker).
int serve(handler answer, const options& options = {}) noexcept;

// The same for a program with a flag `--listen ADDRESS`, which is options.listen, and `--help`.
// Anything else on the command line is an error of usage.
int serve(int argc, char** argv, handler answer, options options = {}) noexcept;

// The same for a program that has its worker already, because it has something to do with it before
// it serves, or another stop signal.
int serve(worker& worker, handler answer, const options& options = {}) noexcept;

}  // namespace ostler::http
