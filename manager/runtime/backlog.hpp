// How many connections wait in the queue of a socket that listens.
#pragma once

#include <cstdint>

namespace ostler::runtime {

struct Queue {
  std::int64_t waiting = -1;  // connections; -1: not known
  std::int64_t limit = -1;    // as the kernel has it, after somaxconn; -1: not known
};
Queue queue_of(int fd);

// Connections that wait on a tcp listener; -1: not known.
std::int64_t waiting_on(int fd);

}  // namespace ostler::runtime
