// Who of the manager's children is gone, and what those leave behind.
//
// The one interface through which exits reach the runtime; nothing else waits for a process. A
// worker is waited for by its pidfd. What it leaves behind becomes a child of the manager: one that
// dies is reaped, one that lives on is for orphans.hpp to see to, so that no old code goes on
// accepting connections.
#pragma once

#include <sys/types.h>

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/event.hpp"
#include "core/ids.hpp"
#include "runtime/orphans.hpp"
#include "runtime/unique_fd.hpp"
#include "runtime/watcher.hpp"

namespace ostler::runtime {

struct Child {
  core::WorkerId worker;  // none: not a worker, and `on_exit` is told
  std::string name;       // "web.0", for the log
  control::EventView about = {};
  Tag tag = 0;  // as it was started with
  UniqueFd pidfd;
  StopTerms terms;
  bool asked = false;   // a signal was sent
  bool killed = false;  // SIGKILL was: what it leaves behind gets no time
  std::function<void(const core::Exited&)> on_exit = {};
};

class ChildWatch {
 public:
  // A worker is dead and not reaped: what it sent before can still be told to be from it.
  using BeforeReap = std::function<void(core::WorkerId)>;
  using OnExit = std::function<void(const core::Exited&)>;

  ChildWatch(boost::asio::io_context& context, Watcher& watcher, BeforeReap before_reap,
             OnExit on_exit);

  // A tag for a process that is about to be started: then add() follows, or never_started().
  Tag new_tag(const StopTerms& terms) { return watcher_.enter(terms); }
  void never_started(Tag tag) { watcher_.leave(tag); }
  void add(pid_t pid, Child child);
  // To the process by its pidfd; SIGKILL also to its process group, which its pid names for as long
  // as it is not reaped. 0 or errno (ESRCH: it is dead already).
  int signal(pid_t pid, int signal);
  // On SIGCHLD: reaps all that has exited and reports the workers among them.
  void reap();
  // After that, when the workers have been replaced: sees to what those that are gone left behind.
  // False: there is more to see to; call it again soon.
  bool see_to_orphans() { return orphans_.look(); }
  // At the end, after the last worker: none may be left. Then see to them.
  void end_orphans() { orphans_.end_all(); }
  void kill_orphans() { orphans_.kill_all(); }
  [[nodiscard]] bool has_orphans_to_end() const { return orphans_.any_to_end(); }
  [[nodiscard]] core::WorkerId worker_of(pid_t pid) const;

 private:
  void reap_worker(std::map<pid_t, Child>::iterator child,
                   std::chrono::steady_clock::time_point until);

  Watcher& watcher_;
  BeforeReap before_reap_;
  OnExit on_exit_;
  std::map<pid_t, Child> children_;
  Orphans orphans_;
};

}  // namespace ostler::runtime
