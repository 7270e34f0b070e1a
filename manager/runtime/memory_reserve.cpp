#include "runtime/memory_reserve.hpp"

#include <sys/mman.h>

#include <atomic>
#include <new>

#include "runtime/limits.hpp"

namespace ostler::runtime {
namespace {

std::atomic<void*> reserve{nullptr};
std::atomic<bool> was_short{false};

// Never written to: it takes addresses, and no memory.
void set_aside() {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
  void* const block = ::mmap(nullptr, limits::kMemoryReserve, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (block == MAP_FAILED) return;
  void* expected = nullptr;
  if (!reserve.compare_exchange_strong(expected, block)) ::munmap(block, limits::kMemoryReserve);
}

// A new-handler either makes memory available, or throws: new.handler in the C++ standard.
void fall_back() {
  was_short = true;
  void* const block = reserve.exchange(nullptr);
  if (block == nullptr) throw std::bad_alloc();
  ::munmap(block, limits::kMemoryReserve);
}

}  // namespace

void keep_memory_reserve() {
  set_aside();
  std::set_new_handler(fall_back);
}

bool memory_is_short() {
  return was_short;
}

bool memory_was_short() {
  return was_short.exchange(false);
}

void refill_memory_reserve() {
  if (reserve == nullptr) set_aside();
}

}  // namespace ostler::runtime
