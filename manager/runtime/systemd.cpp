#include "runtime/systemd.hpp"

#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <system_error>

#include "runtime/unique_fd.hpp"

namespace ostler::runtime {
namespace {

std::string take_variable(const char* name) {
  const char* value = std::getenv(name);
  std::string text = value == nullptr ? "" : value;
  ::unsetenv(name);
  return text;
}

long long number(const std::string& text) {
  long long value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size() ? value : 0;
}

}  // namespace

Systemd::Systemd(boost::asio::io_context& context)
    : address_(take_variable("NOTIFY_SOCKET")), timer_(context) {
  const long long interval = number(take_variable("WATCHDOG_USEC"));
  const std::string pid = take_variable("WATCHDOG_PID");
  const bool for_us = pid.empty() || number(pid) == ::getpid();
  if (for_us && interval > 0) watchdog_ = std::chrono::microseconds(interval);
  if (!address_.empty() && address_[0] != '/' && address_[0] != '@') address_.clear();
}

void Systemd::send(const std::string& text) {
  sockaddr_un address{};
  if (address_.empty() || address_.size() >= sizeof address.sun_path) return;
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, address_.data(), address_.size());
  const bool abstract = address_[0] == '@';
  if (abstract) address.sun_path[0] = '\0';
  const UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address_.size() +
                                             (abstract ? 0 : 1));
  if (::sendto(socket.get(), text.data(), text.size(), MSG_NOSIGNAL,
               reinterpret_cast<const sockaddr*>(&address), length) < 0) {
    spdlog::warn("sendto {} (NOTIFY_SOCKET): {}", address_, std::generic_category().message(errno));
  }
}

void Systemd::ready(const std::string& status) {
  status_ = status;
  send("READY=1\nSTATUS=" + status);
}

void Systemd::reloading() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  const auto usec = static_cast<long long>(now.tv_sec) * 1'000'000 + now.tv_nsec / 1000;
  status_ = "reloading";
  send("RELOADING=1\nMONOTONIC_USEC=" + std::to_string(usec) + "\nSTATUS=" + status_);
}

void Systemd::stopping(std::chrono::nanoseconds patience) {
  const auto usec = std::chrono::ceil<std::chrono::microseconds>(patience).count();
  status_ = "stopping";
  send("STOPPING=1\nEXTEND_TIMEOUT_USEC=" + std::to_string(usec) + "\nSTATUS=" + status_);
}

void Systemd::status(const std::string& text) {
  if (text == status_) return;
  status_ = text;
  send("STATUS=" + text);
}

void Systemd::start_watchdog() {
  if (watchdog_.count() > 0 && !address_.empty()) beat();
}

void Systemd::beat() {
  send("WATCHDOG=1");
  timer_.expires_after(watchdog_ / 2);
  timer_.async_wait([this](const boost::system::error_code& error) {
    if (!error) beat();
  });
}

}  // namespace ostler::runtime
