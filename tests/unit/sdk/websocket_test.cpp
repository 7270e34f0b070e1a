// WebSocket over an upgrade, with Beast's own streams at both ends.
#include <doctest/doctest.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <array>
#include <stdexcept>
#include <stop_token>
#include <string>

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/websocket/stream.hpp>

#include "example.hpp"
#include "ostler/http.hpp"
#include "ostler/test/fake_manager.hpp"

namespace ostler::test {
namespace {

namespace asio = boost::asio;
namespace websocket = boost::beast::websocket;
using boost::beast::flat_buffer;
using Error = boost::system::error_code;
using Stream = websocket::stream<connection::socket_type&>;

// Sends back what comes, until the client closes or the worker drains.
asio::awaitable<void> echo(connection& peer, const http::request& request) {
  Stream stream(peer.socket());
  co_await stream.async_accept(request, asio::use_awaitable);
  asio::steady_timer closed(co_await asio::this_coro::executor,
                            asio::steady_timer::time_point::max());
  bool closing = false;
  const std::stop_callback on_drain(peer.stop_token(), [&] {
    closing = true;
    stream.async_close(websocket::close_code::going_away, [&](const Error&) {
      closing = false;
      closed.cancel();
    });
  });
  Error error;
  while (true) {
    flat_buffer message;
    co_await stream.async_read(message, asio::redirect_error(asio::use_awaitable, error));
    if (error) break;
    const auto work = peer.work("message");
    co_await stream.async_write(message.data(), asio::use_awaitable);
  }
  if (closing) co_await closed.async_wait(asio::redirect_error(asio::use_awaitable, error));
}

void echo_blocking(connection& peer, const http::request& request) {
  Stream stream(peer.socket());
  stream.accept(request);
  const Fd drain(checked(::eventfd(0, EFD_CLOEXEC), "make an eventfd"));
  const std::stop_callback on_drain(peer.stop_token(), [&] { ::eventfd_write(drain.get(), 1); });
  while (true) {
    std::array<pollfd, 2> inputs{
        {{peer.socket().native_handle(), POLLIN, 0}, {drain.get(), POLLIN, 0}}};
    checked(::poll(inputs.data(), inputs.size(), -1), "wait for a message or the drain");
    if (inputs[1].revents != 0) return stream.close(websocket::close_code::going_away);
    flat_buffer message;
    Error error;
    stream.read(message, error);
    if (error) return;
    const auto work = peer.work("message");
    stream.write(message.data());
  }
}

http::response answer(const http::request& request, bool is_async) {
  if (request.target() == "/fails") throw std::runtime_error("no");
  if (!websocket::is_upgrade(request)) return {.status = http::status::upgrade_required};
  if (is_async) return {.upgrade = [&request](connection& peer) { return echo(peer, request); }};
  return {.upgrade = [&request](connection& peer) { echo_blocking(peer, request); }};
}

fake_manager_options managed(const std::string& class_name) {
  const auto serve = [is_async = class_name == "async"] {
    return http::serve(
        [is_async](const http::request& request) { return answer(request, is_async); });
  };
  return {.body = serve, .worker_options = "class=" + class_name};
}

class WebSocket {
 public:
  explicit WebSocket(const fake_manager& manager) : stream_(context_) {
    stream_.next_layer().connect({asio::ip::address_v4::loopback(), manager.port()});
    stream_.handshake("a", "/");
  }
  std::string ask(const std::string& text) {
    stream_.write(asio::buffer(text));
    std::string answer;
    auto buffer = asio::dynamic_buffer(answer);
    stream_.read(buffer);
    return answer;
  }
  void close() { stream_.close(websocket::close_code::normal); }
  // With which code the other end closes.
  websocket::close_code closed() {
    Error error;
    flat_buffer buffer;
    stream_.read(buffer, error);
    REQUIRE(error == websocket::error::closed);
    return static_cast<websocket::close_code>(stream_.reason().code);
  }

 private:
  asio::io_context context_;
  websocket::stream<asio::ip::tcp::socket> stream_;
};

}  // namespace

TEST_CASE("a WebSocket is served in each class, and counts as work while it works") {
  for (const std::string name : {"sync", "threads", "async"}) {
    CAPTURE(name);
    fake_manager manager(managed(name));
    manager.wait_ready();
    {
      WebSocket client(manager);
      CHECK(client.ask("one") == "one");
      CHECK(client.ask(std::string(100'000, 'x')).size() == 100'000);
      manager.wait_until([](const auto& now) { return now.active == 0; });
      CHECK(manager.figures().connections == 1);
      CHECK(manager.figures().requests == 3);  // the upgrade, and two messages
      client.close();
    }
    manager.wait_until([](const auto& now) { return now.connections == 0; });
    CHECK(Client(Fd(manager.connect())).ask(get("/")).status == 426);
    CHECK(Client(Fd(manager.connect())).ask(get("/fails")).status == 500);
    CHECK(manager.wait_for_error("\n") == "GET /fails: no\n");  // and nothing before
    manager.ask_to_stop();
    CHECK(manager.wait() == kDrained);
  }
}

TEST_CASE("a WebSocket is closed with 1001 when the worker drains") {
  for (const std::string name : {"threads", "async"}) {
    CAPTURE(name);
    fake_manager manager(managed(name));
    manager.wait_ready();
    WebSocket client(manager);
    CHECK(client.ask("one") == "one");
    manager.ask_to_stop();
    CHECK(client.closed() == websocket::close_code::going_away);
    CHECK(manager.wait() == kDrained);
  }
}

}  // namespace ostler::test
