// `ostlerctl config check`: needs no manager.
#pragma once

#include <string>

#include "ctl/text.hpp"

namespace ostler::ctl {

// Prints every fault and returns the exit code. `json`: {"errors": [...], "warnings": [...]}, the
// errors as in the API.
int check_config(const std::string& file, bool json, const Terminal& terminal);

}  // namespace ostler::ctl
