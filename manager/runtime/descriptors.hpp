// Descriptors that others send along with a message (SCM_RIGHTS, unix(7)).
#pragma once

#include <sys/socket.h>

#include <cstddef>
#include <vector>

#include "runtime/unique_fd.hpp"

namespace ostler::runtime {

// As many as the kernel lets one message have (SCM_MAX_FD). Those that a buffer has no room for are
// closed within recvmsg(2), which may take as long as the sender likes.
constexpr std::size_t kMostDescriptors = 253;

std::vector<UniqueFd> descriptors_of(msghdr& message);

// From now on sendmsg(2) with descriptors to `socket`, or to a socket accepted from it, fails with
// EPERM (SO_PASSRIGHTS, Linux 6.16). An older kernel cannot do that, which is no error.
void refuse_descriptors(int socket);
bool refuses_descriptors(int socket);

}  // namespace ostler::runtime
