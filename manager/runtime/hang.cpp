#include "runtime/hang.hpp"

#include <fmt/format.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <utility>

#include "runtime/usage.hpp"

namespace ostler::runtime {
namespace {

// The calls in which programs wait, and thus hang; others are given by their number.
constexpr auto kCalls = std::to_array<std::pair<long, const char*>>({
    {SYS_read, "read"},
    {SYS_write, "write"},
    {SYS_readv, "readv"},
    {SYS_writev, "writev"},
    {SYS_futex, "futex"},
    {SYS_nanosleep, "nanosleep"},
    {SYS_clock_nanosleep, "clock_nanosleep"},
    {SYS_epoll_pwait, "epoll_pwait"},
    {SYS_pselect6, "pselect6"},
    {SYS_ppoll, "ppoll"},
    {SYS_rt_sigsuspend, "rt_sigsuspend"},
    {SYS_rt_sigtimedwait, "rt_sigtimedwait"},
    {SYS_accept, "accept"},
    {SYS_accept4, "accept4"},
    {SYS_connect, "connect"},
    {SYS_recvfrom, "recvfrom"},
    {SYS_recvmsg, "recvmsg"},
    {SYS_sendto, "sendto"},
    {SYS_sendmsg, "sendmsg"},
    {SYS_wait4, "wait4"},
    {SYS_waitid, "waitid"},
    {SYS_flock, "flock"},
    {SYS_fcntl, "fcntl"},
    {SYS_fsync, "fsync"},
    {SYS_fdatasync, "fdatasync"},
    {SYS_openat, "openat"},
#ifdef SYS_poll  // machines that came later have none of these
    {SYS_poll, "poll"},
    {SYS_select, "select"},
    {SYS_epoll_wait, "epoll_wait"},
    {SYS_pause, "pause"},
    {SYS_open, "open"},
#endif
});

// proc(5), /proc/PID/syscall: a number and its arguments, "running", or "-1" and two addresses.
std::string system_call(pid_t pid, pid_t thread) {
  const std::string tid = std::to_string(thread == 0 ? pid : thread);
  std::ifstream file("/proc/" + std::to_string(pid) + "/task/" + tid + "/syscall");
  std::string word;
  if (!(file >> word)) return {};
  const std::string who = thread == 0 || thread == pid ? "its main thread" : "its thread " + tid;
  if (word == "running" || word == "-1") return who + " in no system call";
  const auto found = std::ranges::find_if(
      kCalls, [&](const auto& call) { return std::to_string(call.first) == word; });
  return who + " in the system call " + (found == kCalls.end() ? word : found->second);
}

}  // namespace

std::string what_it_does(pid_t pid, double cpu_before, pid_t thread) {
  std::string text;
  if (const auto cpu = cpu_seconds(pid)) {
    text = fmt::format("used {:.2f} s of CPU meanwhile", std::max(0.0, *cpu - cpu_before));
  }
  const std::string call = system_call(pid, thread);
  if (!text.empty() && !call.empty()) text += ", ";
  return text + call;
}

}  // namespace ostler::runtime
