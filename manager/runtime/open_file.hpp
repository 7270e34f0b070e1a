// Opens the files that the manager writes by a path that it was given: its log, workers' output,
// traces. Somebody else may have put something there: no link is followed, nothing waits for
// another process, and only a regular file of the manager's own user, under one name, is taken, or
// /dev/null.
#pragma once

#include <string>

#include "runtime/unique_fd.hpp"

namespace ostler::runtime {

struct OpenedFile {
  UniqueFd fd;
  std::string problem;  // why there is none; to follow "open PATH: "
};
// Opens PATH for appending; makes it if it is not there.
OpenedFile open_own_file(const std::string& path);

// Writes all of TEXT. Returns what errno said, or 0.
int write_whole(int fd, const std::string& text);

}  // namespace ostler::runtime
