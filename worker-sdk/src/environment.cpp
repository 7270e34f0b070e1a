#include "environment.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string_view>
#include <system_error>
#include <utility>

namespace ostler::environment {
namespace {

constexpr int kFirstDescriptor = 3;  // SD_LISTEN_FDS_START

[[noreturn]] void refuse(const char* variable, const std::string& value,
                         const std::string& wanted) {
  throw std::system_error(
      EINVAL, std::generic_category(),
      "read the environment variable " + std::string(variable) + "='" + value + "': " + wanted);
}

std::uint64_t parse(const char* variable, const std::string& value, std::uint64_t most) {
  std::uint64_t result = 0;
  const char* end = value.data() + value.size();
  const auto [rest, error] = std::from_chars(value.data(), end, result);
  if (error != std::errc{} || rest != end || result > most) {
    refuse(variable, value, "want a number from 0 to " + std::to_string(most));
  }
  return result;
}

// Splits at every colon, so that "a::b" has three names and "" has one, which is empty.
std::vector<std::string> split(std::string_view names) {
  std::vector<std::string> parts;
  while (true) {
    const std::size_t colon = names.find(':');
    parts.emplace_back(names.substr(0, colon));
    if (colon == std::string_view::npos) return parts;
    names.remove_prefix(colon + 1);
  }
}

// A script that starts the worker and waits for it: the listeners are meant for the script.
void say_foreign(std::uint64_t pid) {
  std::string name;
  std::ifstream file("/proc/" + std::to_string(pid) + "/comm");
  if (std::getline(file, name)) name = " (" + name + ")";
  std::fprintf(stderr,
               "the inherited listeners are not taken: LISTEN_PID says that they are for process "
               "%llu%s, and this is %d; a script that starts this program must do it with exec\n",
               static_cast<unsigned long long>(pid), name.c_str(), static_cast<int>(::getpid()));
}

void set_close_on_exec(int descriptor) {
  const int flags = ::fcntl(descriptor, F_GETFD);
  if (flags < 0 || ::fcntl(descriptor, F_SETFD, flags | FD_CLOEXEC) < 0) {
    throw std::system_error(errno, std::generic_category(),
                            "set close-on-exec on the inherited descriptor " +
                                std::to_string(descriptor) + ", which LISTEN_FDS promised");
  }
}

}  // namespace

std::optional<std::string> text(const char* variable) {
  const char* value = std::getenv(variable);
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

std::optional<std::uint64_t> number(const char* variable, std::uint64_t most) {
  const auto value = text(variable);
  if (!value) return std::nullopt;
  return parse(variable, *value, most);
}

std::optional<std::string> take(const char* variable) {
  auto value = text(variable);
  ::unsetenv(variable);
  return value;
}

std::optional<std::uint64_t> take_number(const char* variable, std::uint64_t most) {
  const auto value = take(variable);
  if (!value) return std::nullopt;
  return parse(variable, *value, most);
}

std::vector<listener> take_listeners() {
  // All are removed before any is looked at, so that none is left behind by a malformed one.
  const auto pid = take("LISTEN_PID");
  const auto count = take("LISTEN_FDS");
  const auto names = take("LISTEN_FDNAMES");
  take("LISTEN_PIDFDID");
  constexpr auto kMostPid = static_cast<std::uint64_t>(std::numeric_limits<pid_t>::max());
  constexpr auto kMostCount =
      static_cast<std::uint64_t>(std::numeric_limits<int>::max() - kFirstDescriptor);
  if (!pid || !count) return {};
  const auto meant_for = parse("LISTEN_PID", *pid, kMostPid);
  if (meant_for != static_cast<std::uint64_t>(::getpid())) {
    if (*count != "0") say_foreign(meant_for);
    return {};
  }
  const auto expected = parse("LISTEN_FDS", *count, kMostCount);
  if (expected == 0) return {};
  auto parts = names ? split(*names) : std::vector<std::string>{};
  if (names && parts.size() != expected) {
    refuse("LISTEN_FDNAMES", *names, "want " + std::to_string(expected) + " names");
  }
  std::vector<listener> listeners;
  for (std::size_t i = 0; i < expected; ++i) {
    const int descriptor = kFirstDescriptor + static_cast<int>(i);
    set_close_on_exec(descriptor);
    listeners.push_back({descriptor, names ? std::move(parts[i]) : "unknown"});
  }
  return listeners;
}

std::optional<std::chrono::microseconds> heartbeat_interval() {
  using std::chrono::microseconds;
  const auto span =
      number("WATCHDOG_USEC", static_cast<std::uint64_t>(microseconds::max().count()));
  const auto pid = number("WATCHDOG_PID");
  if (!span || (pid && *pid != static_cast<std::uint64_t>(::getpid()))) return std::nullopt;
  if (*span == 0) refuse("WATCHDOG_USEC", "0", "want a positive number of microseconds");
  return microseconds(*span) / 2;
}

}  // namespace ostler::environment
