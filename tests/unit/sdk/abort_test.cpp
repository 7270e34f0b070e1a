// What a worker says when it is aborted.
#include <doctest/doctest.h>

#include <csignal>
#include <string>
#include <vector>

#include "obedient.hpp"
#include "ostler/protocol.h"

namespace ostler::test {

TEST_CASE("an aborted worker names its requests and shows where the oldest is") {
  for (const std::string name : {"sync", "threads", "async"}) {
    CAPTURE(name);
    fake_manager manager(obedient_worker(name, "threads=3"));
    manager.wait_ready();
    const std::string target = "/" + std::string(100, 'a') + "\x1b[31m";
    LineClient client(manager.connect());
    CHECK(client.ask("begin GET " + target) == "ok");
    std::vector<LineClient> others;
    if (name != "sync") {
      others.emplace_back(manager.connect());
      CHECK(others.back().ask("begin POST /later") == "ok");
    }
    client.send("hang");
    manager.wait_for_error("hanging\n");
    const auto oldest = manager.requests().at(0);
    manager.signal(SIGABRT);
    const std::string thread = std::to_string(oldest.thread);
    std::string report = manager.wait_for_error("stack of thread " + thread);
    const auto first = report.find("serving GET /" + std::string(100, 'a') + "?[31m for 0.");
    CHECK(first != std::string::npos);
    CHECK(report.find(" s, thread " + thread + "\n") != std::string::npos);
    if (name != "sync") {
      const auto second = report.find("serving POST /later for 0.");
      CHECK(second != std::string::npos);
      CHECK(first < second);
    }
    if (!OSTLER_SANITIZED) manager.wait_for_error("ostler_test_hangs_here");
    CHECK(manager.wait() == -SIGABRT);
  }
}

TEST_CASE(
    "the stack is that of the thread that hangs, and not of an older one that may take long") {
  for (const std::string older : {"extend 60000", "progress"}) {
    CAPTURE(older);
    fake_manager manager(obedient_worker("threads", "threads=3"));
    manager.wait_ready();
    LineClient patient(manager.connect());
    CHECK(patient.ask("begin GET /patient") == "ok");
    LineClient stuck(manager.connect());
    CHECK(stuck.ask("begin GET /stuck") == "ok");
    stuck.send("hang");
    manager.wait_for_error("hanging\n");
    CHECK(patient.ask(older) == "ok");
    const auto requests = manager.requests();
    REQUIRE(requests.size() == 2);
    REQUIRE(requests[1].text == "GET /stuck");
    manager.signal(SIGABRT);
    manager.wait_for_error("stack of thread " + std::to_string(requests[1].thread) + ":");
    if (!OSTLER_SANITIZED) manager.wait_for_error("ostler_test_hangs_here");
    CHECK(manager.wait() == -SIGABRT);
  }
}

TEST_CASE("the page shows a request's path, and the report all of it") {
  fake_manager manager(obedient_worker("async"));
  manager.wait_ready();
  LineClient client(manager.connect());
  CHECK(client.ask("begin GET /account?token=secret") == "ok");
  CHECK(manager.requests().at(0).text == "GET /account");
  manager.signal(SIGABRT);
  manager.wait_for_error("serving GET /account?token=secret for ");
  CHECK(manager.wait() == -SIGABRT);
}

TEST_CASE("of many requests sixteen are named") {
  fake_manager manager(obedient_worker("async"));
  manager.wait_ready();
  std::vector<LineClient> clients;
  for (int i = 0; i < 20; ++i) {
    clients.emplace_back(manager.connect());
    CHECK(clients.back().ask("begin GET /" + std::to_string(i)) == "ok");
  }
  manager.signal(SIGABRT);
  const std::string report = manager.wait_for_error("and 4 more requests\n");
  CHECK(report.find("GET /15 ") != std::string::npos);
  CHECK(report.find("GET /16 ") == std::string::npos);
  CHECK(manager.wait() == -SIGABRT);
}

TEST_CASE("a worker that is aborted without work just ends") {
  fake_manager manager(obedient_worker("async"));
  manager.wait_ready();
  manager.signal(SIGABRT);
  CHECK(manager.wait() == -SIGABRT);
}

}  // namespace ostler::test
