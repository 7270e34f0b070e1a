#include "runtime/background_acceptor.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <boost/asio/post.hpp>
#include <cerrno>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <utility>

#include "runtime/limits.hpp"

namespace ostler::runtime {

struct BackgroundAcceptor::State {
  UniqueFd listener;
  std::mutex mutex;                        // of the following
  BackgroundAcceptor* acceptor = nullptr;  // null: gone
  std::vector<UniqueFd> accepted;

  // Each is passed on at once: the next call may wait.
  void pass_on(const std::shared_ptr<State>& self, UniqueFd connection) {
    const std::lock_guard lock(mutex);
    const bool told = !accepted.empty();
    accepted.push_back(std::move(connection));
    if (!told) post(self, false, 0);
  }

  void end(const std::shared_ptr<State>& self, int error) {
    const std::lock_guard lock(mutex);
    post(self, true, error);
  }

  void run(const std::shared_ptr<State>& self) {
    try {
      accept(self);
    } catch (const std::bad_alloc&) {
      end(self, ENOMEM);
    }
  }

  void accept(const std::shared_ptr<State>& self) {
    for (int left = limits::kAcceptBatch; left > 0; --left) {
      // The flag is not set again here: workers may be about to get the socket, and need it clear.
      pollfd waiting{listener.get(), POLLIN, 0};
      if (::poll(&waiting, 1, 0) != 1) break;
      UniqueFd connection(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (connection) {
        pass_on(self, std::move(connection));
      } else if (errno == EAGAIN) {
        break;
      } else if (errno != ECONNABORTED && errno != EINTR) {
        return end(self, errno);
      }
    }
    end(self, 0);
  }

 private:
  // The acceptor ends on the loop's thread, so that it is there if it was there just before.
  void post(const std::shared_ptr<State>& self, bool over, int error) const {
    if (acceptor == nullptr) return;
    boost::asio::post(acceptor->context_, [self, over, error] {
      if (self->acceptor != nullptr) self->acceptor->collect(over, error);
    });
  }
};

BackgroundAcceptor::BackgroundAcceptor(boost::asio::io_context& context, int listener, Hooks hooks)
    : context_(context),
      listener_(listener),
      hooks_(std::move(hooks)),
      state_(std::make_shared<State>()) {
  state_->acceptor = this;
}

BackgroundAcceptor::~BackgroundAcceptor() {
  const std::lock_guard lock(state_->mutex);
  state_->acceptor = nullptr;
}

void BackgroundAcceptor::accept() {
  if (std::exchange(busy_, true)) return;
  if (!state_->listener) state_->listener = UniqueFd(::fcntl(listener_, F_DUPFD_CLOEXEC, 3));
  if (!state_->listener) return state_->end(state_, errno);
  try {
    std::thread([state = state_] { state->run(state); }).detach();
  } catch (const std::system_error& error) {
    state_->end(state_, error.code().value());
  }
}

void BackgroundAcceptor::collect(bool over, int error) {
  std::vector<UniqueFd> accepted;
  {
    const std::lock_guard lock(state_->mutex);
    accepted.swap(state_->accepted);
  }
  if (over) busy_ = false;
  const Hooks hooks = hooks_;  // either may end this
  if (!accepted.empty()) hooks.accepted(std::move(accepted));
  if (over) hooks.over(error);
}

}  // namespace ostler::runtime
