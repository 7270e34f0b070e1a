// A loop that is kept busy by handlers of several kinds, and one that waits.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "runtime/loop_clock.hpp"

#include <doctest/doctest.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <thread>

using namespace ostler;
using namespace std::chrono_literals;
using runtime::longest_stretch;

namespace {

// In a thread of its own: each has a loop, and so a clock, of its own.
template <class Test>
void on_a_loop(const Test& test) {
  std::thread([&] {
    boost::asio::io_context context{1};
    test(context);
  }).join();
}

void keep_busy(std::chrono::milliseconds time) {
  std::this_thread::sleep_for(time);  // NOLINT(sleep): to let time pass
}

}  // namespace

TEST_CASE("time in which the loop waits is not counted") {
  on_a_loop([](auto& context) {
    for (int i = 0; i < 3; ++i) {
      boost::asio::steady_timer timer(context, 300ms);
      timer.async_wait([](const auto&) {});
      context.restart();
      context.run();
    }
    CHECK(longest_stretch() < 250ms);
  });
}

TEST_CASE("a handler counts, whatever calls it") {
  on_a_loop([](auto& context) {
    boost::asio::steady_timer timer(context, 1ms);
    timer.async_wait([](const auto&) { keep_busy(50ms); });
    context.run();
    CHECK(longest_stretch() >= 50ms);
    boost::asio::steady_timer second(context, 1ms);
    second.async_wait([&](const auto&) { boost::asio::post(context, [] { keep_busy(120ms); }); });
    context.restart();
    context.run();
    CHECK(longest_stretch() >= 120ms);
  });
}

TEST_CASE("handlers that follow each other without a wait are one stretch") {
  on_a_loop([](auto& context) {
    boost::asio::steady_timer timer(context, 1ms);
    timer.async_wait([&](const auto&) {
      for (int i = 0; i < 4; ++i) boost::asio::post(context, [] { keep_busy(50ms); });
    });
    context.run();
    CHECK(longest_stretch() >= 200ms);
  });
}

TEST_CASE("a stretch that is not over counts as well") {
  on_a_loop([](auto& context) {
    boost::asio::steady_timer timer(context, 1ms);
    core::Duration seen{};
    timer.async_wait([&](const auto&) {
      keep_busy(50ms);
      seen = longest_stretch();
    });
    context.run();
    CHECK(seen >= 50ms);
  });
}
