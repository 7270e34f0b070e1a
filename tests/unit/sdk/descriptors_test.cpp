// The worker's table of descriptors: its limit, what is announced, and what finds no room.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <string>
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

// The shell's command `limits` comes first.
fake_manager_options http_worker(const std::string& name, const std::string& limits = ":") {
  const std::string program =
      std::string(OSTLER_EXAMPLE_HTTP) + (name != "async" ? " --blocking" : "");
  return {.command = {"/bin/sh", "-c", limits + "; exec " + program},
          .dispatch = true,
          .worker_options = "threads=2 class=" + name};
}

void limit_files(rlim_t soft) {
  rlimit limit{};
  checked(::getrlimit(RLIMIT_NOFILE, &limit), "ask for the limit");
  limit.rlim_cur = soft;
  checked(::setrlimit(RLIMIT_NOFILE, &limit), "set the limit");
}

rlim_t soft_limit(pid_t pid = 0) {
  rlimit limit{};
  checked(::prlimit(pid, RLIMIT_NOFILE, nullptr, &limit), "ask for the limit");
  return limit.rlim_cur;
}

rlim_t hard_limit(pid_t pid = 0) {
  rlimit limit{};
  checked(::prlimit(pid, RLIMIT_NOFILE, nullptr, &limit), "ask for the limit");
  return limit.rlim_max;
}

// From now on this process can open so many more, and no gap below is left.
void leave_room_for(int count) {
  const int next = checked(::dup(0), "find the next descriptor");
  ::close(next);
  limit_files(static_cast<rlim_t>(next) + static_cast<rlim_t>(count));
}

channel_message next_message(const worker& worker) {
  auto message = worker.receive();
  while (message.what == channel_message::kind::nothing) {
    wait_readable(worker.channel_fd(), "a message");
    message = worker.receive();
  }
  return message;
}

}  // namespace

TEST_CASE("a worker may open as many files as its hard limit allows") {
  const auto serve = [] {
    limit_files(64);
    const worker worker;
    worker.offer(1000, 0);
    worker.ready();
    return soft_limit() == hard_limit() ? 0 : 1;
  };
  fake_manager manager({.body = serve});
  manager.wait_ready();
  CHECK(manager.figures().capacity == 1000);
  CHECK(manager.wait() == 0);
  for (const std::string name : kClasses) {
    CAPTURE(name);
    fake_manager example(http_worker(name, "ulimit -Sn 64"));
    example.wait_ready();
    CHECK(example.figures().capacity == (name == "sync" ? 1 : 1000));
    CHECK(soft_limit(example.pid()) == hard_limit(example.pid()));
  }
}

TEST_CASE("no worker offers more than its table of descriptors can hold, and says so once") {
  for (const std::string name : kClasses) {
    CAPTURE(name);
    fake_manager manager(http_worker(name, "ulimit -Sn 64; ulimit -Hn 64"));
    manager.wait_ready();
    const auto capacity = manager.figures().capacity;
    if (name == "sync") {
      CHECK(capacity == 1);
      continue;
    }
    CHECK(capacity > 10);
    CHECK(capacity < 50);
    CHECK(manager.wait_for_error("open files")
              .find("serve 1000 connections at a time: the limit of 64 open files allows " +
                    std::to_string(capacity)) != std::string::npos);
  }
}

TEST_CASE("a limit that the program sets itself is kept, and what it offers follows it") {
  const auto serve = [] {
    const worker worker;
    limit_files(100);
    worker.offer(1000, 0);
    worker.offer(1000, 0);
    worker.ready();
    return soft_limit() == 100 ? 0 : 1;
  };
  fake_manager manager({.body = serve});
  manager.wait_ready();
  CHECK(manager.figures().capacity > 30);
  CHECK(manager.figures().capacity < 90);
  CHECK(manager.wait() == 0);
  const std::string said = manager.wait_for_error("open files");
  CHECK(said.find("open files") == said.rfind("open files"));
}

TEST_CASE("a worker without a free descriptor offers one connection, and none if it wants none") {
  const auto serve = [](std::uint32_t wanted) {
    return [wanted] {
      const worker worker;
      leave_room_for(0);
      worker.offer(wanted, 0);
      return worker.ready() ? 0 : 1;
    };
  };
  for (const std::uint32_t wanted : {0U, 1U, 1000U}) {
    fake_manager manager({.body = serve(wanted)});
    manager.wait_ready();
    CHECK(manager.figures().capacity == std::min(wanted, 1U));
    CHECK(manager.wait() == 0);
  }
}

TEST_CASE("connections that find no descriptor are named, and later ones are taken") {
  const auto serve = [] {
    const worker worker;
    worker.offer(10, 0);
    leave_room_for(2);
    worker.ready();
    const auto first = next_message(worker);
    const auto second = next_message(worker);
    if (first.fd < 0 || second.fd < 0) return 1;
    // Nothing of the next message finds room.
    wait_readable(worker.channel_fd(), "the second message");
    if (worker.receive().what != channel_message::kind::nothing) return 2;
    ::close(first.fd);
    const auto third = next_message(worker);
    checked(::send(third.fd, "third\n", 6, MSG_NOSIGNAL), "send");
    ::shutdown(third.fd, SHUT_RDWR);
    return 0;
  };
  fake_manager manager({.body = serve, .dispatch = true});
  manager.wait_ready();
  std::vector<Fd> clients;
  for (const int each : manager.dispatch(5)) clients.emplace_back(each);
  auto missed = manager.wait_not_taken();
  CHECK(missed.count == 3);
  CHECK(missed.before == 2);
  for (const int each : manager.dispatch(2)) clients.emplace_back(each);
  missed = manager.wait_not_taken();
  CHECK(missed.count == 2);
  CHECK(missed.before == 5);
  manager.wait_until([](const auto& now) { return now.taken == 7 && now.not_taken == 5; });
  LineClient third(manager.dispatch());
  CHECK(third.receive() == "third");
  CHECK(manager.wait() == 0);
  CHECK(manager.figures().taken == 8);
  const std::string said = manager.wait_for_error("no descriptor");
  CHECK(said.find("no descriptor") == said.rfind("no descriptor"));
}

// The sanitizer of undefined behaviour opens a pipe to look at memory.
TEST_CASE("each class names the connections that find no descriptor, and serves on" *
          doctest::skip(OSTLER_SANITIZED)) {
  for (const std::string name : kClasses) {
    CAPTURE(name);
    fake_manager manager(http_worker(name));
    manager.wait_ready();
    const rlimit before{soft_limit(manager.pid()), hard_limit(manager.pid())};
    const rlimit none{3, before.rlim_max};
    checked(::prlimit(manager.pid(), RLIMIT_NOFILE, &none, nullptr), "limit the descriptors");
    std::vector<Fd> clients;
    for (const int each : manager.dispatch(3)) clients.emplace_back(each);
    const auto missed = manager.wait_not_taken();
    CHECK(missed.count == 3);
    CHECK(missed.before == 0);
    manager.wait_until([](const auto& now) { return now.taken == 3 && now.not_taken == 3; });
    checked(::prlimit(manager.pid(), RLIMIT_NOFILE, &before, nullptr), "lift the limit");
    CHECK(Client(Fd(manager.dispatch())).ask(get("/pid")).status == 200);
    manager.wait_until([](const auto& now) { return now.connections == 0; });
    CHECK(manager.figures().accepted == 1);
    manager.ask_to_stop();
    CHECK(manager.wait() == 0);
  }
}

TEST_CASE("a worker written from the documentation alone names them, too") {
  fake_manager manager({.command = {"python3", OSTLER_PLAIN_WORKER}, .dispatch = true});
  manager.wait_ready();
  const rlimit before{soft_limit(manager.pid()), hard_limit(manager.pid())};
  const rlimit none{3, before.rlim_max};
  checked(::prlimit(manager.pid(), RLIMIT_NOFILE, &none, nullptr), "limit the descriptors");
  std::vector<Fd> clients;
  for (const int each : manager.dispatch(2)) clients.emplace_back(each);
  const auto missed = manager.wait_not_taken();
  CHECK(missed.count == 2);
  CHECK(missed.before == 0);
  manager.wait_until([](const auto& now) { return now.taken == 2 && now.not_taken == 2; });
  checked(::prlimit(manager.pid(), RLIMIT_NOFILE, &before, nullptr), "lift the limit");
  CHECK(Client(Fd(manager.dispatch())).ask(get("/")).status == 200);
}

TEST_CASE("a worker in C names the connections that find no descriptor") {
  const auto serve = [] {
    if (ostler_worker_open() != 0 || ostler_worker_ready() != 0) return 1;
    if (soft_limit() != hard_limit()) return 2;
    bool is_first = true;
    for (int fd = -1; (fd = ostler_worker_accept()) >= 0; ostler_worker_close_connection(fd)) {
      checked(::send(fd, "x\n", 2, MSG_NOSIGNAL), "answer");
      if (std::exchange(is_first, false)) leave_room_for(0);
    }
    ostler_worker_close();
    return 0;
  };
  fake_manager manager({.body = serve, .dispatch = true});
  manager.wait_ready();
  LineClient first(manager.dispatch());
  CHECK(first.receive() == "x");
  manager.wait_until([](const auto& now) { return now.accepted == 1 && now.connections == 0; });
  std::vector<Fd> clients;  // one of them gets the descriptor that the first had
  for (const int each : manager.dispatch(3)) clients.emplace_back(each);
  const auto missed = manager.wait_not_taken();
  CHECK(missed.count == 2);
  CHECK(missed.before == 2);
  manager.ask_to_stop();
  CHECK(manager.wait() == 0);
}

TEST_CASE("a worker that accepts stops before its table is full") {
  for (const std::string name : {"threads", "async"}) {
    CAPTURE(name);
    auto options = http_worker(name, "ulimit -Sn 64; ulimit -Hn 64");
    options.dispatch = false;
    fake_manager manager(std::move(options));
    manager.wait_ready();
    const std::size_t capacity = manager.figures().capacity;
    std::vector<Client> clients;
    for (std::size_t i = 0; i < capacity; ++i) {
      clients.emplace_back(Fd(manager.connect()));
      CHECK(clients.back().ask(get("/pid")).status == 200);
    }
    Client waiting{Fd(manager.connect())};
    waiting.send(get("/pid"));
    CHECK(manager.figures().connections == capacity);
    clients.pop_back();
    CHECK(waiting.receive()->status == 200);
    manager.ask_to_stop();
    clients.clear();
    CHECK(manager.wait() == 0);
    CHECK(manager.wait_for_error("open files").find("accept a connection") == std::string::npos);
  }
}

}  // namespace ostler::test
