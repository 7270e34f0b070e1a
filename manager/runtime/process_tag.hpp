// A number that a worker bears and its descendants inherit: by it they are known, in whatever
// session, group or process tree they are by now.
//
// It is the hard limit of RLIMIT_RTTIME, which fork, exec and a change of user keep, which cannot
// be raised without CAP_SYS_RESOURCE, and which the kernel shows to everybody in /proc/PID/limits
// without touching the process's memory. A variable in the environment would have none of that.
// As a limit it has no effect: it allows more than 70,000 years of CPU at realtime priority.
//
// A program may lower its limits, and bears no known tag then. So a tag tells who belongs to whom;
// its absence proves nothing.
#pragma once

#include <sys/types.h>

#include <cstdint>

namespace ostler::runtime {

using Tag = std::uint64_t;  // 0: none

// The tags of one manager: its own prefix, drawn at random, then a serial number and an index.
class TagSpace {
 public:
  static constexpr unsigned kIndexBits = 15;

  // Lower than the limit of this process itself, which may be a tag of a manager above. No tags can
  // be had if that is far too low.
  static TagSpace draw();

  // 0: no tags can be had.
  [[nodiscard]] Tag make(std::uint32_t serial, std::uint32_t index) const;
  [[nodiscard]] bool contains(Tag tag) const { return prefix_ != 0 && tag >> 32U == prefix_; }
  static std::uint32_t index(Tag tag) {
    return static_cast<std::uint32_t>(tag) & ((1U << kIndexBits) - 1);
  }

 private:
  std::uint64_t prefix_ = 0;
};

// What a process bears: the hard limit, whatever that is. 0: not known (it is gone).
Tag read_tag(pid_t pid);

}  // namespace ostler::runtime
