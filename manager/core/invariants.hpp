// What must hold after every step, whatever happened.
#pragma once

#include <string>

#include "core/core.hpp"

namespace ostler::core {

// The first invariant that does not hold, in words; empty if all do. Cost: one pass over the
// worker table.
std::string broken_invariant(const State& state);

}  // namespace ostler::core
