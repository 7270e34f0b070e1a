// Whose a process is, read from /proc.
#pragma once

#include <sys/types.h>

#include <functional>

#include "core/ids.hpp"

namespace ostler::runtime {

struct Kinship {
  bool is_there = false;  // the process is alive, or its parent has not waited for it
  bool is_zombie = false;
  core::WorkerId worker;   // whose it is; none: nobody can tell
  bool is_orphan = false;  // of a worker that left it behind: the manager is its parent by now
};

// The process itself or an ancestor of it is a worker, or it is in a worker's session, as one that
// was left behind by its parent still is. `worker_of` maps the pid of a worker that is running.
Kinship kinship_of(pid_t pid, const std::function<core::WorkerId(pid_t)>& worker_of);

}  // namespace ostler::runtime
