// How much of its workers' capacity a pool uses, measured while somebody asks for it.
//
// Workers say how many requests they serve at the moment and how many they can (scoreboard.hpp):
// that is sampled, for the average. One that serves any number at a time (class async), and a
// program that tells nothing, is as busy as the CPU time says that it and its children use: of one
// CPU. Nothing runs between the answer that nobody follows up and the next question.
#pragma once

#include <sys/types.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "core/ids.hpp"
#include "runtime/scoreboard.hpp"

namespace ostler::runtime {

class LoadMeter {
 public:
  // A worker that is ready.
  struct Source {
    core::WorkerId worker;
    pid_t pid = 0;
    const Scoreboard* board = nullptr;  // if it tells
  };
  using Sources = std::function<std::vector<Source>(core::PoolId)>;
  // In thousandths of a worker; capacity 0: there is none.
  struct Load {
    std::int64_t used = 0;
    std::int64_t capacity = 0;
  };

  LoadMeter(boost::asio::io_context& context, Sources sources);

  // On average since the last call; the first one tells of the moment alone.
  Load measure(core::PoolId pool);

 private:
  struct Cpu {
    double used = 0;  // seconds, in all
    core::Time at{};
  };
  struct Meter {
    core::Time asked{};
    double used = 0;  // on average over the samples
    double capacity = 0;
    double samples = 0;
    std::map<core::WorkerId, Cpu> cpu;
  };
  void sample(core::PoolId pool, Meter& meter);
  static double cpu_share(const Source& source, std::map<core::WorkerId, Cpu>& seen,
                          const std::map<core::WorkerId, Cpu>& before);
  void arm();

  boost::asio::steady_timer timer_;
  Sources sources_;
  bool armed_ = false;
  std::map<core::PoolId, Meter> meters_;
};

}  // namespace ostler::runtime
