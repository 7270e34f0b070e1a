// A listener of the worker's own, to run without a manager.
#pragma once

#include <string>

namespace ostler::serving {

struct OwnListener {
  int fd = -1;
  std::string path;  // of a unix socket, to be removed at the end
};

// `address`: "tcp://IP:PORT", "IP:PORT" or "unix:///PATH". A port is told on stdout. Throws
// std::invalid_argument if it is none of these, std::runtime_error if it cannot be opened.
OwnListener open_own_listener(const std::string& address);

}  // namespace ostler::serving
