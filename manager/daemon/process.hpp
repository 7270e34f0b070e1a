// The manager's own process: made sane before anything else, whatever started it.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace ostler::daemon {

// What the process was given, for the workers to get unchanged.
struct Inheritance {
  mode_t umask = 022;
  std::optional<rlimit> open_files;
  std::vector<std::string> environment;
};

// Opens descriptors 0 to 2 if they are closed, blocks the signals that are handled, sets the umask
// to 077, and raises the soft limit of open files to the hard one. Throws std::system_error.
Inheritance prepare_process();

// What to say of sockets that were handed over to another process (LISTEN_PID), such as the script
// that started this one; "": there are none.
std::string sockets_of_another();

// From now on this process is the one to whom its descendants' orphans go (PR_SET_CHILD_SUBREAPER).
// Throws std::system_error.
void take_orphans();

}  // namespace ostler::daemon
