// Which requests one thread sends, and when: decided by the options alone, and the same in every
// run with the same seed. It knows nothing of what becomes of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>

#include "options.hpp"

namespace ostler::bench {

struct Request {
  std::uint64_t id = 0;  // its own among those of all threads
  std::size_t target = 0;
  Clock::time_point planned;
};

class Plan {
 public:
  // The threads' arrivals together are those of the whole rate: constant ones take turns, and
  // independent Poisson processes add up to one.
  Plan(const Options& options, unsigned thread, Clock::time_point start);

  [[nodiscard]] bool over() const { return over_; }
  [[nodiscard]] const Request& next() const { return next_; }
  Request take();
  void end() { over_ = true; }

 private:
  using Seconds = std::chrono::duration<double>;
  void advance();

  const Options& options_;
  std::mt19937_64 random_;
  std::exponential_distribution<double> exponential_;
  std::discrete_distribution<std::size_t> choose_;
  Clock::time_point start_;
  Seconds at_{0};  // since the start
  Request next_;
  bool over_ = false;
};

}  // namespace ostler::bench
