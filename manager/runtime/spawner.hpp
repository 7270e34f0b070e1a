// The one place that starts processes.
//
// The child shares the manager's memory until it executes its program, so its cost does not grow
// with the manager, and writes there how far it came; nothing is allocated between clone and exec.
// The manager does not wait for it, as vfork would: a child that is another user already can be
// stopped by that user, and a directory or a program may lie on a slow file system. The parent
// holds a pidfd from the first moment. Boost.Process is not used: see ARCHITECTURE.md.
//
// In the child, in this order; the first failure ends it and is reported with its stage:
//   setsid · descriptors: 0, 1, 2, then `fds` from 3 on, nothing else (dup, close_range; one more
//   is closed by exec) ·
//   tag, setrlimit · umask · bounding set (bounding), setgroups, setresgid, setresuid, capset,
//   verify · chdir (before them if the folder is the manager's own) · PR_SET_NO_NEW_PRIVS
//   (no_new_privs) · PR_SET_PDEATHSIG (prctl), then the parent is compared (parent) · the child's
//   pid written into the environment · signal dispositions and mask (signals) · exec
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/identity.hpp"
#include "runtime/process_tag.hpp"
#include "runtime/unique_fd.hpp"

namespace ostler::runtime {

struct SpawnRequest {
  std::string executable;         // a path with a slash
  std::vector<std::string> argv;  // argv[0] first
  std::vector<std::string> env;   // "KEY=VALUE"; "LISTEN_PID=" and "WATCHDOG_PID=", which name the
                                  // process they are meant for, get the child's pid appended
  std::optional<std::string> directory;
  bool directory_is_own = false;  // the manager is there already: entered with its permissions
  std::optional<mode_t> umask;
  std::optional<Identity> identity;
  bool no_new_privileges = false;    // prctl(2), and no capability in the bounding set of a user
  std::string user;                  // whom it runs as, by name, for messages
  std::optional<rlimit> open_files;  // RLIMIT_NOFILE, e.g. what the manager itself was given
  int stdin_fd = -1;                 // -1: /dev/null
  int stdout_fd = -1;                // -1: the manager's
  int stderr_fd = -1;                // -1: the manager's
  std::vector<int> fds;              // become 3, 4, …
  Tag tag = 0;                       // for it and its descendants; below 2^32: none
  int death_signal = 15;             // sent by the kernel when the manager dies
};

// What failed before a program was executed.
struct SpawnFailure {
  std::string stage;  // "clone", "setsid", "chdir", "setresuid", "exec", …
  int error = 0;      // errno; 0: `stage` says all
};

// Why it failed, in words: "chdir /srv/app as www-data: Permission denied".
std::string failure_text(const SpawnRequest& request, const SpawnFailure& failed);

// A process from clone on, until it executes its program or fails.
class Newborn {
 public:
  enum class State { kStarting, kExecuted, kFailed };

  // Clones. Call from the main thread only (PR_SET_PDEATHSIG follows the thread that created the
  // child). What the request names as descriptors may be closed afterwards.
  explicit Newborn(SpawnRequest request);
  // The memory that a child uses that is still starting is given up.
  ~Newborn();
  Newborn(const Newborn&) = delete;
  Newborn& operator=(const Newborn&) = delete;

  // -1: there is no process; look() says kFailed. Else one that is to be reaped, failed or not.
  [[nodiscard]] pid_t pid() const { return pid_; }
  UniqueFd take_pidfd() { return std::move(pidfd_); }
  // Readable once it is not starting any more.
  [[nodiscard]] int over() const { return over_.get(); }
  // Does not wait. One that was killed during exec itself counts as executed.
  State look();
  // The last stage that it passed; "exec": it is executing its program.
  [[nodiscard]] std::string at() const;
  [[nodiscard]] const SpawnFailure& failure() const { return failure_; }
  [[nodiscard]] std::string failure_text() const;

 private:
  struct Memory;
  void begin();
  void fail(std::string stage, int error);

  std::unique_ptr<Memory> memory_;
  UniqueFd over_;
  pid_t pid_ = -1;
  UniqueFd pidfd_;
  State state_ = State::kStarting;
  SpawnFailure failure_;
};

// Makes a copy of this process that is no child of it, in a session of its own. There `run` is
// called, and the copy ends when that returns. Returns 0 or errno here. To be called while this
// process has one thread, and takes no orphans in.
int fork_aside(const std::function<void()>& run);

}  // namespace ostler::runtime
