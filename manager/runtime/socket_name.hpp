// The addresses that sockets are bound to.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>

#include "config/src/model.hpp"

namespace ostler::runtime {

// A socket address of any family, with what is needed to show it.
struct SocketName {
  sockaddr_storage storage{};
  socklen_t size = 0;

  [[nodiscard]] const sockaddr* any() const { return reinterpret_cast<const sockaddr*>(&storage); }
  [[nodiscard]] sockaddr* any() { return reinterpret_cast<sockaddr*>(&storage); }
  [[nodiscard]] int family() const { return storage.ss_family; }
};

std::optional<SocketName> name_of(int fd);
std::optional<config::Address> bound_address(int fd);
// Of IPv4 or IPv6.
config::Address tcp_address(const SocketName& name);
// Whether a host of a tcp address means any address: IPv6 with IPv4 mapped into it.
bool any_host(const std::string& host);
// A numeric host; nullopt: it is none.
std::optional<SocketName> tcp_name(const std::string& host, std::uint16_t port);
// For /proc; 0: not known.
ino_t inode_of(int fd);
// Of two sockets that could both have a connection the kernel gives it to the one of higher rank: a
// single address, then any of IPv4, then any.
int rank_of(const SocketName& name);
std::uint16_t port_of(const SocketName& name);

}  // namespace ostler::runtime
