#include "runtime/backlog.hpp"

#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "runtime/socket_name.hpp"
#include "runtime/unique_fd.hpp"

namespace ostler::runtime {
namespace {

// On a listener these two are the accept queue's length and its limit.
bool tcp_queue(int fd, tcp_info& info) {
  socklen_t size = sizeof info;
  return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0;
}

struct DiagRequest {
  nlmsghdr header{};
  unix_diag_req query{};
};

bool ask_diag(int fd, ino_t inode) {
  DiagRequest request;
  request.header.nlmsg_len = sizeof request;
  request.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  request.header.nlmsg_flags = NLM_F_REQUEST;
  request.query.sdiag_family = AF_UNIX;
  request.query.udiag_states = ~0U;
  request.query.udiag_ino = static_cast<std::uint32_t>(inode);
  request.query.udiag_show = UDIAG_SHOW_RQLEN;
  request.query.udiag_cookie[0] = request.query.udiag_cookie[1] = ~0U;  // whichever has the inode
  return send(fd, &request, sizeof request, 0) == static_cast<ssize_t>(sizeof request);
}

// The kernel answers before send returns; NLMSG_ERROR if it has no such socket or no sock_diag.
Queue unix_queue(ino_t inode) {
  Queue queue;
  const UniqueFd diag(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  if (!diag || !ask_diag(diag.get(), inode)) return queue;
  alignas(nlmsghdr) std::array<char, 1024> reply{};
  const ssize_t got = recv(diag.get(), reply.data(), reply.size(), MSG_DONTWAIT);
  constexpr std::size_t kAttributeHeader = NLMSG_ALIGN(sizeof(nlattr));
  constexpr std::size_t kAttributes = NLMSG_LENGTH(sizeof(unix_diag_msg));
  nlmsghdr header{};
  if (got < static_cast<ssize_t>(kAttributes)) return queue;
  std::memcpy(&header, reply.data(), sizeof header);
  if (header.nlmsg_type != SOCK_DIAG_BY_FAMILY) return queue;
  const auto end = static_cast<std::size_t>(got);
  for (std::size_t at = kAttributes; at + sizeof(nlattr) <= end;) {
    nlattr attribute{};
    std::memcpy(&attribute, reply.data() + at, sizeof attribute);
    unix_diag_rqlen lengths{};
    if (attribute.nla_type == UNIX_DIAG_RQLEN && at + kAttributeHeader + sizeof lengths <= end) {
      std::memcpy(&lengths, reply.data() + at + kAttributeHeader, sizeof lengths);
      queue.waiting = lengths.udiag_rqueue;
      queue.limit = lengths.udiag_wqueue;
      return queue;
    }
    at += std::max<std::size_t>(NLA_ALIGN(attribute.nla_len), kAttributeHeader);
  }
  return queue;
}

}  // namespace

Queue queue_of(int fd) {
  tcp_info info{};
  if (tcp_queue(fd, info)) return {std::int64_t{info.tcpi_unacked}, std::int64_t{info.tcpi_sacked}};
  return unix_queue(inode_of(fd));
}

std::int64_t waiting_on(int fd) {
  tcp_info info{};
  return tcp_queue(fd, info) ? std::int64_t{info.tcpi_unacked} : -1;
}

}  // namespace ostler::runtime
