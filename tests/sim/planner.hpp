// The configuration file of a simulated run, and the hand that edits it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/plan.hpp"
#include "random.hpp"

namespace ostler::sim {

class Planner {
 public:
  Planner(std::uint64_t seed, int pools, int workers);

  // Changes something: a setting, a target, a listener, a pool more or less.
  void edit();
  // The file as it is, with launches of its own: every reading of a file makes new ones.
  core::Plan read();
  [[nodiscard]] std::vector<std::string> names() const;
  // Some pools follow their load.
  [[nodiscard]] bool scales() const { return scales_; }

 private:
  core::PoolPlan make_pool(const std::string& name);
  void vary(core::PoolPlan& pool);
  void vary_care(core::PoolPlan& pool);
  void set_workers(core::PoolPlan& pool);
  void set_scaling(core::PoolPlan& pool);
  void add_pool();
  void add_listener(core::PoolPlan& pool);
  [[nodiscard]] bool is_taken(const std::string& key) const;

  Random random_;
  int most_workers_;
  bool cares_;  // whether workers that run are looked after; in large pools it would take too long
  bool scales_;
  std::uint64_t launches_ = 0;
  std::vector<core::PoolPlan> pools_;
};

}  // namespace ostler::sim
