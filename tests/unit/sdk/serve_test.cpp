// ostler::http::serve with handlers and options of the test's own, in a process of its own.
#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "ostler/http.hpp"
#include "served.hpp"

namespace ostler::test {
namespace {

using namespace std::chrono_literals;
using boost::asio::awaitable;

// What the handler saw, for the client to look at.
http::response echo(const http::request& request) {
  std::string fields;
  for (const auto& each : request) {
    fields += std::string(each.name_string()) + "=" + std::string(each.value()) + ";";
  }
  return {.body = request.body(), .fields = {{"X-Fields", fields}}};
}

http::response fail(const http::request& request) {
  if (request.target() == "/pid") return {.body = "fine"};
  if (request.target() == "/throw") throw std::runtime_error("the database is away");
  if (request.target() == "/number") throw 7;  // NOLINT(hicpp-exception-baseclass): that is it
  if (request.target() == "/split") return {.fields = {{"X-A", "b\r\nX-C: d"}}};
  if (request.target() == "/name") return {.fields = {{"X A", "b"}}};
  if (request.target() == "/length") return {.fields = {{"content-length", "7"}}};
  return {.status = http::status::continue_};
}

awaitable<void> wait(std::chrono::milliseconds time) {
  boost::asio::steady_timer timer(co_await boost::asio::this_coro::executor, time);
  co_await timer.async_wait(boost::asio::use_awaitable);
}

awaitable<http::response> patient(const http::request& request) {
  if (request.target() == "/wait") co_await wait(300ms);
  if (request.target() == "/throw") {
    co_await wait(1ms);
    throw std::runtime_error("the database is away");
  }
  co_return http::response{.body = std::string(request.target())};
}

std::string chunked(const std::string& chunks, const std::string& lines = "") {
  return "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n" + lines + "\r\n" +
         chunks;
}

void check_refused(const Listener& listener, const std::string& request, int status) {
  CAPTURE(request.substr(0, 200));
  Client client(listener);
  client.send(request);
  const auto reply = client.receive();
  REQUIRE(reply);
  CHECK(reply->status == status);
  CHECK_FALSE(reply->keeps_alive());
  CHECK(client.closed_in_order());
}

}  // namespace

TEST_CASE("a body in chunks is put together, and its trailer left out") {
  const Listener listener;
  const Served served(listener, echo);
  Client client(listener);
  CHECK(client.ask(chunked("3\r\none\r\n4;ext=1\r\n two\r\n0\r\n\r\n")).body == "one two");
  const Reply reply = client.ask(
      chunked("1\r\nx\r\n0\r\nX-User: root\r\nHost: evil\r\n\r\n", "Trailer: X-User\r\n"));
  CHECK(reply.body == "x");
  CHECK(reply.fields.at("x-fields").find("root") == std::string::npos);
  CHECK(reply.fields.at("x-fields").find("evil") == std::string::npos);
  CHECK(reply.fields.at("x-fields").find("Host=test") != std::string::npos);
  client.send(chunked("", "Expect: 100-continue\r\n"));
  CHECK(client.receive(false)->status == 100);
  CHECK(client.ask("5\r\nlater\r\n0\r\n\r\n").body == "later");
}

TEST_CASE("a body in chunks may come byte by byte, and be empty") {
  const Listener listener;
  const Served worker(listener, [](const http::request& request) {
    return http::response{.body = "<" + request.body() + ">"};
  });
  Client client(listener);
  struct Case {
    std::string chunks;
    std::string body;
  };
  for (const auto& each : {Case{"0\r\n\r\n", "<>"}, Case{"0\r\nA: b\r\n\r\n", "<>"},
                           Case{"2;x=y\r\nab\r\n1\r\nc\r\n0\r\n\r\n", "<abc>"}}) {
    CAPTURE(each.chunks);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (const char byte : each.chunks) {
      CHECK(client.hears_nothing_for(2ms));  // so that each is read alone
      client.send(std::string(1, byte));
    }
    CHECK(client.receive()->body == each.body);
  }
}

TEST_CASE("the limits are the options', to the byte") {
  const Listener listener;
  const Served served(listener, echo, async_with([](http::options& options) {
                        options.header_limit = 256;
                        options.body_limit = 100;
                      }));
  const auto padded = [](std::size_t size) {
    return get("/", "A: " + std::string(size - get("/", "A: \r\n").size(), 'a') + "\r\n");
  };
  CHECK(Client(listener).ask(padded(256)).status == 200);
  check_refused(listener, padded(257), 431);
  CHECK(Client(listener).ask(post("/", std::string(100, 'b'))).status == 200);
  check_refused(listener, post("/", std::string(101, 'b')), 413);
  check_refused(listener,
                chunked("32\r\n" + std::string(50, 'b') + "\r\n33\r\n" + std::string(51, 'b') +
                        "\r\n0\r\n\r\n"),
                413);
  // Before the go-ahead, so that the client need not send it.
  check_refused(
      listener,
      "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 101\r\nExpect: 100-continue\r\n\r\n", 413);
}

TEST_CASE("a request that does not arrive in time is answered with 408") {
  const Listener listener;
  const Served served(listener, echo, async_with([](http::options& options) {
                        options.header_timeout = options.body_timeout = 100ms;
                      }));
  check_refused(listener, "GET / HT", 408);
  check_refused(listener, "GET / HTTP/1.1\r\nHost: te", 408);
  check_refused(listener, "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbo", 408);
  check_refused(listener, chunked("3\r\non"), 408);
  check_refused(listener, chunked("3\none\n0\n\n"), 408);  // no line has ended yet
  Client late(listener);
  late.ask(get("/"));
  CHECK(late.hears_nothing_for(200ms));  // an idle connection has the keep-alive time
  CHECK(late.ask(get("/")).status == 200);
}

TEST_CASE("a handler that fails is 500 and a line, and the worker lives") {
  const Listener listener;
  Served served(listener, fail);
  Client client(listener);
  for (const std::string path : {"/throw", "/number", "/split", "/name", "/length", "/1xx"}) {
    CAPTURE(path);
    const Reply reply = client.ask(get(path));
    CHECK(reply.status == 500);
    CHECK(reply.body.find("database") == std::string::npos);
    CHECK(served.errors.read_until("GET " + path + ": ").ends_with("\n"));
  }
  CHECK(served.errors.seen.starts_with("GET /throw: the database is away\n"));
  CHECK(client.ask(get("/pid")).body == "fine");
  served.stop();
}

TEST_CASE("a response has its status, type and fields, and a body where one may be") {
  const Listener listener;
  const Served served(listener, [](const http::request& request) -> http::response {
    if (request.target() == "/nothing") {
      return {.status = http::status::no_content, .body = "gone", .content_type = ""};
    }
    return {.status = http::status::created,
            .body = "{}",
            .content_type = "application/json",
            .fields = {{"Set-Cookie", "a=1"}, {"Location", "/there"}}};
  });
  Client client(listener);
  const Reply created = client.ask(post("/", ""));
  CHECK(created.status == 201);
  CHECK(created.body == "{}");
  CHECK(created.fields.at("content-type") == "application/json");
  CHECK(created.fields.at("location") == "/there");
  CHECK(created.fields.contains("date"));
  client.send("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n");
  CHECK(client.receive(false)->fields.at("content-length") == "2");
  const Reply nothing = client.ask(get("/nothing"));
  CHECK(nothing.status == 204);
  CHECK_FALSE(nothing.fields.contains("content-length"));
  CHECK_FALSE(nothing.fields.contains("content-type"));
  CHECK(client.ask(get("/")).status == 201);
}

TEST_CASE("with as many connections as are allowed no more are accepted until one closes") {
  for (const auto family : {Listener::Family::kTcp, Listener::Family::kUnix}) {
    const Listener listener(family);
    const Served served(listener, echo,
                        async_with([](http::options& options) { options.connections = 2; }));
    Client one(listener);
    Client two(listener);
    one.ask(get("/"));
    two.ask(get("/"));
    Client waiting(listener);
    waiting.send(get("/", "Connection: close\r\n"));
    CHECK(waiting.hears_nothing_for(100ms));
    CHECK_FALSE(one.ask(get("/", "Connection: close\r\n")).keeps_alive());
    CHECK(one.closed_in_order());
    CHECK(waiting.receive());
    CHECK(waiting.closed_in_order());
    CHECK(two.ask(get("/")).keeps_alive());
  }
}

TEST_CASE("coroutines wait side by side, fail like functions, and hold up the drain") {
  const Listener listener;
  Served served(listener, patient);
  Client waiting(listener);
  Client other(listener);
  waiting.send(get("/wait"));
  CHECK(other.ask(get("/other")).body == "/other");
  CHECK(waiting.hears_nothing_for(0ms));
  CHECK(waiting.receive()->body == "/wait");
  CHECK(other.ask(get("/throw")).status == 500);
  served.errors.read_until("GET /throw: the database is away\n");

  waiting.send(get("/wait") + get("/next"));
  CHECK(other.ask(get("/other", "Connection: close\r\n")).status == 200);
  served.stop();
  CHECK(waiting.receive()->body == "/wait");
  const auto last = waiting.receive();
  REQUIRE(last);
  CHECK(last->body == "/next");
  CHECK_FALSE(last->keeps_alive());
  CHECK(waiting.closed_in_order());
  CHECK(served.wait() == 0);
}

TEST_CASE("a client that goes away while its coroutine waits does not end the worker") {
  const Listener listener;
  Served served(listener, patient);
  for (int i = 0; i < 5; ++i) Client(listener).send(get("/wait"));
  CHECK(Client(listener).ask(get("/")).status == 200);
  served.stop();
  CHECK(served.wait() == 0);
}

TEST_CASE("a program with --listen serves without a manager") {
  Pipe output;
  Process process({output.write.get()}, [] {
    ::dup2(3, STDOUT_FILENO);
    set_environment({});
    std::string name = "worker";
    std::string flag = "--listen";
    std::string address = "tcp://127.0.0.1:0";
    std::array<char*, 4> argv{name.data(), flag.data(), address.data(), nullptr};
    return http::serve(3, argv.data(), echo);
  });
  const std::string told = output.read_until("\n");
  const std::string words = "listening on port ";
  REQUIRE(told.starts_with(words));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(std::stoi(told.substr(words.size()))));
  Fd socket(checked(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "make a client"));
  checked(::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address),
          "connect");
  Client client(std::move(socket));
  CHECK(client.ask(post("/", "alone", "Connection: close\r\n")).body == "alone");
  CHECK(client.closed_in_order());
  process.signal(SIGTERM);
  CHECK(process.wait() == 0);
}

TEST_CASE("what cannot serve says why and returns its exit code") {
  struct Case {
    std::vector<std::string> flags;
    std::string complaint;
    int code;
  };
  for (const auto& each : {
           Case{{"--listen", "somewhere"}, "'somewhere' is not tcp://IP:PORT", 2},
           Case{{"--listen", "tcp://127.0.0.1:70000"}, "is not tcp://IP:PORT", 2},
           Case{{"--listen", "tcp://192.0.2.1:1"}, "listen on tcp://192.0.2.1:1: ", 1},
           Case{{"--nonsense"}, "usage: ", 2},
           Case{{"word"}, "usage: ", 2},
           Case{{}, "no listener was inherited", 2},
       }) {
    CAPTURE(each.complaint);
    Pipe errors;
    Process process({errors.write.get()}, [&] {
      ::dup2(3, STDERR_FILENO);
      set_environment({});
      std::vector<std::string> flags{"worker"};
      flags.insert(flags.end(), each.flags.begin(), each.flags.end());
      std::vector<char*> argv;
      for (auto& flag : flags) argv.push_back(flag.data());
      argv.push_back(nullptr);
      return http::serve(static_cast<int>(flags.size()), argv.data(), echo);
    });
    errors.read_until(each.complaint);
    CHECK(process.wait() == each.code);
  }
}

TEST_CASE("an empty handler and a limit of no connections are refused") {
  const Listener listener;
  for (const bool empty : {true, false}) {
    Process process({listener.fd()}, [&] {
      set_environment({{"LISTEN_PID", "self"}, {"LISTEN_FDS", "1"}});
      const http::sync_handler handler = empty ? http::sync_handler() : echo;
      return http::serve(handler, async_with([&](http::options& options) {
                           options.connections = empty ? 1U : 0U;
                         }));
    });
    CHECK(process.wait() == 2);
  }
}

}  // namespace ostler::test
