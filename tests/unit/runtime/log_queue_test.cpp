#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "runtime/log_queue.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "recorded_log.hpp"
#include "runtime/limits.hpp"

using namespace ostler::runtime;
using namespace std::chrono_literals;

namespace {

using Lines = std::vector<std::string>;

struct Fixture {
  Fixture() = default;
  // What is in the queue holds it.
  ~Fixture() { written(*queue, *log); }
  Fixture(const Fixture&) = delete;
  Fixture& operator=(const Fixture&) = delete;

  std::shared_ptr<RecordedLog> log = std::make_shared<RecordedLog>();
  std::shared_ptr<LogQueue> queue = std::make_shared<LogQueue>(log);

  std::shared_ptr<LogSource> worker(const std::string& name) const {
    return queue->worker({name, name, "", nullptr, log});
  }
  void own(const std::string& text) const {
    LogLine line;
    line.text = text;
    queue->add(std::move(line));
  }
};

// Adds lines until there is no room. Returns how many.
std::size_t fill(LogSource& source, const std::string& text) {
  std::size_t added = 0;
  for (std::size_t room = source.room(); room > 0; room = source.room()) {
    source.add(Lines(room, text));
    added += room;
  }
  return added;
}

}  // namespace

TEST_CASE("a worker's lines have a bound, and so have their bytes") {
  const Fixture with;
  CHECK(fill(*with.worker("web.0"), "") == limits::kLogLines);
  const std::string line(limits::kOutputLine, 'x');
  const std::size_t bytes = fill(*with.worker("web.1"), line) * line.size();
  CHECK(bytes > limits::kLogBytes / 2);
  CHECK(bytes <= limits::kLogBytes + limits::kOutputBatch * line.size());
}

TEST_CASE("all workers together have a bound, but who has nothing in the queue is heard") {
  const Fixture with;
  const std::string line(1000, 'x');
  std::vector<std::shared_ptr<LogSource>> workers;
  std::size_t lines = 0;
  for (int i = 0; i < 100; ++i) {
    workers.push_back(with.worker("web." + std::to_string(i)));
    lines += fill(*workers.back(), line);
  }
  const std::size_t floor = 100 * limits::kOutputBatch;  // at least once each
  CHECK(lines * line.size() < limits::kLogWorkersBytes + floor * line.size());
  const auto last = with.worker("web.100");
  REQUIRE(last->room() > 0);
  last->add({"heard"});
  CHECK(last->room() == 0);
  const Lines written_lines = written(*with.queue, *with.log);
  CHECK(written_lines.back() == "web.100: heard");
  CHECK(written_lines.size() == lines + 1);  // nothing is dropped
  CHECK(last->room() > 0);
}

TEST_CASE("lines stay in the order in which they came, and the manager's own among them") {
  const Fixture with;
  const auto first = with.worker("web.0");
  const auto second = with.worker("web.1");
  first->add({"one", "two"});
  second->add({"three"});
  with.own("web.0 gone");
  first->add({"four"});
  CHECK(written(*with.queue, *with.log) ==
        Lines{"web.0: one", "web.0: two", "web.1: three", "web.0 gone", "web.0: four"});
}

TEST_CASE("no worker's line takes the place of one of the manager's") {
  const Fixture with;
  std::vector<std::shared_ptr<LogSource>> workers;
  with.own("audit");
  for (int i = 0; i < 50; ++i) {
    workers.push_back(with.worker("web." + std::to_string(i)));
    fill(*workers.back(), "");
    workers.back()->add({"more than there is room for"});
    with.own("audit");
  }
  const Lines lines = written(*with.queue, *with.log);
  CHECK(std::ranges::count(lines, "audit") == 51);
}

TEST_CASE("lines of the manager's own that have no room are counted, and the number is said") {
  const Fixture with;
  for (std::size_t i = 0; i < limits::kLogOwnLines + 3; ++i) with.own(std::to_string(i));
  const Lines lines = written(*with.queue, *with.log);
  REQUIRE(lines.size() == limits::kLogOwnLines + 1);
  CHECK(lines.front() == "0");
  CHECK(lines.back() == "3 lines of the manager were dropped: the log was not read");
  with.own("again");
  CHECK(written(*with.queue, *with.log) == Lines{"again"});
}

TEST_CASE("a worker waits for a log that stands still, but not for ever; what is dropped is said") {
  const Fixture with;
  with.log->stand_still(true);
  std::thread writer([&] { with.queue->write(); });
  const auto source = with.worker("web.0");
  source->add({"in hand"});
  with.log->await_line();
  const std::size_t queued = fill(*source, "queued");
  CHECK(queued == limits::kLogLines);
  const auto deadline = std::chrono::steady_clock::now() + 20s;
  while (source->room() == 0 && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(5ms);  // NOLINT(sleep): between two looks
  }
  CHECK(source->room() > 0);
  source->add({"dropped", "dropped"});
  with.own("the manager's");
  source->add({"dropped"});
  with.log->stand_still(false);
  CHECK(with.queue->finish(20s));
  writer.join();
  const Lines& lines = with.log->lines;
  REQUIRE(lines.size() == 1 + queued + 2);
  CHECK(lines[queued] == "web.0: queued");
  CHECK(lines[queued + 1] == "3 lines of web.0 were dropped: the log was not read");
  CHECK(lines[queued + 2] == "the manager's");
}

TEST_CASE("who had to wait is told when there is room again") {
  const Fixture with;
  int told = 0;
  with.queue->on_room([&] { ++told; });
  const auto held = with.worker("web.0");
  const auto other = with.worker("web.1");
  fill(*held, "");
  other->add({"had no need to wait"});
  written(*with.queue, *with.log);
  CHECK(told == 1);
  CHECK(held->room() > 0);
}

TEST_CASE("what was never read is counted with the rest") {
  const Fixture with;
  const auto source = with.worker("web.0");
  source->drop(1);
  CHECK(written(*with.queue, *with.log) ==
        Lines{"1 line of web.0 was dropped: the log was not read"});
  source->drop(0);
  CHECK(written(*with.queue, *with.log).empty());
}
