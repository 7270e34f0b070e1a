// `ostlerctl config init`: a configuration to start from. Needs no manager.
#pragma once

#include <string>

#include "ctl/text.hpp"

namespace ostler::ctl {

// Writes it to FILE, which must not be there yet, or to standard output if FILE is empty; returns
// the exit code. Throws Failed.
int init_config(const std::string& file, const Terminal& terminal);

}  // namespace ostler::ctl
