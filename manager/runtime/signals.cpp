#include "runtime/signals.hpp"

#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <system_error>
#include <utility>

namespace ostler::runtime {
namespace {

sigset_t handled() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal :
       {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGTTIN, SIGTTOU, SIGCHLD}) {
    sigaddset(&set, signal);
  }
  return set;
}

int open_signalfd() {
  const sigset_t set = handled();
  const int fd = ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (fd < 0) throw std::system_error(errno, std::generic_category(), "signalfd");
  return fd;
}

// glibc keeps the kernel's first real-time signal for pthread_cancel(3), which nothing here calls,
// and hides it from signal(2).
void ignore_hidden_signal() {
  constexpr int kCancel = 32;
  constexpr std::size_t kMaskBytes = 8;
  static constexpr std::uint64_t kIgnore[8] = {1};  // the kernel's struct: SIG_IGN, no flags
  ::syscall(SYS_rt_sigaction, kCancel, kIgnore, nullptr, kMaskBytes);
}

}  // namespace

void block_signals() {
  const sigset_t set = handled();
  sigprocmask(SIG_SETMASK, &set, nullptr);
  // An inherited "ignore" would swallow exits and the operator's signals alike.
  for (const int signal :
       {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGTTIN, SIGTTOU, SIGCHLD}) {
    std::signal(signal, SIG_DFL);
  }
  for (int signal = SIGRTMIN; signal <= SIGRTMAX; ++signal) std::signal(signal, SIG_IGN);
  for (const int signal :
       {SIGPIPE, SIGXFSZ, SIGXCPU, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGPWR, SIGSTKFLT}) {
    std::signal(signal, SIG_IGN);
  }
  ignore_hidden_signal();
}

Signals::Signals(boost::asio::io_context& context, std::function<void(int)> deliver)
    : descriptor_(context, open_signalfd()), deliver_(std::move(deliver)) {
  wait();
}

void Signals::wait() {
  descriptor_.async_wait(
      boost::asio::posix::descriptor_base::wait_read,
      [this](const boost::system::error_code& error) {
        if (error) return;
        std::array<signalfd_siginfo, 16> infos;
        const ssize_t size = ::read(descriptor_.native_handle(), infos.data(), sizeof infos);
        const auto count = size > 0 ? static_cast<std::size_t>(size) / sizeof infos[0] : 0;
        for (std::size_t i = 0; i < count; ++i) deliver_(static_cast<int>(infos[i].ssi_signo));
        wait();
      });
}

}  // namespace ostler::runtime
