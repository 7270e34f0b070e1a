// Descriptors that others send along with a message (SCM_RIGHTS, unix(7)).
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <cstddef>
#include <vector>

#include "runtime/unique_fd.hpp"

namespace ostler::runtime {

// As many as the kernel lets one message have (SCM_MAX_FD). Those that a buffer has no room for are
// closed within recvmsg(2), which may take as long as the sender likes.
constexpr std::size_t kMostDescriptors = 253;

std::vector<UniqueFd> descriptors_of(msghdr& message);

// Keeps descriptor numbers free for what is received. The soft limit of open files is
// kMostDescriptors below the hard one; while this lives it is equal to the hard one.
class SpareNumbers {
 public:
  SpareNumbers();
  ~SpareNumbers();
  SpareNumbers(const SpareNumbers&) = delete;
  SpareNumbers& operator=(const SpareNumbers&) = delete;

  // Sets the soft limit. With a low hard limit there are none. 0 or errno.
  static int set_aside();
};

struct Received {
  ssize_t size = -1;  // as recvmsg(2) returns it; errno is set if that is -1
  bool truncated = false;
  std::vector<UniqueFd> descriptors;  // also of a message of no bytes
};
// Takes a message, and all descriptors that came along, without waiting.
Received receive(int socket, void* into, std::size_t size);

// From now on sendmsg(2) with descriptors to `socket`, or to a socket accepted from it, fails with
// EPERM (SO_PASSRIGHTS, Linux 6.16). An older kernel cannot do that, which is no error.
void refuse_descriptors(int socket);
bool refuses_descriptors(int socket);

}  // namespace ostler::runtime
