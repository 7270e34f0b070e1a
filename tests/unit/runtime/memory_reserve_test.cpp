#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "runtime/memory_reserve.hpp"

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstddef>
#include <fstream>
#include <memory>
#include <new>
#include <vector>

#include "runtime/limits.hpp"

using namespace ostler::runtime;

namespace {

// Sanitizers have address space of their own.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

constexpr std::size_t kBlock = std::size_t{256} << 10U;  // mapped, and unmapped again, by itself
using Blocks = std::vector<std::unique_ptr<std::byte[]>>;

// From now on the system refuses more than `bytes` beyond what the process has.
void allow(std::size_t bytes) {
  std::ifstream file("/proc/self/statm");
  std::size_t pages = 0;
  REQUIRE(static_cast<bool>(file >> pages));
  rlimit limit{};
  REQUIRE(getrlimit(RLIMIT_AS, &limit) == 0);
  limit.rlim_cur = pages * static_cast<std::size_t>(sysconf(_SC_PAGESIZE)) + bytes;
  REQUIRE(setrlimit(RLIMIT_AS, &limit) == 0);
}

std::unique_ptr<std::byte[]> block() {
  return std::unique_ptr<std::byte[]>(new std::byte[kBlock]);
}

// Until memory is short, which is told once.
void fill(Blocks& blocks) {
  while (!memory_was_short()) blocks.push_back(block());
  CHECK_FALSE(memory_was_short());
}

}  // namespace

TEST_CASE("what is refused comes from the reserve, and then fails as usual" *
          doctest::skip(kSanitized)) {
  keep_memory_reserve();
  CHECK_FALSE(memory_was_short());
  Blocks blocks;
  blocks.reserve(1000);
  allow(std::size_t{4} << 20U);
  for (int round = 0; round < 3; ++round) {
    fill(blocks);
    // What is being done then can be done.
    Blocks more;
    for (std::size_t i = 0; i + 2 < limits::kMemoryReserve / kBlock; ++i) more.push_back(block());
    CHECK_THROWS_AS(fill(blocks), std::bad_alloc);
    CHECK_THROWS_AS(while (true) blocks.push_back(block()), std::bad_alloc);
    CHECK(memory_was_short());
    blocks.clear();
    more.clear();
    refill_memory_reserve();
  }
}
