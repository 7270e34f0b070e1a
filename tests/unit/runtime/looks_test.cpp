// Looks that are scripted: they come back at once, late, or not before the test lets them.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "runtime/looks.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

using namespace ostler;
using namespace std::chrono_literals;
using runtime::Looks;

namespace {

class Gate {
 public:
  void pass() {
    std::unique_lock lock(mutex_);
    ++waiting_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return open_; });
  }
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void await_visitors(int number) {
    std::unique_lock lock(mutex_);
    REQUIRE(changed_.wait_for(lock, 30s, [&] { return waiting_ >= number; }));
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int waiting_ = 0;
  bool open_ = false;
};

struct Told {
  int done = 0;
  int back = 0;
  std::vector<std::size_t> given_up;
};

struct Looking {
  explicit Looking(std::size_t most = 8) { looks.emplace(context, most); }
  // A sweep of so many looks, each made by `look`, which outlives the test if it hangs.
  std::string start(std::size_t count, std::function<void(std::size_t)> look, Told& told,
                    std::chrono::milliseconds patience = 50ms) {
    Looks::Sweep sweep;
    sweep.look = [count, look = std::move(look)](std::size_t number) {
      look(number);
      return number + 1 < count;
    };
    sweep.done = [&] { ++told.done; };
    sweep.given_up = [&](std::size_t number) { told.given_up.push_back(number); };
    sweep.back = [&] { ++told.back; };
    sweep.patience = patience;
    return looks->start(std::move(sweep));
  }
  void until(const std::function<bool()>& done) {
    const auto deadline = std::chrono::steady_clock::now() + 30s;
    while (!done() && std::chrono::steady_clock::now() < deadline) {
      context.restart();
      context.run_one_for(20ms);
    }
    REQUIRE(done());
  }

  boost::asio::io_context context;
  std::optional<Looks> looks;
};

}  // namespace

TEST_CASE("all looks of a sweep are made in order, in another thread, and told on the loop") {
  Looking with;
  Told told;
  const auto made = std::make_shared<std::vector<std::size_t>>();
  const auto thread = std::make_shared<std::thread::id>();
  CHECK(with.start(
                3,
                [made, thread](std::size_t number) {
                  made->push_back(number);
                  *thread = std::this_thread::get_id();
                },
                told, 30s)
            .empty());
  with.until([&] { return told.done == 1; });
  CHECK(*made == std::vector<std::size_t>{0, 1, 2});
  CHECK(*thread != std::this_thread::get_id());
  CHECK(told.given_up.empty());
  CHECK(told.back == 0);
}

TEST_CASE("a look that does not come back is given up, and no further one is made after it") {
  Looking with;
  Told told;
  const auto gate = std::make_shared<Gate>();
  const auto made = std::make_shared<std::atomic<int>>(0);
  CHECK(with.start(
                3,
                [gate, made](std::size_t number) {
                  if (number == 1) gate->pass();
                  ++*made;
                },
                told)
            .empty());
  with.until([&] { return !told.given_up.empty(); });
  CHECK(told.given_up == std::vector<std::size_t>{1});
  CHECK(*made == 1);
  CHECK(told.done == 0);
  CHECK(told.back == 0);
  gate->open();
  with.until([&] { return told.back == 1; });
  CHECK(*made == 2);
  CHECK(told.done == 0);
  CHECK(told.given_up.size() == 1);
}

TEST_CASE("a sweep may take long, if none of its looks does") {
  Looking with;
  Told told;
  const auto begin = std::chrono::steady_clock::now();
  CHECK(with.start(
                40,
                [](std::size_t) {
                  std::this_thread::sleep_for(10ms);  // NOLINT(sleep): to let time pass
                },
                told, 200ms)
            .empty());
  with.until([&] { return told.done == 1 || !told.given_up.empty(); });
  CHECK(std::chrono::steady_clock::now() - begin >= 400ms);
  CHECK(told.done == 1);
}

TEST_CASE("a manager that stood still gives up nothing for that") {
  Looking with;
  Told told;
  const auto gate = std::make_shared<Gate>();
  CHECK(with.start(
                1, [gate](std::size_t) { gate->pass(); }, told, 400ms)
            .empty());
  std::this_thread::sleep_for(700ms);  // NOLINT(sleep): the loop is not run
  with.context.restart();
  CHECK(with.context.run_one_for(100ms) == 1);  // the moment comes late
  CHECK(told.given_up.empty());
  with.until([&] { return !told.given_up.empty(); });
  gate->open();
  with.until([&] { return told.back == 1; });
}

TEST_CASE("so many sweeps may be under way, also those that never come back") {
  Looking with(3);
  Told told;
  const auto gate = std::make_shared<Gate>();
  const auto hang = [gate](std::size_t) { gate->pass(); };
  for (int i = 0; i < 3; ++i) CHECK(with.start(1, hang, told).empty());
  with.until([&] { return told.given_up.size() == 3; });
  CHECK(with.start(1, hang, told) == "3 looks at other workers have not come back");
  gate->open();
  with.until([&] { return told.back == 3; });
  CHECK(with.start(1, hang, told).empty());
  with.until([&] { return told.done == 1; });
}

TEST_CASE("what comes back when nobody waits any more is told to nobody") {
  Looking with;
  Told told;
  const auto gate = std::make_shared<Gate>();
  const auto left = std::make_shared<std::atomic<bool>>(false);
  CHECK(with.start(
                1,
                [gate, left](std::size_t) {
                  gate->pass();
                  *left = true;
                },
                told)
            .empty());
  gate->await_visitors(1);
  with.looks.reset();
  gate->open();
  with.until([&] { return left->load(); });
  with.context.restart();
  with.context.run_for(20ms);
  CHECK(told.done + told.back == 0);
  CHECK(told.given_up.empty());
}
