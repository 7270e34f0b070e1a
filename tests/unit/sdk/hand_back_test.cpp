// `accept: dispatch`: a worker that drains hands its connections back, and no client notices.
#include <doctest/doctest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <exception>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "example.hpp"
#include "obedient.hpp"
#include "ostler/protocol.h"

namespace ostler::test {
namespace {

using namespace std::chrono_literals;

constexpr auto kKeeping = {"threads", "async"};

fake_manager_options http_worker(const std::string& name, std::size_t listeners = 1) {
  std::vector<std::string> command{OSTLER_EXAMPLE_HTTP};
  if (name != "async") command.emplace_back("--blocking");
  return {.command = std::move(command),
          .listeners = listeners,
          .dispatch = true,
          .worker_options = "class=" + name + " threads=4"};
}

// A manager with a worker that is ready.
struct Running {
  explicit Running(fake_manager_options options) : manager(std::move(options)) {
    manager.wait_ready();
  }
  Client dispatch(std::size_t listener = 0) {
    return Client(Fd(manager.dispatch(1, listener).front()));
  }
  fake_manager manager;
};

std::string pid_of(const fake_manager& manager) {
  return std::to_string(manager.pid());
}

// Whether it is answered on a connection that stays open.
bool is_kept(Client& client) noexcept {
  try {
    return client.ask(get("/pid")).keeps_alive();
  } catch (const std::exception&) {
    return false;
  }
}

}  // namespace

TEST_CASE("idle connections are handed back, and the next worker goes on with them") {
  for (const std::string name : kKeeping) {
    CAPTURE(name);
    Running old(http_worker(name, 2));
    Running next(http_worker(name));
    Client used = old.dispatch(0);
    Client other = old.dispatch(1);
    Client unused = old.dispatch(0);
    CHECK(used.ask(get("/pid")).body == pid_of(old.manager) + "\n");
    CHECK(other.ask(get("/pid")).keeps_alive());
    old.manager.wait_until([](const auto& now) { return now.connections == 3; });
    old.manager.drain();
    const auto returned = old.manager.wait_returned(3);
    CHECK(std::ranges::count(returned, 0U, &returned_connection::listener) == 2);
    CHECK(std::ranges::count(returned, 1U, &returned_connection::listener) == 1);
    CHECK(old.manager.wait() == 0);
    CHECK(old.manager.figures().connections == 0);
    old.manager.close_copies();
    // A request that came meanwhile goes with its connection.
    unused.send(get("/pid"));
    next.manager.dispatch_again(returned);
    for (auto* client : {&used, &other}) client->send(get("/pid"));
    for (auto* client : {&used, &other, &unused}) {
      const auto reply = client->receive();
      REQUIRE(reply);
      CHECK(reply->body == pid_of(next.manager) + "\n");
      CHECK(reply->keeps_alive());
    }
    CHECK(next.manager.figures().taken == 3);
  }
}

TEST_CASE("a connection whose request is being served is handed back after the answer") {
  for (const std::string name : kKeeping) {
    CAPTURE(name);
    Running old(http_worker(name));
    Running next(http_worker(name));
    Client busy = old.dispatch();
    Client leaves = old.dispatch();
    busy.send(get("/slow?ms=200"));
    leaves.send(get("/slow?ms=200", "Connection: close\r\n"));
    old.manager.wait_until([](const auto& now) { return now.active == 2; });
    old.manager.drain();
    old.manager.wait_for("STOPPING=1");
    CHECK(Client(Fd(old.manager.hand_over())).ask(get("/pid")).status == 200);
    const auto reply = busy.receive();
    REQUIRE(reply);
    CHECK(reply->status == 200);
    CHECK(reply->keeps_alive());
    CHECK_FALSE(leaves.receive()->keeps_alive());
    CHECK(leaves.closed_in_order());
    const auto returned = old.manager.wait_returned(1);
    CHECK(old.manager.wait() == 0);
    old.manager.close_copies();
    next.manager.dispatch_again(returned);
    CHECK(busy.ask(get("/pid")).body == pid_of(next.manager) + "\n");
  }
}

TEST_CASE("what has been received of a request is answered before the connection goes back") {
  for (const std::string name : kKeeping) {
    CAPTURE(name);
    Running old(http_worker(name));
    Client head = old.dispatch();
    Client body = old.dispatch();
    Client pipelining = old.dispatch();
    const std::string whole = post("/echo", "to be continued");
    for (auto* client : {&head, &body, &pipelining}) client->ask(get("/pid"));
    head.send("GET /pid HT");
    body.send(whole.substr(0, whole.size() - 4));
    pipelining.send(get("/slow?ms=200") + post("/echo", "second") + post("/echo", "third"));
    old.manager.wait_until([](const auto& now) { return now.active == 1; });
    std::this_thread::sleep_for(50ms);  // NOLINT(sleep): what was sent has been read
    old.manager.drain();
    old.manager.wait_for("STOPPING=1");
    const Reply head_reply = head.ask("TP/1.1\r\nHost: test\r\n\r\n");
    CHECK(head_reply.status == 200);
    CHECK(head_reply.keeps_alive());
    const Reply body_reply = body.ask(whole.substr(whole.size() - 4));
    CHECK(body_reply.body == "to be continued");
    CHECK(body_reply.keeps_alive());
    CHECK(pipelining.receive()->keeps_alive());
    for (const std::string text : {"second", "third"}) {
      const auto reply = pipelining.receive();
      REQUIRE(reply);
      CHECK(reply->body == text);
      CHECK(reply->keeps_alive());
    }
    const auto returned = old.manager.wait_returned(3);
    CHECK(old.manager.wait() == 0);
    old.manager.close_copies();
    Running next(http_worker(name));
    next.manager.dispatch_again(returned);
    for (auto* client : {&head, &body, &pipelining}) {
      CHECK(client->ask(get("/pid")).body == pid_of(next.manager) + "\n");
    }
  }
}

TEST_CASE("connections that come after the drain began go back unread, in every class") {
  for (const std::string name : {"sync", "threads", "async"}) {
    CAPTURE(name);
    Running old(http_worker(name));
    Client busy = old.dispatch();
    busy.send(get("/slow?ms=200"));
    old.manager.wait_until([](const auto& now) { return now.active == 1; });
    old.manager.drain();
    Client late = old.dispatch();
    late.send(get("/pid"));
    CHECK(busy.receive()->status == 200);
    auto returned = old.manager.wait_returned(name == "sync" ? 1 : 2);
    if (name == "sync") CHECK(busy.closed_in_order());
    CHECK(old.manager.wait() == 0);
    Running next(http_worker(name));
    next.manager.dispatch_again(returned);
    CHECK(late.receive()->body == pid_of(next.manager) + "\n");
  }
}

TEST_CASE("many connections go back in few messages") {
  constexpr std::size_t kCount = 150;
  Running old(http_worker("async"));
  std::vector<Fd> clients;
  for (const std::size_t size : {60U, 60U, 30U}) {
    for (const int each : old.manager.dispatch(size)) clients.emplace_back(each);
  }
  old.manager.wait_until([](const auto& now) { return now.connections == kCount; });
  old.manager.drain();
  const auto returned = old.manager.wait_returned(kCount);
  for (const auto& each : returned) ::close(each.fd);
  CHECK(returned.front().together == OSTLER_BATCH);
  CHECK(returned.back().together == kCount - 2 * OSTLER_BATCH);
  CHECK(old.manager.wait() == 0);
}

TEST_CASE("without a manager that takes them back, connections are drained as accepted ones") {
  for (const std::string name : kKeeping) {
    for (const bool has_idle : {true, false}) {
      CAPTURE(name);
      CAPTURE(has_idle);
      Running old(http_worker(name));
      Client busy = old.dispatch();
      std::optional<Client> idle;
      if (has_idle) idle.emplace(old.dispatch()).ask(get("/pid"));
      busy.send(get("/slow?ms=200"));
      old.manager.wait_until([](const auto& now) { return now.active == 1; });
      // It dies with all that the worker could have sent.
      old.manager.signal(SIGSTOP);
      old.manager.drain();
      old.manager.close_channel();
      old.manager.signal(SIGCONT);
      old.manager.wait_for("STOPPING=1");
      const auto reply = busy.receive();
      REQUIRE(reply);
      // It is known then that nothing can be handed back, if that was tried.
      CHECK(reply->keeps_alive() == !has_idle);
      if (!has_idle) CHECK_FALSE(busy.ask(get("/pid")).keeps_alive());
      CHECK(busy.closed_in_order());
      if (has_idle) CHECK_FALSE(idle->ask(get("/pid")).keeps_alive());
      if (has_idle) CHECK(idle->closed_in_order());
      CHECK(old.manager.wait() == 0);
    }
  }
}

TEST_CASE("a stop signal alone drains as it always does") {
  for (const std::string name : kKeeping) {
    CAPTURE(name);
    Running old(http_worker(name));
    Client client = old.dispatch();
    CHECK(client.ask(get("/pid")).keeps_alive());
    old.manager.ask_to_stop();
    old.manager.wait_for("STOPPING=1");
    CHECK_FALSE(client.ask(get("/pid")).keeps_alive());
    CHECK(client.closed_in_order());
    CHECK(old.manager.wait() == 0);
  }
}

TEST_CASE("what was dispatched before a stop signal alone is served") {
  Running old(http_worker("sync"));
  Client busy = old.dispatch();
  busy.send(get("/slow?ms=200"));
  old.manager.wait_until([](const auto& now) { return now.active == 1; });
  Client queued = old.dispatch();
  queued.send(get("/pid"));
  old.manager.close_channel();  // nobody else will
  old.manager.ask_to_stop();
  CHECK(busy.receive()->status == 200);
  CHECK(queued.receive()->status == 200);
  CHECK(old.manager.wait() == 0);
}

TEST_CASE("raw connections end as in any drain, but what comes later goes back unread") {
  for (const std::string name : kKeeping) {
    CAPTURE(name);
    auto options = obedient_worker(name, "threads=2");
    options.dispatch = true;
    fake_manager manager(std::move(options));
    manager.wait_ready();
    LineClient client(manager.dispatch());
    CHECK(client.ask("echo x") == "x");
    const ostler_message message{OSTLER_DRAIN, 0, 0};
    manager.send_rubbish({reinterpret_cast<const char*>(&message), sizeof message});
    const Fd late(manager.dispatch());
    for (const auto& each : manager.wait_returned(1)) ::close(each.fd);
    CHECK(client.ask("echo y") == "y");
    manager.ask_to_stop();
    CHECK(client.receive() == "draining");
    CHECK(client.receive() == "(end)");
    CHECK(manager.wait() == 0);
  }
}

TEST_CASE("a worker written from the documentation alone does as the SDK does") {
  fake_manager manager({.command = {"python3", OSTLER_PLAIN_WORKER}, .dispatch = true});
  manager.wait_ready();
  CHECK(manager.figures().capacity == 1);
  CHECK(manager.figures().concurrency == 1);
  manager.want_room();
  Client first(Fd(manager.dispatch()));
  CHECK(first.ask(get("/")).status == 200);
  CHECK(first.closed_in_order());
  manager.wait_for_message(OSTLER_ROOM);
  CHECK(manager.figures().taken == 1);
  CHECK_FALSE(manager.figures().wanted);
  Client busy(Fd(manager.dispatch()));
  busy.send(get("/slow?200"));
  manager.wait_until([](const auto& now) { return now.active == 1; });
  manager.drain();
  const Fd late(manager.dispatch());
  CHECK(busy.receive()->status == 200);
  for (const auto& each : manager.wait_returned(1)) ::close(each.fd);
  CHECK(manager.wait() == 0);
}

// Clients that never stop asking, workers that are replaced under them: every request is answered
// on the connection that the client has had from the beginning.
TEST_CASE("under load no request is lost and no connection is closed") {
  for (const std::string name : kKeeping) {
    CAPTURE(name);
    constexpr std::size_t kClients = 8;
    auto running = std::make_unique<Running>(http_worker(name));
    std::atomic<std::size_t> answered{0};
    std::atomic<std::size_t> lost{0};
    std::vector<std::jthread> clients;
    for (std::size_t i = 0; i < kClients; ++i) {
      clients.emplace_back([&, client = running->dispatch()](const std::stop_token& stop) mutable {
        while (!stop.stop_requested()) {
          if (!is_kept(client)) {
            ++lost;
            return;
          }
          ++answered;
        }
      });
    }
    for (int round = 0; round < 5; ++round) {
      const std::size_t enough = answered + 200;
      while (answered < enough && lost == 0) std::this_thread::yield();
      // Forked where the clients' threads hold no lock that it needs: it executes at once.
      auto next = std::make_unique<Running>(http_worker(name));
      running->manager.drain();
      const auto returned = running->manager.wait_returned(kClients);
      CHECK(running->manager.wait() == 0);
      next->manager.dispatch_again(returned);
      running = std::move(next);
    }
    clients.clear();
    CHECK(lost == 0);
  }
}

}  // namespace ostler::test
