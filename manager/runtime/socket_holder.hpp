// Who has an address that could not be had.
#pragma once

#include <string>

#include "config/src/model.hpp"
#include "core/ids.hpp"

namespace ostler::runtime {

// "nginx, pid 812": a process that has a socket which listens there; "": nobody was found, or what
// has it cannot be seen. Reads the descriptors of all processes, for `most` at the longest: not to
// be called on the loop.
std::string holder_of(const config::Address& address, core::Duration most);

}  // namespace ostler::runtime
