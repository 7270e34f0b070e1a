// Whether a backlog is waited for, and for how long.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "runtime/backlog_watch.hpp"

#include <doctest/doctest.h>

#include "runtime/clock.hpp"
#include "runtime/limits.hpp"

using namespace ostler;
using runtime::BacklogWatch;

TEST_CASE("an empty backlog is waited for no longer than a call") {
  boost::asio::io_context context;
  BacklogWatch watch(context);
  bool served = false;
  watch.watch([] { return 0; }, [&] { served = true; });
  CHECK(served);
  CHECK(context.run() == 0);
}

TEST_CASE("a backlog is served when nothing has waited for a moment") {
  boost::asio::io_context context;
  BacklogWatch watch(context);
  int left = 5;
  core::Time emptied{};
  core::Time served{};
  watch.watch(
      [&] {
        if (left > 0 && --left == 0) emptied = runtime::now();
        return left;
      },
      [&] { served = runtime::now(); });
  CHECK(served == core::Time{});
  context.run();
  CHECK(left == 0);
  CHECK(served - emptied >= runtime::limits::kLinger - runtime::limits::kLookAtBacklog * 2);
}

TEST_CASE("nobody is told of a backlog that nobody asks for any more") {
  boost::asio::io_context context;
  BacklogWatch watch(context);
  bool asked = true;
  bool served = false;
  watch.watch(
      [&] { return std::exchange(asked, false) ? std::optional<std::int64_t>(1) : std::nullopt; },
      [&] { served = true; });
  context.run();
  CHECK(!served);
  watch.watch([] { return 1; }, [&] { served = true; });
  watch.stop();
  context.restart();
  context.run();
  CHECK(!served);
}
