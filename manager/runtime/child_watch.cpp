#include "runtime/child_watch.hpp"

#include <spdlog/spdlog.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cerrno>
#include <csignal>
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

}  // namespace

ChildWatch::ChildWatch(boost::asio::io_context& context, Watcher& watcher, BeforeReap before_reap,
                       OnExit on_exit)
    : watcher_(watcher),
      before_reap_(std::move(before_reap)),
      on_exit_(std::move(on_exit)),
      orphans_(context, watcher) {}

void ChildWatch::add(pid_t pid, Child child) {
  orphans_.started(child.tag, pid, child.name, child.about, child.terms);
  children_.insert_or_assign(pid, std::move(child));
}

core::WorkerId ChildWatch::worker_of(pid_t pid) const {
  const auto found = children_.find(pid);
  return found == children_.end() ? core::WorkerId{} : found->second.worker;
}

int ChildWatch::signal(pid_t pid, int signal) {
  const auto found = children_.find(pid);
  if (found == children_.end()) return ESRCH;
  found->second.asked = true;
  if (signal == SIGKILL) {
    found->second.killed = true;
    ::kill(-pid, SIGKILL);  // the group is named by a child of ours that is not reaped: no stranger
  }
  return pidfd_signal(found->second.pidfd.get(), signal);
}

void ChildWatch::reap() {
  const auto until = std::chrono::steady_clock::now() + limits::kOrphanTurn;
  while (const pid_t pid = peek_exited()) {
    const auto child = children_.find(pid);
    if (child != children_.end()) {
      before_reap_(child->second.worker);
      reap_worker(child, until);
      continue;
    }
    siginfo_t info{};
    ::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG);
    orphans_.reaped(pid);
    spdlog::debug("reaped orphan {}", pid);
  }
}

// `until`: for what all those of a batch have left running.
void ChildWatch::reap_worker(std::map<pid_t, Child>::iterator child,
                             std::chrono::steady_clock::time_point until) {
  siginfo_t info{};
  const auto pidfd = static_cast<id_t>(child->second.pidfd.get());
  while (::waitid(P_PIDFD, pidfd, &info, WEXITED) != 0 && errno == EINTR) {
  }
  core::Exited event;
  event.worker = child->second.worker;
  event.signaled = info.si_code != CLD_EXITED;
  event.core_dumped = info.si_code == CLD_DUMPED;
  event.code = info.si_status;
  // A program that puts itself into the background ends in order, and is not what was asked for.
  if (!event.signaled && event.code == 0 && !child->second.asked && event.worker) {
    event.left_running = orphans_.running_of(child->second.tag, until);
  }
  orphans_.ended(child->second.tag, child->second.killed);
  const auto on_exit = std::move(child->second.on_exit);
  children_.erase(child);
  on_exit ? on_exit(event) : on_exit_(event);
}

}  // namespace ostler::runtime
