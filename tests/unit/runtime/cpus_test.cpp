// What the manager may use, read from made-up trees of /proc and /sys.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "runtime/cpus.hpp"

#include <doctest/doctest.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

namespace ostler::runtime {
namespace {

constexpr std::uint64_t kMebibyte = std::uint64_t{1} << 20U;

// The root of a machine with 8 GiB; gone with the object.
class Machine {
 public:
  Machine() : root_(std::filesystem::temp_directory_path() / "ostler-cpus-XXXXXX") {
    root_ = ::mkdtemp(root_.data());
    write("/proc/meminfo", "MemTotal:        8388608 kB\nMemFree:         1 kB\n");
  }
  ~Machine() { std::filesystem::remove_all(root_); }
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  void write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories(std::filesystem::path(root_ + name).parent_path());
    std::ofstream(root_ + name) << text;
  }
  [[nodiscard]] Resources resources() const { return usable_resources(root_); }

 private:
  std::string root_;
};

int cpus_of_this_process() {
  cpu_set_t mask;
  REQUIRE(sched_getaffinity(0, sizeof(mask), &mask) == 0);
  return CPU_COUNT(&mask);
}

int workers(int cpus, std::optional<std::uint64_t> memory,
            std::optional<std::uint64_t> worker_memory) {
  return automatic_workers({cpus, memory}, worker_memory);
}

}  // namespace

TEST_CASE("with no limit it is the whole machine") {
  const Machine machine;
  CHECK(machine.resources().cpus == cpus_of_this_process());
  CHECK(machine.resources().memory == 8192 * kMebibyte);
  machine.write("/proc/self/cgroup", "0::/a/b\n");
  machine.write("/sys/fs/cgroup/a/b/memory.max", "max\n");
  machine.write("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
  CHECK(machine.resources().cpus == cpus_of_this_process());
  CHECK(machine.resources().memory == 8192 * kMebibyte);
}

TEST_CASE("the least limit along the path holds, in v2") {
  const Machine machine;
  machine.write("/proc/self/cgroup", "0::/a/b/c\n");
  machine.write("/sys/fs/cgroup/a/b/c/memory.max", "1073741824\n");
  machine.write("/sys/fs/cgroup/a/b/memory.max", "536870912\n");
  machine.write("/sys/fs/cgroup/a/memory.max", "max\n");
  machine.write("/sys/fs/cgroup/a/cpu.max", "50000 100000\n");
  CHECK(machine.resources().memory == 512 * kMebibyte);
  CHECK(machine.resources().cpus == 1);
  machine.write("/sys/fs/cgroup/memory.max", "268435456\n");  // the top of a container's mount
  CHECK(machine.resources().memory == 256 * kMebibyte);
}

TEST_CASE("the least limit along the path holds, in v1") {
  const Machine machine;
  machine.write("/proc/self/cgroup", "9:memory:/a/b\n3:cpu,cpuacct:/a\n0::/a\n");
  machine.write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  CHECK(machine.resources().memory == 8192 * kMebibyte);
  machine.write("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "536870912\n");
  machine.write("/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "1073741824\n");
  CHECK(machine.resources().memory == 512 * kMebibyte);
  CHECK(machine.resources().cpus == cpus_of_this_process());
  machine.write("/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "150000\n");
  machine.write("/sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n");
  CHECK(machine.resources().cpus == std::min(2, cpus_of_this_process()));
  machine.write("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "50000\n");
  machine.write("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n");
  CHECK(machine.resources().cpus == 1);
}

TEST_CASE("v2 beside v1 is mounted below it") {
  const Machine machine;
  machine.write("/proc/self/cgroup", "4:memory:/\n0::/a\n");
  machine.write("/sys/fs/cgroup/unified/a/memory.max", "1073741824\n");
  CHECK(machine.resources().memory == 1024 * kMebibyte);
}

TEST_CASE("a limit above the machine's memory is none, and nothing known is nothing limited") {
  const Machine machine;
  machine.write("/proc/self/cgroup", "garbage\n0::/\n");
  machine.write("/sys/fs/cgroup/memory.max", "1099511627776\n");
  CHECK(machine.resources().memory == 8192 * kMebibyte);
  machine.write("/proc/meminfo", "MemTotal: lots\n");
  CHECK(machine.resources().memory == std::uint64_t{1} << 40U);
  machine.write("/sys/fs/cgroup/memory.max", "lots\n");
  CHECK(!machine.resources().memory);
}

TEST_CASE("auto is twice the CPUs and one, or as many workers as there is memory for") {
  CHECK(workers(4, 8192 * kMebibyte, std::nullopt) == 9);
  CHECK(workers(4, std::nullopt, 512 * kMebibyte) == 9);
  CHECK(workers(4, 8192 * kMebibyte, 512 * kMebibyte) == 9);
  CHECK(workers(4, 2048 * kMebibyte, 512 * kMebibyte) == 4);
  CHECK(workers(4, 2047 * kMebibyte, 512 * kMebibyte) == 3);
  CHECK(workers(4, 100 * kMebibyte, 512 * kMebibyte) == 1);
  CHECK(workers(1, std::uint64_t{1} << 63U, 1) == 3);
}

TEST_CASE("this machine is one as well") {
  CHECK(usable_resources().cpus >= 1);
  CHECK(usable_resources().memory.value_or(0) > kMebibyte);
}

}  // namespace ostler::runtime
