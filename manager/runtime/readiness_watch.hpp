// Watches starting workers from outside, until they are ready.
//
// A look may take as long as the worker likes, so a sweep over some of them runs in a thread of its
// own, one at a time, and its results come back to the loop. One that does not come back in time is
// left alone with the worker that it is at, which is reported as not to be seen; the next sweep has
// a new thread, up to a limit. Nothing runs while no worker is starting, and sweeps take no more
// than a small share of the time.
//
// Processes are started from the main thread alone (their death signal follows it): a sweep starts
// none.
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
  ~ReadinessWatch();
  ReadinessWatch(const ReadinessWatch&) = delete;
  ReadinessWatch& operator=(const ReadinessWatch&) = delete;

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
  // A sweep that has not come back, and the worker that it is at.
  struct Lost {
    std::shared_ptr<Sweep> sweep;
    Watched watched;
  };
  void arm(std::chrono::nanoseconds wait);
  void start_sweep();
  void finished(const std::shared_ptr<Sweep>& sweep);
  void give_up();
  Watched* find(core::WorkerId worker);
  void tell(core::WorkerId worker, core::Time since, const Sighting& sighting);

  boost::asio::io_context& context_;
  boost::asio::steady_timer timer_;
  Hooks hooks_;
  std::deque<Watched> watched_;
  bool armed_ = false;
  std::shared_ptr<Sweep> sweep_;  // the one that is under way
  std::vector<Lost> lost_;
};

}  // namespace ostler::runtime
