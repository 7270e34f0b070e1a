// Looks that are scripted: which worker is seen when, and one that does not come back.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "runtime/readiness_watch.hpp"

#include <doctest/doctest.h>

#include <boost/asio/io_context.hpp>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

using namespace ostler;
using namespace std::chrono_literals;
using core::Seen;
using core::Sight;
using core::WorkerId;
using runtime::ReadinessWatch;
using runtime::Sighting;

namespace {

// What looks see, by pid. A pid in `stuck` is looked at until it is let go.
struct Eyes {
  std::mutex mutex;
  std::condition_variable changed;
  std::map<pid_t, Sighting> sees;
  std::set<pid_t> stuck;
  std::map<pid_t, int> looks;

  Sighting look(pid_t pid) {
    std::unique_lock lock(mutex);
    ++looks[pid];
    changed.wait(lock, [&] { return !stuck.contains(pid); });
    return sees[pid];
  }
  void see(pid_t pid, Sight sight, const std::string& detail = {}) {
    const std::lock_guard lock(mutex);
    sees[pid] = {sight, detail};
  }
  void hold(pid_t pid) {
    const std::lock_guard lock(mutex);
    stuck.insert(pid);
  }
  void let_go(pid_t pid) {
    const std::lock_guard lock(mutex);
    stuck.erase(pid);
    changed.notify_all();
  }
  int looks_at(pid_t pid) {
    const std::lock_guard lock(mutex);
    return looks[pid];
  }
};

struct Watching {
  Watching() { watch.emplace(context, hooks()); }
  ReadinessWatch::Hooks hooks() {
    ReadinessWatch::Hooks hooks;
    hooks.starting = [this](WorkerId worker) { return !ready.contains(worker.value); };
    hooks.seen = [this](Seen one) { seen.push_back(std::move(one)); };
    // Its own share of the eyes: a look may outlive the test.
    hooks.look = [eyes = eyes](pid_t pid, const auto&, const auto&) { return eyes->look(pid); };
    hooks.patience = 100ms;
    return hooks;
  }
  void add(int number, Sight sight, const std::string& detail = {}) {
    eyes->see(number, sight, detail);
    watch->watch(id(number), number, {1}, {});
  }
  static WorkerId id(int number) { return WorkerId{static_cast<std::uint64_t>(number)}; }
  void until(const std::function<bool()>& done) {
    const auto deadline = std::chrono::steady_clock::now() + 30s;
    while (!done() && std::chrono::steady_clock::now() < deadline) {
      context.restart();
      context.run_one_for(20ms);
    }
    REQUIRE(done());
  }
  int told(int number, Sight sight) const {
    int count = 0;
    for (const Seen& one : seen) count += one.worker == id(number) && one.sight == sight ? 1 : 0;
    return count;
  }

  boost::asio::io_context context;
  std::shared_ptr<Eyes> eyes = std::make_shared<Eyes>();
  std::set<std::uint64_t> ready;
  std::vector<Seen> seen;
  std::optional<ReadinessWatch> watch;
};

}  // namespace

TEST_CASE("what is new is told, with the moment at which the look began") {
  Watching with;
  const core::Time before(std::chrono::steady_clock::now().time_since_epoch());
  with.add(1, Sight::kNothing);
  with.until([&] { return with.eyes->looks_at(1) > 3; });
  CHECK(with.seen.size() == 1);
  CHECK(with.seen.front().sight == Sight::kNothing);
  CHECK(with.seen.front().since >= before);
  with.eyes->see(1, Sight::kUnknown, "/proc/1/fd");
  with.until([&] { return with.told(1, Sight::kUnknown) == 1; });
  CHECK(with.seen.back().detail == "/proc/1/fd");
  with.eyes->see(1, Sight::kWaiting);
  with.until([&] { return with.told(1, Sight::kWaiting) > 0; });
}

TEST_CASE("who waits is told until it is ready, and then looked at no more") {
  Watching with;
  with.add(1, Sight::kWaiting);
  with.add(2, Sight::kNothing);
  with.until([&] { return with.told(1, Sight::kWaiting) > 2; });
  with.ready.insert(1);
  const int looks = with.eyes->looks_at(1);
  const int others = with.eyes->looks_at(2);
  with.until([&] { return with.eyes->looks_at(2) > others + 3; });
  CHECK(with.eyes->looks_at(1) <= looks + 1);  // one may have been under way
  with.ready.insert(2);
  with.context.restart();
  with.context.run_for(20s);
  CHECK(with.context.stopped());  // nothing is waited for when nobody starts
}

TEST_CASE("one that says it is ready and cannot be seen is told so again") {
  Watching with;
  with.add(1, Sight::kUnknown, "/proc");
  with.until([&] { return with.eyes->looks_at(1) > 3; });
  CHECK(with.told(1, Sight::kUnknown) == 1);
  const core::Time said(std::chrono::steady_clock::now().time_since_epoch());
  with.watch->said(Watching::id(1));
  with.until([&] { return with.seen.back().since >= said; });
  CHECK(with.seen.back().sight == Sight::kUnknown);
}

TEST_CASE("a look that does not come back stops nobody else") {
  Watching with;
  with.eyes->hold(1);
  with.add(1, Sight::kWaiting);
  with.add(2, Sight::kWaiting);
  with.until([&] { return with.told(2, Sight::kWaiting) > 0; });
  CHECK(with.eyes->looks_at(1) == 1);  // one look at a time
  REQUIRE(with.told(1, Sight::kUnknown) == 1);
  for (const Seen& one : with.seen) {
    if (one.worker == Watching::id(1)) {
      CHECK(one.detail == "a look at it has not come back within 100ms");
    }
  }
  SUBCASE("it is believed what it says") {
    with.watch->said(Watching::id(1));
    CHECK(with.told(1, Sight::kUnknown) == 2);
  }
  SUBCASE("when it comes back it is looked at again") {
    with.eyes->let_go(1);
    with.until([&] { return with.told(1, Sight::kWaiting) > 0; });
  }
  SUBCASE("it is gone meanwhile") {
    with.watch->forget(Watching::id(1));
    with.ready.insert(1);
    with.eyes->let_go(1);
    const int looks = with.eyes->looks_at(2);
    with.until([&] { return with.eyes->looks_at(2) > looks + 5; });
    CHECK(with.told(1, Sight::kWaiting) == 0);
  }
  SUBCASE("the watch ends before it comes back") {
    with.watch.reset();
    with.eyes->let_go(1);
    with.context.restart();
    with.context.run_for(50ms);
    CHECK(with.told(1, Sight::kWaiting) == 0);
  }
  with.eyes->let_go(1);
}

TEST_CASE("when too many do not come back, nobody can be seen until one does") {
  Watching with;
  for (int i = 1; i <= 9; ++i) {
    if (i < 9) with.eyes->hold(i);
    with.add(i, Sight::kWaiting);
  }
  with.until([&] { return with.told(9, Sight::kUnknown) > 0; });
  CHECK(with.seen.back().detail == "8 looks at other workers have not come back");
  with.eyes->let_go(3);
  with.until([&] { return with.told(9, Sight::kWaiting) > 0; });
  CHECK(with.told(3, Sight::kWaiting) > 0);
  for (int i = 1; i < 9; ++i) with.eyes->let_go(i);
}
