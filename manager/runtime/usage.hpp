// What a process and its descendants use, read from /proc.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>

namespace ostler::runtime {

struct Usage {
  std::optional<std::uint64_t> memory;  // bytes, PSS: shared pages count in parts
  std::optional<double> cpu;            // seconds, user and system
};

// Sums over `pid` and its descendants (bounded). What cannot be read is left out; nothing readable
// at all: nullopt. Cost: about 0.1 ms for a small process.
Usage measure_usage(pid_t pid);

// Of `pid` alone, with its threads.
std::optional<double> cpu_seconds(pid_t pid);

// Of `pid` and its descendants (bounded), as far as they can be read.
double cpu_seconds_of_all(pid_t pid);

}  // namespace ostler::runtime
