#include "stop_signals.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>

namespace ostler {
namespace {

// What the handler needs; it may run in any thread, and in a child between fork and exec.
struct Shared {
  std::atomic<int> event{-1};  // -1: no object
  std::atomic<pid_t> owner{0};
  std::atomic<pid_t> parent{0};
  std::atomic<int> requests{0};
  std::atomic<int> exit_code{-1};  // at the second request; -1: none
};
Shared shared;
static_assert(std::atomic<int>::is_always_lock_free);
static_assert(std::is_same_v<pid_t, int>);

// Whether a process's main thread has begun to exit: PF_EXITING of the flags in proc(5),
// /proc/PID/stat. Async-signal-safe, like all that follows.
bool is_exiting(pid_t pid) {
  constexpr std::string_view kBefore = "/proc/";
  constexpr std::string_view kAfter = "/stat";
  constexpr unsigned kExiting = 0x4;
  constexpr int kFieldsBefore = 7;  // from the end of the name on: state, ppid, … tpgid
  std::array<char, 32> path{};
  char* end = std::copy(kBefore.begin(), kBefore.end(), path.begin());
  end = std::to_chars(end, path.end() - kAfter.size() - 1, pid).ptr;
  std::copy(kAfter.begin(), kAfter.end(), end);
  const int fd = ::open(path.data(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  std::array<char, 512> buffer{};
  const ssize_t size = ::read(fd, buffer.data(), buffer.size());
  ::close(fd);
  std::string_view text(buffer.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
  text.remove_prefix(std::min(text.rfind(')') + 1, text.size()));
  for (int i = 0; i < kFieldsBefore; ++i) {
    text.remove_prefix(std::min(text.find(' ') + 1, text.size()));
  }
  unsigned flags = 0;
  std::from_chars(text.data(), text.data() + text.size(), flags);
  return (flags & kExiting) != 0;
}

// The kernel signals the workers of a manager that died, in that process's name, and more than once
// if it had threads: each of them is their parent in turn. It is told from somebody's asking again
// by the sender: one that is no parent any more, or has begun to exit. It may be gone between the
// two looks; by then they have their next parent.
bool is_from_dying_parent(pid_t sender) {
  if (sender != shared.parent && sender != ::getppid()) return false;
  return ::getppid() != sender || is_exiting(sender) || ::getppid() != sender;
}

extern "C" void ostler_on_stop_signal(int signal, siginfo_t* info, void* /*context*/) {
  const int saved = errno;
  if (::getpid() != shared.owner) {
    // A forked child that did not exec yet: the request is meant for it and not for its parent.
    ::signal(signal, SIG_DFL);
    ::raise(signal);
  } else if (shared.requests == 0 || !is_from_dying_parent(info->si_pid)) {
    const int exit_code = shared.exit_code;
    if (++shared.requests > 1 && exit_code >= 0) ::_exit(exit_code);
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(shared.event, &one, sizeof one);
  }
  errno = saved;
}

[[noreturn]] void fail(const std::string& what) {
  throw std::system_error(errno, std::generic_category(), what);
}

}  // namespace

StopSignals::StopSignals(std::initializer_list<int> signals) {
  fd_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd_ < 0) fail("create an eventfd for the stop signals");
  int none = -1;
  if (!shared.event.compare_exchange_strong(none, fd_)) {
    ::close(fd_);
    throw std::logic_error("a second ostler::worker in one process");
  }
  shared.owner = ::getpid();
  shared.parent = ::getppid();
  shared.requests = 0;
  shared.exit_code = -1;
  try {
    install(signals);
  } catch (...) {
    remove();
    throw;
  }
}

StopSignals::~StopSignals() {
  remove();
}

int StopSignals::requests() const noexcept {
  return shared.requests;
}

void StopSignals::leave_at_second(int exit_code) noexcept {
  shared.exit_code = exit_code;
}

void StopSignals::install(std::initializer_list<int> signals) {
  previous_.reserve(signals.size());
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : signals) {
    struct sigaction action {};
    struct sigaction previous {};
    action.sa_sigaction = ostler_on_stop_signal;
    action.sa_flags = SA_RESTART | SA_SIGINFO;
    sigemptyset(&action.sa_mask);
    if (::sigaction(signal, &action, &previous) != 0) {
      fail("catch the stop signal " + std::to_string(signal));
    }
    previous_.emplace_back(signal, previous);
    sigaddset(&set, signal);
  }
  // A manager may start its workers with these signals blocked, so that none is lost, or deadly,
  // before the handlers are there.
  if (const int error = ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr); error != 0) {
    throw std::system_error(error, std::generic_category(), "unblock the stop signals");
  }
}

void StopSignals::remove() noexcept {
  // The last first: of a signal that was named twice, the second entry is our own handler.
  std::for_each(previous_.rbegin(), previous_.rend(), [](const auto& previous) {
    ::sigaction(previous.first, &previous.second, nullptr);
  });
  shared.event = -1;
  ::close(fd_);
}

}  // namespace ostler
