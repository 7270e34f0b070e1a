// `accept: dispatch`: connections that the manager accepts, in each class, with a loop of one's own
// and in C; and how the manager learns that there is room.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "example.hpp"
#include "obedient.hpp"
#include "ostler/protocol.h"
#include "ostler/worker.h"

namespace ostler::test {
namespace {

using namespace std::chrono_literals;

constexpr auto kClasses = {"sync", "threads", "async"};

fake_manager_options dispatched(fake_manager_options options) {
  options.dispatch = true;
  return options;
}

fake_manager_options http_worker(const std::string& name, const std::string& settings = "") {
  std::vector<std::string> command{OSTLER_EXAMPLE_HTTP};
  if (name != "async") command.emplace_back("--blocking");
  return dispatched(
      {.command = std::move(command), .worker_options = "class=" + name + " " + settings});
}

fake_manager_options line_worker(const std::string& name, const std::string& settings) {
  return dispatched(obedient_worker(name, settings));
}

// What `serve` returns is the exit code.
int with_own_loop(int (*serve)(const worker& worker)) {
  const worker worker;
  if (!worker.dispatched()) return 90;
  worker.offer(3, 2);
  worker.ready();
  return serve(worker);
}

channel_message next_message(const worker& worker) {
  auto message = worker.receive();
  while (message.what == channel_message::kind::nothing) {
    wait_readable(worker.channel_fd(), "a message");
    message = worker.receive();
  }
  return message;
}

std::string receive(int socket) {
  std::array<char, 512> piece;
  const int size = checked(::recv(socket, piece.data(), piece.size(), 0), "receive");
  return {piece.data(), static_cast<std::size_t>(size)};
}

}  // namespace

TEST_CASE("dispatched connections are served in each class as accepted ones are") {
  for (const std::string name : kClasses) {
    CAPTURE(name);
    fake_manager manager(http_worker(name, "threads=2 connections=5"));
    manager.wait_ready();
    for (int i = 1; i <= 3; ++i) {
      Client client(Fd(manager.dispatch()));
      const Reply reply = client.ask(get("/pid"));
      CHECK(reply.status == 200);
      CHECK(reply.keeps_alive() == (name != "sync"));
      if (name != "sync") CHECK(client.ask(get("/pid")).keeps_alive());
    }
    const auto end = manager.wait_until([](const auto& now) { return now.connections == 0; });
    CHECK(end.taken == 3);
    CHECK(end.accepted == 3);
    CHECK(end.active == 0);
    CHECK(end.requests == (name == "sync" ? 3 : 6));
    CHECK(Client(Fd(manager.hand_over())).ask(get("/pid")).status == 200);
    CHECK(manager.figures().taken == 3);
    manager.ask_to_stop();
    CHECK(manager.wait() == 0);
  }
}

TEST_CASE("a worker says before it is ready how many it has room for") {
  struct Offer {
    const char* name;
    std::uint32_t capacity;
    std::uint64_t concurrency;
  };
  for (const auto& each : {Offer{"sync", 1, 1}, Offer{"threads", 5, 2}, Offer{"async", 5, 0}}) {
    for (const bool dispatch : {false, true}) {
      CAPTURE(each.name);
      auto options = http_worker(each.name, "threads=2 connections=5");
      options.dispatch = dispatch;
      fake_manager manager(std::move(options));
      manager.wait_ready();
      CHECK(manager.figures().capacity == each.capacity);
      CHECK(manager.figures().concurrency == each.concurrency);
    }
  }
}

TEST_CASE("a handler of raw connections serves dispatched ones, from several in one message") {
  for (const std::string name : kClasses) {
    CAPTURE(name);
    fake_manager manager(line_worker(name, "threads=3"));
    manager.wait_ready();
    std::vector<LineClient> clients;
    for (const int each : manager.dispatch(3)) clients.emplace_back(each);
    for (auto& each : clients) {
      LineClient client = std::move(each);  // of class sync the next waits for its end
      CHECK(client.ask("private?") == "public");
      CHECK(client.ask("begin GET /") == "ok");
      CHECK(client.ask("end") == "ok");
    }
    const auto end = manager.wait_until([](const auto& now) { return now.connections == 0; });
    CHECK(end.taken == 3);
    CHECK(end.requests == 3);
  }
}

TEST_CASE("a client sees the end at once, though the manager has its connection open, too") {
  for (const std::string name : kClasses) {
    CAPTURE(name);
    fake_manager manager(http_worker(name, "keepalive=50"));
    manager.wait_ready();
    Client told(Fd(manager.dispatch()));
    CHECK_FALSE(told.ask(get("/pid", "Connection: close\r\n")).keeps_alive());
    CHECK(told.closed_in_order());
    if (name == "sync") continue;
    Client idle(Fd(manager.dispatch()));
    CHECK(idle.ask(get("/pid")).keeps_alive());
    CHECK(idle.closed_in_order());
  }
  for (const std::string name : kClasses) {
    CAPTURE(name);
    fake_manager manager(line_worker(name, ""));
    manager.wait_ready();
    LineClient client(manager.dispatch());
    client.send("throw");
    CHECK(client.receive() == "(end)");
  }
}

TEST_CASE("connections are taken when they have arrived, not when they are served") {
  fake_manager manager(line_worker("sync", ""));
  manager.wait_ready();
  const auto sockets = manager.dispatch(3);
  LineClient first(sockets[0]);
  CHECK(first.ask("echo first") == "first");  // and the others wait
  CHECK(manager.figures().taken == 3);
  const LineClient later(manager.dispatch());
  CHECK(later.hears_nothing_for(50ms));
  // It is in the queue, and another worker's if this one dies.
  CHECK(manager.figures().taken == 3);
  for (const std::size_t i : {1U, 2U}) checked(::close(sockets[i]), "close");
}

TEST_CASE("a worker that is full says once that it has room, if that is wanted") {
  for (const std::string name : kClasses) {
    CAPTURE(name);
    fake_manager manager(http_worker(name, "connections=2"));
    manager.wait_for_message(OSTLER_HELLO);
    manager.wait_ready();
    const auto serve_two = [&] {
      std::optional<Client> first(Fd(manager.dispatch()));
      std::optional<Client> second(Fd(manager.dispatch()));
      first->ask(get("/pid"));
      second->ask(get("/pid"));
      first.reset();
      second.reset();
      manager.wait_until([](const auto& now) { return now.connections == 0; });
    };
    serve_two();
    manager.wait_for_message(OSTLER_AWAKE);
    CHECK_FALSE(manager.hears_message(30ms));
    for (int i = 0; i < 2; ++i) {
      manager.want_room();
      serve_two();
      manager.wait_for_message(OSTLER_ROOM);
      CHECK_FALSE(manager.figures().wanted);
      CHECK_FALSE(manager.hears_message(30ms));
    }
  }
}

TEST_CASE("a worker that goes offers no room") {
  for (const std::string name : {"threads", "async"}) {
    CAPTURE(name);
    fake_manager manager(http_worker(name));
    manager.wait_ready();
    Client client(Fd(manager.dispatch()));
    client.ask(get("/pid"));
    manager.wait_for_message(OSTLER_AWAKE);
    manager.ask_to_stop();
    manager.wait_for("STOPPING=1");
    manager.want_room();
    CHECK_FALSE(client.ask(get("/pid")).keeps_alive());
    CHECK(client.closed_in_order());
    CHECK(manager.wait() == 0);
    CHECK(manager.figures().wanted);
  }
}

// No connection may wait for ever: either the worker sees that one is wanted, or the manager sees
// that there is room.
TEST_CASE("room is seen by the one or the other, whoever is first") {
  fake_manager manager(line_worker("async", "connections=1"));
  manager.wait_for_message(OSTLER_HELLO);
  manager.wait_ready();
  for (int i = 0; i < 500; ++i) {
    std::optional<LineClient> client(manager.dispatch());
    CHECK(client->ask("echo x") == "x");
    client.reset();
    manager.want_room();
    // The manager would send the next one; or it has been found.
    if (manager.figures().connections > 0) {
      manager.wait_until([](const auto& now) { return !now.wanted; });
    }
    while (manager.hears_message(0ms)) manager.wait_for_message(OSTLER_ROOM);
    manager.close_copies();
    manager.wait_until([](const auto& now) { return now.connections == 0; });
  }
}

TEST_CASE("malformed messages for connections do no harm, and their descriptors are closed") {
  fake_manager manager(http_worker("async"));
  manager.wait_ready();
  Client(Fd(manager.dispatch())).ask(get("/pid"));
  manager.wait_until([](const auto& now) { return now.connections == 0; });
  const std::size_t before = descriptors(manager.pid());
  const Fd file(checked(::open("/dev/null", O_RDONLY | O_CLOEXEC), "open a file"));
  const auto packet = [](std::uint32_t type, std::uint32_t count) {
    const ostler_message message{type, count, 99};
    return std::string(reinterpret_cast<const char*>(&message), sizeof message);
  };
  manager.send_rubbish(packet(OSTLER_DISPATCH, 0));
  manager.send_rubbish(packet(OSTLER_DISPATCH, 1'000'000));
  manager.send_rubbish(packet(OSTLER_DISPATCH, 2), {file.get(), file.get()});
  manager.send_rubbish(packet(OSTLER_DISPATCH, 0), {file.get()});
  manager.send_rubbish(packet(OSTLER_DISPATCH, 64), std::vector<int>(100, file.get()));
  manager.send_rubbish(packet(OSTLER_DRAIN, 0), {file.get()});
  CHECK(Client(Fd(manager.dispatch())).ask(get("/pid")).keeps_alive());
  manager.close_copies();
  const auto until = std::chrono::steady_clock::now() + kPatience;
  while (descriptors(manager.pid()) != before && std::chrono::steady_clock::now() < until) {
    std::this_thread::yield();
  }
  CHECK(descriptors(manager.pid()) == before);
}

TEST_CASE("an idle worker that is given its connections sleeps") {
  for (const std::string name : kClasses) {
    CAPTURE(name);
    auto options = http_worker(name);
    options.heartbeat = 100ms;
    fake_manager manager(std::move(options));
    manager.wait_ready();
    Client(Fd(manager.dispatch())).ask(get("/pid"));
    manager.wait_until([](const auto& now) { return now.connections == 0 && !now.awake; });
    if (OSTLER_SANITIZED) continue;      // a sanitizer may have a thread of its own
    std::this_thread::sleep_for(100ms);  // NOLINT(sleep): lets time pass
    const long before = context_switches(manager.pid());
    std::this_thread::sleep_for(500ms);  // NOLINT(sleep): the time in which nothing may happen
    CHECK(context_switches(manager.pid()) == before);
  }
}

TEST_CASE("dispatch without a channel is a worker without listeners") {
  auto options = http_worker("async");
  options.channel = false;
  fake_manager manager(std::move(options));
  CHECK(manager.wait() == 2);
}

TEST_CASE("a program with its own loop is given connections, and gives them back") {
  const auto serve = [](const worker& worker) {
    const auto first = next_message(worker);
    const auto second = next_message(worker);
    if (!first.is_dispatched || first.listener != 1 || second.listener != 1) return 1;
    worker.connection_opened();
    worker.connection_opened();
    checked(::send(first.fd, "one", 3, MSG_NOSIGNAL), "send");
    ::shutdown(first.fd, SHUT_RDWR);
    ::close(first.fd);
    worker.connection_closed();
    if (next_message(worker).what != channel_message::kind::drain) return 2;
    wait_readable(worker.stop_fd(), "the stop signal");
    if (!worker.give_back(second.fd, second.listener)) return 3;
    worker.connection_closed();
    return ::fcntl(second.fd, F_GETFD) < 0 ? 0 : 4;
  };
  fake_manager manager(dispatched({.body = [=] { return with_own_loop(serve); }, .listeners = 2}));
  manager.wait_for_message(OSTLER_HELLO);
  manager.wait_ready();
  CHECK(manager.figures().capacity == 3);
  CHECK(manager.figures().concurrency == 2);
  manager.want_room();
  const auto sockets = manager.dispatch(2, 1);
  const Fd first(sockets[0]);
  const Fd second(sockets[1]);
  CHECK(receive(first.get()) == "one");
  CHECK(receive(first.get()).empty());
  manager.wait_for_message(OSTLER_ROOM);
  CHECK(manager.figures().taken == 2);
  manager.drain();
  const auto returned = manager.wait_returned(1);
  CHECK(returned[0].listener == 1);
  const Fd again(returned[0].fd);
  checked(::send(again.get(), "two", 3, MSG_NOSIGNAL), "send");
  CHECK(receive(second.get()) == "two");
  CHECK(manager.wait() == 0);
}

TEST_CASE("a worker in C is given connections by the manager") {
  const auto serve = []() -> int {
    if (ostler_worker_open() != 0 || ostler_worker_ready() != 0) return 1;
    for (int fd = -1; (fd = ostler_worker_accept()) >= 0; ostler_worker_close_connection(fd)) {
      if ((::fcntl(fd, F_GETFL) & O_NONBLOCK) != 0) return 2;
      const auto request = ostler_worker_request_begin(fd, "x");
      checked(::send(fd, "x", 1, MSG_NOSIGNAL), "answer");
      ostler_worker_request_end(request);
    }
    const int error = errno;
    ostler_worker_close();
    return error == ESHUTDOWN ? 0 : 3;
  };
  fake_manager manager(dispatched({.body = serve}));
  manager.wait_ready();
  CHECK(manager.figures().capacity == 1);
  CHECK(manager.figures().concurrency == 1);
  for (const int each : manager.dispatch(3)) {
    const Fd client(each);
    CHECK(receive(client.get()) == "x");
    CHECK(receive(client.get()).empty());
  }
  const auto end = manager.wait_until([](const auto& now) { return now.connections == 0; });
  CHECK(end.taken == 3);
  CHECK(end.requests == 3);
  manager.drain();
  CHECK(manager.wait() == 0);
}

TEST_CASE("the example in C is a worker whose connections are dispatched") {
  fake_manager manager(dispatched({.command = {OSTLER_EXAMPLE_C}}));
  manager.wait_ready();
  for (int i = 0; i < 3; ++i) {
    Client client(Fd(manager.dispatch()));
    client.send(get("/"));
    client.half_close();
    CHECK(client.receive()->status == 200);
  }
  manager.drain();
  CHECK(manager.wait() == 0);
}

}  // namespace ostler::test
