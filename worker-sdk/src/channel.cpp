#include "channel.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "environment.hpp"

namespace ostler {
namespace {

static_assert(sizeof(ostler_scoreboard) == OSTLER_SCOREBOARD_SIZE);

// A manager has no reason to send more than one; what is beyond is closed by the kernel.
constexpr std::size_t kMostDescriptors = 4;

// The descriptor that a variable names, made close-on-exec; -1 if it is not set.
int take_descriptor(const char* variable) {
  const auto number = environment::take_number(
      variable, static_cast<std::uint64_t>(std::numeric_limits<int>::max()));
  if (!number) return -1;
  const int descriptor = static_cast<int>(*number);
  const int flags = ::fcntl(descriptor, F_GETFD);
  if (flags < 0 || ::fcntl(descriptor, F_SETFD, flags | FD_CLOEXEC) < 0) {
    throw std::system_error(errno, std::generic_category(),
                            "set close-on-exec on descriptor " + std::to_string(descriptor) +
                                ", which " + variable + " promised");
  }
  return descriptor;
}

void check_socket(int descriptor) {
  int type = 0;
  socklen_t size = sizeof type;
  if (::getsockopt(descriptor, SOL_SOCKET, SO_TYPE, &type, &size) != 0) {
    throw std::system_error(errno, std::generic_category(), "examine the channel's socket");
  }
  if (type != SOCK_SEQPACKET) throw std::runtime_error("the channel is no SOCK_SEQPACKET socket");
}

ostler_scoreboard* map_page(int descriptor) {
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) {
    throw std::system_error(errno, std::generic_category(), "examine the scoreboard");
  }
  if (status.st_size < OSTLER_SCOREBOARD_SIZE) {
    throw std::runtime_error("the scoreboard is smaller than a page");
  }
  void* const memory =
      ::mmap(nullptr, OSTLER_SCOREBOARD_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  if (memory == MAP_FAILED) {
    throw std::system_error(errno, std::generic_category(), "map the scoreboard");
  }
  auto* const page = static_cast<ostler_scoreboard*>(memory);
  if (page->magic == OSTLER_SCOREBOARD_MAGIC && page->version == OSTLER_PROTOCOL_VERSION &&
      page->size == OSTLER_SCOREBOARD_SIZE) {
    return page;
  }
  ::munmap(memory, OSTLER_SCOREBOARD_SIZE);
  throw std::runtime_error("the scoreboard is of another version than this worker's SDK");
}

// The first of the descriptors that came along; the others are closed.
int take_first(msghdr& header) {
  int first = -1;
  for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int descriptor = -1;
      std::memcpy(&descriptor, CMSG_DATA(part) + i * sizeof descriptor, sizeof descriptor);
      first < 0 ? void(first = descriptor) : void(::close(descriptor));
    }
  }
  return first;
}

bool is_stream_socket(int descriptor) {
  int type = 0;
  socklen_t size = sizeof type;
  return ::getsockopt(descriptor, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM;
}

// Nothing, if it is none that this version knows.
channel_message understand(const ostler_message& message, int descriptor) {
  using kind = channel_message::kind;
  if (message.type == OSTLER_CONNECTION && descriptor >= 0 && is_stream_socket(descriptor)) {
    return {kind::connection, descriptor, (message.count & OSTLER_PRIVATE) != 0};
  }
  if (descriptor >= 0) ::close(descriptor);
  if (message.type == OSTLER_ACCEPT && descriptor < 0) return {kind::may_accept};
  return {};
}

}  // namespace

Channel Channel::take() {
  Channel channel;
  try {
    // Both are taken before either is looked at, so that no child finds one.
    std::exception_ptr fault;
    std::array<int, 2> descriptors{-1, -1};
    const std::array<const char*, 2> variables{OSTLER_ENV_CHANNEL_FD, OSTLER_ENV_SCOREBOARD_FD};
    for (std::size_t i = 0; i < variables.size(); ++i) {
      try {
        descriptors[i] = take_descriptor(variables[i]);
      } catch (...) {
        fault = std::current_exception();
      }
    }
    if (fault) std::rethrow_exception(fault);
    const auto [socket, memory] = descriptors;
    if (socket < 0 && memory < 0) return channel;
    if (socket < 0 || memory < 0) throw std::runtime_error("one of its two descriptors is missing");
    check_socket(socket);
    channel.page_ = map_page(memory);
    ::close(memory);
    channel.socket_ = socket;
    channel.send(OSTLER_HELLO, OSTLER_PROTOCOL_VERSION);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "the channel to the manager is not used: %s\n", error.what());
  }
  return channel;
}

Channel::Channel(Channel&& other) noexcept
    : socket_(std::exchange(other.socket_, -1)), page_(std::exchange(other.page_, nullptr)) {}

Channel::~Channel() {
  if (socket_ >= 0) ::close(socket_);
}

bool Channel::send(std::uint32_t type, std::uint64_t value) const noexcept {
  if (socket_ < 0) return true;
  const ostler_message message{type, 0, value};
  while (::send(socket_, &message, sizeof message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
    if (errno != EINTR) return errno != EAGAIN && errno != ENOBUFS;
  }
  return true;
}

channel_message Channel::receive(bool& ended) const noexcept {
  while (socket_ >= 0) {
    ostler_message message{};
    iovec part{&message, sizeof message};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kMostDescriptors)> control{};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    const ssize_t size = ::recvmsg(socket_, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (size < 0 && errno == EINTR) continue;
    // A packet of no bytes looks the same as the end.
    ended = size == 0 || (size < 0 && errno != EAGAIN);
    const int descriptor = size < 0 ? -1 : take_first(header);
    if (size <= 0 && descriptor >= 0) ::close(descriptor);
    if (size <= 0) return {};
    const bool whole = size == sizeof message && (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0;
    const auto understood = understand(whole ? message : ostler_message{}, descriptor);
    if (understood.what != channel_message::kind::nothing) return understood;
  }
  return {};
}

}  // namespace ostler
