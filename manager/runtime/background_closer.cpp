#include "runtime/background_closer.hpp"

#include <deque>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

namespace ostler::runtime {

struct BackgroundCloser::State {
  std::mutex mutex;
  std::deque<UniqueFd> waiting;
  std::size_t pending = 0;
  bool is_running = false;  // a thread

  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  // Without a thread to close them they stay open rather than hold somebody up.
  ~State() {
    for (UniqueFd& fd : waiting) static_cast<void>(fd.release());
  }

  void run() {
    std::unique_lock lock(mutex);
    while (!waiting.empty()) {
      UniqueFd fd = std::move(waiting.front());
      waiting.pop_front();
      lock.unlock();
      fd.reset();
      lock.lock();
      --pending;
    }
    is_running = false;
  }
};

BackgroundCloser::BackgroundCloser() : state_(std::make_shared<State>()) {}

BackgroundCloser::~BackgroundCloser() {
  close({});
}

void BackgroundCloser::close(std::vector<UniqueFd> descriptors) {
  const std::lock_guard lock(state_->mutex);
  state_->pending += descriptors.size();
  for (UniqueFd& fd : descriptors) state_->waiting.push_back(std::move(fd));
  if (state_->is_running || state_->waiting.empty()) return;
  try {
    std::thread([state = state_] { state->run(); }).detach();
    state_->is_running = true;
  } catch (const std::system_error&) {
    // No thread can be had now: they wait for the next time.
  }
}

std::size_t BackgroundCloser::pending() const {
  const std::lock_guard lock(state_->mutex);
  return state_->pending;
}

}  // namespace ostler::runtime
