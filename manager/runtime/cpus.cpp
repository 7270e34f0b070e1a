#include "runtime/cpus.hpp"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

namespace ostler::runtime {
namespace {

// Sizes double until the kernel's mask fits: a fixed cpu_set_t fails beyond 1024 CPUs.
int cpus_by_affinity() {
  for (std::size_t cpus = 1024; cpus <= 1U << 20U; cpus *= 2) {
    std::vector<cpu_set_t> mask(CPU_ALLOC_SIZE(cpus) / sizeof(cpu_set_t));
    const std::size_t size = mask.size() * sizeof(cpu_set_t);
    if (sched_getaffinity(0, size, mask.data()) != 0) continue;
    return std::max(1, CPU_COUNT_S(size, mask.data()));
  }
  return 1;
}

std::optional<double> quota_v2(const std::string& directory) {
  std::ifstream file(directory + "/cpu.max");
  std::string quota;
  double period = 0;
  if (!(file >> quota >> period) || quota == "max" || period <= 0) return std::nullopt;
  return std::strtod(quota.c_str(), nullptr) / period;
}

std::optional<double> quota_v1(const std::string& directory) {
  double quota = -1;
  double period = 0;
  std::ifstream(directory + "/cpu.cfs_quota_us") >> quota;
  std::ifstream(directory + "/cpu.cfs_period_us") >> period;
  if (quota <= 0 || period <= 0) return std::nullopt;
  return quota / period;
}

void lower(std::optional<double>& least, std::optional<double> quota) {
  if (quota && *quota > 0 && (!least || *quota < *least)) least = quota;
}

// A limit may be set on the cgroup itself or on any above it. In a container the path in
// /proc/self/cgroup may not be visible under /sys/fs/cgroup: then the mount's top is its own.
template <class Quota>
void consider(std::optional<double>& least, const std::string& mount, std::string path,
              Quota quota) {
  while (path.size() > 1) {
    lower(least, quota(mount + path));
    path.resize(path.rfind('/'));
  }
  lower(least, quota(mount));
}

std::optional<double> quota_of_cgroup(const std::string& root) {
  std::optional<double> least;
  std::ifstream cgroups(root + "/proc/self/cgroup");
  const std::string base = root + "/sys/fs/cgroup";
  for (std::string line; std::getline(cgroups, line);) {
    const auto first = line.find(':');
    const auto second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (controllers.empty()) {
      consider(least, base, path, quota_v2);
      consider(least, base + "/unified", path, quota_v2);
      continue;
    }
    std::istringstream names(controllers);
    for (std::string name; std::getline(names, name, ',');) {
      if (name == "cpu") consider(least, base + "/" + controllers, path, quota_v1);
      if (name == "cpu") consider(least, base + "/cpu", path, quota_v1);
    }
  }
  return least;
}

}  // namespace

int usable_cpus(const std::string& root) {
  const int cpus = cpus_by_affinity();
  const auto quota = quota_of_cgroup(root);
  if (!quota) return cpus;
  return std::clamp(static_cast<int>(std::ceil(*quota)), 1, cpus);
}

}  // namespace ostler::runtime
