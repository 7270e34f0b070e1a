#include "serving/own_listener.hpp"

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string_view>
#include <system_error>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>

#include "serving/net.hpp"

namespace ostler::serving {
namespace {

constexpr std::string_view kTcp = "tcp://";
constexpr std::string_view kUnix = "unix://";

asio::ip::tcp::endpoint endpoint_of(const std::string& address) {
  std::string_view text = address;
  if (text.starts_with(kTcp)) text.remove_prefix(kTcp.size());
  const auto colon = text.rfind(':');
  const auto fault = [&address] {
    return std::invalid_argument("--listen: '" + address +
                                 "' is not tcp://IP:PORT or unix:///PATH");
  };
  if (colon == std::string_view::npos) throw fault();
  auto host = text.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  std::uint16_t port = 0;
  const auto [rest, error] = std::from_chars(text.begin() + colon + 1, text.end(), port);
  if (error != std::errc{} || rest != text.end()) throw fault();
  Error bad;
  const auto ip = asio::ip::make_address(std::string(host), bad);
  if (bad) throw fault();
  return {ip, port};
}

template <class Address>
int listen_on(const Address& endpoint, int family) {
  const int fd = ::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  if (fd >= 0 && ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
      ::bind(fd, endpoint.data(), static_cast<socklen_t>(endpoint.size())) == 0 &&
      ::listen(fd, SOMAXCONN) == 0) {
    return fd;
  }
  const int error = errno;
  if (fd >= 0) ::close(fd);
  throw std::system_error(error, std::generic_category());
}

// What a worker that was killed has left behind: a socket on which nobody listens. A file that is
// none is refused like that, too.
void remove_leftover(const asio::local::stream_protocol::endpoint& endpoint) {
  struct stat status {};
  if (::lstat(endpoint.path().c_str(), &status) != 0 || !S_ISSOCK(status.st_mode)) return;
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  if (::connect(fd, endpoint.data(), static_cast<socklen_t>(endpoint.size())) != 0 &&
      errno == ECONNREFUSED) {
    ::unlink(endpoint.path().c_str());
  }
  ::close(fd);
}

OwnListener open_unix(const std::string& path) {
  const asio::local::stream_protocol::endpoint endpoint(path);
  remove_leftover(endpoint);
  return {listen_on(endpoint, AF_UNIX), path};
}

OwnListener open_tcp(asio::ip::tcp::endpoint endpoint) {
  const int fd = listen_on(endpoint, endpoint.protocol().family());
  auto size = static_cast<socklen_t>(endpoint.capacity());
  if (::getsockname(fd, endpoint.data(), &size) == 0) endpoint.resize(size);
  std::printf("listening on port %u\n", unsigned{endpoint.port()});
  std::fflush(stdout);
  return {fd, {}};
}

}  // namespace

OwnListener open_own_listener(const std::string& address) {
  const bool is_unix = address.starts_with(kUnix) && address.size() > kUnix.size() + 1;
  const auto endpoint = is_unix ? asio::ip::tcp::endpoint() : endpoint_of(address);
  try {
    return is_unix ? open_unix(address.substr(kUnix.size())) : open_tcp(endpoint);
  } catch (const std::system_error& error) {
    throw std::runtime_error("listen on " + address + ": " + error.code().message());
  }
}

}  // namespace ostler::serving
