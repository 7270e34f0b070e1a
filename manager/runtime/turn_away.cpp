#include "runtime/turn_away.hpp"

#include <sys/socket.h>

#include <cerrno>
#include <limits>

namespace ostler::runtime {
namespace {

int bind_to_interface(int fd, int index) {
  return setsockopt(fd, SOL_SOCKET, SO_BINDTOIFINDEX, &index, sizeof index) == 0 ? 0 : errno;
}

}  // namespace

int hide_from_lookup(int fd) {
  return bind_to_interface(fd, std::numeric_limits<int>::max());
}

int show_to_lookup(int fd) {
  return bind_to_interface(fd, 0);
}

}  // namespace ostler::runtime
