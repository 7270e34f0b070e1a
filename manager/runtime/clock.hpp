// The manager's time: CLOCK_MONOTONIC, in the core's type.
#pragma once

#include <chrono>

#include "core/ids.hpp"

namespace ostler::runtime {

inline core::Time now() {
  return core::Time(std::chrono::steady_clock::now().time_since_epoch());
}

}  // namespace ostler::runtime
