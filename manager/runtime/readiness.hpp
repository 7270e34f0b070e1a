// Is a worker waiting for connections? Seen from outside, through /proc, so that a program that
// knows nothing of ostler is known to be ready.
//
// A worker waits on a listener if the process, a thread of it or a descendant
//   - has it registered for reading in an epoll set (/proc/PID/fdinfo, matched by inode),
//   - is blocked in accept, accept4, poll, ppoll, select or pselect6 on it (/proc/PID/task/TID/
//     syscall; the arguments are read with process_vm_readv), or
//   - holds a connection that it accepted from it (pidfd_getfd): one that is busy from its first
//     moment may never be caught waiting.
// All that is read belongs to a process that may be gone, or hostile: bounded, and no more than
// numbers are believed.
#pragma once

#include <sys/types.h>

#include <vector>

namespace ostler::runtime {

// True if `pid` or a descendant waits for connections on a socket with one of these inodes.
// Not allowed to look, or gone: false. Cost: some ten system calls a process and two a descriptor,
// four for a socket.
bool waits_for_connections(pid_t pid, const std::vector<ino_t>& listeners);

}  // namespace ostler::runtime
