#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "runtime/output.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/post.hpp>
#include <chrono>
#include <ctime>
#include <functional>
#include <thread>

#include "recorded_log.hpp"
#include "runtime/limits.hpp"

using namespace ostler::runtime;
using namespace std::chrono_literals;

namespace {

using Lines = std::vector<std::string>;
using Clock = WorkerOutput::Clock;
constexpr std::size_t kPipe = 65536;  // what a pipe holds

struct Fixture {
  boost::asio::io_context context;
  OutputTurns turns{context};
  std::shared_ptr<RecordedLog> log = std::make_shared<RecordedLog>();
  std::shared_ptr<LogQueue> queue = std::make_shared<LogQueue>(log);

  // Runs the loop until `done` holds.
  bool run_until(const std::function<bool()>& done) {
    const auto deadline = Clock::now() + 20s;
    while (!done() && Clock::now() < deadline) context.run_one_for(50ms);
    return done();
  }
};

struct Worker {
  explicit Worker(Fixture& fixture, const std::string& name, bool is_logged = true) {
    std::array<int, 2> pipe{};
    REQUIRE(pipe2(pipe.data(), O_CLOEXEC | O_NONBLOCK) == 0);
    end = UniqueFd(pipe[1]);
    output = std::make_shared<WorkerOutput>(fixture.context, fixture.turns, UniqueFd(pipe[0]));
    output->start(is_logged ? fixture.queue->worker({name, name, "… ", nullptr, fixture.log})
                            : nullptr);
  }
  ~Worker() { output->close(); }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void write(const std::string& text) const {
    REQUIRE(::write(end.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  }
  // Bytes that are still in the pipe.
  [[nodiscard]] int left() const {
    int bytes = 0;
    REQUIRE(ioctl(end.get(), FIONREAD, &bytes) == 0);
    return bytes;
  }

  UniqueFd end;
  std::shared_ptr<WorkerOutput> output;
};

Lines numbers(int from, int to, const std::string& before = "") {
  Lines lines;
  for (int i = from; i < to; ++i) lines.push_back(before + std::to_string(i));
  return lines;
}

std::chrono::nanoseconds processor_time() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

std::string joined(const Lines& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

}  // namespace

TEST_CASE("a pipe is read no faster than the log is written, and nothing is lost") {
  Fixture with;
  const Worker worker(with, "web.0");
  worker.write(joined(numbers(0, 10000)));
  const auto is_idle = [&] { return with.context.run_for(20ms) == 0; };
  CHECK(with.run_until(is_idle));
  CHECK(worker.left() > 0);  // a worker that goes on would have to wait
  with.queue->on_room([&] { boost::asio::post(with.context, [&] { with.turns.log_has_room(); }); });
  std::thread writer([&] { with.queue->write(); });
  const auto all = [&] {
    const std::lock_guard lock(with.log->mutex);
    return with.log->lines.size() == 10000;
  };
  CHECK(with.run_until(all));
  CHECK(with.queue->finish(20s));
  writer.join();
  CHECK(with.log->lines == numbers(0, 10000, "web.0: "));
}

TEST_CASE("workers that flood have their turn, and the others theirs") {
  Fixture with;
  const Worker first(with, "flood.0");
  const Worker second(with, "flood.1");
  const Worker quiet(with, "web.0");
  first.write(std::string(kPipe, '\n'));
  second.write(std::string(kPipe, '\n'));
  quiet.write("hello\n");
  CHECK(with.run_until([&] { return !quiet.output->tail().empty(); }));
  const Lines lines = written(*with.queue, *with.log);
  const auto hello = std::ranges::find(lines, "web.0: hello");
  REQUIRE(hello != lines.end());
  CHECK(hello - lines.begin() <= static_cast<std::ptrdiff_t>(4 * limits::kOutputBatch));
}

TEST_CASE("however short or long the lines that are read, the loop is held for a short time") {
  Fixture with;
  std::string text;
  SUBCASE("line breaks") {
    text.assign(kPipe, '\n');
  }
  SUBCASE("long lines") {
    text.assign(kPipe, 'x');
  }
  SUBCASE("control characters") {
    text.assign(kPipe, '\x01');
  }
  std::vector<std::unique_ptr<Worker>> workers;
  for (int i = 0; i < 8; ++i) {
    workers.push_back(std::make_unique<Worker>(with, "flood", false));  // no log holds them up
    workers.back()->write(text);
  }
  const auto all = [&] {
    return std::ranges::all_of(workers, [](const auto& one) { return one->left() == 0; });
  };
  // Handlers run one at a time. Processor time: others may have the processor in between.
  std::chrono::nanoseconds longest{};
  while (!all()) {
    const auto begin = processor_time();
    with.context.poll_one();
    longest = std::max(longest, processor_time() - begin);
  }
  CHECK(longest < limits::kOutputTurn + 2ms);
}

TEST_CASE("a line that is too long is cut, and what follows is marked") {
  Fixture with;
  const Worker worker(with, "web.0");
  const std::string full(limits::kOutputLine, 'x');
  worker.write(full + "\n" + full + "info control: stop\nnext\n");
  CHECK(with.run_until([&] { return worker.output->tail().size() == 4; }));
  CHECK(written(*with.queue, *with.log) ==
        Lines{"web.0: " + full, "web.0: " + full, "web.0: … info control: stop", "web.0: next"});
}

TEST_CASE("control bytes are escaped, and a carriage return at the end is none of the line") {
  Fixture with;
  const Worker worker(with, "web.0");
  worker.write("a\x1b[31m\r\n\r\n");
  CHECK(with.run_until([&] { return worker.output->tail().size() == 2; }));
  CHECK(written(*with.queue, *with.log) == Lines{"web.0: a\\x1b[31m", "web.0: "});
}

TEST_CASE("what a worker wrote before it died is read at once, also an unfinished line") {
  Fixture with;
  const Worker worker(with, "web.0");
  worker.write("last words\nunfinished");
  worker.output->drain(Clock::now() + 1s);
  CHECK(worker.output->tail() == Lines{"last words", "unfinished"});
  CHECK(written(*with.queue, *with.log) == Lines{"web.0: last words", "web.0: unfinished"});
  CHECK_FALSE(with.turns.has_last_words());
}

TEST_CASE("a report has the last lines although the log has no room for them yet") {
  Fixture with;
  const Worker worker(with, "web.0");
  worker.write(joined(numbers(0, 5000)) + "unfinished");
  worker.output->drain(Clock::now() + 1s);
  Lines last = numbers(5000 - static_cast<int>(limits::kTailLines) + 1, 5000);
  last.emplace_back("unfinished");
  CHECK(worker.output->tail() == last);
  CHECK(with.turns.has_last_words());
  // They come when there is room.
  Lines all;
  const auto done = [&] {
    with.turns.log_has_room();
    for (std::string& line : written(*with.queue, *with.log)) all.push_back(std::move(line));
    return !with.turns.has_last_words();
  };
  CHECK(with.run_until(done));
  Lines expected = numbers(0, 5000, "web.0: ");
  expected.emplace_back("web.0: unfinished");
  CHECK(all == expected);
  CHECK(worker.output->tail() == last);
}

TEST_CASE("last lines that nobody takes are counted at the end") {
  Fixture with;
  const Worker worker(with, "web.0");
  REQUIRE(fcntl(worker.end.get(), F_SETPIPE_SZ, 4 * kPipe) > 0);
  worker.write(joined(numbers(10000, 30000)) + "unfinished");  // more than is read at once
  worker.output->drain(Clock::now() + 1s);
  CHECK(with.run_until([&] { return with.context.run_for(20ms) == 0; }));
  with.turns.give_up();
  CHECK_FALSE(with.turns.has_last_words());
  const Lines lines = written(*with.queue, *with.log);
  CHECK(lines.back() == std::to_string(20001 - limits::kLogLines) +
                            " lines of web.0 were dropped: the log was not read");
}

TEST_CASE("a log that stands still holds up no worker") {
  Fixture with;
  with.log->stand_still(true);
  std::thread writer([&] { with.queue->write(); });
  const Worker worker(with, "web.0");
  worker.write("in hand\n");
  CHECK(with.run_until([&] { return !worker.output->tail().empty(); }));
  with.log->await_line();
  worker.write(joined(numbers(0, 3000)));
  CHECK(with.run_until([&] { return worker.left() == 0; }));
  // What was read has become lines, too.
  CHECK(with.run_until([&] { return with.context.run_for(20ms) == 0; }));
  with.log->stand_still(false);
  CHECK(with.queue->finish(20s));
  writer.join();
  const std::size_t kept = limits::kLogLines;
  REQUIRE(with.log->lines.size() >= kept + 2);
  CHECK(with.log->lines[kept] == "web.0: " + std::to_string(kept - 1));
  CHECK(with.log->lines[kept + 1] ==
        std::to_string(3000 - kept) + " lines of web.0 were dropped: the log was not read");
}
