#include "runtime/control_server.hpp"

#include <fcntl.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <cstring>
#include <deque>
#include <system_error>
#include <tuple>
#include <utility>
#include <vector>

#include "control/codec.hpp"
#include "control/problems.hpp"
#include "runtime/background.hpp"
#include "runtime/background_closer.hpp"
#include "runtime/control_session.hpp"
#include "runtime/memory_reserve.hpp"
#include "runtime/unique_fd.hpp"

namespace ostler::runtime {

namespace asio = boost::asio;
using boost::system::error_code;
using Protocol = asio::local::stream_protocol;

namespace {

// Taken at a stretch, so that those who were accepted get their turn between.
constexpr int kAcceptsPerTurn = 16;

int duplicate(int fd) {
  const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (copy < 0)
    throw std::system_error(errno, std::generic_category(), "duplicate the control socket");
  return copy;
}

bool somebody_waits(int listener) {
  pollfd waits{listener, POLLIN, 0};
  return poll(&waits, 1, 0) == 1;
}

// A descriptor that can be given up for a client when there are no others.
UniqueFd open_reserve() {
  return UniqueFd(open("/dev/null", O_RDONLY | O_CLOEXEC));
}

}  // namespace

class ControlServer::Impl : public ControlHost, public std::enable_shared_from_this<Impl> {
 public:
  Impl(asio::io_context& context, int listening_fd, Handle handle, ControlLimits limits)
      : context_(context),
        acceptor_(context, Protocol(), duplicate(listening_fd)),
        again_(context),
        handle_(std::move(handle)),
        limits_(limits),
        reserve_(open_reserve()) {}

  void start() { spawn_logged(context_.get_executor(), "control socket", accept_loop()); }

  void listen_on(int listening_fd) {
    if (stopped_) return;
    accept_some();
    // In its queue may be what somebody sent: closed elsewhere.
    std::vector<UniqueFd> former;
    former.emplace_back(acceptor_.release());
    closer_.close(std::move(former));
    acceptor_.assign(Protocol(), duplicate(listening_fd));
  }

  void publish(const control::EventView& event) {
    const auto line = std::make_shared<const EventLine>(
        EventLine{event.pool.value_or(""), control::to_json(event) + "\n"});
    recent_.push_back(line);
    if (recent_.size() > limits_.events_kept) recent_.pop_front();
    for (const auto& session : sessions_) session->offer(line);
  }

  void shut_down(std::function<void()> done) {
    done_ = std::move(done);
    stop_accepting();
    const auto sessions = sessions_;
    for (const auto& session : sessions) session->shut_down();
    finish_if_empty();
  }

  void cut_off() {
    stop_accepting();
    done_ = nullptr;
    const auto sessions = std::exchange(sessions_, {});
    for (const auto& session : sessions) session->cut_off();
  }

  void give_memory_back() {
    while (evict(ControlSession::Activity::kReading)) {
    }
  }

  [[nodiscard]] std::size_t count() const { return sessions_.size(); }

  // ControlHost

  const ControlLimits& limits() const override { return limits_; }

  void handle(const control::Command& command, const Peer& peer, Respond respond) override {
    // A request that was complete when the server ended; whoever handles may be gone.
    if (stopped_) return respond(control::respond(control::stopping()));
    handle_(command, peer, std::move(respond));
  }

  std::string recent_events(const std::string& pool) const override {
    std::string text;
    for (const auto& line : recent_)
      if (line->concerns(pool)) text += line->text;
    return text;
  }

  BackgroundCloser& closer() override { return closer_; }

  bool take_room(std::size_t bytes) override {
    if (bytes > limits_.bodies - bodies_ || memory_is_short()) return false;
    bodies_ += bytes;
    return true;
  }

  void give_room_back(std::size_t bytes) override { bodies_ -= bytes; }

  void ended(const ControlSession& session) override {
    std::erase_if(sessions_, [&](const auto& held) { return held.get() == &session; });
    refill_reserve();
    finish_if_empty();
  }

 private:
  asio::awaitable<void> accept_loop() {
    const auto self = shared_from_this();
    error_code error;
    while (!stopped_) {
      co_await acceptor_.async_wait(Protocol::acceptor::wait_read,
                                    asio::redirect_error(asio::use_awaitable, error));
      if (stopped_) co_return;
      if (!error && accept_some()) continue;
      again_.expires_after(limits_.accept_again);
      co_await again_.async_wait(asio::redirect_error(asio::use_awaitable, error));
    }
  }

  // False: try again later.
  bool accept_some() try {
    for (int i = 0; i < kAcceptsPerTurn; ++i) {
      UniqueFd fd(
          accept4(acceptor_.native_handle(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (fd) {
        if (begin(std::move(fd))) continue;
        return false;
      }
      const int error = errno;
      if (error == EAGAIN) return true;
      if (error == EINTR || error == ECONNABORTED || error == EPROTO) continue;
      const bool short_of_something =
          error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
      // The kernel looks for a descriptor first, and for somebody to accept afterwards.
      if (short_of_something && !somebody_waits(acceptor_.native_handle())) return true;
      if (short_of_something && make_room()) continue;
      if (!std::exchange(complained_, true))
        spdlog::error("control socket: accept: {}", std::strerror(error));
      return false;
    }
    return true;
  } catch (const std::bad_alloc&) {  // else the coroutine would end, and nobody be heard again
    return false;
  }

  // False: the kernel has no room to watch one more.
  bool begin(UniqueFd fd) {
    refill_reserve();
    if (memory_was_short()) {
      spdlog::error("the system refuses memory: requests that are being sent are cut off");
      give_memory_back();
      return false;
    }
    ucred peer{};
    socklen_t size = sizeof peer;
    if (getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return true;
    while (sessions_.size() >= limits_.sessions) evict(ControlSession::Activity::kWaiting);
    ControlSession::Socket socket(context_);
    error_code error;
    socket.assign(Protocol(), fd.get(), error);
    if (error) {
      if (!std::exchange(complained_, true))
        spdlog::error("control socket: watch a connection: {}", error.message());
      return false;
    }
    complained_ = false;
    std::ignore = fd.release();
    auto session = std::make_shared<ControlSession>(shared_from_this(), std::move(socket),
                                                    Peer{peer.uid, peer.gid, peer.pid});
    sessions_.push_back(session);
    session->start();
    return true;
  }

  // Out of descriptors: the reserve lets one operator in, then those who only wait make way.
  bool make_room() {
    if (!reserve_) return evict(ControlSession::Activity::kReading);
    spdlog::warn("control socket: no file descriptors left; using the one kept in reserve");
    reserve_.reset();
    return true;
  }

  void refill_reserve() {
    if (!reserve_ && !stopped_) reserve_ = open_reserve();
  }

  // Closes the session that makes way the most easily, if it does so at least as easily as `worst`.
  bool evict(ControlSession::Activity worst) {
    const auto found =
        std::min_element(sessions_.begin(), sessions_.end(), [](const auto& a, const auto& b) {
          return std::tuple(a->activity(), a->since()) < std::tuple(b->activity(), b->since());
        });
    if (found == sessions_.end() || (*found)->activity() > worst) return false;
    const auto session = *found;
    sessions_.erase(found);
    session->cut_off();
    return true;
  }

  void stop_accepting() {
    if (std::exchange(stopped_, true)) return;
    error_code ignored;
    acceptor_.close(ignored);
    again_.cancel();
    reserve_.reset();
  }

  void finish_if_empty() {
    if (!stopped_ || !sessions_.empty() || !done_) return;
    asio::post(context_, std::exchange(done_, nullptr));
  }

  asio::io_context& context_;
  Protocol::acceptor acceptor_;
  asio::steady_timer again_;
  Handle handle_;
  ControlLimits limits_;
  UniqueFd reserve_;
  BackgroundCloser closer_;
  std::vector<std::shared_ptr<ControlSession>> sessions_;
  std::deque<SharedLine> recent_;
  std::size_t bodies_ = 0;  // bytes
  std::function<void()> done_;
  bool stopped_ = false;
  bool complained_ = false;
};

ControlServer::ControlServer(asio::io_context& context, int listening_fd, Handle handle,
                             ControlLimits limits)
    : impl_(std::make_shared<Impl>(context, listening_fd, std::move(handle), limits)) {
  impl_->start();
}

ControlServer::~ControlServer() {
  impl_->cut_off();
}

void ControlServer::listen_on(int listening_fd) {
  impl_->listen_on(listening_fd);
}

void ControlServer::give_memory_back() {
  impl_->give_memory_back();
}

void ControlServer::publish(const control::EventView& event) {
  impl_->publish(event);
}

void ControlServer::shut_down(std::function<void()> done) {
  impl_->shut_down(std::move(done));
}

std::size_t ControlServer::sessions() const {
  return impl_->count();
}

}  // namespace ostler::runtime
