// What a worker tells its manager, as it arrives at a real socket.
#include <doctest/doctest.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ostler/worker.hpp"
#include "process.hpp"

namespace ostler::test {
namespace {

using std::chrono::microseconds;

void say_everything(const worker& worker) {
  worker.ready();
  worker.status("serving 3\nREADY=0\tconnections\x7f");
  worker.heartbeat();
  worker.extend_timeout(std::chrono::seconds(5));
  worker.report_errno(ENOSPC);
  worker.stopping();
}

const std::vector<std::string> kEverything = {
    "READY=1",    "STATUS=serving 3 READY=0 connections ",
    "WATCHDOG=1", "EXTEND_TIMEOUT_USEC=5000000",
    "ERRNO=28",   "STOPPING=1",
};

// Runs the body in a child that has this notify socket, and returns what it returned.
std::string with_worker(const std::string& name, const std::function<std::string(worker&)>& body) {
  return in_child({{"NOTIFY_SOCKET", name}}, {}, [&] {
    worker worker;
    return body(worker);
  });
}

std::string said(bool taken) {
  return taken ? "taken" : "errno " + std::to_string(errno);
}

}  // namespace

TEST_CASE("messages arrive at a path and at an abstract name") {
  const ScratchDirectory scratch;
  for (const std::string& name :
       {scratch.file("notify"), "@ostler-sdk-test-" + std::to_string(::getpid())}) {
    CAPTURE(name);
    NotifyEnd manager(name);
    CHECK(with_worker(name, [](worker& worker) {
            say_everything(worker);
            return std::string(worker.managed() ? "managed" : "alone");
          }) == "managed");
    for (const auto& expected : kEverything) CHECK(manager.next() == expected);
  }
}

TEST_CASE("without a manager nothing is said and nothing fails") {
  CHECK(in_child({}, {}, [] {
          const worker worker;
          say_everything(worker);
          return (worker.managed() ? "managed, " : "alone, ") + said(worker.ready());
        }) == "alone, errno " + std::to_string(ENOTCONN));
}

TEST_CASE("a manager that is gone is an error without an exception") {
  const ScratchDirectory scratch;
  CHECK(with_worker(scratch.file("nobody"), [](worker& worker) { return said(worker.ready()); }) ==
        "errno " + std::to_string(ENOENT));
}

TEST_CASE("a manager may replace its socket") {
  const ScratchDirectory scratch;
  const std::string name = scratch.file("notify");
  auto first = std::make_unique<NotifyEnd>(name);
  std::unique_ptr<NotifyEnd> second;
  Reports reports;
  Reports go;
  Process child({}, [&] {
    set_environment({{"NOTIFY_SOCKET", name}});
    const worker worker;
    reports.say(said(worker.status("one")));
    reports.say(said((go.next(), worker.status("two"))));
    return 0;
  });
  CHECK(reports.next() == "taken");
  CHECK(first->next() == "STATUS=one");
  first.reset();
  checked(::unlink(name.c_str()), "remove the first socket");
  second = std::make_unique<NotifyEnd>(name);
  go.say("");
  CHECK(reports.next() == "taken");
  CHECK(second->next() == "STATUS=two");
}

TEST_CASE("a long status is cut, and not inside a character") {
  const ScratchDirectory scratch;
  NotifyEnd manager(scratch.file("notify"));
  with_worker(scratch.file("notify"), [](worker& worker) {
    worker.status(std::string(5000, 'a'));
    worker.status(std::string(worker::kStatusLimit - 1, 'b') + "\xc3\xa4 and more");
    worker.status("");
    return std::string();
  });
  CHECK(manager.next() == "STATUS=" + std::string(worker::kStatusLimit, 'a'));
  CHECK(manager.next() == "STATUS=" + std::string(worker::kStatusLimit - 1, 'b'));
  CHECK(manager.next() == "STATUS=");
}

TEST_CASE("a heartbeat never waits for a manager that does not read") {
  const ScratchDirectory scratch;
  const NotifyEnd manager(scratch.file("notify"));
  CHECK(with_worker(scratch.file("notify"), [](worker& worker) {
          const auto start = std::chrono::steady_clock::now();
          while (worker.heartbeat()) {
          }
          const auto reason = said(false);
          const bool soon = std::chrono::steady_clock::now() - start < worker::kNotifyPatience;
          return reason + (soon ? " at once" : " after waiting");
        }) == "errno " + std::to_string(EAGAIN) + " at once");
}

TEST_CASE("what must arrive waits until the manager reads") {
  const ScratchDirectory scratch;
  NotifyEnd manager(scratch.file("notify"));
  Reports reports;
  Process child({}, [&] {
    set_environment({{"NOTIFY_SOCKET", scratch.file("notify")}});
    const worker worker;
    while (worker.heartbeat()) {
    }
    reports.say("full");
    reports.say(said(worker.ready()));
    return 0;
  });
  CHECK(reports.next() == "full");
  CHECK(reports.silent_for(std::chrono::milliseconds(100)));
  manager.expect("READY=1");
  CHECK(reports.next() == "taken");
}

TEST_CASE("a timeout can only be extended by a positive time") {
  const ScratchDirectory scratch;
  NotifyEnd manager(scratch.file("notify"));
  CHECK(with_worker(scratch.file("notify"), [](worker& worker) {
          const auto zero = said(worker.extend_timeout(microseconds(0)));
          const auto negative = said(worker.extend_timeout(microseconds(-1)));
          return zero + ", " + negative + ", " + said(worker.extend_timeout(microseconds(1)));
        }) == "errno 22, errno 22, taken");
  CHECK(manager.next() == "EXTEND_TIMEOUT_USEC=1");
}

}  // namespace ostler::test
