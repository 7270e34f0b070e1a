#include "runtime/socket_name.hpp"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <array>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string_view>

namespace ostler::runtime {

using config::Address;
using config::AddressKind;

std::optional<SocketName> name_of(int fd) {
  SocketName name;
  name.size = sizeof name.storage;
  if (getsockname(fd, name.any(), &name.size) != 0) return std::nullopt;
  return name;
}

Address tcp_address(const SocketName& name) {
  Address address;
  std::array<char, NI_MAXHOST> host{};
  std::array<char, NI_MAXSERV> port{};
  if (getnameinfo(name.any(), name.size, host.data(), host.size(), port.data(), port.size(),
                  NI_NUMERICHOST | NI_NUMERICSERV) == 0) {
    address.host = host.data();
    address.port = static_cast<std::uint16_t>(std::strtoul(port.data(), nullptr, 10));
  }
  return address;
}

namespace {

Address unix_address(const SocketName& name) {
  Address address;
  const auto* const local = reinterpret_cast<const sockaddr_un*>(&name.storage);
  const std::size_t length = name.size - offsetof(sockaddr_un, sun_path);
  const std::string_view path(static_cast<const char*>(local->sun_path), length);
  const bool abstract = !path.empty() && path.front() == '\0';
  address.kind = abstract ? AddressKind::kUnixAbstract : AddressKind::kUnixPath;
  address.path = abstract ? path.substr(1) : path.substr(0, path.find('\0'));
  return address;
}

}  // namespace

std::optional<Address> bound_address(int fd) {
  const std::optional<SocketName> name = name_of(fd);
  if (!name) return std::nullopt;
  switch (name->family()) {
    case AF_INET:
    case AF_INET6:
      return tcp_address(*name);
    case AF_UNIX:
      return unix_address(*name);
    default:
      return std::nullopt;
  }
}

bool any_host(const std::string& host) {
  return host.empty() || host == "*";
}

std::optional<SocketName> tcp_name(const std::string& host, std::uint16_t port) {
  addrinfo hints{};
  hints.ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) {
    return std::nullopt;
  }
  SocketName name;
  name.size = found->ai_addrlen;
  std::memcpy(&name.storage, found->ai_addr, found->ai_addrlen);
  freeaddrinfo(found);
  return name;
}

ino_t inode_of(int fd) {
  struct stat status {};
  return fstat(fd, &status) == 0 ? status.st_ino : 0;
}

std::uint16_t port_of(const SocketName& name) {
  // At the same place in both families.
  return ntohs(reinterpret_cast<const sockaddr_in*>(&name.storage)->sin_port);
}

int rank_of(const SocketName& name) {
  if (name.family() == AF_INET) {
    const auto* const v4 = reinterpret_cast<const sockaddr_in*>(&name.storage);
    return v4->sin_addr.s_addr == htonl(INADDR_ANY) ? 1 : 2;
  }
  const auto* const v6 = reinterpret_cast<const sockaddr_in6*>(&name.storage);
  return IN6_IS_ADDR_UNSPECIFIED(&v6->sin6_addr) ? 0 : 2;
}

}  // namespace ostler::runtime
