// The program by which the kernel chooses among the sockets of one SO_REUSEPORT group.
//
// Classic BPF (socket(7), SO_ATTACH_REUSEPORT_CBPF): it runs for each new connection and returns
// the index of a socket. Indices are in the order in which the sockets began to listen; when one is
// closed the last takes its place. No privilege is needed. Pure but for `attach`.
#pragma once

#include <linux/filter.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace ostler::runtime {

// One connection of the manager's own: from this port of this machine, to that socket.
struct SteeredProbe {
  std::uint16_t port = 0;
  std::size_t index = 0;
  bool operator==(const SteeredProbe&) const = default;
};

// New connections go to the sockets of `selected` (ascending, not empty) at random, a probe to its
// own. The kernel limits a program's length: of more than limits::kSelectorRuns runs of neighbours
// some are left out.
std::vector<sock_filter> selector_program(const std::vector<std::size_t>& selected,
                                          const std::optional<SteeredProbe>& probe);

// Gives the program to the group that `fd` belongs to. Returns 0 or errno.
[[nodiscard]] int attach_selector(int fd, const std::vector<sock_filter>& program);

}  // namespace ostler::runtime
