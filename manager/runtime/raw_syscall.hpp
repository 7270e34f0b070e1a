// A system call that touches nothing but its arguments: libc's syscall(3) writes errno, which a
// child that shares the manager's memory shares with the manager's main thread. Inline, as its
// callers are kept from sanitizers, which would do more.
#pragma once

// A function of a child that shares the manager's memory: it runs on a stack that sanitizers know
// nothing of, and leaves functions without returning from them.
#if defined(__clang__)
#define OSTLER_IN_CHILD __attribute__((disable_sanitizer_instrumentation))
#else
#define OSTLER_IN_CHILD __attribute__((no_sanitize("address", "thread", "undefined")))
#endif

namespace ostler::runtime {

// The result, or the negative errno. See syscall(2), "Architecture calling conventions".
OSTLER_IN_CHILD __attribute__((always_inline)) inline long raw_syscall(long number, long a, long b,
                                                                       long c, long d, long e) {
#if defined(__x86_64__)
  long result = number;
  register long r10 asm("r10") = d;
  register long r8 asm("r8") = e;
  asm volatile("syscall"
               : "+a"(result)
               : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
               : "rcx", "r11", "memory");
  return result;
#elif defined(__aarch64__)
  register long x8 asm("x8") = number;
  register long x0 asm("x0") = a;
  register long x1 asm("x1") = b;
  register long x2 asm("x2") = c;
  register long x3 asm("x3") = d;
  register long x4 asm("x4") = e;
  asm volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
  return x0;
#elif defined(__riscv)
  register long a7 asm("a7") = number;
  register long a0 asm("a0") = a;
  register long a1 asm("a1") = b;
  register long a2 asm("a2") = c;
  register long a3 asm("a3") = d;
  register long a4 asm("a4") = e;
  asm volatile("ecall" : "+r"(a0) : "r"(a7), "r"(a1), "r"(a2), "r"(a3), "r"(a4) : "memory");
  return a0;
#else
#error "raw_syscall: write down this architecture's calling convention"
#endif
}

}  // namespace ostler::runtime
