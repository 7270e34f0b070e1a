// A worker that is asked to stop loses no request.
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "example.hpp"

namespace ostler::test {
namespace {

// Clients in a closed loop, each on a thread of its own: a connection is used until the answer says
// that it is closed, then there is another. Every request must be answered.
class Load {
 public:
  Load(const Listener& listener, int clients, const std::string& fields)
      : listener_(listener), request_(get("/pid", fields)) {
    for (int i = 0; i < clients; ++i) threads_.emplace_back([this] { run(); });
  }
  ~Load() { stop(); }
  Load(const Load&) = delete;
  Load& operator=(const Load&) = delete;

  // Returns when so many more requests were answered.
  void answered_more(long count) const {
    const long until = answered + count;
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (answered < until) {
      if (std::chrono::steady_clock::now() > deadline) throw std::runtime_error("no answers");
      std::this_thread::sleep_for(std::chrono::milliseconds(1));  // NOLINT(sleep): looks again
    }
  }

  void stop() {
    stopped_ = true;
    for (auto& thread : threads_) thread.join();
    threads_.clear();
  }

  std::atomic<long> answered{0};
  std::atomic<long> failed{0};

 private:
  void run() {
    while (!stopped_) {
      try {
        Client client(listener_);
        while (!stopped_) {
          client.send(request_);
          const auto reply = client.receive();
          if (!reply || reply->status != 200) {
            ++failed;
            break;
          }
          ++answered;
          if (!reply->keeps_alive()) break;
        }
      } catch (const std::exception&) {
        ++failed;
      }
    }
  }

  const Listener& listener_;
  const std::string request_;
  std::atomic<bool> stopped_{false};
  std::vector<std::thread> threads_;
};

// The classes, with what the example needs for them. In class sync no connection is kept.
struct Setup {
  std::vector<std::string> flags;
  std::string settings;
};
const Setup kAsync{{}, "class=async"};
const Setup kThreads{{"--blocking"}, "class=threads threads=3"};
const Setup kSync{{"--blocking"}, "class=sync"};

std::unique_ptr<Example> start(const Listener& listener, const Setup& how,
                               const std::vector<std::string>& more = {}) {
  auto flags = how.flags;
  flags.insert(flags.end(), more.begin(), more.end());
  return std::make_unique<Example>(listener, flags, how.settings);
}

// Whether a process has a descriptor of it, "socket:[4711]".
bool holds(pid_t pid, const std::string& what) {
  const auto folder = "/proc/" + std::to_string(pid) + "/fd";
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::error_code gone;
    if (std::filesystem::read_symlink(entry, gone) == what) return true;
  }
  return false;
}

// So often a successor is started and the worker before it stopped, while clients ask.
void replace_under_load(const Listener& listener, const Setup& how, const char* fields, int times) {
  auto worker = start(listener, how);
  Load load(listener, 4, fields);
  for (int replaced = 0; replaced < times; ++replaced) {
    load.answered_more(100);
    auto successor = start(listener, how);
    worker->stop();
    CHECK(worker->wait() == 0);
    worker = std::move(successor);
  }
  load.answered_more(100);
  load.stop();
  CHECK(load.failed == 0);
}

}  // namespace

TEST_CASE("workers of every class are replaced under load and every request is answered") {
  for (const auto& how : {kSync, kThreads, kAsync}) {
    CAPTURE(how.settings);
    replace_under_load(Listener(), how, "", 10);
  }
}

TEST_CASE("workers are replaced under load on every kind of listener") {
  for (const auto family : {Listener::Family::kTcp, Listener::Family::kUnix}) {
    for (const char* fields : {"", "Connection: close\r\n"}) {
      CAPTURE(fields);
      replace_under_load(Listener(family), kAsync, fields, 5);
    }
  }
}

TEST_CASE("in class sync the request being read, and the one being served, are answered") {
  const Listener listener;
  const auto half = start(listener, kSync);
  Client reading(listener);
  reading.send("GET /pid HT");
  // It is that worker's alone once another cannot be had of it.
  Client waiting(listener);
  waiting.send(get("/pid"));
  CHECK(waiting.hears_nothing_for(std::chrono::milliseconds(50)));
  half->stop();
  CHECK(reading.ask("TP/1.1\r\nHost: test\r\n\r\n").status == 200);
  CHECK(reading.closed_in_order());
  CHECK(half->wait() == 0);

  const auto busy = start(listener, kSync);
  CHECK(waiting.receive()->status == 200);
  CHECK(waiting.closed_in_order());
  Client served(listener);
  served.send(get("/stuck?ms=200"));
  CHECK(served.hears_nothing_for(std::chrono::milliseconds(50)));
  busy->stop();
  CHECK(served.receive()->status == 200);
  CHECK(served.closed_in_order());
  CHECK(busy->wait() == 0);
}

TEST_CASE("a worker that stops alone leaves what it did not accept in the queue") {
  const Listener listener;
  auto worker = std::make_unique<Example>(listener);
  Load load(listener, 4, "");
  for (int replaced = 0; replaced < 3; ++replaced) {
    load.answered_more(100);
    worker->stop();
    CHECK(worker->wait() == 0);
    worker = std::make_unique<Example>(listener);
  }
  load.answered_more(100);
  load.stop();
  CHECK(load.failed == 0);
}

TEST_CASE("connections, requests and the stop signal that come at once lose nothing") {
  for (int round = 0; round < 20; ++round) {
    const Listener listener;
    Example first(listener);
    first.process().signal(SIGSTOP);
    std::vector<Client> clients;
    for (int i = 0; i < 10; ++i) clients.emplace_back(listener).send(get("/pid"));
    first.process().signal(SIGTERM);
    first.process().signal(SIGCONT);
    Example second(listener);
    for (auto& client : clients) CHECK(client.receive());
    clients.clear();
    CHECK(first.wait() == 0);
  }
}

TEST_CASE("a kept connection is served once more and then closed") {
  for (const auto& how : {kThreads, kAsync}) {
    CAPTURE(how.settings);
    const Listener listener;
    const auto running = start(listener, how);
    Example& example = *running;
    Client client(listener);
    CHECK(client.ask(get("/pid")).keeps_alive());
    example.stop();
    CHECK_FALSE(example.process().ends_within(std::chrono::milliseconds(50)));
    const Reply last = client.ask(get("/pid"));
    CHECK(last.status == 200);
    CHECK_FALSE(last.keeps_alive());
    CHECK(client.closed_in_order());
    CHECK(example.wait() == 0);
  }
}

TEST_CASE("a kept connection that is not used again ends with the keep-alive time") {
  for (const auto& how : {kThreads, kAsync}) {
    CAPTURE(how.settings);
    const Listener listener;
    const auto running = start(listener, how, {"--keepalive", "0.2"});
    Example& example = *running;
    Client client(listener);
    CHECK(client.ask(get("/pid")).keeps_alive());
    example.stop();
    CHECK(example.wait() == 0);
    CHECK(client.closed_in_order());
  }
}

TEST_CASE("a client that does not close its end cannot hold up the drain") {
  for (const auto& how : {kThreads, kAsync}) {
    CAPTURE(how.settings);
    const Listener listener;
    const auto running = start(listener, how);
    Example& example = *running;
    Client client(listener);
    client.ask(get("/pid"));
    example.stop();
    CHECK_FALSE(client.ask(get("/pid")).keeps_alive());
    CHECK(example.wait() == 0);
  }
}

TEST_CASE("the listener is closed when the drain begins, while the last request is served") {
  for (const auto& how : {kSync, kThreads, kAsync}) {
    CAPTURE(how.settings);
    const Listener listener;
    const auto running = start(listener, how);
    Example& example = *running;
    const std::string listening =
        std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(listener.fd())).string();
    CHECK(holds(example.pid(), listening));
    Client client(listener);
    client.send(get("/slow?ms=300"));
    CHECK(client.hears_nothing_for(std::chrono::milliseconds(50)));
    example.stop();
    CHECK_FALSE(holds(example.pid(), listening));
    CHECK(client.receive()->status == 200);
    CHECK(example.wait() == 0);
  }
}

TEST_CASE("a worker that drains is not woken by connections that it will not accept") {
  const Listener listener;
  Example example(listener);
  Client kept(listener);
  kept.ask(get("/pid"));
  example.stop();
  const long before = example.context_switches_when_asleep();
  for (int i = 0; i < 5; ++i) CHECK(listener.connect().get() >= 0);
  std::this_thread::sleep_for(std::chrono::milliseconds(100));  // NOLINT(sleep): nothing happens
  CHECK(example.context_switches_when_asleep() == before);
}

TEST_CASE("without connections the drain is over at once") {
  for (const auto& how : {kThreads, kAsync}) {
    CAPTURE(how.settings);
    const Listener listener;
    const auto running = start(listener, how, {"--keepalive", "3600"});
    Example& example = *running;
    example.stop();
    CHECK(example.wait() == 0);
  }
}

TEST_CASE("a request that was sent in part is finished") {
  for (const auto& how : {kThreads, kAsync}) {
    CAPTURE(how.settings);
    const Listener listener;
    const auto running = start(listener, how);
    Example& example = *running;
    Client half_header(listener);
    Client half_body(listener);
    Client expecting(listener);
    const std::string body = post("/echo", "to be continued");
    // The first request shows that the connection was accepted.
    half_header.ask(get("/pid"));
    half_body.ask(get("/pid"));
    expecting.ask(get("/pid"));
    half_header.send("GET /pid HT");
    half_body.send(body.substr(0, body.size() - 4));
    expecting.send(
        "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    CHECK(expecting.receive(false)->status == 100);
    example.stop();

    const Reply header_reply = half_header.ask("TP/1.1\r\nHost: test\r\n\r\n");
    CHECK(header_reply.status == 200);
    CHECK_FALSE(header_reply.keeps_alive());
    const Reply body_reply = half_body.ask(body.substr(body.size() - 4));
    CHECK(body_reply.body == "to be continued");
    CHECK_FALSE(body_reply.keeps_alive());
    CHECK(expecting.ask("later").body == "later");
    for (auto* client : {&half_header, &half_body, &expecting}) CHECK(client->closed_in_order());
    CHECK(example.wait() == 0);
  }
}

TEST_CASE(
    "requests in flight and pipelined behind them are answered, and the last one says close") {
  for (const auto& how : {kThreads, kAsync}) {
    CAPTURE(how.settings);
    const Listener listener;
    const auto running = start(listener, how);
    Example& example = *running;
    Client client(listener);
    client.ask(get("/pid"));
    client.send(get("/slow?ms=200") + post("/echo", "second"));
    client.send(post("/echo", "third"));
    example.stop();
    const auto first = client.receive();
    const auto second = client.receive();
    const auto third = client.receive();
    REQUIRE(first);
    REQUIRE(second);
    REQUIRE(third);
    CHECK(first->keeps_alive());
    CHECK(second->body == "second");
    CHECK(third->body == "third");
    CHECK_FALSE(third->keeps_alive());
    CHECK(client.closed_in_order());
    CHECK(example.wait() == 0);
  }
}

TEST_CASE("HTTP/1.0 keep-alive is told of the drain too") {
  for (const auto& how : {kThreads, kAsync}) {
    CAPTURE(how.settings);
    const Listener listener;
    const auto running = start(listener, how);
    Example& example = *running;
    Client client(listener);
    const std::string request = "GET /pid HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    CHECK(client.ask(request).keeps_alive());
    example.stop();
    CHECK_FALSE(client.ask(request).keeps_alive());
    CHECK(client.closed_in_order());
    CHECK(example.wait() == 0);
  }
}

TEST_CASE("an answer is not destroyed by what the client sent after it") {
  for (const auto& how : {kThreads, kAsync}) {
    CAPTURE(how.settings);
    const Listener listener;
    const auto running = start(listener, how);
    Example& example = *running;
    Client client(listener);
    client.ask(get("/pid"));
    example.stop();
    // The second request crosses the answer that says close; it is not served, but it must not make
    // the kernel reset the connection before the answer was read.
    client.send(get("/pid", "Connection: close\r\n") + get("/pid"));
    std::this_thread::sleep_for(std::chrono::milliseconds(50));  // NOLINT(sleep): it is done
    client.send(get("/pid"));
    const auto reply = client.receive();
    REQUIRE(reply);
    CHECK(reply->status == 200);
    client.half_close();
    CHECK(client.closed_in_order());
    CHECK(example.wait() == 0);
  }
}

TEST_CASE("a second stop signal ends the worker at once") {
  const Listener listener;
  Example example(listener);
  Client client(listener);
  client.ask(get("/pid"));
  client.send(get("/slow?ms=60000"));
  example.stop();
  CHECK_FALSE(example.process().ends_within(std::chrono::milliseconds(50)));
  example.process().signal(SIGTERM);
  CHECK(example.wait() == 1);
}

TEST_CASE("a worker that is stopped before it is ready ends at once") {
  const Listener listener;
  Process example({listener.fd()}, [&] {
    set_environment({{"LISTEN_PID", "self"}, {"LISTEN_FDS", "1"}});
    // Blocked until the worker can take it.
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    ::sigprocmask(SIG_BLOCK, &stop, nullptr);
    ::raise(SIGTERM);
    return checked(
        ::execl(OSTLER_EXAMPLE_HTTP, "ostler-example-http", "--start-delay", "3600000", nullptr),
        "execute");
  });
  CHECK(example.wait() == 0);
}

}  // namespace ostler::test
