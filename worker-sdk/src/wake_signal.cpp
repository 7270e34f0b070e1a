#include "wake_signal.hpp"

#include <execinfo.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <stdexcept>
#include <system_error>

namespace ostler::wake_signal {
namespace {

constexpr int kPatienceMs = 300;

// What the handler shares with stack_of().
std::atomic<pid_t> wanted{0};
std::atomic<bool> written{false};
Stack stack;

extern "C" void ostler_on_wake_signal(int) {
  const int saved = errno;
  pid_t self = ::gettid();
  if (wanted.compare_exchange_strong(self, 0)) {
    stack.depth = ::backtrace(stack.frames.data(), Stack::kMostFrames);
    written = true;
  }
  errno = saved;
}

bool is_free(int signal) {
  struct sigaction action {};
  return ::sigaction(signal, nullptr, &action) == 0 &&
         (static_cast<unsigned>(action.sa_flags) & unsigned{SA_SIGINFO}) == 0 &&
         (action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN);
}

int choose() {
  if (is_free(SIGURG)) return SIGURG;
  for (int signal = SIGRTMIN; signal <= SIGRTMAX; ++signal) {
    if (is_free(signal)) return signal;
  }
  throw std::runtime_error("the program has handlers for all signals that could wake a thread");
}

int install() {
  const int signal = choose();
  // The first call loads a library, which no signal handler may do.
  std::array<void*, 1> frame{};
  ::backtrace(frame.data(), 1);
  struct sigaction action {};
  action.sa_handler = ostler_on_wake_signal;  // without SA_RESTART: it is there to interrupt
  sigemptyset(&action.sa_mask);
  if (::sigaction(signal, &action, nullptr) != 0) {
    throw std::system_error(errno, std::generic_category(),
                            "catch signal " + std::to_string(signal));
  }
  return signal;
}

}  // namespace

int number() {
  static const int kSignal = install();
  return kSignal;
}

void block_others() {
  sigset_t set;
  sigfillset(&set);
  sigdelset(&set, number());
  ::pthread_sigmask(SIG_SETMASK, &set, nullptr);
}

Stack stack_of(pid_t thread) noexcept {
  Stack found;
  if (thread == ::gettid()) {
    found.depth = ::backtrace(found.frames.data(), Stack::kMostFrames);
    return found;
  }
  written = false;
  wanted = thread;
  if (::syscall(SYS_tgkill, ::getpid(), thread, number()) == 0) {
    constexpr timespec kMoment{.tv_sec = 0, .tv_nsec = 1'000'000};
    for (int i = 0; i < kPatienceMs && !written; ++i) ::nanosleep(&kMoment, nullptr);
  }
  if (written) found = stack;
  wanted = 0;
  return found;
}

}  // namespace ostler::wake_signal
