#include "channel.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
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

// While the manager's queue is full, or too many descriptors are under way in the system.
constexpr int kRetryMs = 5;
// For what could not be taken to be heard.
constexpr std::chrono::milliseconds kGiveUpPatience{500};

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

// The descriptors that came along, as far as there is room; the kernel has closed the others.
template <std::size_t Size>
std::size_t take_all(msghdr& header, std::array<int, Size>& descriptors) {
  std::size_t taken = 0;
  for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = std::min((part->cmsg_len - CMSG_LEN(0)) / sizeof(int), Size - taken);
    std::memcpy(&descriptors[taken], CMSG_DATA(part), count * sizeof(int));
    taken += count;
  }
  return taken;
}

bool is_stream_socket(int descriptor) {
  int type = 0;
  socklen_t size = sizeof type;
  return ::getsockopt(descriptor, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM;
}

void close_all(std::span<const int> descriptors) {
  for (const int each : descriptors) ::close(each);
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
    : socket_(std::exchange(other.socket_, -1)),
      page_(std::exchange(other.page_, nullptr)),
      batch_(other.batch_),
      next_(other.next_),
      end_(std::exchange(other.end_, other.next_)),
      batch_listener_(other.batch_listener_) {}

Channel::~Channel() {
  close_all({batch_.data() + next_, end_ - next_});
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

bool Channel::deliver(const ostler_message& message,
                      std::chrono::milliseconds patience) const noexcept {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (::send(socket_, &message, sizeof message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
    const int error = errno;
    if (error == EINTR) continue;
    const bool is_full = error == EAGAIN || error == ENOBUFS;
    if (!is_full || std::chrono::steady_clock::now() >= deadline) {
      errno = error;
      return false;
    }
    ::poll(nullptr, 0, kRetryMs);
  }
  return true;
}

bool Channel::hand_back(std::span<const int> connections, std::uint64_t listener,
                        std::chrono::steady_clock::time_point deadline) const noexcept {
  const std::size_t size = connections.size_bytes();
  ostler_message message{OSTLER_RETURN, static_cast<std::uint32_t>(connections.size()), listener};
  iovec part{&message, sizeof message};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(Descriptors))> control{};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = CMSG_SPACE(size);
  cmsghdr* const rights = CMSG_FIRSTHDR(&header);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(size);
  std::memcpy(CMSG_DATA(rights), connections.data(), size);
  while (::sendmsg(socket_, &header, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
    const bool is_full = errno == EAGAIN || errno == ENOBUFS || errno == ETOOMANYREFS;
    if (errno == EINTR) continue;
    if (!is_full || std::chrono::steady_clock::now() >= deadline) return false;
    ::poll(nullptr, 0, kRetryMs);
  }
  return true;
}

channel_message Channel::receive(bool& ended) noexcept {
  while (socket_ >= 0) {
    if (next_ < end_) return next_of_batch();
    ostler_message message{};
    iovec part{&message, sizeof message};
    // NOLINTNEXTLINE(*-member-init): the kernel fills it, and says how far
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(Descriptors))> control;
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    const ssize_t size = ::recvmsg(socket_, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (size < 0 && errno == EINTR) continue;
    // A packet of no bytes looks the same as the end.
    ended = size == 0 || (size < 0 && errno != EAGAIN);
    if (size < 0) return {};
    Descriptors descriptors;
    const std::size_t count = take_all(header, descriptors);
    // Of connections that found no room in this process's table some may have come all the same.
    const bool lacks = (header.msg_flags & MSG_CTRUNC) != 0;
    const bool is_cut =
        (header.msg_flags & MSG_TRUNC) != 0 || (lacks && message.type != OSTLER_DISPATCH);
    if (lacks && message.type == OSTLER_CONNECTION) {
      say_starved("take the manager's own connection");
    }
    const bool whole = size == sizeof message && !is_cut;
    const auto understood = understand(whole ? message : ostler_message{}, descriptors, count);
    if (size == 0 || understood.what != channel_message::kind::nothing) return understood;
  }
  return {};
}

// Nothing, if it is none that this version knows.
channel_message Channel::understand(const ostler_message& message, const Descriptors& descriptors,
                                    std::size_t count) noexcept {
  using kind = channel_message::kind;
  if (message.type == OSTLER_DISPATCH) return take_batch(message, descriptors, count);
  if (message.type == OSTLER_CONNECTION && count > 0 && is_stream_socket(descriptors[0])) {
    close_all({descriptors.data() + 1, count - 1});
    return {kind::connection, descriptors[0], (message.count & OSTLER_PRIVATE) != 0};
  }
  close_all({descriptors.data(), count});
  if (count > 0) return {};
  if (message.type == OSTLER_ACCEPT) return {kind::may_accept};
  if (message.type == OSTLER_DRAIN) return {kind::drain};
  return {};
}

// All that were sent are counted as taken: the manager counts them off in the order in which it
// sent them. Those for which this process has no descriptors are named before.
channel_message Channel::take_batch(const ostler_message& message, const Descriptors& descriptors,
                                    std::size_t count) noexcept {
  const std::size_t sent = std::min<std::size_t>(message.count, OSTLER_BATCH);
  const std::atomic_ref taken(page_->taken);
  if (count < sent) {
    give_up(sent - count, taken.load(std::memory_order_relaxed) + count);
  } else {
    starved_ = false;
  }
  taken.fetch_add(sent, std::memory_order_release);
  batch_ = descriptors;
  next_ = 0;
  end_ = count;
  batch_listener_ = message.value;
  return count > 0 ? next_of_batch() : channel_message{};
}

// The manager keeps its copies until it has heard which they are: so `not_taken` is on the page
// before `taken` is.
void Channel::give_up(std::size_t count, std::uint64_t before) noexcept {
  say_starved("take connections");
  if (deliver({OSTLER_NOT_TAKEN, static_cast<std::uint32_t>(count), before}, kGiveUpPatience)) {
    std::atomic_ref(page_->not_taken).fetch_add(count, std::memory_order_release);
  } else {
    std::fprintf(stderr, "give %zu connections back to the manager: %s; they are lost\n", count,
                 std::generic_category().message(errno).c_str());
  }
}

void Channel::say_starved(const char* what) noexcept {
  if (std::exchange(starved_, true)) return;
  std::fprintf(stderr, "%s: no descriptor is free; clients' connections go back to the manager\n",
               what);
}

channel_message Channel::next_of_batch() noexcept {
  return {.what = channel_message::kind::connection,
          .fd = batch_[next_++],
          .is_dispatched = true,
          .listener = batch_listener_};
}

}  // namespace ostler
