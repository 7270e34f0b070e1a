#include "runtime/readiness_watch.hpp"

#include <algorithm>
#include <atomic>
#include <boost/asio/post.hpp>
#include <chrono>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "runtime/clock.hpp"
#include "runtime/limits.hpp"

namespace ostler::runtime {
// Shared by the loop and one thread. What the thread writes is read after `context` was posted to.
struct ReadinessWatch::Sweep {
  struct Result {
    core::WorkerId worker;
    core::Time since;
    Sighting sighting;
  };

  std::vector<Watched> todo;
  std::atomic<std::size_t> at{0};  // of `todo`
  std::vector<Result> results;
  std::chrono::nanoseconds took{};
  core::Time due;  // when it is given up

  std::mutex mutex;  // of the following: the watch may end before the sweep does
  boost::asio::io_context* context = nullptr;

  template <class Look, class Done>
  void run(const Look& look, Done done) {
    const core::Time begin = now();
    for (; at < todo.size(); ++at) {
      const Watched& one = todo[at];
      const core::Time since = now();
      results.push_back({one.worker, since, look(one.pid, *one.listeners, one.ids)});
      if (now() - begin > limits::kProbeTurn) break;
    }
    took = now() - begin;
    const std::lock_guard lock(mutex);
    if (context != nullptr) boost::asio::post(*context, std::move(done));
  }
};

ReadinessWatch::ReadinessWatch(boost::asio::io_context& context, Hooks hooks)
    : context_(context), timer_(context), hooks_(std::move(hooks)) {}

ReadinessWatch::~ReadinessWatch() {
  const auto let_go = [](Sweep& sweep) {
    const std::lock_guard lock(sweep.mutex);
    sweep.context = nullptr;
  };
  if (sweep_) let_go(*sweep_);
  for (const Lost& lost : lost_) let_go(*lost.sweep);
}

void ReadinessWatch::watch(core::WorkerId worker, pid_t pid, std::vector<ino_t> listeners,
                           std::optional<UserIds> ids) {
  auto shared = std::make_shared<const std::vector<ino_t>>(std::move(listeners));
  watched_.push_back({worker, pid, std::move(shared), ids, false, {}});
  if (!armed_ && !sweep_) arm(limits::kProbeEvery);
}

void ReadinessWatch::forget(core::WorkerId worker) {
  std::erase_if(watched_, [&](const Watched& one) { return one.worker == worker; });
}

void ReadinessWatch::said(core::WorkerId worker) {
  const auto found = std::ranges::find(watched_, worker, &Watched::worker);
  if (found != watched_.end()) {
    found->said = true;
    std::rotate(watched_.begin(), found, found + 1);
  } else if (Watched* const lost = find(worker)) {
    lost->said = true;
    tell(worker, now(), *lost->told);
  }
}

ReadinessWatch::Watched* ReadinessWatch::find(core::WorkerId worker) {
  const auto found = std::ranges::find(watched_, worker, &Watched::worker);
  if (found != watched_.end()) return &*found;
  const auto lost =
      std::ranges::find(lost_, worker, [](const Lost& one) { return one.watched.worker; });
  return lost != lost_.end() ? &lost->watched : nullptr;
}

void ReadinessWatch::arm(std::chrono::nanoseconds wait) {
  armed_ = true;
  timer_.expires_after(wait);
  timer_.async_wait([this](const boost::system::error_code& error) {
    if (error) return;  // armed anew
    armed_ = false;
    sweep_ ? give_up() : start_sweep();
  });
}

void ReadinessWatch::start_sweep() {
  std::erase_if(watched_, [&](const Watched& one) { return !hooks_.starting(one.worker); });
  if (watched_.empty()) return;
  auto sweep = std::make_shared<Sweep>();
  sweep->context = &context_;
  const std::size_t count = std::min(watched_.size(), limits::kLooksPerSweep);
  sweep->todo.assign(watched_.begin(), watched_.begin() + static_cast<std::ptrdiff_t>(count));
  std::string fault;
  if (lost_.size() >= limits::kLostSweeps) {
    fault = std::to_string(lost_.size()) + " looks at other workers have not come back";
  } else {
    try {
      // Detached: one that hangs must not be waited for. It has nothing but the sweep.
      std::thread([this, sweep, look = hooks_.look] {
        sweep->run(look, [this, sweep] { finished(sweep); });
      }).detach();
    } catch (const std::system_error& error) {
      fault = std::string("start a thread: ") + error.what();
    }
  }
  if (fault.empty()) {
    sweep->due = now() + hooks_.patience;
    sweep_ = std::move(sweep);
    return arm(hooks_.patience);
  }
  arm(hooks_.patience);
  const core::Time since = now();
  for (const Watched& one : sweep->todo) tell(one.worker, since, {core::Sight::kUnknown, fault});
}

void ReadinessWatch::finished(const std::shared_ptr<Sweep>& sweep) {
  if (sweep != sweep_) {  // it was given up: what it was at may be looked at again
    const auto lost = std::ranges::find(lost_, sweep, &Lost::sweep);
    watched_.push_back(std::move(lost->watched));
    lost_.erase(lost);
    if (!armed_ && !sweep_) arm(limits::kProbeEvery);
    return;
  }
  sweep_.reset();
  for (const Sweep::Result& result : sweep->results) {  // to the end of the queue
    const auto found = std::ranges::find(watched_, result.worker, &Watched::worker);
    if (found != watched_.end()) std::rotate(found, found + 1, watched_.end());
  }
  arm(std::max<std::chrono::nanoseconds>(sweep->took * limits::kProbeShare, limits::kProbeEvery));
  for (const Sweep::Result& result : sweep->results) {
    tell(result.worker, result.since, result.sighting);
  }
}

// The worker that it is at is not looked at again until it comes back.
void ReadinessWatch::give_up() {
  const core::Time at = now();
  const std::size_t index = sweep_->at;
  // The manager stood still, and the sweep as well; or it is about to report.
  if (at > sweep_->due + hooks_.patience / 2 || index >= sweep_->todo.size()) {
    sweep_->due = at + hooks_.patience;
    return arm(hooks_.patience);
  }
  const Watched stuck = sweep_->todo[index];
  const auto found = std::ranges::find(watched_, stuck.worker, &Watched::worker);
  const bool known = found != watched_.end();
  lost_.push_back({std::exchange(sweep_, nullptr), known ? std::move(*found) : stuck});
  if (known) watched_.erase(found);
  arm(limits::kProbeEvery);
  tell(stuck.worker, at,
       {core::Sight::kUnknown,
        "a look at it has not come back within " + std::to_string(hooks_.patience.count()) + "ms"});
}

void ReadinessWatch::tell(core::WorkerId worker, core::Time since, const Sighting& sighting) {
  Watched* const one = find(worker);
  if (one == nullptr) return;  // it is gone
  const bool same = one->told && *one->told == sighting;
  one->told = sighting;
  const bool repeated = sighting.sight == core::Sight::kWaiting ||
                        (sighting.sight == core::Sight::kUnknown && one->said);
  if (!same || repeated) hooks_.seen({worker, sighting.sight, since, sighting.detail});
}

}  // namespace ostler::runtime
