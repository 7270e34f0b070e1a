#include "runtime/loop_clock.hpp"

#include <sys/epoll.h>

#include <algorithm>
#include <optional>

#include "runtime/clock.hpp"

namespace ostler::runtime {
namespace {

thread_local std::optional<core::Time> woke;
thread_local core::Duration longest{};

void count() {
  if (woke) longest = std::max(longest, now() - *woke);
}

}  // namespace

core::Duration longest_stretch() {
  count();
  return longest;
}

}  // namespace ostler::runtime

// The names that the linker's --wrap gives them.
// NOLINTBEGIN(bugprone-reserved-identifier)
extern "C" int __real_epoll_wait(int epoll, epoll_event* events, int most, int timeout);

extern "C" int __wrap_epoll_wait(int epoll, epoll_event* events, int most, int timeout) {
  ostler::runtime::count();
  const int count = __real_epoll_wait(epoll, events, most, timeout);
  ostler::runtime::woke = ostler::runtime::now();
  return count;
}
// NOLINTEND(bugprone-reserved-identifier)
