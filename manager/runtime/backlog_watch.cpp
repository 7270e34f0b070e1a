#include "runtime/backlog_watch.hpp"

#include <utility>

#include "runtime/clock.hpp"
#include "runtime/limits.hpp"

namespace ostler::runtime {

void BacklogWatch::watch(Waiting waiting, Served served) {
  const auto some = waiting();
  if (!some) return;
  if (*some == 0) return served();
  watched_.push_back({std::move(waiting), std::move(served), now()});
  arm();
}

void BacklogWatch::stop() {
  watched_.clear();
  timer_.cancel();
}

void BacklogWatch::arm() {
  if (watched_.empty() || std::exchange(armed_, true)) return;
  timer_.expires_after(limits::kLookAtBacklog);
  timer_.async_wait([this](const boost::system::error_code& error) {
    armed_ = false;
    if (!error) look();
  });
}

void BacklogWatch::look() {
  const core::Time at = now();
  for (std::size_t i = 0; i < watched_.size();) {
    const auto some = watched_[i].waiting();
    if (some && *some > 0) watched_[i].empty_since = at;
    const bool over = some && at - watched_[i].empty_since >= limits::kLinger;
    if (over) watched_[i].served();
    if (over || !some) {
      watched_.erase(watched_.begin() + static_cast<std::ptrdiff_t>(i));
    } else {
      ++i;
    }
  }
  arm();
}

}  // namespace ostler::runtime
