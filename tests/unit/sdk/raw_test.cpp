// ostler::serve for raw connections: the three classes, hooks, settings, the drain.
#include <doctest/doctest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <boost/asio/basic_waitable_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "obedient.hpp"
#include "ostler/protocol.h"

namespace ostler::test {
namespace {

using namespace std::chrono_literals;

struct Class {
  const char* name;
  std::uint32_t number;
  std::uint32_t capacity;
};
constexpr Class kClasses[] = {{"sync", OSTLER_CLASS_SYNC, 1},
                              {"threads", OSTLER_CLASS_THREADS, 3},
                              {"async", OSTLER_CLASS_ASYNC, 7}};
// As proc(5) says of the process as a whole.
bool is_pending(pid_t pid, int signal) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("ShdPnd:")) continue;
    return (std::stoull(line.substr(8), nullptr, 16) >> (signal - 1) & 1U) != 0;
  }
  return false;
}

int sockets_of(pid_t pid) {
  int count = 0;
  const auto folder = "/proc/" + std::to_string(pid) + "/fd";
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::error_code gone;
    count += std::filesystem::read_symlink(entry, gone).string().starts_with("socket:") ? 1 : 0;
  }
  return count;
}

constexpr char kSettings[] = "threads=3 connections=7";

}  // namespace

TEST_CASE("connections are served in each class, and seen on the scoreboard") {
  for (const auto& each : kClasses) {
    for (const bool non_blocking : {false, true}) {
      CAPTURE(each.name);
      auto options = obedient_worker(each.name, kSettings);
      options.non_blocking = non_blocking;
      fake_manager manager(std::move(options));
      manager.wait_for_message(OSTLER_HELLO);
      manager.wait_ready();
      CHECK(manager.figures().worker_class == each.number);
      CHECK(manager.figures().capacity == each.capacity);
      {
        LineClient client(manager.connect());
        CHECK(client.ask("echo hello") == "hello");
        CHECK(manager.figures().connections == 1);
        CHECK(manager.figures().active == 0);
        CHECK(client.ask("begin GET /") == "ok");
        CHECK(manager.figures().active == 1);
        CHECK(manager.requests().at(0).text == "GET /");
        CHECK(client.ask("end") == "ok");
        CHECK(manager.figures().active == 0);
        CHECK(manager.figures().requests == 1);
        CHECK(manager.requests().empty());
      }
      manager.wait_until([](const auto& now) { return now.connections == 0; });
      CHECK(manager.figures().accepted == 1);
      manager.ask_to_stop();
      CHECK(manager.wait() == 0);
    }
  }
}

TEST_CASE("a drain is told to the handlers, waits for them, and accepts no more") {
  for (const char* const name : {"threads", "async"}) {
    CAPTURE(name);
    fake_manager manager(obedient_worker(name, kSettings));
    manager.wait_ready();
    LineClient client(manager.connect());
    CHECK(client.ask("stop?") == "go");
    const int before = sockets_of(manager.pid());
    manager.ask_to_stop();
    manager.wait_for("STOPPING=1");
    CHECK(sockets_of(manager.pid()) < before);  // the listener is closed; the rest may be, too
    manager.wait_for("STATUS=draining 1 connections");
    LineClient late(manager.connect());
    late.send("echo too late");
    CHECK(client.receive() == "draining");
    CHECK(client.receive() == "(end)");
    CHECK(manager.wait() == 0);
    CHECK(manager.figures().accepted == 1);
    CHECK(late.hears_nothing_for(0ms));
  }
}

TEST_CASE("a second request to stop ends the worker at once") {
  fake_manager manager({.body = [] {
    return serve([](connection& peer) -> boost::asio::awaitable<void> {
      boost::asio::basic_waitable_timer<std::chrono::steady_clock> timer(
          peer.socket().get_executor(), 1h);
      co_await timer.async_wait(boost::asio::use_awaitable);
    });
  }});
  manager.wait_ready();
  const Fd client(manager.connect());
  manager.wait_until([](const auto& now) { return now.connections == 1; });
  manager.ask_to_stop();
  manager.wait_for("STOPPING=1");
  manager.ask_to_stop();
  CHECK(manager.wait() == kFailed);
}

TEST_CASE("a second request to stop ends a worker whose loop is stuck") {
  for (const char* const name : {"sync", "async"}) {
    CAPTURE(name);
    fake_manager manager(obedient_worker(name));
    manager.wait_ready();
    LineClient client(manager.connect());
    client.send("hang");
    manager.wait_for_error("hanging\n");
    manager.ask_to_stop();
    // Two that are pending at the same time are one.
    const auto until = std::chrono::steady_clock::now() + kPatience;
    while (is_pending(manager.pid(), SIGTERM) && std::chrono::steady_clock::now() < until) {
      std::this_thread::yield();
    }
    manager.ask_to_stop();
    CHECK(manager.wait() == kFailed);
  }
}

TEST_CASE("what a handler throws is a line on stderr, and the worker goes on") {
  for (const auto& each : kClasses) {
    CAPTURE(each.name);
    fake_manager manager(obedient_worker(each.name, kSettings));
    manager.wait_ready();
    CHECK(LineClient(manager.connect()).ask("throw") == "(end)");
    manager.wait_for_error("connection from 127.0.0.1:");
    manager.wait_for_error(": as it was told\n");
    CHECK(LineClient(manager.connect()).ask("echo again") == "again");
  }
}

TEST_CASE("a worker that is full accepts again when a connection ends") {
  for (const auto& each : kClasses) {
    CAPTURE(each.name);
    fake_manager manager(obedient_worker(each.name, "threads=2 connections=2"));
    manager.wait_ready();
    const auto capacity = manager.figures().capacity;
    std::vector<LineClient> clients;
    for (std::size_t i = 0; i < capacity; ++i) {
      clients.emplace_back(manager.connect());
      CHECK(clients.back().ask("echo in") == "in");
    }
    LineClient next(manager.connect());
    next.send("echo at last");
    CHECK(next.hears_nothing_for(100ms));
    CHECK(manager.figures().accepted == capacity);
    clients.pop_back();
    CHECK(next.receive() == "at last");
    CHECK(manager.figures().accepted == capacity + 1);
  }
}

TEST_CASE("several listeners are served") {
  auto options = obedient_worker("async");
  options.listeners = 3;
  fake_manager manager(std::move(options));
  manager.wait_ready();
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(LineClient(manager.connect(i)).ask("echo " + std::to_string(i)) == std::to_string(i));
  }
}

TEST_CASE("the hooks are called in order, on_stop after the last connection") {
  Reports reports;
  const serve_options hooks{.on_load = [&] { reports.say("load"); },
                            .on_start = [&] { reports.say("start"); },
                            .on_stop = [&] { reports.say("stop"); }};
  fake_manager manager(obedient_worker("async", "", hooks));
  CHECK(reports.next() == "load");
  CHECK(reports.next() == "start");
  manager.wait_ready();
  LineClient client(manager.connect());
  CHECK(client.ask("echo hello") == "hello");
  manager.ask_to_stop();
  CHECK(client.receive() == "draining");
  CHECK(reports.next() == "stop");
  CHECK(manager.wait() == 0);
}

TEST_CASE("a hook that throws ends the worker with 1, whatever it throws") {
  const serve_options bad_load{.on_load = [] { throw std::invalid_argument("no templates"); }};
  const serve_options bad_start{.on_start = [] { throw 1; }};
  fake_manager load(obedient_worker("async", "", bad_load));
  load.wait_for_error("on_load: no templates\n");
  CHECK(load.wait() == kFailed);
  fake_manager start(obedient_worker("sync", "", bad_start));
  start.wait_for_error("on_start: an exception that is no std::exception\n");
  CHECK(start.wait() == kFailed);
}

TEST_CASE("settings that cannot be are refused, and unknown ones are not") {
  struct Case {
    connection_handler handler;
    std::string settings;
    std::string complaint;
  };
  for (const auto& each : {
           Case{obedient(), "class=threads", "cannot run in class threads, only in async"},
           Case{obedient_and_blocking(), "class=async",
                "cannot run in class async, only in sync, threads"},
           Case{obedient(), "class=prefork", "setting class=prefork: want sync, threads or async"},
           Case{obedient(), "threads=65", "setting threads=65: want a number from 1 to 64"},
           Case{obedient(), "connections=-1", "setting connections=-1: want a number from 1 to"},
           Case{connection_handler::blocking_type(), "", "the handler is empty"},
       }) {
    CAPTURE(each.settings);
    fake_manager manager(
        {.body = [&] { return serve(each.handler); }, .worker_options = each.settings});
    manager.wait_for_error(each.complaint);
    CHECK(manager.wait() == kUsageError);
  }
  fake_manager manager(obedient_worker("async", "keepalive=1000 colour=red"));
  CHECK(manager.wait_for_error("ignored\n") ==
        "the pool's setting 'colour=red' is unknown to this worker, and ignored\n");
  manager.wait_ready();
}

TEST_CASE("a worker serves without a manager, on tcp and on a unix socket") {
  const ScratchDirectory scratch;
  const std::string path = scratch.file("socket");
  for (int round = 0; round < 2; ++round) {
    fake_manager manager({.command = {OSTLER_EXAMPLE_ECHO, "--listen", "unix://" + path},
                          .listeners = 0,
                          .channel = false});
    manager.wait_ready();
    Fd socket(checked(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "make a client"));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    checked(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address),
            "connect");
    CHECK(LineClient(::dup(socket.get())).ask("hello") == "hello");
    // The first leaves its socket behind, which is no hindrance to the second.
    manager.signal(round == 0 ? SIGKILL : SIGTERM);
    CHECK(manager.wait() == (round == 0 ? -SIGKILL : 0));
    CHECK(std::filesystem::exists(path) == (round == 0));
    CHECK_THROWS_AS(manager.signal(SIGTERM), std::logic_error);  // to whom?
    CHECK_THROWS_AS(manager.wait(), std::logic_error);
    CHECK_THROWS_AS(static_cast<void>(manager.figures()), std::logic_error);
  }
}

TEST_CASE("a worker without a manager leaves a file alone that is no socket") {
  const ScratchDirectory scratch;
  const std::string path = scratch.file("database");
  std::ofstream(path) << "precious";
  fake_manager manager({.command = {OSTLER_EXAMPLE_ECHO, "--listen", "unix://" + path},
                        .listeners = 0,
                        .channel = false});
  CHECK(manager.wait() != 0);
  std::string kept;
  std::ifstream(path) >> kept;
  CHECK(kept == "precious");
}

TEST_CASE("the echo example serves in each class") {
  for (const std::string flag : {"", "--blocking"}) {
    std::vector<std::string> command{OSTLER_EXAMPLE_ECHO};
    if (!flag.empty()) command.push_back(flag);
    fake_manager manager(
        {.command = command, .worker_options = flag.empty() ? "" : "class=threads"});
    manager.wait_ready();
    LineClient client(manager.connect());
    CHECK(client.ask("one") == "one");
    CHECK(client.ask("two") == "two");
    manager.ask_to_stop();
    CHECK(client.receive() == "(end)");
    CHECK(manager.wait() == 0);
  }
}

}  // namespace ostler::test
