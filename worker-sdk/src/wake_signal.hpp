// A signal by which one thread of this process interrupts another in a system call, or has it write
// down its stack. It is SIGURG, which is ignored by default and used by nobody else; where the
// program has a handler for it, the first real-time signal that has none.
#pragma once

#include <sys/types.h>

#include <array>

namespace ostler::wake_signal {

// The signal's number. The handler is installed with the first call, and stays. Throws
// std::system_error, std::runtime_error if the program has handlers for all of them.
int number();

// All signals blocked in this thread but that one: for threads that run none of the program's code.
void block_others();

struct Stack {
  static constexpr int kMostFrames = 64;
  std::array<void*, kMostFrames> frames{};
  int depth = 0;
};

// The stack of a thread of this process, which may be the calling one. Waits for it, for a bounded
// time, after which `depth` is 0. Async-signal-safe once number() has been called; one call at a
// time.
Stack stack_of(pid_t thread) noexcept;

}  // namespace ostler::wake_signal
