// The example that is a chat over WebSocket: an upgrade that lasts, in class async.
#include <doctest/doctest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include <boost/asio/buffer.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/beast/core/buffers_to_string.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/websocket/stream.hpp>

#include "example.hpp"

namespace ostler::test {
namespace {

namespace asio = boost::asio;
namespace websocket = boost::beast::websocket;

Example chat(const Listener& listener) {
  return Example(listener, {}, "", OSTLER_EXAMPLE_CHAT);
}

// A member, whose every step has a deadline. Throws boost::system::system_error.
class Guest {
 public:
  Guest(const Listener& listener, const std::string& name) : Guest(listener.connect(), name) {}
  Guest(Fd socket, const std::string& name) : stream_(context_) {
    stream_.next_layer().assign(asio::generic::stream_protocol(AF_INET, 0), ::dup(socket.get()));
    finish([&](auto done) { stream_.async_handshake("test", "/chat?name=" + name, done); });
    if (hear() != "* " + name + " is here") throw std::runtime_error(name + " was not let in");
  }

  void say(const std::string& text, bool binary = false) {
    stream_.binary(binary);
    finish([&](auto done) {
      stream_.async_write(asio::buffer(text),
                          [done](boost::system::error_code error, std::size_t) { done(error); });
    });
  }

  std::string hear() {
    boost::beast::flat_buffer buffer;
    finish([&](auto done) {
      stream_.async_read(buffer,
                         [done](boost::system::error_code error, std::size_t) { done(error); });
    });
    return boost::beast::buffers_to_string(buffer.data());
  }

  void leave() {
    finish([&](auto done) { stream_.async_close(websocket::close_code::normal, done); });
  }

  // Hears until the other side closes; why it did.
  websocket::close_code end() {
    try {
      while (true) hear();
    } catch (const boost::system::system_error& error) {
      if (error.code() != websocket::error::closed) throw;
    }
    return static_cast<websocket::close_code>(stream_.reason().code);
  }

 private:
  template <class Start>
  void finish(Start start) {
    std::optional<boost::system::error_code> result;
    start([&](boost::system::error_code error) { result = error; });
    context_.restart();
    while (!result && context_.run_one_for(kPatience) > 0) {
    }
    if (!result) throw std::runtime_error("waited long for the chat");
    if (*result) throw boost::system::system_error(*result);
  }

  asio::io_context context_;
  websocket::stream<asio::generic::stream_protocol::socket> stream_;
};

}  // namespace

TEST_CASE("who is in the chat hears who comes, what is said, and who leaves") {
  const Listener listener;
  const Example example = chat(listener);
  Guest ann(listener, "ann");
  Guest bob(listener, "bob");
  CHECK(ann.hear() == "* bob is here");
  bob.say("grüß dich");
  CHECK(ann.hear() == "bob: grüß dich");
  CHECK(bob.hear() == "bob: grüß dich");
  bob.leave();
  CHECK(ann.hear() == "* bob has left");
}

TEST_CASE("a chat that drains tells its members with 1001, and ends when they have gone") {
  const Listener listener;
  Example example = chat(listener);
  Guest ann(listener, "ann");
  Guest bob(listener, "bob");
  example.stop();
  CHECK(ann.end() == websocket::close_code::going_away);
  CHECK_FALSE(example.process().ends_within(std::chrono::milliseconds(50)));
  CHECK(bob.end() == websocket::close_code::going_away);
  CHECK(example.wait() == 0);
}

TEST_CASE("a member that does not answer does not hold the drain") {
  const Listener listener;
  Example example = chat(listener);
  const Guest ann(listener, "ann");
  example.stop();
  CHECK(example.wait() == 0);
}

TEST_CASE("a member that does not read is dropped, and the others are not held up") {
  constexpr int kMost = 10'000;
  const Listener listener;
  const Example example = chat(listener);
  Fd socket = listener.connect();
  const int size = 4096;
  checked(::setsockopt(socket.get(), SOL_SOCKET, SO_RCVBUF, &size, sizeof size), "set a size");
  const Guest slow(std::move(socket), "slow");
  Guest ann(listener, "ann");
  const std::string text(4000, 'x');
  int said = 0;
  for (std::string heard; heard != "* slow has left" && said < kMost; ++said) {
    ann.say(text);
    heard = ann.hear();
  }
  CAPTURE(said);
  CHECK(said < kMost);
}

TEST_CASE("what the chat refuses") {
  const Listener listener;
  const Example example = chat(listener);
  Guest ann(listener, "ann");
  ann.say("\xff", true);
  CHECK(ann.end() == websocket::close_code::unknown_data);
  Guest bob(listener, "bob");
  bob.say(std::string(5000, 'x'));
  CHECK(bob.end() == websocket::close_code::too_big);
  CHECK_THROWS_AS(Guest(listener, "a%20b"), boost::system::system_error);

  Client client(listener);
  CHECK(client.ask(get("/")).fields.at("content-type") == "text/html; charset=utf-8");
  CHECK(client.ask(get("/chat?name=ann")).status == 400);
  CHECK(client.ask(get("/chat")).status == 404);
  CHECK(client.ask(get("/chat?name=")).status == 400);
}

}  // namespace ostler::test
