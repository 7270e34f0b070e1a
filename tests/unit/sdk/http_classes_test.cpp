// What differs between the classes that HTTP is served in, and what must not.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <boost/asio/buffer.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include "ostler/test/fake_manager.hpp"
#include "served.hpp"

namespace ostler::test {
namespace {

using namespace std::chrono_literals;
namespace asio = boost::asio;

constexpr auto kEveryClass = {worker_class::sync, worker_class::threads, worker_class::async};
constexpr auto kKeepingClasses = {worker_class::threads, worker_class::async};
constexpr char kSwitch[] =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n";

http::options with_threads(int threads) {
  return options_with(worker_class::threads,
                      [&](http::options& options) { options.threads = threads; });
}

asio::awaitable<void> pause(std::chrono::milliseconds time) {
  asio::steady_timer timer(co_await asio::this_coro::executor, time);
  co_await timer.async_wait(asio::use_awaitable);
}

// Waits without a look at the clock: until the worker drains.
void wait_for_stop(const std::stop_token& token) {
  std::mutex mutex;
  std::condition_variable_any changed;
  std::unique_lock lock(mutex);
  changed.wait(lock, token, [] { return false; });
}

http::response answer(const http::request& request) {
  if (request.target() == "/throw") throw std::runtime_error("the database is away");
  if (request.target() == "/slow") std::this_thread::sleep_for(300ms);  // NOLINT(sleep): the work
  if (request.target() == "/until-stop") wait_for_stop(request.stop_token());
  if (request.target() == "/large") return {.body = std::string(16U << 20U, 'x')};
  if (request.target() == "/extend") {
    request.extend(1h);
    wait_for_stop(request.stop_token());
  }
  return {.body = std::string(request.target()) + request.body()};
}

asio::awaitable<http::response> answer_in_time(const http::request& request) {
  if (request.target() == "/slow") co_await pause(300ms);
  if (request.target() == "/extend") request.extend(1h);
  if (request.target() == "/until-stop" || request.target() == "/extend") {
    while (!request.stop_token().stop_requested()) co_await pause(5ms);
  }
  co_return http::response{.body = std::string(request.target())};
}

http::handler suitable(worker_class kind) {
  return kind == worker_class::async ? http::handler(answer_in_time) : http::handler(answer);
}

// "lines": each line is answered with the name before it, until one is "bye".
http::response upgrade_blocking(const http::request& request) {
  const std::string name(request.target());
  return {.upgrade = [name, &request](connection& peer) {
    asio::write(peer.socket(), asio::buffer(kSwitch, sizeof kSwitch - 1));
    std::string buffer;
    while (true) {
      const auto size = asio::read_until(peer.socket(), asio::dynamic_buffer(buffer, 4096), '\n');
      const std::string line = buffer.substr(0, size);
      buffer.erase(0, size);
      if (line == "throw\n") throw std::runtime_error("no such line");
      asio::write(peer.socket(), asio::buffer(name + " " + std::string(request.target()) + line));
      if (line == "bye\n") return;
    }
  }};
}

http::response upgrade_in_time(const http::request& request) {
  const std::string name(request.target());
  return {.upgrade = [name, &request](connection& peer) -> asio::awaitable<void> {
    co_await asio::async_write(peer.socket(), asio::buffer(kSwitch, sizeof kSwitch - 1),
                               asio::use_awaitable);
    std::string buffer;
    while (true) {
      const auto size = co_await asio::async_read_until(
          peer.socket(), asio::dynamic_buffer(buffer, 4096), '\n', asio::use_awaitable);
      const std::string line = buffer.substr(0, size);
      buffer.erase(0, size);
      if (line == "throw\n") throw std::runtime_error("no such line");
      const std::string reply = name + " " + std::string(request.target()) + line;
      co_await asio::async_write(peer.socket(), asio::buffer(reply), asio::use_awaitable);
      if (line == "bye\n") co_return;
    }
  }};
}

// A worker of the fake manager's, which must not have threads when it forks.
fake_manager_options managed(worker_class kind, const std::string& settings = "") {
  return {.body = [kind] { return http::serve(suitable(kind), in_class(kind)); },
          .worker_options = settings};
}

Client client_of(int socket) {
  return Client(Fd(socket));
}

// A client that ends its connection with a reset, as one does that was killed with data unread.
void send_and_reset(int socket, const std::string& text) {
  const Fd owned(socket);
  checked(::send(socket, text.data(), text.size(), MSG_NOSIGNAL), "send a request");
  const linger at_once{.l_onoff = 1, .l_linger = 0};
  checked(::setsockopt(socket, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once), "set a limit");
}

// Asks for an hour and then holds its thread until it can read from this descriptor.
http::response extend_until(int gate, const http::request& request) {
  request.extend(1h);
  wait_readable(gate, "wait for the test");
  return {.body = "done"};
}

}  // namespace

TEST_CASE("a connection is kept in the classes threads and async, and closed in sync") {
  for (const auto kind : kEveryClass) {
    CAPTURE(static_cast<int>(kind));
    const Listener listener;
    const Served served(listener, suitable(kind), in_class(kind));
    for (int i = 0; i < 3; ++i) {
      Client client(listener);
      const Reply first = client.ask(get("/a"));
      CHECK(first.body == "/a");
      CHECK(first.keeps_alive() == (kind != worker_class::sync));
      if (!first.keeps_alive()) {
        CHECK(client.closed_in_order());
        continue;
      }
      client.send("HEAD /b HTTP/1.1\r\nHost: a\r\n\r\n" + get("/c"));
      CHECK(client.receive(false)->fields.at("content-length") == "2");
      CHECK(client.receive()->body == "/c");
    }
  }
}

TEST_CASE("a handler that fails is 500 and a line in every class, and the worker lives") {
  for (const auto kind : kEveryClass) {
    CAPTURE(static_cast<int>(kind));
    const Listener listener;
    Served served(listener, answer, in_class(kind));
    CHECK(Client(listener).ask(get("/throw")).status == 500);
    served.errors.read_until("GET /throw: the database is away\n");
    CHECK(Client(listener).ask(get("/a")).status == 200);
  }
}

TEST_CASE("a function that returns a coroutine may fail before, and the worker lives") {
  const Listener listener;
  const http::async_handler route = [](const http::request& request) {
    const auto found = [](http::response response) -> boost::asio::awaitable<http::response> {
      co_return response;
    };
    return found(answer(request));
  };
  Served served(listener, route, in_async());
  CHECK(Client(listener).ask(get("/throw")).status == 500);
  served.errors.read_until("GET /throw: the database is away\n");
  CHECK(Client(listener).ask(get("/a")).status == 200);
}

TEST_CASE("an empty line after an answer begins no request") {
  const Listener listener;
  const Served served(listener, answer, async_with([](http::options& options) {
                        options.keepalive = 60s;
                        options.header_timeout = 100ms;
                      }));
  Client client(listener);
  CHECK(client.ask(get("/a")).keeps_alive());
  client.send("\r\n");
  CHECK(client.hears_nothing_for(400ms));
  CHECK(client.ask(get("/a")).keeps_alive());
}

TEST_CASE("in class threads an answer outlasts the keep-alive time of a worker that stops") {
  const Listener listener;
  const Gate gate;
  const http::sync_handler slow = [&gate](const http::request& request) {
    gate.wait();
    return answer(request);
  };
  Served served(listener, slow, options_with(worker_class::threads, [](http::options& options) {
                  options.keepalive = 100ms;
                  options.header_timeout = 100ms;
                }));
  Client client(listener);
  client.send(get("/a"));
  served.errors.read_until(Gate::kWaiting);
  served.stop();
  CHECK(client.hears_nothing_for(300ms));  // meanwhile whatever else was pending has ended
  gate.open();
  const auto reply = client.receive();
  REQUIRE(reply);
  CHECK(reply->status == 200);
  CHECK(served.wait() == 0);
}

TEST_CASE("in class threads a slow request holds no other up") {
  const Listener listener;
  const Served served(listener, answer, with_threads(2));
  Client slow(listener);
  Client quick(listener);
  slow.send(get("/until-stop"));
  for (int i = 0; i < 10; ++i) CHECK(quick.ask(get("/a")).status == 200);
  CHECK(slow.hears_nothing_for(0ms));
}

TEST_CASE("in class threads what waits for a client holds no thread") {
  const Listener listener;
  const Served served(listener, answer, with_threads(1));
  std::vector<Client> idle;
  for (int i = 0; i < 50; ++i) idle.emplace_back(listener).ask(get("/a"));
  Client half_header(listener);
  half_header.send("GET / HT");
  Client half_body(listener);
  half_body.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nbo");
  Client reader(listener);
  reader.send(get("/large"));
  CHECK_FALSE(reader.hears_nothing_for(std::chrono::milliseconds(kPatience)));
  CHECK(Client(listener).ask(get("/a")).status == 200);
  for (auto& each : idle) CHECK(each.ask(get("/b")).body == "/b");
  CHECK(half_header.ask("TP/1.1\r\nHost: a\r\n\r\n").body == "/");
  CHECK(half_body.ask("dy!").body == "/body!");
  CHECK(reader.receive()->body.size() == 16U << 20U);
}

TEST_CASE("in class sync one connection is served at a time, but none waits for a slow goodbye") {
  const Listener listener;
  const Served served(listener, answer, in_class(worker_class::sync));
  Client first(listener);
  first.send("GET /a HT");
  Client second(listener);
  second.send(get("/b"));
  CHECK(second.hears_nothing_for(50ms));
  CHECK(first.ask("TP/1.1\r\nHost: a\r\n\r\n").body == "/a");
  // `first` does not close its end.
  const auto begin = std::chrono::steady_clock::now();
  CHECK(second.receive()->body == "/b");
  CHECK(std::chrono::steady_clock::now() - begin < 1s);
  CHECK(first.closed_in_order());
}

TEST_CASE("a handler is told of the drain, which waits for it") {
  for (const auto kind : kKeepingClasses) {
    CAPTURE(static_cast<int>(kind));
    const Listener listener;
    Served served(listener, suitable(kind), in_class(kind));
    Client client(listener);
    client.ask(get("/a"));
    client.send(get("/until-stop"));
    CHECK(client.hears_nothing_for(50ms));
    served.stop();
    const auto reply = client.receive();
    REQUIRE(reply);
    CHECK(reply->body == "/until-stop");
    CHECK_FALSE(reply->keeps_alive());
    CHECK(client.closed_in_order());
    CHECK(served.wait() == 0);
  }
}

TEST_CASE("an upgrade hands the connection over") {
  for (const auto kind : kEveryClass) {
    CAPTURE(static_cast<int>(kind));
    const bool is_async = kind == worker_class::async;
    const Listener listener;
    Served served(listener, is_async ? upgrade_in_time : upgrade_blocking, in_class(kind));
    {
      Client client(listener);
      client.send(get("/a", "Connection: Upgrade\r\nUpgrade: lines\r\n"));
      CHECK(client.receive(false)->status == 101);
      for (const std::string line : {"one\n", "bye\n"}) {
        client.send(line);
        CHECK(client.receive_line() == "/a /a" + line);
      }
      CHECK(client.closed_in_order());
    }
    {
      Client client(listener);
      client.send(get("/b"));
      CHECK(client.receive(false)->status == 101);
      client.send("throw\n");
      CHECK(client.closed_in_order());
      served.errors.read_until("GET /b: no such line\n");
    }
    // What a client sends before it was told that it may is not for the other protocol.
    CHECK(Client(listener).ask(get("/c") + "one\n").status == 500);
    served.errors.read_until("GET /c: the client sent more before it was upgraded\n");
    served.stop();
    CHECK(served.wait() == 0);
  }
}

TEST_CASE("an upgrade of the wrong kind is 500 and a line") {
  for (const auto kind : kEveryClass) {
    CAPTURE(static_cast<int>(kind));
    const bool is_async = kind == worker_class::async;
    const Listener listener;
    Served served(listener, is_async ? upgrade_blocking : upgrade_in_time, in_class(kind));
    CHECK(Client(listener).ask(get("/a")).status == 500);
    served.errors.read_until(is_async
                                 ? "GET /a: in class async an upgrade has to be a coroutine\n"
                                 : "GET /a: only in class async an upgrade can be a coroutine\n");
  }
}

TEST_CASE("a handler that cannot run in the class is an error of usage") {
  const Listener listener;
  for (const auto kind : {worker_class::sync, worker_class::threads}) {
    Process process({listener.fd()}, [&] {
      set_environment({{"LISTEN_PID", "self"}, {"LISTEN_FDS", "1"}});
      return http::serve(answer_in_time, in_class(kind));
    });
    CHECK(process.wait() == http::kUsageError);
  }
}

TEST_CASE("the manager's own requests are answered in every class, and not counted") {
  for (const auto kind : kEveryClass) {
    CAPTURE(static_cast<int>(kind));
    fake_manager manager(managed(kind));
    manager.wait_ready();
    CHECK(client_of(manager.hand_over(true)).ask(get("/health")).body == "/health");
    {
      // Also while a client has what may be the worker's only connection.
      Client half = client_of(manager.connect());
      half.send("GET /a HT");
      manager.wait_until([](const worker_figures& figures) { return figures.connections == 1; });
      CHECK(client_of(manager.hand_over(true)).ask(get("/health")).body == "/health");
    }
    CHECK(manager.figures().requests == 0);
    CHECK(manager.figures().accepted == 1);
    CHECK(client_of(manager.connect()).ask(get("/a")).body == "/a");
    CHECK(client_of(manager.hand_over(false)).ask(get("/b")).body == "/b");
    manager.wait_until([](const worker_figures& figures) {
      return figures.requests == 2 && figures.connections == 0;
    });
    manager.ask_to_stop();
    CHECK(manager.wait() == 0);
  }
}

TEST_CASE("the manager sees what is being served, for how long it may, and when it is over") {
  for (const auto kind : kKeepingClasses) {
    CAPTURE(static_cast<int>(kind));
    fake_manager manager(managed(kind, "threads=2"));
    manager.wait_ready();
    Client client = client_of(manager.connect());
    client.send(get("/extend"));
    manager.wait_until([](const worker_figures& figures) { return figures.active == 1; });
    manager.wait_until([&](const worker_figures&) {
      const auto shown = manager.requests();
      return shown.size() == 1 && shown[0].until > shown[0].start + 3'000'000'000'000U;
    });
    const auto shown = manager.requests().at(0);
    CHECK(shown.text == "GET /extend");
    CHECK((shown.progress != 0) == (kind == worker_class::threads));
    manager.ask_to_stop();
    CHECK(client.receive()->status == 200);
    CHECK(client.closed_in_order());
    CHECK(manager.wait() == 0);
    CHECK(manager.figures().active == 0);
    CHECK(manager.requests().empty());
  }
}

TEST_CASE("what was pipelined behind an answer that closes is not served") {
  for (const auto kind : kEveryClass) {
    CAPTURE(static_cast<int>(kind));
    const bool closes_anyway = kind == worker_class::sync;
    const Listener listener;
    const Served served(listener, suitable(kind), in_class(kind));
    Client client(listener);
    client.send(get("/a", closes_anyway ? "" : "Connection: close\r\n") + get("/b"));
    const auto reply = client.receive();
    REQUIRE(reply);
    CHECK(reply->body == "/a");
    CHECK_FALSE(reply->keeps_alive());
    CHECK(client.closed_in_order());
  }
}

TEST_CASE("HEAD is answered like GET, without the body") {
  for (const auto kind : kEveryClass) {
    CAPTURE(static_cast<int>(kind));
    const Listener listener;
    const Served served(listener, suitable(kind), in_class(kind));
    Client client(listener);
    client.send("HEAD /abc HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    const auto reply = client.receive(false);
    REQUIRE(reply);
    CHECK(reply->status == 200);
    CHECK(reply->fields.at("content-length") == "4");
    CHECK(client.closed_in_order());
  }
}

TEST_CASE("without a keep-alive time each connection is closed after one answer") {
  for (const auto kind : kEveryClass) {
    CAPTURE(static_cast<int>(kind));
    const Listener listener;
    const Served served(listener, suitable(kind),
                        options_with(kind, [](auto& options) { options.keepalive = 0ms; }));
    for (const std::string version : {"1.1", "1.0"}) {
      Client client(listener);
      CHECK_FALSE(
          client.ask("GET /a HTTP/" + version + "\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
              .keeps_alive());
      CHECK(client.closed_in_order());
    }
  }
}

TEST_CASE("what does not arrive in time is refused, and silence is closed without a word") {
  for (const auto kind : kEveryClass) {
    CAPTURE(static_cast<int>(kind));
    const Listener listener;
    const Served served(listener, suitable(kind), options_with(kind, [](http::options& options) {
                          options.header_timeout = options.body_timeout = 100ms;
                          options.keepalive = 100ms;
                        }));
    Client silent(listener);
    Client other(listener);
    CHECK(other.ask(get("/a")).body == "/a");
    CHECK(silent.closed_in_order());
    for (const std::string part :
         {"GET / HT", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo",
          "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab"}) {
      CAPTURE(part);
      Client client(listener);
      CHECK(client.ask(part).status == 408);
      CHECK(client.closed_in_order());
    }
  }
}

TEST_CASE("a client that takes in nothing for too long is dropped") {
  for (const auto kind : kEveryClass) {
    CAPTURE(static_cast<int>(kind));
    // A function serves in each.
    fake_manager manager({.body = [kind] { return http::serve(answer, in_class(kind)); },
                          .worker_options = "write_timeout=200"});
    manager.wait_ready();
    Client client = client_of(manager.connect());
    client.send(get("/large"));
    manager.wait_until([](const auto& now) { return now.requests == 1; });
    manager.wait_until([](const auto& now) { return now.connections == 0; });
    CHECK_THROWS_WITH(client.receive(), "the connection ended inside a body");
    CHECK(client_of(manager.connect()).ask(get("/a")).body == "/a");
  }
}

TEST_CASE("clients that go away at any point leave nothing behind") {
  for (const auto kind : kEveryClass) {
    CAPTURE(static_cast<int>(kind));
    fake_manager manager(managed(kind));
    manager.wait_ready();
    for (const std::string& part :
         {std::string("GET / HT"), get("/slow"), get("/slow") + get("/slow") + "GET",
          std::string("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo"),
          std::string("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n")}) {
      CAPTURE(part);
      client_of(manager.connect()).send(part);
      send_and_reset(manager.connect(), part);
    }
    CHECK(client_of(manager.connect()).ask(get("/a")).status == 200);
    manager.wait_until([](const auto& now) { return now.connections == 0 && now.active == 0; });
    manager.ask_to_stop();
    CHECK(manager.wait() == 0);
    CHECK(manager.wait_for_error("").empty());
  }
}

TEST_CASE("a function that holds its thread can ask for more time in every class") {
  for (const auto kind : kEveryClass) {
    CAPTURE(static_cast<int>(kind));
    Pipe pipe;
    const Fd gate(checked(::fcntl(pipe.read.get(), F_DUPFD, 200), "number the pipe's end"));
    const auto handler = [gate = gate.get()](const http::request& request) {
      return extend_until(gate, request);
    };
    fake_manager manager({.body = [&] { return http::serve(handler, in_class(kind)); }});
    manager.wait_ready();
    Client client = client_of(manager.connect());
    client.send(get("/"));
    manager.wait_until([&](const auto&) {
      const auto shown = manager.requests();
      return shown.size() == 1 && shown[0].until > shown[0].start + 3'000'000'000'000U;
    });
    checked(::write(pipe.write.get(), "x", 1), "let the handler go on");
    CHECK(client.receive()->body == "done");
    manager.wait_until([](const auto& now) { return now.active == 0 && now.requests == 1; });
  }
}

}  // namespace ostler::test
