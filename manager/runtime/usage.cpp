#include "runtime/usage.hpp"

#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace ostler::runtime {
namespace {

constexpr std::size_t kProcesses = 64;

std::string directory(pid_t pid) {
  return "/proc/" + std::to_string(pid);
}

std::optional<std::uint64_t> pss(pid_t pid) {
  std::ifstream file(directory(pid) + "/smaps_rollup");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("Pss:")) continue;
    std::istringstream fields(line.substr(4));
    std::uint64_t kib = 0;
    if (fields >> kib) return kib * 1024;
  }
  return std::nullopt;
}

void add_children(pid_t pid, std::vector<pid_t>& pids) {
  std::ifstream file(directory(pid) + "/task/" + std::to_string(pid) + "/children");
  for (pid_t child = 0; pids.size() < kProcesses && file >> child;) pids.push_back(child);
}

template <class T>
void add(std::optional<T>& sum, std::optional<T> value) {
  if (value) sum = sum.value_or(T{}) + *value;
}

}  // namespace

std::optional<double> cpu_seconds(pid_t pid) {
  std::ifstream file(directory(pid) + "/stat");
  std::string line;
  std::getline(file, line);
  // The command's name is in parentheses and may hold anything; what follows the last one is ours.
  const auto end = line.rfind(')');
  if (end == std::string::npos) return std::nullopt;
  std::istringstream fields(line.substr(end + 1));
  std::string skipped;
  for (int field = 3; field < 14; ++field) fields >> skipped;
  double user = 0;
  double system = 0;
  if (!(fields >> user >> system)) return std::nullopt;
  return (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

double cpu_seconds_of_all(pid_t pid) {
  double sum = 0;
  std::vector<pid_t> pids{pid};
  for (std::size_t i = 0; i < pids.size(); ++i) {
    sum += cpu_seconds(pids[i]).value_or(0);
    add_children(pids[i], pids);
  }
  return sum;
}

Usage measure_usage(pid_t pid) {
  Usage usage;
  std::vector<pid_t> pids{pid};
  for (std::size_t i = 0; i < pids.size(); ++i) {
    add(usage.memory, pss(pids[i]));
    add(usage.cpu, cpu_seconds(pids[i]));
    add_children(pids[i], pids);
  }
  return usage;
}

}  // namespace ostler::runtime
