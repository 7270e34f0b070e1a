// A recording of what the core was told and what it answered, one line each:
//   "E <now in ns> <event>", "A <action>", "R <now in ns>" (a reconcile), after "ostler-trace 4
//   <seed>".
// Replaying the events through a fresh core must give the same actions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/core.hpp"

namespace ostler::core {

std::string trace_header(std::uint64_t seed);
std::string trace_event(Time now, const Event& event);
std::string trace_reconcile(Time now);
std::string trace_action(const Action& action);

// Replays a trace. Empty if every action came out as recorded; else the first difference, with
// its line number. A last, cut off line is ignored.
std::string replay(std::string_view trace);

}  // namespace ostler::core
