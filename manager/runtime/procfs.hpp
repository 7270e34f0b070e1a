// What /proc says of a process without touching its memory: reads that no process can hold up.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ostler::runtime {

// /proc/PID/NAME, its first 4 KiB, read into the object itself.
class ProcFile {
 public:
  ProcFile(pid_t pid, std::string_view name);
  [[nodiscard]] std::string_view text() const { return {buffer_.data(), size_}; }

 private:
  std::array<char, 4096> buffer_;
  std::size_t size_ = 0;
};

struct ProcStat {
  std::string name;  // at most 15 bytes that the process has chosen; printable ASCII here
  char state = '?';
  pid_t parent = 0;
  pid_t session = 0;
  std::uint64_t started = 0;  // clock ticks since the machine was booted
  [[nodiscard]] bool alive() const { return state != 'Z' && state != 'X'; }
};

// nullopt: there is no such process.
std::optional<ProcStat> read_stat(pid_t pid);

// Every program understands TERM, INT and QUIT, and KILL needs nobody who does. Another signal is
// only for those who catch it: to others it would mean death or nothing at all, so they get TERM.
int stop_signal_for(pid_t pid, int wanted);

// The children of this process's main thread, to which orphans go as well.
std::vector<pid_t> own_children();

// Clock ticks since the machine was booted, as in ProcStat.
std::uint64_t ticks_now();

}  // namespace ostler::runtime
