#include "runtime/descriptors.hpp"

#include <sys/resource.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace ostler::runtime {
namespace {

constexpr int kPassRights = 83;  // SO_PASSRIGHTS: newer than the headers

// Where the limit is lower than this, the manager needs all that there are.
constexpr rlim_t kEnough = 4 * kMostDescriptors;

// Of open files. The main thread's.
struct OpenFiles {
  rlimit usual{};
  rlimit all{};
  bool differ = false;
};
OpenFiles open_files;

}  // namespace

int SpareNumbers::set_aside() {
  if (::getrlimit(RLIMIT_NOFILE, &open_files.all) != 0) return errno;
  open_files.all.rlim_cur = open_files.all.rlim_max;
  open_files.usual = open_files.all;
  open_files.differ = open_files.all.rlim_max >= kEnough;
  if (open_files.differ) open_files.usual.rlim_cur -= kMostDescriptors;
  return ::setrlimit(RLIMIT_NOFILE, &open_files.usual) == 0 ? 0 : errno;
}

SpareNumbers::SpareNumbers() {
  if (open_files.differ) ::setrlimit(RLIMIT_NOFILE, &open_files.all);
}

SpareNumbers::~SpareNumbers() {
  if (!open_files.differ) return;
  const int error = errno;
  ::setrlimit(RLIMIT_NOFILE, &open_files.usual);
  errno = error;
}

std::vector<UniqueFd> descriptors_of(msghdr& message) {
  std::vector<UniqueFd> descriptors;
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof fd);
      descriptors.emplace_back(fd);
    }
  }
  return descriptors;
}

Received receive(int socket, void* into, std::size_t size) {
  iovec part{into, size};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kMostDescriptors)> control{};
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  const SpareNumbers spare;
  Received received;
  received.size = ::recvmsg(socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (received.size < 0) return received;
  const auto flags = static_cast<unsigned>(header.msg_flags);
  received.truncated = (flags & unsigned{MSG_TRUNC | MSG_CTRUNC}) != 0;
  received.descriptors = descriptors_of(header);
  return received;
}

void refuse_descriptors(int socket) {
  const int passes = 0;
  setsockopt(socket, SOL_SOCKET, kPassRights, &passes, sizeof passes);
}

bool refuses_descriptors(int socket) {
  int passes = 1;
  socklen_t size = sizeof passes;
  return getsockopt(socket, SOL_SOCKET, kPassRights, &passes, &size) == 0 && passes == 0;
}

}  // namespace ostler::runtime
