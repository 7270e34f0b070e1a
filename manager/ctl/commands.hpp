// Does what the command line says.
//
// Results and progress go to `terminal.out`, what failed to `terminal.err`. With
// `--json`, `out` holds nothing but what the API answered.
#pragma once

#include "ctl/arguments.hpp"
#include "ctl/text.hpp"

namespace ostler::ctl {

// The exit code; nothing is thrown for what users, managers or the network can do.
int run(const Options& options, const Terminal& terminal);

}  // namespace ostler::ctl
