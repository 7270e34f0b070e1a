#include "runtime/notify_socket.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "runtime/descriptors.hpp"
#include "runtime/limits.hpp"

#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76
#endif
#ifndef SCM_PIDFD
#define SCM_PIDFD 0x04
#endif

namespace ostler::runtime {
namespace {

constexpr std::size_t kDatagram = 4096;
// The sender, and all descriptors that may come along.
constexpr std::size_t kControl = CMSG_SPACE(sizeof(ucred)) + CMSG_SPACE(sizeof(int)) +
                                 CMSG_SPACE(kMostDescriptors * sizeof(int));

struct Ancillary {
  NotifySender sender;
  std::vector<UniqueFd> descriptors;
};

Ancillary read_ancillary(msghdr& message) {
  Ancillary result;
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET) continue;
    const std::size_t size = part->cmsg_len - CMSG_LEN(0);
    if (part->cmsg_type == SCM_CREDENTIALS && size == sizeof(ucred)) {
      ucred credentials{};
      std::memcpy(&credentials, CMSG_DATA(part), sizeof credentials);
      result.sender.pid = credentials.pid;
      result.sender.uid = credentials.uid;
    }
    if (part->cmsg_type == SCM_PIDFD && size == sizeof(int)) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part), sizeof fd);
      result.sender.is_gone = fd == -ESRCH;
      if (fd >= 0) result.sender.pidfd = UniqueFd(fd);
    }
  }
  result.descriptors = descriptors_of(message);
  return result;
}

bool has_ended(const NotifySender& sender) {
  pollfd entry{sender.pidfd.get(), POLLIN, 0};
  return sender.is_gone || (sender.pidfd && poll(&entry, 1, 0) == 1);
}

}  // namespace

struct NotifySocket::Bound {
  explicit Bound(boost::asio::io_context& context) : descriptor(context) {}
  boost::asio::posix::stream_descriptor descriptor;
  bool is_waiting = false;  // for something to read
};

NotifySocket::NotifySocket(boost::asio::io_context& context, core::WorkerId worker,
                           const NotifyOwner& owner, Hooks hooks)
    : context_(context), worker_(worker), owner_(owner), hooks_(std::move(hooks)) {}

NotifySocket::~NotifySocket() {
  close();
}

void NotifySocket::add(UniqueFd bound) {
  // Without it a process that takes the number of one that is gone could pass for that.
  const int on = 1;
  setsockopt(bound.get(), SOL_SOCKET, SO_PASSPIDFD, &on, sizeof on);
  auto added = std::make_shared<Bound>(context_);
  added->descriptor.assign(bound.get());
  static_cast<void>(bound.release());
  bound_.push_back(added);
  if (bound_.size() > limits::kFormerNotifySockets + 1) {
    std::vector<UniqueFd> oldest;
    oldest.emplace_back(bound_.front()->descriptor.release());
    bound_.erase(bound_.begin());
    closer_.close(std::move(oldest));
  }
  wait(added);
}

// What lies in the queue is closed with the socket.
void NotifySocket::close() {
  std::vector<UniqueFd> all;
  for (const auto& bound : std::exchange(bound_, {})) {
    all.emplace_back(bound->descriptor.release());
  }
  closer_.close(std::move(all));
}

void NotifySocket::wait(const std::shared_ptr<Bound>& bound) {
  if (std::exchange(bound->is_waiting, true)) return;
  bound->descriptor.async_wait(
      boost::asio::posix::stream_descriptor::wait_read,
      [weak = weak_from_this(), bound](const boost::system::error_code& error) {
        bound->is_waiting = false;
        const auto self = weak.lock();
        if (self && !error) self->hooks_.readable(self);
      });
}

NotifySocket::Left NotifySocket::receive(int most) {
  const auto all = bound_;
  for (const auto& bound : all) {
    while (receive_one(*bound)) {
      if (--most <= 0) return Left::kMore;
      if (closer_.pending() > limits::kMostUnclosed) return Left::kHeld;
    }
    if (bound->descriptor.is_open()) wait(bound);
  }
  return Left::kNothing;
}

// False: nothing waits.
bool NotifySocket::receive_one(Bound& bound) {
  if (!bound.descriptor.is_open()) return false;
  std::array<char, kDatagram> text{};
  alignas(cmsghdr) std::array<char, kControl> control{};
  iovec data{text.data(), text.size()};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const SpareNumbers spare;
  const ssize_t size =
      recvmsg(bound.descriptor.native_handle(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (size < 0) return errno == EINTR;
  Ancillary ancillary = read_ancillary(message);
  std::string fault;
  if (size > 0) {
    const auto flags = static_cast<unsigned>(message.msg_flags);
    fault = (flags & MSG_TRUNC) != 0    ? "was longer than " + std::to_string(kDatagram) + " bytes"
            : (flags & MSG_CTRUNC) != 0 ? "brought more descriptors than could be taken"
                                        : fault_of(ancillary.sender);
  }
  if (!fault.empty()) {
    ++refused_;
    last_fault_ = fault;
    hooks_.refused();
  } else if (size > 0) {
    hooks_.deliver(parse_notification({text.data(), static_cast<std::size_t>(size)}));
  }
  // A BARRIER falls here, after what came before it was handled.
  if (!ancillary.descriptors.empty()) closer_.close(std::move(ancillary.descriptors));
  return true;
}

// "" for one that is heard.
std::string NotifySocket::fault_of(const NotifySender& sender) const {
  if (sender.pid <= 0) return "came from a process that cannot be seen from here";
  if (sender.pid == pid_) return "";  // not waited for before all it said has been read
  const std::string who = "came from pid " + std::to_string(sender.pid);
  const std::string user = " of user " + std::to_string(sender.uid);
  const bool is_known = sender.uid == owner_.uid || sender.uid == 0;
  if (!owner_.is_open && !is_known) return who + user;
  const Kinship kin = hooks_.kinship(sender.pid);
  // If it has ended and is no zombie, its number is somebody else's by now.
  if (!kin.is_there || (!kin.is_zombie && has_ended(sender))) {
    return is_known ? "" : who + user + ", which was gone";
  }
  if (kin.worker == worker_ || (!kin.worker && kin.is_orphan)) return "";
  return who + (kin.worker ? ", which belongs to " + hooks_.name_of(kin.worker)
                           : user + ", which is no process of it");
}

std::string NotifySocket::what_was_refused() const {
  if (refused_ == 0) return "";
  if (refused_ == 1) return "a notification was refused: it " + last_fault_;
  return std::to_string(refused_) + " notifications were refused: the last " + last_fault_;
}

}  // namespace ostler::runtime
