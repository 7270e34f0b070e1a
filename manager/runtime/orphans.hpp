// What workers leave behind, in whatever session: processes that have lost their parent.
//
// The manager is a subreaper (or pid 1), so that they become its children. Whose they are is told
// by their session, while that is the worker's, and else by their tag (process_tag.hpp). An orphan
// whose worker lives may be a helper that it wants (a daemon that it has started) and is left
// alone; when the worker has ended, it is asked to stop as the worker was, and killed when the
// pool's stop time-out is over. If the worker was killed, so is it. With `leave_behind` those that
// have left the worker's session are none of our business.
//
// One that bears no known tag (it has lowered its limits) stays for as long as a worker lives that
// is older than it, for that one may be its ancestor, and is then ended with time-outs of our own.
// Where orphans may come from elsewhere (as pid 1: from whoever was sent in; or from children that
// were there before the manager) it stays; as pid 1 until the manager ends, for then all end.
//
// They are looked for when somebody has been reaped, and at the end: the list of our children is
// read, not all of /proc, and each new one is looked at once. Nothing wakes up in between.
#pragma once

#include <sys/types.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "control/messages.hpp"
#include "runtime/process_tag.hpp"
#include "runtime/watcher.hpp"

namespace ostler::runtime {

class Orphans {
 public:
  Orphans(boost::asio::io_context& context, Watcher& watcher);

  // A worker, or a check, has been started, under a tag of the watcher; `name` and `about` are for
  // the log.
  void started(Tag tag, pid_t pid, std::string name, const control::EventView& about,
               const StopTerms& terms);
  // It is about to be reaped; `killed`: its descendants get no time.
  void ended(Tag tag, bool killed);
  // A child that is no worker has been reaped.
  void reaped(pid_t pid);
  // "4711 (nginx)": one that a worker, which has just ended, left running, if that is found in
  // time.
  [[nodiscard]] std::string running_of(Tag tag, std::chrono::steady_clock::time_point until);
  // Looks for new ones, and sees to those whose worker is gone. False: it took long; call it again.
  bool look();
  // No worker is left: from the next look on, nobody stays but what `leave_behind` allows.
  void end_all();
  // Those that are to end get no more time.
  void kill_all();
  // Somebody is still to end, or has not been looked at.
  [[nodiscard]] bool any_to_end() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Owner {
    std::string name;
    control::EventView about;
    pid_t pid = 0;  // and session
    StopTerms terms;
    std::uint64_t started = 0;  // clock ticks
    bool alive = true;
    bool killed = false;
    Clock::time_point deadline;  // when it is gone: for all that it left behind
  };
  enum class State { kWaits, kStays, kAsked, kKilled };
  // A child of ours that only we reap: until then its pid names it.
  struct Orphan {
    Tag owner = 0;  // 0: not known
    pid_t session = 0;
    std::string name;
    std::uint64_t started = 0;
    State state = State::kWaits;
    Clock::time_point deadline;
  };

  bool find_new(Clock::time_point until);
  [[nodiscard]] std::optional<Orphan> look_at(pid_t pid);
  [[nodiscard]] bool is_worker(pid_t pid) const;
  void decide();
  void decide(pid_t pid, Orphan& orphan, std::uint64_t oldest);
  void end(pid_t pid, Orphan& orphan, const Owner* owner);
  void kill(pid_t pid, Orphan& orphan);
  void forget_owners();
  void arm();
  void kill_overdue();
  [[nodiscard]] const Owner* owner_of(const Orphan& orphan) const;
  static control::EventView about(pid_t pid, const Orphan& orphan, const Owner* owner);

  Watcher& watcher_;
  boost::asio::steady_timer timer_;
  std::map<Tag, Owner> owners_;  // workers, and those that are gone and left somebody behind
  std::map<pid_t, Tag> sessions_;
  std::map<pid_t, Orphan> orphans_;
  std::vector<pid_t> unseen_;  // of the last list of children
  std::set<pid_t> strangers_;  // children that were there before the manager
  bool others_ = false;        // orphans need not be of workers
  bool changed_ = false;       // somebody was reaped since the children were listed
  bool ending_ = false;
  bool hurry_ = false;
};

}  // namespace ostler::runtime
