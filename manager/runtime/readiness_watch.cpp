#include "runtime/readiness_watch.hpp"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "runtime/clock.hpp"
#include "runtime/limits.hpp"

namespace ostler::runtime {

struct ReadinessWatch::Sweep {
  struct Result {
    core::WorkerId worker;
    core::Time since;
    Sighting sighting;
  };

  std::vector<Watched> todo;
  std::vector<Result> results;
  core::Time begin = now();
  std::chrono::nanoseconds took{};

  template <class Look>
  bool make(std::size_t number, const Look& look) {
    const Watched& one = todo[number];
    const core::Time since = now();
    results.push_back({one.worker, since, look(one.pid, *one.listeners, one.ids)});
    took = now() - begin;
    return number + 1 < todo.size() && took <= limits::kProbeTurn;
  }
};

ReadinessWatch::ReadinessWatch(boost::asio::io_context& context, Hooks hooks)
    : timer_(context), hooks_(std::move(hooks)), looks_(context, limits::kLostSweeps) {}

void ReadinessWatch::watch(core::WorkerId worker, pid_t pid, std::vector<ino_t> listeners,
                           std::optional<UserIds> ids) {
  auto shared = std::make_shared<const std::vector<ino_t>>(std::move(listeners));
  watched_.push_back({worker, pid, std::move(shared), ids, false, {}});
  if (!armed_ && !sweeping_) arm(limits::kProbeEvery);
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
    start_sweep();
  });
}

void ReadinessWatch::start_sweep() {
  std::erase_if(watched_, [&](const Watched& one) { return !hooks_.starting(one.worker); });
  if (watched_.empty()) return;
  const auto sweep = std::make_shared<Sweep>();
  const std::size_t count = std::min(watched_.size(), limits::kLooksPerSweep);
  sweep->todo.assign(watched_.begin(), watched_.begin() + static_cast<std::ptrdiff_t>(count));
  Looks::Sweep looks;
  looks.look = [sweep, look = hooks_.look](std::size_t at) { return sweep->make(at, look); };
  looks.done = [this, sweep] { finished(*sweep); };
  looks.given_up = [this, sweep](std::size_t at) { give_up(sweep, at); };
  looks.back = [this, sweep] { came_back(sweep); };
  looks.patience = hooks_.patience;
  const std::string fault = looks_.start(std::move(looks));
  sweeping_ = fault.empty();
  if (sweeping_) return;
  arm(hooks_.patience);
  const core::Time since = now();
  for (const Watched& one : sweep->todo) tell(one.worker, since, {core::Sight::kUnknown, fault});
}

void ReadinessWatch::finished(const Sweep& sweep) {
  sweeping_ = false;
  for (const Sweep::Result& result : sweep.results) {  // to the end of the queue
    const auto found = std::ranges::find(watched_, result.worker, &Watched::worker);
    if (found != watched_.end()) std::rotate(found, found + 1, watched_.end());
  }
  arm(std::max<std::chrono::nanoseconds>(sweep.took * limits::kProbeShare, limits::kProbeEvery));
  for (const Sweep::Result& result : sweep.results) {
    tell(result.worker, result.since, result.sighting);
  }
}

// The worker that it is at is not looked at again until it comes back.
void ReadinessWatch::give_up(const std::shared_ptr<Sweep>& sweep, std::size_t number) {
  sweeping_ = false;
  const Watched& stuck = sweep->todo[number];
  const auto found = std::ranges::find(watched_, stuck.worker, &Watched::worker);
  const bool known = found != watched_.end();
  lost_.push_back({sweep, known ? std::move(*found) : stuck});
  if (known) watched_.erase(found);
  arm(limits::kProbeEvery);
  tell(stuck.worker, now(),
       {core::Sight::kUnknown,
        "a look at it has not come back within " + std::to_string(hooks_.patience.count()) + "ms"});
}

void ReadinessWatch::came_back(const std::shared_ptr<Sweep>& sweep) {
  const auto lost = std::ranges::find(lost_, sweep, &Lost::sweep);
  watched_.push_back(std::move(lost->watched));
  lost_.erase(lost);
  if (!armed_ && !sweeping_) arm(limits::kProbeEvery);
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
