// What the manager may use of the machine: the CPUs of its affinity mask, cut by its cgroup's CPU
// quota, and the memory up to its cgroup's limit (v1 and v2). And what `workers: auto` makes of it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace ostler::runtime {

struct Resources {
  int cpus = 1;                         // at least 1
  std::optional<std::uint64_t> memory;  // bytes, at most the machine's; none: not known
};

// As of now. `root` is where /proc and /sys are, for tests.
Resources usable_resources(const std::string& root = "");

// What `workers: auto` stands for: 2 × CPUs + 1, or as many as there is memory for if each worker
// may need `worker_memory` bytes; at least 1.
int automatic_workers(const Resources& resources, std::optional<std::uint64_t> worker_memory);

}  // namespace ostler::runtime
