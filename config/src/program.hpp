// Why the kernel will not execute a program that is there: its interpreter is not, or it has none.
#pragma once

#include <optional>
#include <string>

#include "config/src/access.hpp"

namespace ostler::config {

struct ProgramFault {
  std::string problem;  // a clause that follows the program's path
  bool certain = true;  // false: the kernel may know what to do with it all the same (binfmt_misc)
};
// Looks at the first line of a script, or the loader that an ELF file names, and at what those
// name in turn; for `#!/usr/bin/env NAME`, also NAME in the folders of SEARCH, its PATH, if that is
// given. WHO executes it. A program that cannot be read is not looked at.
ProgramFault program_fault(const std::string& path, const Who& who,
                           const std::optional<std::string>& search = {});

}  // namespace ostler::config
