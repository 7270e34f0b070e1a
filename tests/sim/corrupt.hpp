// Mistakes made on purpose between the core and the world: what a faulty core would answer.
//
// Each is one word of a vocabulary that the oracle must understand: if a run with a mistake is not
// found faulty, the oracle is blind there. Mistakes in the core's own source are mutants.py's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/core.hpp"
#include "random.hpp"

namespace ostler::sim {

struct Mistake {
  const char* name;
  const char* what;
};
const std::vector<Mistake>& mistakes();

class Corruptor {
 public:
  Corruptor(std::string mistake, std::uint64_t seed)
      : mistake_(std::move(mistake)), random_(seed) {}

  [[nodiscard]] bool active() const { return !mistake_.empty(); }
  void corrupt(core::Actions& actions, std::optional<core::Time>& promised, core::Time now);

 private:
  [[nodiscard]] bool is(const char* name) const { return mistake_ == name; }
  template <class T, class F>
  void drop(core::Actions& actions, F&& which);
  template <class T, class F>
  void change(core::Actions& actions, F&& how);
  void spoil_workers(core::Actions& actions);
  void spoil_care(core::Actions& actions);
  void spoil_scaling(core::Actions& actions);
  void spoil_answers(core::Actions& actions);
  void spoil_sockets(core::Actions& actions);
  void spoil_order(core::Actions& actions);

  std::string mistake_;
  Random random_;
  std::vector<core::Spawn> spawned_;
  std::string key_;
};

}  // namespace ostler::sim
