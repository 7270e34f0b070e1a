#include "runtime/selector.hpp"

#include <sys/socket.h>

#include <cerrno>
#include <cstddef>

#include "runtime/limits.hpp"

namespace ostler::runtime {
namespace {

// Where the source port is, seen from the network header.
constexpr std::uint32_t kPortInV4 = 20;
constexpr std::uint32_t kPortInV6 = 40;
constexpr unsigned kReturnA = BPF_RET + BPF_A;
constexpr unsigned kAdd = BPF_ALU + BPF_ADD + BPF_K;

struct Run {
  std::size_t first = 0;
  std::size_t count = 0;
};

std::vector<Run> runs_of(const std::vector<std::size_t>& selected) {
  std::vector<Run> runs;
  for (const std::size_t index : selected) {
    if (!runs.empty() && index == runs.back().first + runs.back().count) {
      ++runs.back().count;
    } else {
      runs.push_back({index, 1});
    }
  }
  const std::size_t stride = (runs.size() + limits::kSelectorRuns - 1) / limits::kSelectorRuns;
  std::vector<Run> kept;
  for (std::size_t i = 0; i < runs.size(); i += stride) kept.push_back(runs[i]);
  return kept;
}

sock_filter statement(unsigned code, std::uint32_t k) {
  return {static_cast<std::uint16_t>(code), 0, 0, k};
}

sock_filter jump(unsigned code, std::uint32_t k, std::uint8_t yes, std::uint8_t no) {
  return {static_cast<std::uint16_t>(BPF_JMP | BPF_K | code), yes, no, k};
}

std::uint32_t offset(int base, std::uint32_t more = 0) {
  return static_cast<std::uint32_t>(base) + more;
}

void steer(const SteeredProbe& probe, std::vector<sock_filter>& program) {
  program.push_back(statement(BPF_LD | BPF_B | BPF_ABS, offset(SKF_NET_OFF)));
  program.push_back(statement(BPF_ALU | BPF_RSH | BPF_K, 4));
  program.push_back(jump(BPF_JEQ, 6, 2, 0));  // the version
  program.push_back(statement(BPF_LD | BPF_H | BPF_ABS, offset(SKF_NET_OFF, kPortInV4)));
  program.push_back(statement(BPF_JMP | BPF_JA, 1));
  program.push_back(statement(BPF_LD | BPF_H | BPF_ABS, offset(SKF_NET_OFF, kPortInV6)));
  program.push_back(jump(BPF_JEQ, probe.port, 0, 1));
  program.push_back(statement(BPF_RET | BPF_K, static_cast<std::uint32_t>(probe.index)));
}

}  // namespace

std::vector<sock_filter> selector_program(const std::vector<std::size_t>& selected,
                                          const std::optional<SteeredProbe>& probe) {
  std::vector<sock_filter> program;
  if (probe) steer(*probe, program);
  const std::vector<Run> runs = runs_of(selected);
  std::uint32_t total = 0;
  for (const Run& run : runs) total += static_cast<std::uint32_t>(run.count);
  program.push_back(statement(BPF_LD | BPF_W | BPF_ABS, offset(SKF_AD_OFF, SKF_AD_RANDOM)));
  program.push_back(statement(BPF_ALU | BPF_MOD | BPF_K, total));
  std::uint32_t before = 0;
  for (const Run& run : runs) {
    const auto first = static_cast<std::uint32_t>(run.first);
    const auto end = before + static_cast<std::uint32_t>(run.count);
    if (end < total) program.push_back(jump(BPF_JGE, end, 2, 0));
    program.push_back(statement(kAdd, first - before));
    program.push_back(statement(kReturnA, 0));
    before = end;
  }
  return program;
}

int attach_selector(int fd, const std::vector<sock_filter>& program) {
  sock_fprog filter{};
  filter.len = static_cast<unsigned short>(program.size());
  filter.filter = const_cast<sock_filter*>(program.data());
  const bool attached = setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &filter,
                                   static_cast<socklen_t>(sizeof filter)) == 0;
  return attached ? 0 : errno;
}

}  // namespace ostler::runtime
