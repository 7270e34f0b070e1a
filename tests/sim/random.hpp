// The simulator's only source of chance: one seed, the same run, on every machine.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/ids.hpp"

namespace ostler::sim {

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {  // splitmix64
    std::uint64_t z = (state_ += 0x9E3779B97F4A7C15U);
    z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27U)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31U);
  }
  // 0 to bound-1; the tiny bias does not matter here.
  std::uint64_t below(std::uint64_t bound) { return next() % bound; }
  int between(int low, int high) {
    return low + static_cast<int>(below(static_cast<std::uint64_t>(high - low + 1)));
  }
  bool chance(double probability) {
    return static_cast<double>(next() >> 11U) < probability * 9007199254740992.0;
  }
  core::Duration between(core::Duration low, core::Duration high) {
    return low + core::Duration(static_cast<core::Duration::rep>(
                     below(static_cast<std::uint64_t>((high - low).count()) + 1)));
  }
  // Small ones as likely as large ones: each doubling has the same share.
  core::Duration spread(core::Duration low, core::Duration high) {
    core::Duration top = low;
    while (top < high && chance(0.75)) top *= 2;
    return between(low, top < high ? top : high);
  }
  template <class T>
  const T& pick(const std::vector<T>& from) {
    return from[static_cast<std::size_t>(below(from.size()))];
  }

 private:
  std::uint64_t state_;
};

}  // namespace ostler::sim
