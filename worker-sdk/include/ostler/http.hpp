// An HTTP server as a worker: give it a function from request to response, and it does the rest.
//
//   int main() {
//     return ostler::http::serve([](const ostler::http::request& request) {
//       return ostler::http::response{.body = "hello, " + std::string(request.target()) + "\n"};
//     });
//   }
//
// It serves HTTP/1.1 and 1.0 (RFC 9110, RFC 9112) on the inherited listeners, on one thread: with
// keep-alive, pipelining, chunked request bodies, `Expect: 100-continue` and HEAD. A worker that is
// asked to stop accepts no more, answers what its clients have sent, and ends; no request is lost.
//
// What cannot be served is refused without asking the handler, and the connection is closed: 400
// for what is malformed or could be read in two ways (Content-Length with Transfer-Encoding, two
// lengths that differ, a field on several lines, a line that does not end in CR LF, no Host field
// in HTTP/1.1), 408 for what does not arrive in time, 413 and 431 for what is too large, 417 for
// an expectation other than 100-continue, 501 for a transfer coding other than chunked.
//
// Link ostler::http. It needs Boost.Asio and Boost.Beast 1.81.
#pragma once

#include <cstddef>
#include <cstdint>

#include <chrono>
#include <functional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <boost/asio/awaitable.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/status.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/verb.hpp>

#include "ostler/worker.hpp"

namespace ostler::http {

using boost::beast::http::field;
using boost::beast::http::status;
using boost::beast::http::verb;

// method(), target(), version() (10 or 11), body(), and the fields: request[field::host]. A body
// that came in chunks is put together; the fields that came after it are left out.
using request = boost::beast::http::request<boost::beast::http::string_body>;

// What the handler answers. Date, Content-Length and what concerns the connection are added, and
// the body is left out where there must be none (HEAD, 204, 304).
struct response {
  http::status status = http::status::ok;
  std::string body{};
  std::string content_type = "text/plain; charset=utf-8";  // empty: no such field
  // Further fields, in this order; a name may come twice (Set-Cookie). Connection, Content-Length,
  // Date, Keep-Alive, Trailer, Transfer-Encoding and Upgrade are the server's.
  std::vector<std::pair<std::string, std::string>> fields{};
};

// A handler is called on the thread that called serve(), never twice at the same time. While it
// runs nothing else happens, so it must be quick: what waits for something is an async_handler. If
// it throws, or its response cannot be sent (a field of the server's, a line break in a field, a
// 1xx status), that is one line on stderr and 500 for the client, and the worker goes on.
using sync_handler = std::function<response(const request&)>;

// A coroutine; it may co_await, and meanwhile others run on the same thread, each for a connection
// of its own. The request is there until it ends. Otherwise like sync_handler; it has no time
// limit, and a drain waits for it.
using async_handler = std::function<boost::asio::awaitable<response>(const request&)>;

// Either; a function or a lambda becomes the right one by itself.
using handler = std::variant<sync_handler, async_handler>;

struct options {
  using milliseconds = std::chrono::milliseconds;

  // With so many connections open, no more are accepted until one is closed. At least 1. With more
  // than one listener there can be one more for each further one, for a moment.
  std::size_t connections = 1000;

  // How long a connection is kept without a request. 0: each is closed after one answer.
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

  // A listener to open, "tcp://IP:PORT", to run without a manager. IPv6 in brackets; port 0 is any
  // that is free. The port is told on stdout. Empty: only what was inherited is served.
  std::string listen{};
};

// What serve() returns, to be the program's exit code.
inline constexpr int kDrained = 0;
inline constexpr int kFailed = 1;      // also, without returning, at a second stop signal
inline constexpr int kUsageError = 2;  // no listener, or an option that is none

// Serves the inherited listeners until the process is asked to stop, and then drains: says READY=1
// once it accepts, STOPPING=1 when it begins to drain. Does not throw; why it could not serve is
// one line on stderr. The listeners are closed when it returns. Call it on the main thread, before
// others are started (see worker).
int serve(handler answer, const options& options = {}) noexcept;

// The same for a program with a flag `--listen tcp://IP:PORT`, which is options.listen, and
// `--help`. Anything else on the command line is an error of usage.
int serve(int argc, char** argv, handler answer, options options = {}) noexcept;

// The same for a program that has its worker already, because it has something to do with it before
// it serves, or another stop signal.
int serve(worker& worker, handler answer, const options& options = {}) noexcept;

}  // namespace ostler::http
