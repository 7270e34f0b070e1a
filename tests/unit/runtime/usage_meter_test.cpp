// Processes whose usage is scripted: known at once, late, or not before the test lets it be.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "runtime/usage_meter.hpp"

#include <doctest/doctest.h>

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace ostler;
using namespace std::chrono_literals;
using core::WorkerId;
using runtime::Usage;
using runtime::UsageMeter;

namespace {

// A process uses a hundred times its pid. One in `stuck` is measured until it is let go.
struct Scale {
  std::mutex mutex;
  std::condition_variable changed;
  std::set<pid_t> stuck;
  std::chrono::milliseconds takes{0};
  std::vector<pid_t> order;

  Usage measure(pid_t pid) {
    std::unique_lock lock(mutex);
    order.push_back(pid);
    if (takes > 0ms) std::this_thread::sleep_for(takes);  // NOLINT(sleep): to let time pass
    changed.wait(lock, [&] { return !stuck.contains(pid); });
    return {static_cast<std::uint64_t>(pid) * 100, 0.5};
  }
  void let_go(pid_t pid) {
    const std::lock_guard lock(mutex);
    stuck.erase(pid);
    changed.notify_all();
  }
};

struct Measuring {
  explicit Measuring(std::chrono::milliseconds patience = 100ms) {
    UsageMeter::Hooks hooks;
    hooks.measured = [this](WorkerId worker, core::Time, const Usage& usage) {
      measured[worker.value].push_back(usage.memory);
    };
    hooks.overdue = [this](WorkerId worker, const std::string& why) {
      overdue.emplace_back(worker.value, why);
    };
    hooks.measure = [scale = scale](pid_t pid) { return scale->measure(pid); };
    hooks.patience = patience;
    meter.emplace(context, std::move(hooks));
  }
  static UsageMeter::Subject subject(int number) {
    return {WorkerId{static_cast<std::uint64_t>(number)}, number};
  }
  void until(const std::function<bool()>& done) {
    const auto deadline = std::chrono::steady_clock::now() + 30s;
    while (!done() && std::chrono::steady_clock::now() < deadline) {
      context.restart();
      context.run_one_for(20ms);
    }
    REQUIRE(done());
  }
  bool known(int number) { return !measured[static_cast<std::uint64_t>(number)].empty(); }

  boost::asio::io_context context;
  std::shared_ptr<Scale> scale = std::make_shared<Scale>();
  std::map<std::uint64_t, std::vector<std::optional<std::uint64_t>>> measured;
  std::vector<std::pair<std::uint64_t, std::string>> overdue;
  std::optional<UsageMeter> meter;
};

}  // namespace

TEST_CASE("an answer comes when all is measured, or at once if there is nothing to measure") {
  Measuring with;
  int answers = 0;
  with.meter->refresh({}, [&] { ++answers; });
  CHECK(answers == 1);
  with.meter->refresh({with.subject(1), with.subject(2)}, [&] {
    ++answers;
    CHECK(with.known(1));
    CHECK(with.known(2));
  });
  CHECK(answers == 1);
  with.until([&] { return answers == 2; });
  CHECK(with.measured[2] == std::vector<std::optional<std::uint64_t>>{200});
}

TEST_CASE("an answer does not wait for one that is not measured in time; the others are") {
  Measuring with;
  with.scale->stuck = {2};
  int answers = 0;
  const auto begin = std::chrono::steady_clock::now();
  with.meter->refresh({with.subject(1), with.subject(2), with.subject(3)}, [&] { ++answers; });
  with.until([&] { return answers == 1; });
  CHECK(std::chrono::steady_clock::now() - begin >= runtime::limits::kSamplePatience);
  CHECK(with.overdue.empty());  // the answer came first
  with.until([&] { return with.known(3); });
  CHECK(with.known(1));
  REQUIRE(with.overdue.size() == 1);
  CHECK(with.overdue.front().first == 2);
  CHECK(with.overdue.front().second == "measuring it has not come back within 100ms");
  CHECK_FALSE(with.known(2));

  with.meter->refresh({with.subject(2)}, [&] { ++answers; });  // it is left out
  CHECK(answers == 2);
  with.scale->let_go(2);
  with.until([&] { return with.known(2); });
  CHECK(with.measured[2] == std::vector<std::optional<std::uint64_t>>{200});
  CHECK(with.scale->order == std::vector<pid_t>{1, 2, 3});
}

TEST_CASE("what the core asks for is measured first, however long, and once") {
  Measuring with;
  with.scale->stuck = {1};
  with.scale->takes = 20ms;  // more than there is time for with an answer
  with.meter->measure(with.subject(1));
  bool answered = false;
  with.meter->refresh({with.subject(7), with.subject(8)}, [&] { answered = true; });
  for (const int number : {2, 3, 4, 4}) with.meter->measure(with.subject(number));
  with.until([&] { return answered; });
  with.until([&] { return with.known(4); });
  CHECK(with.scale->order == std::vector<pid_t>{1, 2, 3, 4});
  CHECK(with.measured[4].size() == 1);
  with.scale->let_go(1);
  with.until([&] { return with.known(1); });
}

TEST_CASE("where no look can be made any more, nothing is known, and that is an answer") {
  Measuring with(20ms);
  const int most = static_cast<int>(runtime::limits::kLostSweeps);
  for (int number = 1; number <= most; ++number) {
    with.scale->stuck.insert(number);
    with.meter->measure(with.subject(number));
  }
  with.until([&] { return with.overdue.size() == runtime::limits::kLostSweeps; });
  with.meter->measure(with.subject(100));
  REQUIRE(with.known(100));
  CHECK_FALSE(with.measured[100].front().has_value());
  CHECK(with.overdue.back().second == "8 looks at other workers have not come back");
  for (int number = 1; number <= most; ++number) with.scale->let_go(number);
  with.until([&] { return with.known(most); });
}
