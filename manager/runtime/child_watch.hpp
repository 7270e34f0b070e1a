// Who of the manager's children is gone, and what those leave behind.
//
// The one interface through which exits reach the runtime; nothing else waits for a process. A
// worker is waited for by its pidfd. The manager is a subreaper (or pid 1), so what a worker leaves
// behind becomes its child: an orphan that dies is reaped; one that lives in the session of a
// worker that is gone (a "stray") is asked to stop, and killed when the worker's stop time-out is
// over, so that no old code goes on accepting connections.
#pragma once

#include <sys/types.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/event.hpp"
#include "core/ids.hpp"
#include "runtime/unique_fd.hpp"

namespace ostler::runtime {

struct Child {
  core::WorkerId worker;  // none: not a worker, and `on_exit` is told
  std::string name;       // "web.0", for the log
  UniqueFd pidfd;
  int stop_signal = 15;
  std::chrono::nanoseconds stop_timeout{};
  bool killed = false;  // SIGKILL was sent: strays get no time
  std::function<void(const core::Exited&)> on_exit = {};
};

// Every program understands TERM, INT and QUIT. Another signal is only for those who catch it: to
// others it would mean death or nothing at all, so they get TERM.
int stop_signal_for(pid_t pid, int wanted);

class ChildWatch {
 public:
  // A worker is dead and not reaped: what it sent before can still be told to be from it.
  using BeforeReap = std::function<void(core::WorkerId)>;
  using OnExit = std::function<void(const core::Exited&)>;

  ChildWatch(boost::asio::io_context& context, BeforeReap before_reap, OnExit on_exit);

  void add(pid_t pid, Child child);
  // To the process by its pidfd; SIGKILL also to its process group, which its pid names for as long
  // as it is not reaped. 0 or errno (ESRCH: it is dead already).
  int signal(pid_t pid, int signal);
  // On SIGCHLD: reaps all that has exited and reports the workers among them.
  void reap();
  // After that, when the workers have been replaced: sees to what those that are gone left behind.
  void adopt_strays();
  // At the end: kills what is left.
  void kill_strays();
  // Strays may be there.
  [[nodiscard]] bool has_strays() const { return left_behind_ || !strays_.empty(); }
  [[nodiscard]] core::WorkerId worker_of(pid_t pid) const;

 private:
  // A child of ours that only we reap: until then its pid names it.
  struct Stray {
    std::string worker;
    pid_t session = 0;
    std::chrono::steady_clock::time_point deadline;
    bool killed = false;
  };
  struct Gone {
    pid_t session = 0;
    std::string name;
    int stop_signal = 15;
    std::chrono::steady_clock::time_point deadline;
    bool killed = false;
  };

  void reap_worker(std::map<pid_t, Child>::iterator child);
  void adopt(pid_t pid, const Gone& owner);
  void arm();
  void kill_overdue();

  boost::asio::steady_timer timer_;
  BeforeReap before_reap_;
  OnExit on_exit_;
  std::map<pid_t, Child> children_;
  std::map<pid_t, Stray> strays_;
  bool left_behind_ = false;  // somebody was reaped since strays were looked for
  // Workers whose session may still have members, by session: kept until their time is over.
  std::map<pid_t, Gone> gone_;
};

}  // namespace ostler::runtime
