// What a manager leaves in the environment of a worker, read and checked. Not thread-safe: the
// environment is changed.
#pragma once

#include <cstdint>

#include <chrono>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "ostler/worker.hpp"

namespace ostler::environment {

// The variable's value; empty if it is not set.
std::optional<std::string> text(const char* variable);

// A decimal number without sign or blanks. Throws std::system_error (EINVAL), naming the variable
// and its value, if it is anything else or above `most`.
std::optional<std::uint64_t> number(const char* variable,
                                    std::uint64_t most = std::numeric_limits<std::uint64_t>::max());

// The same two, and the variable is removed.
std::optional<std::string> take(const char* variable);
std::optional<std::uint64_t> take_number(
    const char* variable, std::uint64_t most = std::numeric_limits<std::uint64_t>::max());

// The listeners from descriptor 3 on, made close-on-exec; their variables are removed.
std::vector<listener> take_listeners();

// Half of WATCHDOG_USEC, if the heartbeats are expected of this process.
std::optional<std::chrono::microseconds> heartbeat_interval();

}  // namespace ostler::environment
