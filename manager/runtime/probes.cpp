#include "runtime/probes.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include "runtime/limits.hpp"
#include "runtime/readiness.hpp"

namespace ostler::runtime {

using Clock = std::chrono::steady_clock;

Probes::Probes(boost::asio::io_context& context, Seen seen)
    : timer_(context), seen_(std::move(seen)) {}

void Probes::watch(core::WorkerId worker, pid_t pid, std::vector<ino_t> listeners) {
  watched_.push_back({worker, pid, std::move(listeners)});
  if (!armed_) arm(limits::kProbeEvery);
}

void Probes::forget(core::WorkerId worker) {
  std::erase_if(watched_, [&](const Watched& watched) { return watched.worker == worker; });
}

void Probes::arm(std::chrono::nanoseconds wait) {
  armed_ = true;
  timer_.expires_after(wait);
  timer_.async_wait([this](const boost::system::error_code& error) {
    armed_ = false;
    if (!error) sweep();
  });
}

void Probes::sweep() {
  const auto begin = Clock::now();
  std::vector<core::WorkerId> seen;
  for (std::size_t left = watched_.size(); left > 0; --left) {
    Watched watched = std::move(watched_.front());
    watched_.pop_front();
    if (waits_for_connections(watched.pid, watched.listeners)) {
      seen.push_back(watched.worker);
    } else {
      watched_.push_back(std::move(watched));
    }
    if (Clock::now() - begin > limits::kProbeTurn) break;
  }
  const auto took = Clock::now() - begin;
  if (!watched_.empty()) {
    arm(std::max<std::chrono::nanoseconds>(took * limits::kProbeShare, limits::kProbeEvery));
  }
  for (const core::WorkerId worker : seen) seen_(worker);
}

}  // namespace ostler::runtime
