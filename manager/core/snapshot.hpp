// The core's state, events and actions as text, and back.
//
// A format of our own and for ourselves: space-separated tokens, a version first. It is what a
// keeper would hold for a manager, what the simulator checks at random steps, and what a trace
// consists of. Reading is total: a text that is not exactly what `write` made gives nullopt.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "core/core.hpp"

namespace ostler::core {

std::string write(const State& state);
std::optional<State> read_state(std::string_view text);

std::string write(const Event& event);
std::optional<Event> read_event(std::string_view text);

std::string write(const Action& action);
std::optional<Action> read_action(std::string_view text);

}  // namespace ostler::core
