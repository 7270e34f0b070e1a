#include "runtime/child_watch.hpp"

#include <spdlog/spdlog.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <fstream>
#include <set>
#include <system_error>
#include <utility>

#include "runtime/limits.hpp"

namespace ostler::runtime {
namespace {

int pidfd_signal(int pidfd, int signal) {
  return ::syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0) == 0 ? 0 : errno;
}

// The next child that has exited, left as it is; 0: none.
pid_t peek_exited() {
  siginfo_t info{};
  while (::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0) {
    if (errno != EINTR) return 0;
  }
  return info.si_pid;
}

// Whether a process has a handler for a signal, by /proc/PID/status.
bool catches(pid_t pid, int signal) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("SigCgt:")) continue;
    const auto mask = std::strtoull(line.c_str() + 7, nullptr, 16);
    return (mask >> static_cast<unsigned>(signal - 1) & 1U) != 0;
  }
  return false;
}

std::vector<pid_t> own_children() {
  std::vector<pid_t> pids;
  std::ifstream file("/proc/self/task/" + std::to_string(::getpid()) + "/children");
  for (pid_t pid = 0; file >> pid;) pids.push_back(pid);
  return pids;
}

}  // namespace

int stop_signal_for(pid_t pid, int wanted) {
  const bool common = wanted == SIGTERM || wanted == SIGINT || wanted == SIGQUIT;
  return common || catches(pid, wanted) ? wanted : SIGTERM;
}

ChildWatch::ChildWatch(boost::asio::io_context& context, BeforeReap before_reap, OnExit on_exit)
    : timer_(context), before_reap_(std::move(before_reap)), on_exit_(std::move(on_exit)) {}

void ChildWatch::add(pid_t pid, Child child) {
  children_.insert_or_assign(pid, std::move(child));
}

core::WorkerId ChildWatch::worker_of(pid_t pid) const {
  const auto found = children_.find(pid);
  return found == children_.end() ? core::WorkerId{} : found->second.worker;
}

int ChildWatch::signal(pid_t pid, int signal) {
  const auto found = children_.find(pid);
  if (found == children_.end()) return ESRCH;
  if (signal == SIGKILL) {
    found->second.killed = true;
    ::kill(-pid, SIGKILL);  // the group is named by a child of ours that is not reaped: no stranger
  }
  return pidfd_signal(found->second.pidfd.get(), signal);
}

void ChildWatch::reap() {
  while (const pid_t pid = peek_exited()) {
    const auto child = children_.find(pid);
    if (child != children_.end()) {
      before_reap_(child->second.worker);
      reap_worker(child);
      left_behind_ = true;
      continue;
    }
    siginfo_t info{};
    ::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG);
    left_behind_ = strays_.erase(pid) > 0 || left_behind_;  // it may have had children of its own
    spdlog::debug("reaped orphan {}", pid);
  }
}

void ChildWatch::reap_worker(std::map<pid_t, Child>::iterator child) {
  siginfo_t info{};
  const auto pidfd = static_cast<id_t>(child->second.pidfd.get());
  while (::waitid(P_PIDFD, pidfd, &info, WEXITED) != 0 && errno == EINTR) {
  }
  core::Exited event;
  event.worker = child->second.worker;
  event.signaled = info.si_code != CLD_EXITED;
  event.core_dumped = info.si_code == CLD_DUMPED;
  event.code = info.si_status;
  Gone gone;
  gone.session = child->first;
  gone.name = std::move(child->second.name);
  gone.stop_signal = child->second.stop_signal;
  gone.killed = child->second.killed;
  gone.deadline = std::chrono::steady_clock::now() + child->second.stop_timeout;
  gone_.insert_or_assign(gone.session, std::move(gone));
  const auto on_exit = std::move(child->second.on_exit);
  children_.erase(child);
  on_exit ? on_exit(event) : on_exit_(event);
}

// Looks through the children once for a batch of exits. A child of ours cannot vanish before it is
// reaped here, so its pid names it for as long as we look.
void ChildWatch::adopt_strays() {
  if (!std::exchange(left_behind_, false)) return;
  for (const pid_t pid : own_children()) {
    if (children_.contains(pid) || strays_.contains(pid)) continue;
    const auto owner = gone_.find(::getsid(pid));
    if (owner != gone_.end()) adopt(pid, owner->second);
  }
  std::set<pid_t> sessions;
  for (const auto& [pid, stray] : strays_) sessions.insert(stray.session);
  std::erase_if(gone_, [&](const auto& entry) { return !sessions.contains(entry.first); });
  arm();
}

void ChildWatch::adopt(pid_t pid, const Gone& owner) {
  Stray stray;
  stray.worker = owner.name;
  stray.session = owner.session;
  stray.deadline = owner.deadline;
  stray.killed = owner.killed;
  const int signal = owner.killed ? SIGKILL : stop_signal_for(pid, owner.stop_signal);
  spdlog::warn("{} left process {} behind: {}", owner.name, pid,
               owner.killed ? "killed" : "asked to stop");
  ::kill(pid, signal);
  ::kill(pid, SIGCONT);  // one that is stopped would not hear it
  strays_.emplace(pid, std::move(stray));
}

void ChildWatch::arm() {
  auto next = std::chrono::steady_clock::time_point::max();
  for (const auto& [pid, stray] : strays_) {
    if (!stray.killed) next = std::min(next, stray.deadline);
  }
  if (next == std::chrono::steady_clock::time_point::max()) {
    timer_.cancel();
    return;
  }
  timer_.expires_at(next);
  timer_.async_wait([this](const boost::system::error_code& error) {
    if (!error) kill_overdue();
  });
}

void ChildWatch::kill_overdue() {
  const auto now = std::chrono::steady_clock::now();
  for (auto& [pid, stray] : strays_) {
    if (stray.killed || stray.deadline > now) continue;
    spdlog::warn("process {}, left behind by {}, did not stop: killed", pid, stray.worker);
    stray.killed = true;
    ::kill(pid, SIGKILL);
  }
  for (auto& [session, gone] : gone_) gone.killed = gone.killed || gone.deadline <= now;
  arm();
}

void ChildWatch::kill_strays() {
  for (auto& [pid, stray] : strays_) {
    stray.killed = true;
    ::kill(pid, SIGKILL);
  }
  for (auto& [session, gone] : gone_) gone.killed = true;
  arm();
}

}  // namespace ostler::runtime
