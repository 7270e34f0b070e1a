// How many CPUs the manager may use: its affinity mask, cut by its cgroup's CPU quota (v1 and v2).
#pragma once

#include <string>

namespace ostler::runtime {

// At least 1. `root` is where /proc and /sys are, for tests.
int usable_cpus(const std::string& root = "");

// What `workers: auto` stands for.
inline int automatic_workers(int cpus) {
  return 2 * cpus + 1;
}

}  // namespace ostler::runtime
