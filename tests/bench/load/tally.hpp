// What became of each request, and the report of it. One tally a thread; they are added up at the
// end. Every request that was taken up is in it once, answered or lost.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "options.hpp"
#include "plan.hpp"

namespace ostler::bench {

enum class Loss : std::size_t {
  kRefused,
  kReset,
  kClosed,     // without an answer, or within one
  kStatus,     // other than 200
  kTimeout,    // since its planned time
  kMalformed,  // no HTTP
  kWrong,      // the answer to another request
  kLocal,      // this machine has no more descriptors or ports
};
constexpr std::array<const char*, 8> kLossNames{"refused", "reset",     "closed", "status",
                                                "timeout", "malformed", "wrong",  "local"};

class Tally {
 public:
  Tally(const Options& options, Clock::time_point start) : options_(&options), start_(start) {}

  // How late the generator itself was: what it could not do in time, it must not blame on others.
  void taken_up(const Request& request, Clock::time_point now);
  void answered(const Request& request, Clock::time_point now);
  void lost(const Request& request, Loss loss, const std::string& why, Clock::time_point now);
  void closed_while_held() { ++closed_while_held_; }

  void add(const Tally& other);
  void print();

 private:
  struct Answer {
    double at;       // since the start, as all times here, in seconds
    double latency;  // since its planned time
    std::size_t target;
  };
  struct Lost {
    std::uint64_t id;
    std::size_t target;
    Loss loss;
    double planned, at;
    std::string why;
  };

  [[nodiscard]] double since_start(Clock::time_point time) const;
  void print_targets() const;
  void print_lost();
  void print_gap();
  void print_clusters() const;

  const Options* options_;
  Clock::time_point start_;
  std::vector<double> late_;
  std::vector<Answer> answers_;
  std::vector<Lost> lost_;
  std::uint64_t closed_while_held_ = 0;
};

}  // namespace ostler::bench
