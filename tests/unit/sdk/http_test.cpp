// What the example worker answers.
#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "example.hpp"

namespace ostler::test {
namespace {

// What the process used of the CPU, in hundredths of a second.
long cpu_ticks(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string field;
  for (int i = 1; i < 14; ++i) file >> field;  // the name, which is the second, has no blank
  long user = 0;
  long system = 0;
  file >> user >> system;
  return user + system;
}

}  // namespace

TEST_CASE("the example says who answers") {
  for (const auto family : {Listener::Family::kTcp, Listener::Family::kUnix}) {
    const Listener listener(family);
    Example example(listener);
    const std::string pid = std::to_string(example.pid());
    Client client(listener);
    const Reply root = client.ask(get("/"));
    CHECK(root.status == 200);
    CHECK(root.body == "hello from web.3, pid " + pid + ", generation 7\n");
    CHECK(root.fields.at("x-worker") == "web.3 " + pid);
    CHECK(root.fields.contains("date"));
    CHECK(client.ask(get("/pid?why=not")).body == pid + "\n");
  }
}

TEST_CASE("the example's other routes") {
  const Listener listener;
  const Example example(listener);
  Client client(listener);
  CHECK(client.ask(post("/echo", "some body")).body == "some body");
  CHECK(client.ask(post("/echo", std::string(64 * 1024, 'b'))).body.size() == 64 * 1024);
  CHECK(client.ask(get("/slow?ms=1")).status == 200);
  CHECK(client.ask(get("/slow?ms=soon")).status == 400);
  CHECK(client.ask(get("/slow")).status == 400);
  CHECK(client.ask(get("/nothing")).status == 404);
  const Reply wrong_method = client.ask(get("/echo"));
  CHECK(wrong_method.status == 405);
  CHECK(wrong_method.fields.at("allow") == "POST");
  CHECK(client.ask(post("/", "")).fields.at("allow") == "GET, HEAD");

  client.send("HEAD /pid HTTP/1.1\r\nHost: test\r\n\r\n");
  const auto head = client.receive(false);
  REQUIRE(head);
  CHECK(head->fields.at("content-length") ==
        std::to_string(std::to_string(example.pid()).size() + 1));
  CHECK(client.ask(get("/pid")).status == 200);  // and no body of the one before
}

TEST_CASE("connections are kept as the version and the client say") {
  const Listener listener;
  const Example example(listener);
  SUBCASE("HTTP/1.0 is closed") {
    Client client(listener);
    CHECK_FALSE(client.ask("GET /pid HTTP/1.0\r\n\r\n").keeps_alive());
    CHECK(client.closed_in_order());
  }
  SUBCASE("HTTP/1.0 is kept if asked for") {
    Client client(listener);
    for (int i = 0; i < 3; ++i) {
      CHECK(client.ask("GET /pid HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").keeps_alive());
    }
  }
  SUBCASE("HTTP/1.1 is kept, and closed if asked for") {
    Client client(listener);
    for (int i = 0; i < 3; ++i) CHECK(client.ask(get("/pid")).keeps_alive());
    CHECK_FALSE(client.ask(get("/pid", "Connection: close\r\n")).keeps_alive());
    CHECK(client.closed_in_order());
  }
  SUBCASE("a client that has said all gets its answer") {
    Client client(listener);
    client.send(get("/slow?ms=20"));
    client.half_close();
    REQUIRE(client.receive());
    CHECK(client.closed_in_order());
  }
}

TEST_CASE("pipelined requests are answered in order") {
  const Listener listener;
  const Example example(listener);
  Client client(listener);
  client.send(post("/echo", "one") + get("/slow?ms=30") + post("/echo", "three"));
  CHECK(client.receive()->body == "one");
  CHECK(client.receive()->body.starts_with("hello"));
  CHECK(client.receive()->body == "three");
}

TEST_CASE("a request may come in pieces, and its body after a go-ahead") {
  const Listener listener;
  const Example example(listener);
  Client client(listener);
  const std::string request = post("/echo", "in pieces");
  for (const char c : request) client.send({c});
  CHECK(client.receive()->body == "in pieces");

  client.send(
      "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
  CHECK(client.receive(false)->status == 100);
  CHECK(client.ask("later").body == "later");
}

TEST_CASE("what cannot be served is refused in a way that the client can read") {
  const Listener listener;
  const Example example(listener);
  const std::string large(1024 * 1024, 'x');
  struct Case {
    std::string request;
    int status;
  };
  for (const auto& each :
       {Case{"what is this\r\n\r\n", 400},
        Case{"GET / HTTP/1.1\r\nField: " + large.substr(0, 20000) + "\r\n\r\n", 431},
        Case{post("/echo", large.substr(0, 200 * 1024)), 413}}) {
    CAPTURE(each.status);
    Client client(listener);
    client.send(each.request);
    const auto reply = client.receive();
    REQUIRE(reply);
    CHECK(reply->status == each.status);
    CHECK_FALSE(reply->keeps_alive());
    CHECK(client.closed_in_order());
  }
  CHECK(Client(listener).ask(get("/pid")).status == 200);
}

TEST_CASE("an idle connection is closed after the keep-alive time") {
  const Listener listener;
  const Example example(listener, {"--keepalive", "0.1"});
  Client used(listener);
  CHECK(used.ask(get("/pid")).keeps_alive());
  CHECK(used.closed_in_order());
  Client unused(listener);
  CHECK(unused.closed_in_order());
  Client after_a_pause(listener);
  CHECK(after_a_pause.ask(get("/slow?ms=10")).keeps_alive());
  CHECK(after_a_pause.closed_in_order());
}

TEST_CASE("without keep-alive each connection gets one answer, and is told") {
  const Listener listener;
  const Example example(listener, {"--keepalive", "0"});
  for (int i = 0; i < 3; ++i) {
    Client client(listener);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));  // NOLINT(sleep): it is accepted
    CHECK_FALSE(client.ask(get("/pid")).keeps_alive());
    CHECK(client.closed_in_order());
  }
}

TEST_CASE("a request that came while the worker had no CPU is answered, however late") {
  const Listener listener;
  Example example(listener, {"--keepalive", "0.2"});
  for (int i = 0; i < 3; ++i) {
    Client client(listener);
    CHECK(client.ask(get("/pid")).keeps_alive());
    example.process().signal(SIGSTOP);
    client.send(get("/pid"));
    std::this_thread::sleep_for(std::chrono::milliseconds(250));  // NOLINT(sleep): time passes
    example.process().signal(SIGCONT);
    CHECK(client.receive());
  }
}

TEST_CASE("an idle worker sleeps, with connections and without") {
  const Listener listener;
  const Example example(listener);
  std::vector<Client> clients;
  for (int i = 0; i < 5; ++i) clients.emplace_back(listener).ask(get("/pid"));
  const long before = example.context_switches_when_asleep();
  std::this_thread::sleep_for(std::chrono::milliseconds(500));  // NOLINT(sleep): nothing happens
  CHECK(example.context_switches_when_asleep() == before);
}

// The sanitizer of undefined behaviour opens a pipe to look at memory, and takes it for a fault of
// the program if it gets none.
TEST_CASE("a worker out of descriptors waits, and answers when there are some again" *
          doctest::skip(OSTLER_SANITIZED)) {
  const Listener listener;
  const Example example(listener);
  rlimit before{};
  checked(::prlimit(example.pid(), RLIMIT_NOFILE, nullptr, &before), "ask for the limit");
  const rlimit none{3, before.rlim_max};
  checked(::prlimit(example.pid(), RLIMIT_NOFILE, &none, nullptr), "limit the descriptors");
  Client client(listener);
  client.send(get("/pid", "Connection: close\r\n"));
  const long used = cpu_ticks(example.pid());
  std::this_thread::sleep_for(std::chrono::milliseconds(300));  // NOLINT(sleep): 30 ticks
  CHECK(cpu_ticks(example.pid()) - used < 10);
  checked(::prlimit(example.pid(), RLIMIT_NOFILE, &before, nullptr), "lift the limit");
  CHECK(client.receive());
}

TEST_CASE("without a listener the example says what to do") {
  std::array<int, 2> ends;
  checked(::pipe(ends.data()), "make a pipe");
  const Fd read_end(ends[0]);
  Process example({ends[1]}, [] {
    set_environment({});
    ::dup2(3, STDERR_FILENO);
    return checked(::execl(OSTLER_EXAMPLE_HTTP, "ostler-example-http", nullptr), "execute");
  });
  ::close(ends[1]);
  CHECK(example.wait() == 2);
  std::array<char, 256> text{};
  checked(::read(read_end.get(), text.data(), text.size() - 1), "read the error");
  CHECK(std::string(text.data()).find("--listen") != std::string::npos);
}

}  // namespace ostler::test
