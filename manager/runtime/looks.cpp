#include "runtime/looks.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "runtime/clock.hpp"

namespace ostler::runtime {

// Of the loop and one thread.
struct Looks::Shared {
  std::function<bool(std::size_t)> look;
  std::mutex mutex;  // of the following
  std::size_t at = 0;
  bool over = false;
  bool given_up = false;
  boost::asio::io_context* context = nullptr;  // null: nobody is to be told

  template <class Tell>
  void run(Tell tell) {
    try {
      for (std::size_t number = 0; look(number); ++number) {
        const std::lock_guard lock(mutex);
        if (given_up) break;
        at = number + 1;
      }
    } catch (const std::exception&) {  // the system refuses memory: the rest is not known
    }
    const std::lock_guard lock(mutex);
    over = true;
    if (context != nullptr) boost::asio::post(*context, std::move(tell));
  }
};

// Of the loop alone: what `done` and the others hold is not let go of in the thread.
struct Looks::Running {
  explicit Running(boost::asio::io_context& context) : timer(context) {}
  std::shared_ptr<Shared> shared = std::make_shared<Shared>();
  Sweep sweep;
  boost::asio::steady_timer timer;
  core::Time due;
  std::size_t seen = 0;  // which look it was at when it was last asked
  bool given_up = false;
};

Looks::Looks(boost::asio::io_context& context, std::size_t most) : context_(context), most_(most) {}

Looks::~Looks() {
  for (const auto& running : running_) {
    const std::lock_guard lock(running->shared->mutex);
    running->shared->given_up = true;
    running->shared->context = nullptr;
  }
}

std::string Looks::start(Sweep sweep) {
  if (running_.size() >= most_) {
    return std::to_string(running_.size()) + " looks at other workers have not come back";
  }
  const auto running = std::make_shared<Running>(context_);
  const std::shared_ptr<Shared> shared = running->shared;
  shared->look = std::move(sweep.look);
  shared->context = &context_;
  running->sweep = std::move(sweep);
  try {
    // Detached: one that hangs must not be waited for.
    std::thread([this, shared, weak = std::weak_ptr(running)] {
      shared->run([this, weak] {
        if (const auto known = weak.lock()) came_back(known);
      });
    }).detach();
  } catch (const std::system_error& error) {
    return std::string("start a thread: ") + error.what();
  }
  running_.push_back(running);
  arm(running);
  return {};
}

void Looks::arm(const std::shared_ptr<Running>& running) {
  running->due = now() + running->sweep.patience;
  running->timer.expires_after(running->sweep.patience);
  running->timer.async_wait(
      [this, weak = std::weak_ptr(running)](const boost::system::error_code& error) {
        const auto known = weak.lock();
        if (!error && known) late(known);
      });
}

void Looks::late(const std::shared_ptr<Running>& running) {
  Shared& shared = *running->shared;
  std::unique_lock lock(shared.mutex);
  if (shared.over) return;  // it is about to be told
  // It has made some looks meanwhile; or the manager stood still, and the sweep as well.
  const bool stood_still = now() > running->due + running->sweep.patience / 2;
  if (stood_still || shared.at != running->seen) {
    running->seen = shared.at;
    lock.unlock();
    return arm(running);
  }
  shared.given_up = true;
  lock.unlock();
  running->given_up = true;
  running->sweep.given_up(running->seen);
}

void Looks::came_back(const std::shared_ptr<Running>& running) {
  std::erase(running_, running);
  running->timer.cancel();
  running->given_up ? running->sweep.back() : running->sweep.done();
}

}  // namespace ostler::runtime
