// Events and actions as people read them, for transcripts and failure reports.
//
// Workers are named by pool, slot and the how-manieth worker of that slot: "web.0/2".
#pragma once

#include <map>
#include <string>
#include <utility>

#include "core/action.hpp"
#include "core/event.hpp"

namespace ostler::sim {

class Names {
 public:
  void learn(const core::Spawn& spawn);
  [[nodiscard]] std::string of(core::WorkerId worker) const;

 private:
  std::map<core::WorkerId, std::string> names_;
  std::map<std::pair<std::string, int>, int> counts_;
};

std::string text(core::Duration duration);  // "1.500s"
std::string text(core::Time time);
std::string text(const core::Event& event, const Names& names);
std::string text(const core::Action& action, const Names& names);

}  // namespace ostler::sim
