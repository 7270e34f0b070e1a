// Responses whose body is made while it is sent, in each class.
#include <doctest/doctest.h>

#include <array>
#include <chrono>
#include <future>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "obedient.hpp"
#include "served.hpp"

namespace ostler::test {
namespace {

using namespace std::chrono_literals;
namespace asio = boost::asio;
using asio::awaitable;

constexpr std::array kClasses{worker_class::sync, worker_class::threads, worker_class::async};
// More than any socket buffer takes in.
constexpr std::size_t kMuch = 32 * 1024 * 1024;
constexpr const char* kBreakLine = "GET /break: the response's field X has a control character\n";
constexpr const char* kCutOff = "the connection ended inside a body";

std::string name_of(worker_class kind) {
  if (kind == worker_class::sync) return "sync";
  return kind == worker_class::threads ? "threads" : "async";
}

// Writes these pieces, and then throws if there is a reason to.
http::response pieces(worker_class kind, std::vector<std::string> texts,
                      const std::string& failure = "") {
  http::response response;
  if (kind == worker_class::async) {
    response.stream = [texts, failure](http::async_body_writer& out) -> awaitable<void> {
      for (const auto& text : texts) co_await out.write(text);
      if (!failure.empty()) throw std::runtime_error(failure);
    };
  } else {
    response.stream = [texts, failure](http::body_writer& out) {
      for (const auto& text : texts) out.write(text);
      if (!failure.empty()) throw std::runtime_error(failure);
    };
  }
  return response;
}

// Writes a line, waits for the drain, and writes another.
http::response until_drain(worker_class kind, const std::stop_token& drain) {
  http::response response;
  if (kind == worker_class::async) {
    response.stream = [drain](http::async_body_writer& out) -> awaitable<void> {
      co_await out.write("first\n");
      asio::steady_timer timer(co_await asio::this_coro::executor, kPatience);
      const std::stop_callback wake(drain, [&] { timer.cancel(); });
      boost::system::error_code woken;
      co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, woken));
      co_await out.write("last\n");
    };
  } else {
    response.stream = [drain](http::body_writer& out) {
      out.write("first\n");
      std::promise<void> begun;
      const std::stop_callback wake(drain, [&] { begun.set_value(); });
      begun.get_future().wait_for(kPatience);
      out.write("last\n");
    };
  }
  return response;
}

http::response endless(worker_class kind) {
  http::response response;
  const std::string text(1024, 'x');
  if (kind == worker_class::async) {
    response.stream = [text](http::async_body_writer& out) -> awaitable<void> {
      while (true) co_await out.write(text);
    };
  } else {
    response.stream = [text](http::body_writer& out) {
      while (true) out.write(text);
    };
  }
  return response;
}

http::response answer(worker_class kind, const http::request& request) {
  const std::string target(request.target());
  auto response = pieces(kind, {"hello ", "", "world"});
  if (target == "/sized") response.stream_length = 11;
  if (target == "/less") response.stream_length = 12;
  if (target == "/more") response.stream_length = 10;
  if (target == "/204") response.status = http::status::no_content;
  if (target == "/304") response.status = http::status::not_modified;
  if (target == "/break") response.fields = {{"X", "a\r\nb"}};
  if (target == "/fails") return pieces(kind, {"hello "}, "no more");
  if (target == "/much") return pieces(kind, {std::string(kMuch, 'x')});
  if (target == "/drain") return until_drain(kind, request.stop_token());
  if (target == "/endless") return endless(kind);
  if (target == "/wrong") {
    return pieces(kind == worker_class::async ? worker_class::sync : worker_class::async, {"a"});
  }
  return response;
}

http::handler streaming(worker_class kind) {
  return http::sync_handler([kind](const http::request& request) { return answer(kind, request); });
}

fake_manager_options managed(worker_class kind, const std::string& settings = "") {
  return {.body = [kind] { return http::serve(streaming(kind), in_class(kind)); },
          .worker_options = settings};
}

}  // namespace

TEST_CASE("a stream comes in chunks, by its length, or until the connection is closed") {
  for (const auto kind : kClasses) {
    CAPTURE(name_of(kind));
    const bool keeps = kind != worker_class::sync;
    const Listener listener;
    const Served worker(listener, streaming(kind), in_class(kind));

    const auto chunked = Client(listener).ask(get("/"));
    CHECK(chunked.body == "hello world");
    CHECK(chunked.fields.at("transfer-encoding") == "chunked");
    CHECK_FALSE(chunked.fields.contains("content-length"));
    CHECK(chunked.keeps_alive() == keeps);

    const auto sized = Client(listener).ask(get("/sized"));
    CHECK(sized.body == "hello world");
    CHECK(sized.fields.at("content-length") == "11");
    CHECK_FALSE(sized.fields.contains("transfer-encoding"));
    CHECK(sized.keeps_alive() == keeps);

    const auto old = [&](const std::string& path) {
      return Client(listener).ask("GET " + path + " HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    };
    CHECK(old("/").body == "hello world");
    CHECK_FALSE(old("/").fields.contains("transfer-encoding"));
    CHECK_FALSE(old("/").keeps_alive());
    CHECK(old("/sized").body == "hello world");
    CHECK(old("/sized").keeps_alive() == keeps);
  }
}

TEST_CASE("a stream may be a coroutine's answer, too") {
  const Listener listener;
  const auto answer_in_time = [](const http::request& request) -> awaitable<http::response> {
    co_return answer(worker_class::async, request);
  };
  Served worker(listener, http::async_handler(answer_in_time), in_async());
  Client client(listener);
  for (const std::string path : {"/", "/sized", "/"}) {
    CHECK(client.ask(get(path)).body == "hello world");
  }
  CHECK(client.ask(get("/wrong")).status == 500);
  client.send(get("/fails"));
  CHECK_THROWS_WITH(client.receive(), kCutOff);
  worker.errors.read_until("GET /fails: no more\n");
}

TEST_CASE("where there must be no body a stream has none, and the next answer follows") {
  for (const auto kind : {worker_class::threads, worker_class::async}) {
    CAPTURE(name_of(kind));
    const Listener listener;
    const Served worker(listener, streaming(kind), in_class(kind));
    Client client(listener);
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(client.receive(false)->fields.at("transfer-encoding") == "chunked");
    client.send("HEAD /sized HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(client.receive(false)->fields.at("content-length") == "11");
    client.send("HEAD /fails HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(client.receive(false)->status == 200);
    for (const std::string path : {"/204", "/304"}) {
      const auto reply = client.ask(get(path));
      CHECK(std::to_string(reply.status) == path.substr(1));
      CHECK_FALSE(reply.fields.contains("transfer-encoding"));
    }
    client.send(get("/") + get("/sized") + get("/"));
    for (int i = 0; i < 3; ++i) CHECK(client.receive()->body == "hello world");
  }
}

TEST_CASE("a stream that fails ends the connection, so that the client sees what is missing") {
  struct Case {
    std::string path;
    std::string line;
  };
  for (const auto kind : kClasses) {
    for (const auto& each :
         {Case{"/fails", "GET /fails: no more\n"},
          Case{"/less", "GET /less: the stream wrote 11 bytes of its stream_length, 12\n"},
          Case{"/more", "GET /more: the stream wrote more than its stream_length, 10 bytes\n"}}) {
      CAPTURE(name_of(kind));
      CAPTURE(each.path);
      const Listener listener;
      Served worker(listener, streaming(kind), in_class(kind));
      {
        Client client(listener);
        client.send(get(each.path));
        CHECK_THROWS_WITH(client.receive(), kCutOff);
      }
      CHECK(worker.errors.read_until("\n") == each.line);
      CHECK(Client(listener).ask(get("/")).body == "hello world");
    }
  }
}

TEST_CASE("a stream that passes over its own failure does not pass for whole") {
  for (const auto kind : {worker_class::sync, worker_class::threads}) {
    CAPTURE(name_of(kind));
    const Listener listener;
    const http::sync_handler swallow = [](const http::request&) {
      http::response response;
      response.stream_length = 10;
      response.stream = [](http::body_writer& out) {
        out.write("12345678");
        try {
          out.write("more");
        } catch (const std::logic_error&) {
          return;
        }
      };
      return response;
    };
    Served worker(listener, swallow, in_class(kind));
    Client client(listener);
    client.send(get("/"));
    CHECK_THROWS_WITH(client.receive(), kCutOff);
    worker.errors.read_until("the stream wrote 8 bytes of its stream_length, 10\n");
  }
}

TEST_CASE("a stream that cannot be sent is 500 and a line that says what can") {
  for (const auto kind : kClasses) {
    CAPTURE(name_of(kind));
    const Listener listener;
    Served worker(listener, streaming(kind), in_class(kind));
    CHECK(Client(listener).ask(get("/wrong")).status == 500);
    CHECK(worker.errors.read_until("\n") ==
          (kind == worker_class::async
               ? "GET /wrong: a stream that blocks can only be sent in the classes sync and "
                 "threads\n"
               : "GET /wrong: an async_stream can only be sent in class async\n"));
    CHECK(Client(listener).ask(get("/break")).status == 500);
    worker.errors.read_until(kBreakLine);
  }
}

TEST_CASE("each piece of a stream is sent at once, and a drain waits for the last") {
  for (const auto kind : {worker_class::threads, worker_class::async}) {
    CAPTURE(name_of(kind));
    fake_manager manager(managed(kind, "keepalive=100"));
    manager.wait_ready();
    LineClient client(manager.connect());
    client.send("GET /drain HTTP/1.1\r\nHost: a\r\n\r");
    while (client.receive() != "first") {
    }
    CHECK(manager.requests().at(0).text == "GET /drain");
    manager.ask_to_stop();
    manager.wait_for("STOPPING=1");
    std::vector<std::string> rest;
    while (rest.empty() || rest.back() != "(end)") rest.push_back(client.receive());
    CHECK(rest == std::vector<std::string>{"\r", "5\r", "last", "\r", "0\r", "\r", "(end)"});
    CHECK(manager.wait() == kDrained);
  }
}

TEST_CASE("a slow client is waited for, on its own time") {
  for (const auto kind : kClasses) {
    CAPTURE(name_of(kind));
    fake_manager manager(managed(kind));
    manager.wait_ready();
    Client client(Fd(manager.connect()));
    client.send(get("/much"));
    manager.wait_until([](const auto& now) { return now.active == 1; });
    const auto start = manager.requests().at(0).start;
    // By so much, while the client takes in nothing.
    manager.wait_until(
        [&](const auto&) { return manager.requests().at(0).start > start + 400'000'000U; });
    CHECK(client.receive()->body.size() == kMuch);
    manager.wait_until([](const auto& now) { return now.active == 0; });
  }
}

TEST_CASE("a client that takes in nothing for too long is dropped, without a word") {
  for (const auto kind : kClasses) {
    CAPTURE(name_of(kind));
    fake_manager manager(managed(kind, "write_timeout=200"));
    manager.wait_ready();
    Client client(Fd(manager.connect()));
    client.send(get("/much"));
    manager.wait_until([](const auto& now) { return now.connections == 1; });
    manager.wait_until([](const auto& now) { return now.connections == 0 && now.active == 0; });
    CHECK(Client(Fd(manager.connect())).ask(get("/")).body == "hello world");
    CHECK(Client(Fd(manager.connect())).ask(get("/break")).status == 500);
    CHECK(manager.wait_for_error("\n") == kBreakLine);  // and nothing before
    manager.ask_to_stop();
    CHECK(manager.wait() == kDrained);
  }
}

TEST_CASE("a stream ends with its client") {
  for (const auto kind : kClasses) {
    CAPTURE(name_of(kind));
    fake_manager manager(managed(kind));
    manager.wait_ready();
    {
      LineClient client(manager.connect());
      client.send("GET /endless HTTP/1.1\r\nHost: a\r\n\r");
      CHECK(client.receive() == "HTTP/1.1 200 OK\r");
    }
    manager.wait_until([](const auto& now) { return now.connections == 0 && now.requests == 1; });
    CHECK(Client(Fd(manager.connect())).ask(get("/")).body == "hello world");
    CHECK(Client(Fd(manager.connect())).ask(get("/break")).status == 500);
    CHECK(manager.wait_for_error("\n") == kBreakLine);  // and nothing before
    manager.ask_to_stop();
    CHECK(manager.wait() == kDrained);
  }
}

}  // namespace ostler::test
