// The one place that starts processes.
//
// `spawn` has vfork semantics: the manager stands still from clone to exec (tens of microseconds,
// whatever its size), the child shares its memory meanwhile and reports a failed stage by writing
// to it; nothing is allocated between clone and exec. The parent holds a pidfd from the first
// moment. Boost.Process is not used: see ARCHITECTURE.md.
//
// In the child, in this order; the first failure ends it and is reported with its stage:
//   setsid · descriptors: 0, 1, 2, then `fds` from 3 on, nothing else (dup, close_range) ·
//   tag, setrlimit · umask · bounding set (bounding), setgroups, setresgid, setresuid, capset,
//   verify · chdir (before them if the folder is the manager's own) · PR_SET_NO_NEW_PRIVS
//   (no_new_privs) · PR_SET_PDEATHSIG (prctl), then the parent is compared (parent) · the child's
//   pid written into the environment · signal dispositions and mask (signals) · exec
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "runtime/process_tag.hpp"
#include "runtime/unique_fd.hpp"

namespace ostler::runtime {

// Who a worker is. Resolved before anything is started; a user's supplementary groups included.
struct Identity {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;
};

// From `user:` and `group:` as configured (names or numbers); nullopt if nothing is to change.
// A user brings its own primary group, unless one is given, and its supplementary groups. A group
// alone leaves the user as it is and is then the only group. Throws std::runtime_error naming what
// does not exist, a number whose group cannot be known, or a switch that takes privileges the
// manager lacks. Without them the manager's own user and group are no switch.
std::optional<Identity> resolve_identity(const std::optional<std::string>& user,
                                         const std::optional<std::string>& group);

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

struct SpawnResult {
  pid_t pid = -1;  // -1: failed
  UniqueFd pidfd;
  std::string stage;  // failed: "clone", "setsid", "chdir", "setresuid", "exec", …
  int error = 0;      // failed: errno
};

// Why it failed, in words: "chdir /srv/app as www-data: Permission denied".
std::string failure_text(const SpawnRequest& request, const SpawnResult& failed);

// Call from the main thread only (PR_SET_PDEATHSIG follows the thread that created the child).
// A child that failed before exec has been reaped when this returns.
SpawnResult spawn(const SpawnRequest& request);

// Makes a copy of this process that is no child of it, in a session of its own. There `run` is
// called, and the copy ends when that returns. Returns 0 or errno here. To be called while this
// process has one thread, and takes no orphans in.
int fork_aside(const std::function<void()>& run);

}  // namespace ostler::runtime
