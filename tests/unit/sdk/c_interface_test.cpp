// The C interface, by the example worker in C and in processes of the test's own.
#include <doctest/doctest.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <string>
#include <thread>
#include <vector>

#include "example.hpp"
#include "obedient.hpp"
#include "ostler/protocol.h"
#include "ostler/worker.h"

namespace ostler::test {
namespace {

using namespace std::chrono_literals;

std::string read_all(int socket) {
  const Fd client(socket);
  std::string text;
  std::array<char, 512> piece;
  for (int size = 1; size > 0; text.append(piece.data(), static_cast<std::size_t>(size))) {
    size = checked(::read(client.get(), piece.data(), piece.size()), "read an answer");
  }
  return text;
}

std::string ask(int socket) {
  const std::string text = get("/");
  checked(::write(socket, text.data(), text.size()), "send a request");
  checked(::shutdown(socket, SHUT_WR), "half-close");
  return read_all(socket);
}

// Answers "x" to every connection in so many threads until it is asked to stop.
// If `in_steps`, it tells of progress after the client's first byte, and waits for another.
int serve_in_c(std::size_t threads, bool in_steps = false) {
  if (ostler_worker_open() != 0) return 1;
  if (ostler_worker_ready() != 0) return 2;
  const auto serve = [in_steps] {
    for (int fd = -1; (fd = ostler_worker_accept()) >= 0; ostler_worker_close_connection(fd)) {
      const auto request = ostler_worker_request_begin(fd, "x");
      std::array<char, 2> steps{};
      for (std::size_t i = 0; in_steps && i < steps.size(); ++i) {
        if (::read(fd, &steps[i], 1) != 1) std::perror("read a step");
        if (i == 0) ostler_worker_request_progress(request);
      }
      if (::write(fd, "x", 1) != 1) std::perror("answer");
      ostler_worker_request_end(request);
    }
    if (errno != ESHUTDOWN) std::perror("accept");
  };
  std::vector<std::thread> others;
  for (std::size_t i = 1; i < threads; ++i) others.emplace_back(serve);
  serve();
  for (auto& each : others) each.join();
  ostler_worker_close();
  return 0;
}

}  // namespace

TEST_CASE("the example in C answers, counts, and drains") {
  fake_manager manager({.command = {OSTLER_EXAMPLE_C}});
  manager.wait_for_message(OSTLER_HELLO);
  manager.wait_ready();
  const std::string answer = "hello from C, pid " + std::to_string(manager.pid()) + "\n";
  for (int i = 0; i < 3; ++i) CHECK(ask(manager.connect()).ends_with(answer));
  CHECK(ask(manager.hand_over()).ends_with(answer));
  manager.wait_for_message(OSTLER_AWAKE);
  manager.wait_until([](const auto& now) { return now.active == 0 && now.connections == 0; });
  CHECK(manager.figures().requests == 3);
  CHECK(manager.figures().accepted == 3);
  manager.ask_to_stop();
  manager.wait_for("STOPPING=1");
  CHECK(manager.wait() == 0);
}

TEST_CASE("progress in C is a sign of life where every thread is busy") {
  fake_manager manager({.body = [] { return serve_in_c(1, true); }});
  manager.wait_ready();
  const Fd client(manager.connect());
  manager.wait_until([](const worker_figures& now) { return now.active == 1; });
  checked(::write(client.get(), "a", 1), "send the first step");
  std::uint64_t told = 0;
  manager.wait_until([&](const worker_figures&) {
    const auto requests = manager.requests();
    if (requests.empty() || requests.front().progress <= requests.front().start) return false;
    told = requests.front().progress;
    return true;
  });
  CHECK(manager.figures().beat == told);
  checked(::write(client.get(), "b", 1), "send the second step");
  CHECK(read_all(::dup(client.get())) == "x");
}

TEST_CASE("a worker in C is warmed up") {
  fake_manager manager({.command = {OSTLER_EXAMPLE_C}, .warmup = true});
  manager.wait_ready();
  const int client = manager.connect();
  CHECK(ask(manager.hand_over()).starts_with("HTTP/1.0 200 OK\r\n"));
  CHECK(manager.figures().accepted == 0);
  manager.let_accept();
  CHECK(ask(client).starts_with("HTTP/1.0 200 OK\r\n"));
}

TEST_CASE("threads accept side by side, in turn with several listeners, and all stop") {
  for (const std::size_t threads : {1U, 4U}) {
    CAPTURE(threads);
    fake_manager manager({.body = [=] { return serve_in_c(threads); }, .listeners = 3});
    manager.wait_ready();
    for (std::size_t i = 0; i < 60; ++i) CHECK(read_all(manager.connect(i % 3)) == "x");
    for (int i = 0; i < 5; ++i) CHECK(read_all(manager.hand_over(false)) == "x");
    manager.wait_until([](const auto& now) { return now.requests == 65; });
    manager.ask_to_stop();
    CHECK(manager.wait() == 0);
    CHECK(manager.figures().connections == 0);
  }
}

TEST_CASE("a thread that waits in C lets the worker come to rest") {
  fake_manager manager({.body = [] { return serve_in_c(1); }, .heartbeat = 100ms});
  manager.wait_ready();
  CHECK(read_all(manager.connect()) == "x");
  manager.wait_for_message(OSTLER_AWAKE);
  manager.wait_until([](const auto& now) { return !now.awake; });
  CHECK(read_all(manager.connect()) == "x");
  manager.wait_for_message(OSTLER_AWAKE);
}

TEST_CASE("the C interface says what is wrong") {
  CHECK(in_child({}, {},
                 [] {
                   std::string said;
                   const auto note = [&](long result) {
                     said += std::to_string(result) + " " + std::to_string(errno) + " " +
                             ostler_worker_error() + "; ";
                   };
                   note(ostler_worker_ready());
                   CHECK(ostler_worker_open() == 0);
                   note(ostler_worker_open());
                   note(ostler_worker_ready());
                   note(ostler_worker_listener_fd(0));
                   ostler_worker_close();
                   return said;
                 }) ==
        "-1 107 ostler_worker_open() has not been called; "
        "-1 16 ostler_worker_open() has been called before; "
        "-1 107 say READY=1: Transport endpoint is not connected; "
        "-1 22 there is no listener of that number; ");
}

TEST_CASE("the listeners are there in C") {
  const Listener listener;
  CHECK(in_child({{"LISTEN_PID", "self"}, {"LISTEN_FDS", "1"}, {"LISTEN_FDNAMES", "http"}},
                 {listener.fd()}, [] {
                   ostler_worker_open();
                   std::string said = std::to_string(ostler_worker_listener_count()) + " " +
                                      std::to_string(ostler_worker_listener_fd(0)) + " " +
                                      ostler_worker_listener_name(0);
                   if (ostler_worker_listener_name(1) == nullptr) said += " and no more";
                   ostler_worker_close();
                   return said;
                 }) == "1 3 http and no more");
}

}  // namespace ostler::test
