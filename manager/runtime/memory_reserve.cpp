#include "runtime/memory_reserve.hpp"

#include <atomic>
#include <cstdlib>
#include <new>

#include "runtime/limits.hpp"

namespace ostler::runtime {
namespace {

std::atomic<void*> reserve{nullptr};
std::atomic<bool> was_short{false};

// Never written to: it takes addresses, and no memory.
void set_aside() {
  void* const block = std::malloc(limits::kMemoryReserve);
  void* expected = nullptr;
  if (block != nullptr && !reserve.compare_exchange_strong(expected, block)) std::free(block);
}

// A new-handler either makes memory available, or throws: new.handler in the C++ standard.
void fall_back() {
  was_short = true;
  void* const block = reserve.exchange(nullptr);
  if (block == nullptr) throw std::bad_alloc();
  std::free(block);
}

}  // namespace

void keep_memory_reserve() {
  set_aside();
  std::set_new_handler(fall_back);
}

bool memory_was_short() {
  return was_short.exchange(false);
}

void refill_memory_reserve() {
  if (reserve == nullptr) set_aside();
}

}  // namespace ostler::runtime
