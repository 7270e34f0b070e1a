#include "runtime/activation.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

namespace ostler::runtime {
namespace {

constexpr int kFirstInherited = 3;
constexpr int kMaxInherited = 4096;

std::optional<int> option(int fd, int name) {
  int value = 0;
  socklen_t size = sizeof value;
  if (getsockopt(fd, SOL_SOCKET, name, &value, &size) != 0) return std::nullopt;
  return value;
}

bool accepts_streams(int fd) {
  return option(fd, SO_TYPE) == SOCK_STREAM && option(fd, SO_ACCEPTCONN) == 1;
}

std::optional<long> number(const char* text) {
  if (text == nullptr) return std::nullopt;
  long value = 0;
  const char* const end = text + std::strlen(text);
  const auto [stop, error] = std::from_chars(text, end, value);
  return error == std::errc{} && stop == end && stop != text ? std::optional(value) : std::nullopt;
}

std::string take_variable(const char* name) {
  const char* const value = getenv(name);
  std::string result = value == nullptr ? "" : value;
  unsetenv(name);
  return result;
}

}  // namespace

// What is not a listening stream socket is closed: nothing in ostler could use it.
InheritedSockets take_inherited_sockets() {
  const auto pid = number(take_variable("LISTEN_PID").c_str());
  const auto count = number(take_variable("LISTEN_FDS").c_str());
  const std::string all_names = take_variable("LISTEN_FDNAMES");
  unsetenv("LISTEN_PIDFDID");
  InheritedSockets sockets;
  if (pid != getpid() || !count || *count < 0 || *count > kMaxInherited) return sockets;
  std::string_view names = all_names;
  for (int fd = kFirstInherited; fd < kFirstInherited + *count; ++fd) {
    const std::string_view name = names.substr(0, names.find(':'));
    names.remove_prefix(std::min(names.size(), name.size() + 1));
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) continue;
    UniqueFd socket(fd);
    if (!accepts_streams(fd)) continue;
    sockets[std::string(name.empty() ? "unknown" : name)].push_back(std::move(socket));
  }
  return sockets;
}

}  // namespace ostler::runtime
