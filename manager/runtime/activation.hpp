// Sockets that systemd handed to the manager (sd_listen_fds(3)).
#pragma once

#include <map>
#include <string>
#include <vector>

#include "runtime/unique_fd.hpp"

namespace ostler::runtime {

// By name; several may have the same, in the order in which they came.
using InheritedSockets = std::map<std::string, std::vector<UniqueFd>>;

// Taken once at start, if LISTEN_PID is this process. Takes the variables out of the environment.
InheritedSockets take_inherited_sockets();

}  // namespace ostler::runtime
