#include "bench.hpp"

#include <time.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "run.hpp"

namespace ostler::sim {
namespace {

constexpr int kRounds = 5;

// Of this thread: others that run on the same machine do not count.
double processor_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

double replay_once(std::uint64_t seed,
                   const std::vector<std::pair<core::Time, core::Event>>& recorded,
                   std::size_t& answers) {
  core::Core core(seed);
  core::Actions actions;
  const double start = processor_seconds();
  for (const auto& [now, event] : recorded) {
    actions.clear();
    core.step(event, now, actions);
    answers += actions.size();
  }
  return static_cast<double>(recorded.size()) / (processor_seconds() - start);
}

}  // namespace

int bench(std::uint64_t seed, std::size_t events) {
  RunOptions options;
  options.events = std::min<std::size_t>(events, 1000000);
  options.judge = false;
  options.calm = true;
  const Result recording = Run(seed, options).go();
  std::vector<double> rates;
  std::size_t answers = 0;
  for (int round = 0; round < kRounds; ++round) {
    rates.push_back(replay_once(seed, recording.recorded, answers));
  }
  std::ranges::sort(rates);
  std::printf("%zu events, %zu actions: %.2f million events/s (%.2f to %.2f in %d rounds)\n",
              recording.recorded.size(), answers / kRounds, rates[kRounds / 2] / 1e6,
              rates.front() / 1e6, rates.back() / 1e6, kRounds);
  return recording.fault.empty() ? 0 : 1;
}

}  // namespace ostler::sim
