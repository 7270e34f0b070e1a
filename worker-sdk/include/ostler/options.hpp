// How a worker serves, whatever its protocol is: what the program decides, and what its pool may
// decide otherwise (`worker:` in the manager's configuration wins).
#pragma once

#include <cstddef>

#include <functional>
#include <optional>
#include <string>

namespace ostler {

enum class worker_class {
  sync,     // one connection at a time, on the thread that called serve()
  threads,  // handlers run on a pool of threads
  async     // handlers are coroutines on the thread that called serve()
};

inline constexpr int kMostThreads = 64;

struct serve_options {
  // Empty: async if the handler is a coroutine, else sync. One in which the handler cannot run is
  // an error of usage.
  std::optional<ostler::worker_class> worker_class{};

  // Of class threads: 1 to kMostThreads.
  int threads = 1;

  // With so many connections open, no more are accepted until one is closed; at least 1. One
  // listener keeps to it exactly; of several, each may accept one more. Those that were answered
  // for the last time and wait for the client to close do not count. In class sync it is 1. Fewer,
  // if the limit of open files leaves no room for so many (see worker); one line on stderr says so.
  std::size_t connections = 1000;

  // on_load is called once, before anything is accepted, and loads what all workers can share.
  // on_start and on_stop are called in each worker, on the thread that called serve(): before the
  // worker says that it is ready, and after its last connection. One that throws ends the worker
  // with kFailed; on_stop is called only where on_start has returned.
  std::function<void()> on_load{};
  std::function<void()> on_start{};
  std::function<void()> on_stop{};

  // A listener to open, "tcp://IP:PORT" or "unix:///PATH", to run without a manager. IPv6 in
  // brackets; port 0 is any that is free, and is told on stdout. Empty: only what was inherited is
  // served.
  std::string listen{};
};

// What serve() returns, to be the program's exit code.
inline constexpr int kDrained = 0;
inline constexpr int kFailed = 1;      // also, without returning, at a second stop signal
inline constexpr int kUsageError = 2;  // no listener, or an option that is none

}  // namespace ostler
