// The C interface: one worker in the process, whose connections are waited for by the threads that
// serve them.
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <deque>
#include <exception>
#include <list>
#include <memory>
#include <mutex>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

#include "acceptor.hpp"
#include "internals.hpp"
#include "ostler/worker.h"
#include "ostler/worker.hpp"

namespace ostler {
namespace {

// What the functions have in common. Thread-safe once constructed.
class CWorker {
 public:
  CWorker() {
    arrived_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE);
    if (arrived_ < 0) throw std::system_error(errno, std::generic_category(), "create an eventfd");
    worker_.offer(1, 1);
  }
  ~CWorker() {
    stop_accepting();
    for (const int each : arrivals_) ::close(each);
    for (const auto& each : worker_.listeners()) ::close(each.fd);
    ::close(arrived_);
  }
  CWorker(const CWorker&) = delete;
  CWorker& operator=(const CWorker&) = delete;

  [[nodiscard]] const ostler::worker& worker() const { return worker_; }

  // -1: asked to stop, and there are no more.
  int accept();
  bool close_connection(int fd);
  [[nodiscard]] bool is_private(int fd);

 private:
  void count_thread();
  void start_accepting();
  void stop_accepting();
  int take_arrival();
  void add_arrival(int fd);
  int receive();
  int take_over(const channel_message& message);
  void wait() const;

  ostler::worker worker_;
  int arrived_ = -1;  // counts arrivals_
  Gate gate_{0};      // as much room as threads are waiting
  std::mutex mutex_;
  std::deque<int> arrivals_;
  std::set<int> private_;
  bool stopped_ = false;
  std::mutex acceptors_mutex_;
  std::uint32_t threads_ = 0;  // that have waited here
  std::list<Acceptor> acceptors_;
};

int CWorker::accept() {
  count_thread();
  static_cast<void>(worker_.channel_fd());  // it is watched from before the first request on
  worker_internals::of(worker_).scoreboard.beat();
  if (worker_.may_accept() && !worker_.stop_requested()) start_accepting();
  gate_.give();
  while (true) {
    if (const int fd = take_arrival(); fd >= 0) return fd;
    if (worker_.stop_requested()) {
      stop_accepting();
      const int last = take_arrival();
      return last >= 0 || !worker_.dispatched() ? last : receive();
    }
    if (const int fd = receive(); fd >= 0) {
      gate_.take();  // this thread waits no longer
      return fd;
    }
    wait();
  }
}

// Each serves what it accepts, one at a time.
void CWorker::count_thread() {
  thread_local bool counted = false;
  if (std::exchange(counted, true)) return;
  Scoreboard::hold_thread(true);
  const std::lock_guard lock(acceptors_mutex_);
  ++threads_;
  worker_.offer(threads_, threads_);
}

void CWorker::wait() const {
  std::array<pollfd, 3> wanted{
      {{arrived_, POLLIN, 0}, {worker_.stop_fd(), POLLIN, 0}, {worker_.channel_fd(), POLLIN, 0}}};
  ::poll(wanted.data(), wanted.size(), -1);
}

void CWorker::start_accepting() {
  const std::lock_guard lock(acceptors_mutex_);
  if (stopped_ || !acceptors_.empty()) return;
  for (const auto& listener : worker_.listeners()) {
    acceptors_.emplace_back(gate_, listener.fd, [this](const Acceptor::Arrival& arrival) {
      worker_.connection_opened();
      const std::lock_guard inner(mutex_);
      add_arrival(arrival.fd);
    });
  }
}

void CWorker::stop_accepting() {
  const std::lock_guard lock(acceptors_mutex_);
  if (std::exchange(stopped_, true)) return;
  worker_.stopping();
  gate_.close();
  acceptors_.clear();
}

void CWorker::add_arrival(int fd) {
  arrivals_.push_back(fd);
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(arrived_, &one, sizeof one);
}

int CWorker::take_arrival() {
  const std::lock_guard lock(mutex_);
  std::uint64_t one = 0;
  if (::read(arrived_, &one, sizeof one) != sizeof one || arrivals_.empty()) return -1;
  const int fd = arrivals_.front();
  arrivals_.pop_front();
  return fd;
}

int CWorker::receive() {
  std::unique_lock lock(mutex_);
  auto message = worker_.receive();
  if (message.what == channel_message::kind::connection) {
    const int fd = take_over(message);
    // Those that came together with it are for the other threads that wait.
    while (worker_internals::of(worker_).channel.has_more()) {
      message = worker_.receive();
      if (const int more = take_over(message); more >= 0) add_arrival(more);
    }
    return fd;
  }
  lock.unlock();  // which the acceptors take
  if (message.what == channel_message::kind::may_accept) start_accepting();
  return -1;
}

// -1: it has been given back.
int CWorker::take_over(const channel_message& message) {
  if (message.is_dispatched) {
    const bool drains = worker_internals::of(worker_).draining;
    if (drains && worker_.give_back(message.fd, message.listener)) return -1;
    int off = 0;
    ::ioctl(message.fd, FIONBIO, &off);
  }
  if (message.is_private) {
    private_.insert(message.fd);
  } else {
    worker_.connection_opened();
  }
  return message.fd;
}

bool CWorker::is_private(int fd) {
  const std::lock_guard lock(mutex_);
  return private_.contains(fd);
}

bool CWorker::close_connection(int fd) {
  bool is_private = false;
  {
    // Before it is closed: then its number is another's.
    const std::lock_guard lock(mutex_);
    is_private = private_.erase(fd) > 0;
  }
  // The manager may still have it open.
  if (!is_private && worker_.dispatched()) ::shutdown(fd, SHUT_RDWR);
  if (!is_private) worker_.connection_closed();
  return ::close(fd) == 0;
}

// Not destroyed by exit(): a child that was forked, and threads that still accept, would be harmed.
CWorker* the_worker = nullptr;
thread_local std::string last_error;

int fail(int error, const char* what) noexcept {
  try {
    last_error = what;
  } catch (const std::bad_alloc&) {
    last_error.clear();
  }
  errno = error;
  return -1;
}

int fail_with_errno(const char* doing) {
  const int error = errno;
  return fail(error, (std::string(doing) + ": " + std::generic_category().message(error)).c_str());
}

// Calls it with the worker; nothing that it throws gets out.
template <class Function>
int with_worker(Function function) noexcept {
  try {
    if (!the_worker) return fail(ENOTCONN, "ostler_worker_open() has not been called");
    return function(*the_worker);
  } catch (const std::system_error& error) {
    return fail(error.code().value(), error.what());
  } catch (const std::bad_alloc& error) {
    return fail(ENOMEM, error.what());
  } catch (const std::exception& error) {
    return fail(EINVAL, error.what());
  }
}

// A message to the manager that was sent, or not.
int told(bool sent, const char* doing) {
  return sent ? 0 : fail_with_errno(doing);
}

const listener* find_listener(const CWorker& worker, int number) {
  const auto& listeners = worker.worker().listeners();
  const auto index = static_cast<std::size_t>(number);
  return number < 0 || index >= listeners.size() ? nullptr : &listeners[index];
}

in_flight* to_request(unsigned long long request) {
  // NOLINTNEXTLINE(performance-no-int-to-ptr): the number that C holds is this pointer
  return reinterpret_cast<in_flight*>(static_cast<std::uintptr_t>(request));
}

}  // namespace
}  // namespace ostler

using ostler::fail;
using ostler::told;
using ostler::with_worker;

extern "C" {

int ostler_worker_open(void) {
  if (ostler::the_worker) return fail(EBUSY, "ostler_worker_open() has been called before");
  try {
    ostler::the_worker = new ostler::CWorker;
    return 0;
  } catch (const std::system_error& error) {
    return fail(error.code().value(), error.what());
  } catch (const std::logic_error& error) {
    return fail(EBUSY, error.what());
  } catch (const std::exception& error) {
    return fail(ENOMEM, error.what());
  }
}

void ostler_worker_close(void) {
  delete std::exchange(ostler::the_worker, nullptr);
}

const char* ostler_worker_error(void) {
  return ostler::last_error.c_str();
}

int ostler_worker_listener_count(void) {
  return with_worker([](auto& it) { return static_cast<int>(it.worker().listeners().size()); });
}

int ostler_worker_listener_fd(int number) {
  return with_worker([number](auto& it) {
    const auto* const found = ostler::find_listener(it, number);
    return found != nullptr ? found->fd : fail(EINVAL, "there is no listener of that number");
  });
}

const char* ostler_worker_listener_name(int number) {
  const char* name = nullptr;
  with_worker([&](auto& it) {
    const auto* const found = ostler::find_listener(it, number);
    if (found == nullptr) return fail(EINVAL, "there is no listener of that number");
    name = found->name.c_str();
    return 0;
  });
  return name;
}

int ostler_worker_ready(void) {
  return with_worker([](auto& it) { return told(it.worker().ready(), "say READY=1"); });
}

int ostler_worker_status(const char* text) {
  return with_worker([=](auto& it) { return told(it.worker().status(text), "say STATUS"); });
}

int ostler_worker_heartbeat(void) {
  return with_worker([](auto& it) { return told(it.worker().heartbeat(), "say WATCHDOG=1"); });
}

int ostler_worker_stopping(void) {
  return with_worker([](auto& it) { return told(it.worker().stopping(), "say STOPPING=1"); });
}

int ostler_worker_stop_fd(void) {
  return with_worker([](auto& it) { return it.worker().stop_fd(); });
}

int ostler_worker_stop_requested(void) {
  return with_worker([](auto& it) { return it.worker().stop_requested() ? 1 : 0; });
}

int ostler_worker_accept(void) {
  return with_worker([](auto& it) {
    const int fd = it.accept();
    return fd >= 0 ? fd : fail(ESHUTDOWN, "accept a connection: this process was asked to stop");
  });
}

int ostler_worker_close_connection(int fd) {
  return with_worker([fd](auto& it) {
    return it.close_connection(fd) ? 0 : ostler::fail_with_errno("close a connection");
  });
}

unsigned long long ostler_worker_request_begin(int fd, const char* what) {
  unsigned long long handle = 0;
  with_worker([&](auto& it) {
    auto request = std::make_unique<ostler::in_flight>(it.worker(), what, it.is_private(fd));
    handle = reinterpret_cast<std::uintptr_t>(request.release());
    return 0;
  });
  return handle;
}

void ostler_worker_request_end(unsigned long long request) {
  delete ostler::to_request(request);
}

void ostler_worker_request_progress(unsigned long long request) {
  if (request != 0) ostler::to_request(request)->progress();
}

void ostler_worker_request_extend(unsigned long long request, unsigned long milliseconds) {
  constexpr unsigned long kMost = 1000UL * 60 * 60 * 24 * 365;
  if (request == 0) return;
  ostler::to_request(request)->extend(
      std::chrono::milliseconds(milliseconds < kMost ? milliseconds : kMost));
}

}  // extern "C"
