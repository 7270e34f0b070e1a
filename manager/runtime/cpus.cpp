#include "runtime/cpus.hpp"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <system_error>
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

// A file of one number; "max" is none.
std::optional<std::uint64_t> number_in(const std::string& name) {
  std::ifstream file(name);
  std::uint64_t number = 0;
  if (!(file >> number)) return std::nullopt;
  return number;
}

std::optional<std::uint64_t> limit_v2(const std::string& directory) {
  return number_in(directory + "/memory.max");
}

// What stands for no limit is a number too, but above any machine's memory.
std::optional<std::uint64_t> limit_v1(const std::string& directory) {
  return number_in(directory + "/memory.limit_in_bytes");
}

template <class T>
void lower(std::optional<T>& least, std::optional<T> limit) {
  if (limit && *limit > 0 && (!least || *limit < *least)) least = limit;
}

// A limit may be set on the cgroup itself or on any above it. In a container the path in
// /proc/self/cgroup may not be visible under /sys/fs/cgroup: then the mount's top is its own.
template <class T, class Limit>
void consider(std::optional<T>& least, const std::string& mount, std::string path, Limit limit) {
  while (path.size() > 1) {
    lower(least, limit(mount + path));
    path.resize(path.rfind('/'));
  }
  lower(least, limit(mount));
}

struct Limits {
  std::optional<double> cpus;
  std::optional<std::uint64_t> memory;
};

std::string first_there(const std::string& name, const std::string& otherwise) {
  std::error_code error;
  return std::filesystem::exists(name, error) ? name : otherwise;
}

// A hierarchy of v1 is mounted under the name of all its controllers, or of one.
void consider_v1(Limits& least, const std::string& base, const std::string& controllers,
                 const std::string& path) {
  std::istringstream names(controllers);
  for (std::string name; std::getline(names, name, ',');) {
    const std::string mount = first_there(base + "/" + controllers, base + "/" + name);
    if (name == "cpu") consider(least.cpus, mount, path, quota_v1);
    if (name == "memory") consider(least.memory, mount, path, limit_v1);
  }
}

Limits limits_of_cgroup(const std::string& root) {
  Limits least;
  std::ifstream cgroups(root + "/proc/self/cgroup");
  const std::string base = root + "/sys/fs/cgroup";
  for (std::string line; std::getline(cgroups, line);) {
    const auto first = line.find(':');
    const auto second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (!controllers.empty()) {
      consider_v1(least, base, controllers, path);
      continue;
    }
    const std::string mount = first_there(base + "/unified", base);  // beside v1, or alone
    consider(least.cpus, mount, path, quota_v2);
    consider(least.memory, mount, path, limit_v2);
  }
  return least;
}

std::optional<std::uint64_t> memory_of_machine(const std::string& root) {
  std::ifstream file(root + "/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string name;
    std::uint64_t kibibytes = 0;
    if (words >> name >> kibibytes && name == "MemTotal:") return kibibytes * 1024;
  }
  return std::nullopt;
}

}  // namespace

Resources usable_resources(const std::string& root) {
  Limits limits = limits_of_cgroup(root);
  Resources resources;
  resources.cpus = cpus_by_affinity();
  if (limits.cpus) {
    const double quota = std::min<double>(std::ceil(*limits.cpus), resources.cpus);
    resources.cpus = std::max(1, static_cast<int>(quota));
  }
  resources.memory = limits.memory;
  lower(resources.memory, memory_of_machine(root));
  return resources;
}

int automatic_workers(const Resources& resources, std::optional<std::uint64_t> worker_memory) {
  const int by_cpus = 2 * resources.cpus + 1;
  if (!resources.memory || !worker_memory || *worker_memory == 0) return by_cpus;
  const std::uint64_t by_memory = std::max<std::uint64_t>(1, *resources.memory / *worker_memory);
  return static_cast<int>(std::min<std::uint64_t>(by_memory, static_cast<std::uint64_t>(by_cpus)));
}

}  // namespace ostler::runtime
