// The private channel and the scoreboard, from the manager's side.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "obedient.hpp"
#include "ostler/protocol.h"

namespace ostler::test {
namespace {

using namespace std::chrono_literals;

constexpr auto kClasses = {"sync", "threads", "async"};

std::string packet(std::uint32_t type, std::uint32_t count = 0) {
  const ostler_message message{type, count, 0};
  return {reinterpret_cast<const char*>(&message), sizeof message};
}

// Waits for it to have had no work for a while.
void wait_until_at_rest(const fake_manager& manager) {
  manager.wait_until([](const auto& now) { return !now.awake; });
}

// Whether no thread of the worker ran within a second.
bool sleeps_for_a_second(const fake_manager& manager) {
  if (OSTLER_SANITIZED) return true;  // a sanitizer may have a thread of its own
  // What led to the state that was waited for may not be over.
  std::this_thread::sleep_for(100ms);  // NOLINT(sleep): lets time pass
  const long before = context_switches(manager.pid());
  std::this_thread::sleep_for(1s);  // NOLINT(sleep): the time in which nothing may happen
  return context_switches(manager.pid()) == before;
}

}  // namespace

TEST_CASE("a connection that is handed over is served in each class") {
  for (const std::string name : kClasses) {
    CAPTURE(name);
    fake_manager manager(obedient_worker(name, "threads=2"));
    manager.wait_ready();
    {
      LineClient own(manager.hand_over(true));
      CHECK(own.ask("private?") == "private");
      CHECK(own.ask("begin GET /health") == "ok");
      CHECK(manager.figures().active == 1);
      CHECK(manager.requests().at(0).text == "GET /health");
      CHECK(own.ask("end") == "ok");
      CHECK(manager.figures().requests == 0);
      CHECK(manager.figures().connections == 0);
    }
    LineClient client(manager.hand_over(false));
    CHECK(client.ask("private?") == "public");
    CHECK(client.ask("begin GET /") == "ok");
    CHECK(client.ask("end") == "ok");
    CHECK(manager.figures().requests == 1);
    CHECK(manager.figures().connections == 1);
  }
}

TEST_CASE("a worker that speaks the channel is heard to be ready without a notify socket") {
  auto options = obedient_worker("async");
  options.environment["NOTIFY_SOCKET"] = "/nowhere/notify";
  fake_manager manager(options);
  manager.wait_ready();
  CHECK(LineClient(manager.connect()).ask("echo served") == "served");
}

TEST_CASE("a worker that nobody hears to be ready says so and ends") {
  auto options = obedient_worker("async");
  options.channel = false;
  options.environment["NOTIFY_SOCKET"] = "/nowhere/notify";
  fake_manager manager(options);
  CHECK(manager.wait_for_error("READY=1").find("tell the manager READY=1") != std::string::npos);
  CHECK(manager.wait() != 0);
}

TEST_CASE("a worker that is full still takes the manager's own connections") {
  fake_manager manager(obedient_worker("async", "connections=1"));
  manager.wait_ready();
  LineClient client(manager.connect());
  CHECK(client.ask("echo in") == "in");
  CHECK(LineClient(manager.hand_over()).ask("echo health") == "health");
}

TEST_CASE("a worker that is warmed up accepts nothing before it is told to") {
  for (const std::string name : kClasses) {
    CAPTURE(name);
    auto options = obedient_worker(name);
    options.warmup = true;
    fake_manager manager(std::move(options));
    manager.wait_ready();
    {
      LineClient client(manager.connect());
      client.send("echo hello");
      CHECK(LineClient(manager.hand_over()).ask("echo warm") == "warm");
      CHECK(client.hears_nothing_for(50ms));
      CHECK(manager.figures().accepted == 0);
      manager.let_accept();
      CHECK(client.receive() == "hello");
    }
    manager.let_accept();  // once more is harmless
    CHECK(LineClient(manager.hand_over()).ask("echo again") == "again");
  }
}

TEST_CASE("a worker that was never told to accept drains") {
  auto options = obedient_worker("async");
  options.warmup = true;
  fake_manager manager(std::move(options));
  manager.wait_ready();
  manager.ask_to_stop();
  CHECK(manager.wait() == 0);
}

TEST_CASE("work wakes the manager, time shows progress, and rest lets both sleep") {
  for (const std::string name : {"threads", "async"}) {
    CAPTURE(name);
    auto options = obedient_worker(name);
    options.heartbeat = 200ms;
    fake_manager manager(std::move(options));
    manager.wait_for_message(OSTLER_HELLO);
    manager.wait_ready();
    LineClient client(manager.connect());
    CHECK(client.ask("echo no work") == "no work");
    CHECK_FALSE(manager.hears_message(0ms));
    CHECK_FALSE(manager.figures().awake);
    for (int round = 0; round < 2; ++round) {
      CHECK(client.ask("begin GET /") == "ok");
      manager.wait_for_message(OSTLER_AWAKE);
      const auto began = manager.figures();
      CHECK(began.awake);
      CHECK(began.beat > 0);
      CHECK(began.busy_since > 0);
      manager.wait_until([&](const auto& now) { return now.beat > began.beat + 200'000'000U; });
      CHECK(manager.figures().awake);
      CHECK(client.ask("end") == "ok");
      CHECK(client.ask("begin GET /") == "ok");
      CHECK(client.ask("end") == "ok");
      CHECK_FALSE(manager.hears_message(0ms));
      wait_until_at_rest(manager);
    }
    CHECK(sleeps_for_a_second(manager));
  }
}

TEST_CASE("a worker stuck in a request is seen to be silent, in each class") {
  for (const std::string name : kClasses) {
    CAPTURE(name);
    auto options = obedient_worker(name, "threads=2");
    options.heartbeat = 100ms;
    fake_manager manager(std::move(options));
    manager.wait_ready();
    LineClient client(manager.connect());
    CHECK(client.ask("begin GET /stuck") == "ok");
    client.send("hang");
    std::this_thread::sleep_for(300ms);  // NOLINT(sleep): the time in which it is silent
    const auto figures = manager.figures();
    const auto request = manager.requests().at(0);
    const auto silent_since = name == "threads" ? request.progress : figures.beat;
    CHECK(silent_since > 0);
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    CHECK(now - std::chrono::nanoseconds(silent_since) > 200ms);
    // Where the loop does not serve it runs on.
    if (name == "threads") CHECK(figures.beat > request.progress);
    if (name != "threads") CHECK(request.progress == 0);
  }
}

TEST_CASE("a handler can show progress and ask for more time") {
  fake_manager manager(obedient_worker("threads"));
  manager.wait_ready();
  LineClient client(manager.connect());
  CHECK(client.ask("begin GET /") == "ok");
  const auto before = manager.requests().at(0);
  CHECK(before.progress == before.start);
  CHECK(before.until == 0);
  CHECK(before.thread != manager.pid());
  CHECK(client.ask("progress") == "ok");
  CHECK(manager.requests().at(0).progress > before.progress);
  CHECK(client.ask("extend 60000") == "ok");
  CHECK(manager.requests().at(0).until > before.start + 50'000'000'000U);
}

TEST_CASE("after so many requests the worker asks once to be replaced") {
  auto options = obedient_worker("async");
  options.recycle_requests = 3;
  fake_manager manager(std::move(options));
  manager.wait_for_message(OSTLER_HELLO);
  manager.wait_ready();
  LineClient own(manager.hand_over());
  LineClient client(manager.connect());
  for (auto* each : {&own, &own, &own, &client, &client}) {
    CHECK(each->ask("begin GET /") == "ok");
    CHECK(each->ask("end") == "ok");
  }
  manager.wait_for_message(OSTLER_AWAKE);
  CHECK_FALSE(manager.hears_message(0ms));
  for (int i = 0; i < 3; ++i) {
    CHECK(client.ask("begin GET /") == "ok");
    CHECK(client.ask("end") == "ok");
  }
  manager.wait_for_message(OSTLER_RECYCLE);
  CHECK_FALSE(manager.hears_message(0ms));
}

TEST_CASE("of more than 64 requests in flight the oldest are listed") {
  constexpr std::size_t kCount = 70;
  fake_manager manager(obedient_worker("async"));
  manager.wait_ready();
  std::vector<LineClient> clients;
  for (std::size_t i = 0; i < kCount; ++i) {
    clients.emplace_back(manager.connect());
    CHECK(clients.back().ask("begin " + std::to_string(i)) == "ok");
  }
  CHECK(manager.figures().active == kCount);
  const auto is_listed = [&](std::size_t number) {
    return std::ranges::count(manager.requests(), std::to_string(number), &shown_request::text) ==
           1;
  };
  CHECK(manager.requests().size() == OSTLER_REQUESTS_SHOWN);
  CHECK(is_listed(63));
  CHECK_FALSE(is_listed(64));
  CHECK(clients[65].ask("extend 1000") == "ok");
  CHECK(clients[64].ask("end") == "ok");  // it never was listed
  CHECK(clients[10].ask("end") == "ok");
  CHECK(is_listed(65));
  const auto listed = manager.requests();
  CHECK(std::ranges::find(listed, "65", &shown_request::text)->until > 0);
  CHECK(clients[65].ask("end") == "ok");
  CHECK(is_listed(66));
  for (auto& each : clients) CHECK(each.ask("end") == "ok");
  CHECK(manager.requests().empty());
  CHECK(manager.figures().active == 0);
  CHECK(manager.figures().requests == kCount);
}

TEST_CASE("rubbish on the channel does no harm, and its descriptors are closed") {
  fake_manager manager(obedient_worker("async"));
  manager.wait_ready();
  LineClient client(manager.connect());
  CHECK(client.ask("echo before") == "before");
  const std::size_t before = descriptors(manager.pid());
  const Fd file(checked(::open("/dev/null", O_RDONLY | O_CLOEXEC), "open a file"));
  const std::string connection = packet(OSTLER_CONNECTION);
  manager.send_rubbish("x");
  manager.send_rubbish(std::string(5000, 'x'));
  manager.send_rubbish(packet(999));
  manager.send_rubbish(packet(999), {file.get()});
  manager.send_rubbish(connection);
  manager.send_rubbish(connection, {file.get()});
  manager.send_rubbish(connection + "x", {file.get()});
  manager.send_rubbish(packet(OSTLER_ACCEPT), {file.get(), file.get()});
  manager.send_rubbish(packet(OSTLER_HELLO));
  manager.send_rubbish("x", std::vector<int>(100, file.get()));
  CHECK(LineClient(manager.hand_over()).ask("echo after") == "after");
  CHECK(client.ask("echo still") == "still");
  // The connection that was handed over is closed soon.
  const auto until = std::chrono::steady_clock::now() + kPatience;
  while (descriptors(manager.pid()) != before && std::chrono::steady_clock::now() < until) {
    std::this_thread::yield();
  }
  CHECK(descriptors(manager.pid()) == before);
}

TEST_CASE("a worker whose channel is closed serves on, and is not kept awake by it") {
  fake_manager manager(obedient_worker("async"));
  manager.wait_ready();
  manager.close_channel();
  LineClient client(manager.connect());
  CHECK(client.ask("begin GET /") == "ok");
  CHECK(client.ask("end") == "ok");
  CHECK(sleeps_for_a_second(manager));
  manager.ask_to_stop();
  CHECK(client.receive() == "draining");
  CHECK(manager.wait() == 0);
}

TEST_CASE("a channel that is not what it should be is a line on stderr, and not used") {
  struct Case {
    std::map<std::string, std::string> environment;
    std::string complaint;
  };
  for (const auto& each : {
           Case{{{"OSTLER_CHANNEL_FD", "400"}}, "which OSTLER_CHANNEL_FD promised"},
           Case{{{"OSTLER_CHANNEL_FD", "many"}}, "OSTLER_CHANNEL_FD='many'"},
           Case{{{"OSTLER_CHANNEL_FD", "3"}}, "no SOCK_SEQPACKET socket"},
           Case{{{"OSTLER_CHANNEL_FD", "0"}}, "channel"},
           Case{{{"OSTLER_SCOREBOARD_FD", "3"}}, "scoreboard"},
       }) {
    CAPTURE(each.complaint);
    auto options = obedient_worker("async");
    options.environment = each.environment;
    fake_manager manager(std::move(options));
    manager.wait_ready();
    CHECK(manager.wait_for_error("\n").starts_with("the channel to the manager is not used: "));
    manager.wait_for_error(each.complaint);
    LineClient client(manager.connect());
    CHECK(client.ask("begin GET /") == "ok");
    CHECK(client.ask("end") == "ok");
  }
}

TEST_CASE("no child of the worker finds the channel") {
  Reports reports;
  fake_manager manager({.body = [&] {
    const worker worker;
    bool found = false;
    for (const char* name : {OSTLER_ENV_CHANNEL_FD, OSTLER_ENV_SCOREBOARD_FD, OSTLER_ENV_WARMUP,
                             OSTLER_ENV_WORKER_OPTIONS, OSTLER_ENV_RECYCLE_REQUESTS}) {
      found = found || std::getenv(name) != nullptr;
    }
    const int flags = ::fcntl(4, F_GETFD);
    reports.say(found ? "a variable is left" : flags == FD_CLOEXEC ? "nothing" : "the descriptor");
    return 0;
  }});
  CHECK(reports.next() == "nothing");
}

TEST_CASE("a program with its own loop counts, is handed connections, and shows that it runs") {
  fake_manager manager({.body =
                            [] {
                              const worker worker;
                              worker.ready();
                              wait_readable(worker.channel_fd(), "a connection");
                              const auto first = worker.receive();
                              if (first.what != channel_message::kind::connection) return 1;
                              const Fd fd(first.fd);
                              worker.connection_opened();
                              {
                                const in_flight request(worker, "GET /own", first.is_private);
                                char byte = 0;
                                // The loop goes on while the request does.
                                while (::recv(fd.get(), &byte, 1, MSG_DONTWAIT) != 1) {
                                  wait_readable(worker.channel_fd(), "the time to show progress");
                                  if (worker.receive().what != channel_message::kind::nothing) {
                                    return 2;
                                  }
                                }
                              }
                              worker.connection_closed();
                              return 0;
                            },
                        .heartbeat = 40ms});
  manager.wait_ready();
  const Fd client(manager.hand_over(false));
  manager.wait_for_message(OSTLER_AWAKE);
  const auto before = manager.figures();
  CHECK(before.active == 1);
  CHECK(before.connections == 1);
  CHECK(manager.requests().at(0).text == "GET /own");
  manager.wait_until([&](const auto& now) { return now.beat > before.beat; });
  checked(::send(client.get(), "x", 1, MSG_NOSIGNAL), "send");
  CHECK(manager.wait() == 0);
  CHECK(manager.figures().requests == 1);
  CHECK(manager.figures().connections == 0);
}

}  // namespace ostler::test
