// Watching starting workers from outside until they wait for connections.
//
// Nothing runs while no worker is starting. A sweep looks at as many as fit into a bounded turn and
// comes back soon, but never takes more than a small share of the manager's time.
#pragma once

#include <sys/types.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <deque>
#include <functional>
#include <vector>

#include "core/ids.hpp"

namespace ostler::runtime {

class Probes {
 public:
  using Seen = std::function<void(core::WorkerId)>;

  Probes(boost::asio::io_context& context, Seen seen);

  // Watches `pid` until it waits on one of `listeners`, or `forget`.
  void watch(core::WorkerId worker, pid_t pid, std::vector<ino_t> listeners);
  void forget(core::WorkerId worker);

 private:
  struct Watched {
    core::WorkerId worker;
    pid_t pid = 0;
    std::vector<ino_t> listeners;
  };
  void arm(std::chrono::nanoseconds wait);
  void sweep();

  boost::asio::steady_timer timer_;
  Seen seen_;
  std::deque<Watched> watched_;
  bool armed_ = false;
};

}  // namespace ostler::runtime
