// Names for the things the core decides about, and the core's time.
//
// Ids are never reused in the life of a manager, so a late event can never hit a stranger. Pids and
// file descriptors do not occur in the core: the shell keeps them.
#pragma once

#include <chrono>
#include <compare>
#include <cstdint>

namespace ostler::core {

template <class Tag>
struct Id {
  std::uint64_t value = 0;  // 0: none
  explicit operator bool() const { return value != 0; }
  auto operator<=>(const Id&) const = default;
};

using PoolId = Id<struct PoolTag>;
using WorkerId = Id<struct WorkerTag>;
// A request that gets exactly one Reply. None: nobody waits for the answer (a signal).
using OperationId = Id<struct OperationTag>;
// The shell's handle for all that the core need not know of a pool's configuration: command,
// environment, identity, output. The core says when it is no longer referred to (DropLaunch).
using LaunchId = Id<struct LaunchTag>;

// Counts a pool's reloads from 1; 0: none. A number is used once, even if its reload failed.
using Generation = std::uint64_t;

using Duration = std::chrono::nanoseconds;

// The shell's monotonic clock. The core has no way to read it: `now` comes with every step.
struct ManagerClock {
  using duration = Duration;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<ManagerClock, duration>;
  static constexpr bool is_steady = true;
};
using Time = ManagerClock::time_point;

}  // namespace ostler::core
