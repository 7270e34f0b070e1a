// What differs between the classes that HTTP is served in, and what must not.
#include <doctest/doctest.h>

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
    CHECK(manager.wait() == 0);
    CHECK(manager.figures().active == 0);
    CHECK(manager.requests().empty());
  }
}

}  // namespace ostler::test
