// Is a worker waiting for connections? Seen from outside, through /proc, so that a program that
// knows nothing of ostler is known to be ready.
//
// A worker waits on a listener if the process, a thread of it or a descendant
//   - has it registered for reading in an epoll set (/proc/PID/fdinfo, matched by inode),
//   - is blocked in accept, accept4, poll, ppoll, select or pselect6 on it (/proc/PID/task/TID/
//     syscall; the arguments are read from its memory), or
//   - holds a connection that it accepted from it (pidfd_getfd): one that is busy from its first
//     moment may never be caught waiting.
// All that is read belongs to a process that may be gone, or hostile: bounded, and no more than
// numbers are believed. A look may take as long as that process likes (its memory may lie in a file
// of its own making): never on the manager's loop.
//
// A process may be looked into by one of its user (ptrace(2), PTRACE_MODE_FSCREDS) or by one with
// CAP_SYS_PTRACE, which containers do not give. So what root is refused is tried again with the
// process's user and group as the thread's file system ids. Not with all ids: a thread whose real
// uid is the worker's can be killed by it, and the manager with it.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "core/event.hpp"

namespace ostler::runtime {

// Of a process that was started, its user and group.
struct UserIds {
  uid_t uid = 0;
  gid_t gid = 0;
};

struct Sighting {
  core::Sight sight = core::Sight::kNothing;
  std::string detail;  // kUnknown: "/proc/7/fd: Permission denied (…)"
  bool operator==(const Sighting&) const = default;
};

// Whether `pid` or a descendant waits for connections on a socket with one of these inodes.
// `worker` is who it was started as, if not as the manager's own user. Changes the thread's file
// system ids meanwhile. Cost: some ten system calls a process and two a descriptor, four for a
// socket.
Sighting look_for_waiting(pid_t pid, const std::vector<ino_t>& listeners,
                          std::optional<UserIds> worker = {});

}  // namespace ostler::runtime
