#include "notifier.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <system_error>

namespace ostler {
namespace {

[[noreturn]] void refuse(int error, const std::string& address, const std::string& what) {
  throw std::system_error(error, std::generic_category(),
                          what + " (NOTIFY_SOCKET='" + address + "')");
}

}  // namespace

Notifier::Notifier(const std::optional<std::string>& address, std::chrono::seconds patience) {
  if (!address) return;
  const bool abstract = address->starts_with('@');
  if (!abstract && !address->starts_with('/')) {
    refuse(EAFNOSUPPORT, *address, "use the manager's notify socket, neither a path nor abstract");
  }
  // A path needs its closing zero; an abstract name is as long as it says.
  if (address->size() < 2 || address->size() + (abstract ? 0 : 1) > sizeof address_.sun_path) {
    refuse(EINVAL, *address,
           "use the manager's notify socket, whose name is too short or too long");
  }
  address_.sun_family = AF_UNIX;
  std::copy(address->begin(), address->end(), address_.sun_path);
  if (abstract) address_.sun_path[0] = '\0';
  length_ = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address->size() +
                                   (abstract ? 0 : 1));

  fd_ = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd_ < 0) refuse(errno, *address, "open a socket for the manager's notify socket");
  const timeval limit{.tv_sec = patience.count(), .tv_usec = 0};
  if (::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) != 0) {
    const int error = errno;
    ::close(fd_);
    refuse(error, *address, "set a send timeout for the manager's notify socket");
  }
}

Notifier::~Notifier() {
  if (fd_ >= 0) ::close(fd_);
}

bool Notifier::send(std::string_view message, Wait wait) const noexcept {
  if (fd_ < 0) {
    errno = ENOTCONN;
    return false;
  }
  const int flags = MSG_NOSIGNAL | (wait == Wait::kNotAtAll ? MSG_DONTWAIT : 0);
  ssize_t sent = 0;
  do {
    sent = ::sendto(fd_, message.data(), message.size(), flags,
                    reinterpret_cast<const sockaddr*>(&address_), length_);
  } while (sent < 0 && errno == EINTR);
  return sent >= 0;
}

}  // namespace ostler
