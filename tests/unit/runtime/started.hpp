// A process that executes its program, or why it does not: what Newborn tells without waiting. For
// programs that play a role in a test as well, so without its checks.
#pragma once

#include <poll.h>
#include <sys/wait.h>

#include <cstdlib>
#include <string>
#include <utility>

#include "runtime/spawner.hpp"

namespace ostler::runtime {

struct Started {
  pid_t pid = -1;  // -1: failed, and reaped
  UniqueFd pidfd;
  std::string stage;
  int error = 0;
};

inline bool is_over(const Newborn& newborn, int milliseconds) {
  pollfd entry{newborn.over(), POLLIN, 0};
  return poll(&entry, 1, milliseconds) == 1;
}

inline void reap(const UniqueFd& pidfd) {
  siginfo_t info{};
  if (waitid(P_PIDFD, static_cast<id_t>(pidfd.get()), &info, WEXITED) != 0) std::abort();
}

inline Started start(SpawnRequest request) {
  Newborn newborn(std::move(request));
  Started started;
  started.pidfd = newborn.take_pidfd();
  if (newborn.pid() > 0 && !is_over(newborn, 20000)) std::abort();
  if (newborn.look() == Newborn::State::kExecuted) {
    started.pid = newborn.pid();
    return started;
  }
  if (started.pidfd) reap(started.pidfd);
  started.pidfd.reset();
  started.stage = newborn.failure().stage;
  started.error = newborn.failure().error;
  return started;
}

}  // namespace ostler::runtime
