// The datagram socket to the manager, sd_notify(3). Owns one descriptor, which is not connected, so
// that a manager may replace its socket. Thread-safe once constructed.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

namespace ostler {

class Notifier {
 public:
  // `address` is NOTIFY_SOCKET's value: a path, '@' and an abstract name, or none at all.
  // `patience` bounds how long a patient send blocks. Throws std::system_error if the address
  // cannot be one or no socket can be had.
  Notifier(const std::optional<std::string>& address, std::chrono::seconds patience);
  ~Notifier();
  Notifier(const Notifier&) = delete;
  Notifier& operator=(const Notifier&) = delete;

  [[nodiscard]] bool connected() const noexcept { return fd_ >= 0; }

  // False with errno set (ENOTCONN: there is no address) if the message was not taken.
  enum class Wait { kPatiently, kNotAtAll };
  bool send(std::string_view message, Wait wait = Wait::kPatiently) const noexcept;

 private:
  int fd_ = -1;
  sockaddr_un address_{};
  socklen_t length_ = 0;
};

}  // namespace ostler
