#include "runtime/worker_channel.hpp"

#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "runtime/limits.hpp"

namespace ostler::runtime {
namespace {

UniqueFd make_socket(UniqueFd& worker_end) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    throw std::system_error(errno, std::generic_category(), "socketpair");
  }
  worker_end = UniqueFd(ends[1]);
  return UniqueFd(ends[0]);
}

}  // namespace

WorkerChannel::WorkerChannel(boost::asio::io_context& context, WorkerEnds& worker_ends)
    : scoreboard_(worker_ends.scoreboard), socket_(context) {
  UniqueFd ours = make_socket(worker_ends.channel);
  socket_.assign(ours.get());
  static_cast<void>(ours.release());
}

void WorkerChannel::start(Heard heard, Broken broken) {
  heard_ = std::move(heard);
  broken_ = std::move(broken);
  since_ = std::chrono::steady_clock::now();
  wait();
}

void WorkerChannel::wait() {
  socket_.async_wait(boost::asio::posix::descriptor_base::wait_read,
                     [self = shared_from_this()](const boost::system::error_code& error) {
                       if (error || !self->socket_.is_open()) return;
                       self->drain();
                       if (self->socket_.is_open()) self->wait();
                     });
}

void WorkerChannel::drain() {
  for (int left = limits::kMessagesPerTurn; left > 0 && socket_.is_open(); --left) {
    if (!receive_one()) return;
  }
}

bool WorkerChannel::receive_one() {
  ostler_message message{};
  iovec part{&message, sizeof message};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;  // and no room for descriptors: the kernel closes any that come
  const ssize_t size = ::recvmsg(socket_.native_handle(), &header, MSG_DONTWAIT);
  if (size < 0) {
    if (errno != EAGAIN && errno != EINTR) close();
    return false;
  }
  if (size == 0) {  // it is gone, or has closed its end; a packet of no bytes looks the same
    close();
    return false;
  }
  if ((static_cast<unsigned>(header.msg_flags) & unsigned{MSG_TRUNC | MSG_CTRUNC}) != 0 ||
      size != sizeof message) {
    give_up("a message of another size, or with a descriptor");
  } else if (too_many()) {
    give_up("more messages than a worker has reason to send");
  } else {
    take(message);
  }
  return socket_.is_open();
}

void WorkerChannel::take(const ostler_message& message) {
  switch (message.type) {
    case OSTLER_HELLO:
      if (message.value != OSTLER_PROTOCOL_VERSION) {
        return give_up("version " + std::to_string(message.value) + " of the protocol; this is " +
                       std::to_string(OSTLER_PROTOCOL_VERSION));
      }
      speaks_ = true;
      return heard_(core::WorkerSign::kSpeaks);
    case OSTLER_AWAKE:
      return heard_(core::WorkerSign::kAwake);
    case OSTLER_RECYCLE:
      return heard_(core::WorkerSign::kWorn);
    default:
      give_up("a message of the unknown type " + std::to_string(message.type));
  }
}

// A worker says a word when it starts, when it wakes and when it is worn.
bool WorkerChannel::too_many() {
  const auto now = std::chrono::steady_clock::now();
  if (now - since_ > limits::kMessageSpan) {
    since_ = now;
    received_ = 0;
  }
  return ++received_ > limits::kMessagesPerSpan;
}

void WorkerChannel::give_up(const std::string& reason) {
  close();
  speaks_ = false;
  broken_(reason);
}

void WorkerChannel::close() {
  boost::system::error_code ignored;
  socket_.close(ignored);
}

int WorkerChannel::hand_over(const UniqueFd& connection) {
  return send({OSTLER_CONNECTION, OSTLER_PRIVATE, 0}, connection.get());
}

int WorkerChannel::let_accept() {
  return send({OSTLER_ACCEPT, 0, 0}, -1);
}

int WorkerChannel::send(const ostler_message& message, int descriptor) {
  if (!socket_.is_open()) return EPIPE;
  ostler_message sent = message;
  iovec part{&sent, sizeof sent};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  if (descriptor >= 0) {
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    cmsghdr* const rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(rights), &descriptor, sizeof descriptor);
  }
  while (::sendmsg(socket_.native_handle(), &header, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
    if (errno != EINTR) return errno;
  }
  return 0;
}

}  // namespace ostler::runtime
