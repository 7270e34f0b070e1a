#include "plan.hpp"

#include <vector>

namespace ostler::bench {
namespace {

std::mt19937_64 seeded(std::uint64_t seed, unsigned thread) {
  std::seed_seq words{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32U),
                      thread};
  return std::mt19937_64(words);
}

std::vector<double> weights(const Options& options) {
  std::vector<double> result;
  for (const Target& target : options.targets) result.push_back(target.weight);
  return result;
}

}  // namespace

Plan::Plan(const Options& options, unsigned thread, Clock::time_point start)
    : options_(options),
      random_(seeded(options.seed, thread)),
      exponential_(options.rate / options.threads),
      start_(start) {
  const std::vector<double> shares = weights(options);
  choose_ = std::discrete_distribution<std::size_t>(shares.begin(), shares.end());
  next_.id = thread;
  advance();
}

Request Plan::take() {
  const Request taken = next_;
  next_.id += options_.threads;
  advance();
  return taken;
}

void Plan::advance() {
  if (options_.poisson) {
    at_ += Seconds(exponential_(random_));
  } else {
    at_ = Seconds(static_cast<double>(next_.id) / options_.rate);  // a sum would add up errors
  }
  over_ = over_ || (options_.connections == Connections::kHeld ? next_.id >= options_.count
                                                               : at_.count() >= options_.seconds);
  next_.planned = start_ + std::chrono::duration_cast<Clock::duration>(at_);
  next_.target = choose_(random_);
}

}  // namespace ostler::bench
