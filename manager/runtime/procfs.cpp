#include "runtime/procfs.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <string>

namespace ostler::runtime {
namespace {

template <class T>
T number(std::string_view text) {
  T value{};
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

std::string_view take_word(std::string_view& text) {
  const std::string_view word = text.substr(0, text.find(' '));
  text.remove_prefix(std::min(word.size() + 1, text.size()));
  return word;
}

}  // namespace

ProcFile::ProcFile(pid_t pid, std::string_view name) {
  std::array<char, 64> path{};
  std::snprintf(path.data(), path.size(), "/proc/%d/%.*s", pid, static_cast<int>(name.size()),
                name.data());
  const int fd = ::open(path.data(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  while (size_ < buffer_.size()) {
    const ssize_t got = ::read(fd, buffer_.data() + size_, buffer_.size() - size_);
    if (got <= 0) break;
    size_ += static_cast<std::size_t>(got);
  }
  ::close(fd);
}

// "PID (NAME) STATE PARENT GROUP SESSION …", and the start in the 22nd field. A name may hold
// blanks and brackets.
std::optional<ProcStat> read_stat(pid_t pid) {
  const ProcFile file(pid, "stat");
  std::string_view text = file.text();
  const auto open = text.find('(');
  const auto close = text.rfind(") ");
  if (open == std::string_view::npos || close == std::string_view::npos) return std::nullopt;
  ProcStat stat;
  stat.name = text.substr(open + 1, close - open - 1);
  for (char& c : stat.name) {
    if (c < ' ' || c > '~') c = '?';
  }
  text.remove_prefix(close + 2);
  stat.state = take_word(text).front();
  stat.parent = number<pid_t>(take_word(text));
  take_word(text);  // the group
  stat.session = number<pid_t>(take_word(text));
  for (int field = 7; field < 22; ++field) take_word(text);
  stat.started = number<std::uint64_t>(take_word(text));
  return stat;
}

namespace {

bool catches(pid_t pid, int signal) {
  const ProcFile file(pid, "status");
  constexpr std::string_view kName = "SigCgt:\t";
  const auto line = file.text().find(kName);
  if (line == std::string_view::npos) return false;
  const std::string mask(file.text().substr(line + kName.size(), 16));
  return (std::strtoull(mask.c_str(), nullptr, 16) >> static_cast<unsigned>(signal - 1) & 1U) != 0;
}

}  // namespace

int stop_signal_for(pid_t pid, int wanted) {
  const bool common =
      wanted == SIGTERM || wanted == SIGINT || wanted == SIGQUIT || wanted == SIGKILL;
  return common || catches(pid, wanted) ? wanted : SIGTERM;
}

std::vector<pid_t> own_children() {
  std::vector<pid_t> pids;
  std::ifstream file("/proc/self/task/" + std::to_string(::getpid()) + "/children");
  for (pid_t pid = 0; file >> pid;) pids.push_back(pid);
  return pids;
}

std::uint64_t ticks_now() {
  timespec time{};
  ::clock_gettime(CLOCK_BOOTTIME, &time);
  const auto ticks = static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
  return static_cast<std::uint64_t>(time.tv_sec) * ticks +
         static_cast<std::uint64_t>(time.tv_nsec) * ticks / 1'000'000'000U;
}

}  // namespace ostler::runtime
