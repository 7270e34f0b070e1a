// One simulated life of a manager, from its first plan to its end, all of it decided by a seed.
//
// First anything goes (safety): whatever the world and the operators do, no rule may be broken.
// Then the world heals and nobody asks for anything (liveness): all that was wished must come true,
// and a stop must end it in time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/core.hpp"
#include "corrupt.hpp"
#include "oracle.hpp"
#include "planner.hpp"
#include "random.hpp"
#include "world.hpp"

namespace ostler::sim {

struct RunOptions {
  std::size_t events = 2000;            // of the first phase
  std::string mistake;                  // made on purpose; see corrupt.hpp
  std::optional<std::size_t> log_from;  // events before this one are not logged; none: no log
  bool judge = true;                    // false: the core alone, to record events
  bool calm = false;                    // a healthy world with much to do
};

struct Result {
  std::string fault;  // empty: no rule was broken
  std::size_t events = 0;
  std::vector<std::string> log;
  std::vector<std::pair<core::Time, core::Event>> recorded;  // without a judge
};

class Run {
 public:
  Run(std::uint64_t seed, RunOptions options);
  Result go();

 private:
  void choose_faults();
  double sometimes();
  void first_plan();
  void safety();
  void liveness();
  void converge(const char* what);
  void final_reload();
  void follow_load();
  void pass(core::Duration duration);
  void stop();
  bool advance(bool with_requests);
  void be_late();
  core::Event request();
  core::Event reload_request();
  void add_burst(std::vector<core::Event>& events);
  core::WorkerId some_worker();
  core::OperationId next_op() { return core::OperationId{++ops_}; }
  void step(const std::vector<core::Event>& events);
  void hear(const core::Event& event, core::Actions& actions);
  void perform(core::Actions& actions);
  void write_and_read();
  void check_trace();
  void log(const std::string& line);
  [[nodiscard]] bool over() const { return !fault_.empty() || oracle_.exited(); }

  RunOptions options_;
  std::uint64_t seed_;
  Random random_;
  World world_;
  Planner planner_;
  Corruptor corruptor_;
  Oracle oracle_;
  core::Core core_;
  std::optional<core::Core> twin_;  // read back from text; must do the same
  int twin_steps_ = 0;
  std::string trace_;
  bool tracing_ = false;
  bool batches_ = false;
  double late_ = 0;
  core::Duration request_gap_{};
  core::Time now_{};
  core::Time next_request_{};
  std::optional<core::Time> promised_;
  std::uint64_t ops_ = 0;
  std::optional<core::Reply> last_reply_;
  std::string fault_;
  std::size_t events_ = 0;
  Names names_;
  std::vector<std::string> log_;
  std::vector<std::pair<core::Time, core::Event>> recorded_;
};

}  // namespace ostler::sim
