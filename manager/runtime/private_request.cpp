#include "runtime/private_request.hpp"

#include <sys/socket.h>

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <cstdint>
#include <memory>
#include <utility>

#include "config/src/probe_request.hpp"
#include "runtime/background.hpp"
#include "runtime/limits.hpp"

namespace ostler::runtime {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using Error = boost::system::error_code;

asio::generic::stream_protocol family_of(int fd) {
  int family = AF_UNIX;
  socklen_t size = sizeof family;
  ::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size);
  return {family, 0};
}

struct Exchange {
  Exchange(asio::io_context& context, UniqueFd connection)
      : socket(context, family_of(connection.get()), connection.get()), timer(context) {
    static_cast<void>(connection.release());
  }
  asio::generic::stream_protocol::socket socket;
  asio::steady_timer timer;
  bool late = false;
};

std::string text_of(const config::ProbeRequest& request) {
  std::string text = request.method + " " + request.target + " HTTP/1.1\r\nHost: " + request.host +
                     "\r\nConnection: close\r\n";
  bool agent = false;
  for (const auto& [name, value] : request.headers) {
    text += name + ": " + value + "\r\n";
    agent = agent || boost::beast::iequals(name, "user-agent");
  }
  if (!agent) text += "User-Agent: ostlerd/" OSTLER_VERSION "\r\n";
  return text + "\r\n";
}

std::string spell(std::chrono::nanoseconds limit) {
  return std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(limit).count()) +
         " ms";
}

asio::awaitable<PrivateAnswer> exchange(Exchange& with, std::string request) {
  PrivateAnswer answer;
  try {
    co_await asio::async_write(with.socket, asio::buffer(request), asio::use_awaitable);
    boost::beast::flat_buffer buffer(limits::kProbeHeader);
    http::response_parser<http::empty_body> parser;
    parser.header_limit(limits::kProbeHeader);
    co_await http::async_read_header(with.socket, buffer, parser, asio::use_awaitable);
    answer.status = static_cast<int>(parser.get().result_int());
  } catch (const boost::system::system_error& error) {
    answer.late = with.late;
    answer.fault = "the connection was closed without an answer";
    if (error.code() != http::error::end_of_stream) {
      answer.fault = "no answer could be read: " + error.code().message();
    }
  }
  co_return answer;
}

// A worker that is still sending its answer should not find the connection broken.
asio::awaitable<void> swallow_rest(Exchange& with) {
  std::array<char, 4096> rest{};
  Error error;
  for (std::uint64_t seen = 0; !error && seen < limits::kProbeBody;) {
    seen += co_await with.socket.async_read_some(asio::buffer(rest),
                                                 asio::redirect_error(asio::use_awaitable, error));
  }
}

asio::awaitable<void> ask(std::shared_ptr<Exchange> with, std::string request,
                          std::chrono::nanoseconds limit,
                          std::function<void(const PrivateAnswer&)> done) {
  with->timer.expires_after(limit);
  with->timer.async_wait([with](const Error& error) {
    if (error) return;
    Error ignored;
    with->late = true;
    with->socket.close(ignored);
  });
  PrivateAnswer answer = co_await exchange(*with, std::move(request));
  if (answer.late) answer.fault = "was not answered within " + spell(limit);
  done(answer);
  if (answer.status) co_await swallow_rest(*with);
  with->timer.cancel();
}

}  // namespace

std::string describe(const config::ProbeRequest& request) {
  return request.method + " " + request.target;
}

std::string unexpected(const config::ProbeRequest& request, int status) {
  std::string expected;
  for (const config::StatusRange& range : request.expect) {
    if (range.from <= status && status <= range.to) return {};
    expected += (expected.empty() ? "" : ", ") + config::text_of(range);
  }
  std::string text = describe(request) + " was answered with " + std::to_string(status) + ", not " +
                     expected + " (Host: " + request.host + ")";
  // What frameworks answer to a host that is not theirs.
  if (status == 400 || status == 403 || status == 421) {
    text += "; set `host` if the application accepts only its own names";
  }
  return text;
}

void ask_privately(asio::io_context& context, UniqueFd connection,
                   const config::ProbeRequest& request, std::chrono::nanoseconds limit,
                   std::function<void(const PrivateAnswer&)> done) {
  auto with = std::make_shared<Exchange>(context, std::move(connection));
  spawn_logged(context.get_executor(), "private request",
               ask(std::move(with), text_of(request), limit, std::move(done)));
}

}  // namespace ostler::runtime
