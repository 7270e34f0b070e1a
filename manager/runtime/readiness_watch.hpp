// Watches starting workers from outside, until they are ready.
//
// A look may take as long as the worker likes, so a sweep over some of them runs in a thread of its
// own (looks.hpp), one at a time. The worker whose look does not come back in time is reported as
// not to be seen, and the next sweep leaves it out. Nothing runs while no worker is starting, and
// sweeps take no more than a small share of the time.
#pragma once

#include <sys/types.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "core/event.hpp"
#include "core/ids.hpp"
#include "runtime/limits.hpp"
#include "runtime/looks.hpp"
#include "runtime/readiness.hpp"

namespace ostler::runtime {

class ReadinessWatch {
 public:
  struct Hooks {
    std::function<bool(core::WorkerId)> starting;  // whether it is to be looked at still
    std::function<void(core::Seen)> seen;          // what is new, and what may make it ready
    // How one process is looked at: look_for_waiting, but in tests. Called in another thread.
    std::function<Sighting(pid_t, const std::vector<ino_t>&, std::optional<UserIds>)> look =
        look_for_waiting;
    std::chrono::milliseconds patience = limits::kLookPatience;  // with one look
  };

  ReadinessWatch(boost::asio::io_context& context, Hooks hooks);

  // Watches `pid`, which runs as `worker`, until it is not `starting` any more, or `forget`.
  void watch(core::WorkerId worker, pid_t pid, std::vector<ino_t> listeners,
             std::optional<UserIds> ids);
  void forget(core::WorkerId worker);
  // It said READY=1: it is looked at next, and from then on what cannot be seen is told each time.
  void said(core::WorkerId worker);

 private:
  struct Watched {
    core::WorkerId worker;
    pid_t pid = 0;
    std::shared_ptr<const std::vector<ino_t>> listeners;
    std::optional<UserIds> ids;
    bool said = false;
    std::optional<Sighting> told;
  };
  struct Sweep;
  // A look that has not come back, and the worker that it is at.
  struct Lost {
    std::shared_ptr<Sweep> sweep;
    Watched watched;
  };
  void arm(std::chrono::nanoseconds wait);
  void start_sweep();
  void finished(const Sweep& sweep);
  void give_up(const std::shared_ptr<Sweep>& sweep, std::size_t number);
  void came_back(const std::shared_ptr<Sweep>& sweep);
  Watched* find(core::WorkerId worker);
  void tell(core::WorkerId worker, core::Time since, const Sighting& sighting);

  boost::asio::steady_timer timer_;  // for the next sweep
  Hooks hooks_;
  std::deque<Watched> watched_;
  bool armed_ = false;
  bool sweeping_ = false;
  std::vector<Lost> lost_;
  Looks looks_;
};

}  // namespace ostler::runtime
