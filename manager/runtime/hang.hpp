// What a worker that is taken for hung was doing: for the report, before it is aborted.
#pragma once

#include <sys/types.h>

#include <string>

namespace ostler::runtime {

// "used 1.98 s of CPU meanwhile, its main thread in the system call futex". `cpu_before`: seconds
// of CPU it had used when it was last heard of. `thread`: the one that hangs; 0 or the pid: the
// main thread. What may not be read is left out, down to "".
std::string what_it_does(pid_t pid, double cpu_before, pid_t thread = 0);

}  // namespace ostler::runtime
