// Changes to a tree. Nodes are immutable: each function makes new maps along the way and shares
// the rest.
#pragma once

#include <span>
#include <string>

#include "config/src/tree.hpp"

namespace ostler::config {

// The map OVER with all that only UNDER has added, marked as from the defaults; maps in both are
// merged, anything else in OVER hides what UNDER has.
NodePtr merged(const NodePtr& over, const Node& under);

// MAP with VALUE at PATH. What is in the way and no map is replaced, a list is not: then the
// result is null. PLACE is that of the keys and maps that have to be made.
NodePtr with_value(const NodePtr& map, std::span<const std::string> path, const NodePtr& value,
                   const Place& place);

NodePtr empty_map(Place place);

}  // namespace ostler::config
