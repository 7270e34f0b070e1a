// YAML text to a tree. A strict subset of YAML, because a manager that runs as root reads it:
//
// - one document; UTF-8 (a byte order mark is skipped) without control characters
// - nesting and the number of nodes are bounded; an alias counts as all that it stands for, which
//   is what makes alias bombs harmless
// - keys are plain text and never given twice; anchors and aliases work, merge keys (`<<`) and tags
//   are refused: `defaults:` is there for what merge keys do, and quotes make a value a string
// - scalars stay text: what `0660`, `off` or `1_000` mean is up to the key they are the value of
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "config/src/tree.hpp"

namespace ostler::config {

constexpr std::size_t kMaxNesting = 32;
constexpr std::size_t kMaxNodes = 250'000;

// The document's root, or null if it could not be read at all; either way the faults say what is
// wrong with it. An entry with a faulty key is left out of the tree. PATH is put before the key
// paths in faults.
NodePtr read_yaml(std::string_view text, const SourcePtr& source, Faults& faults,
                  const std::string& path = {});

}  // namespace ostler::config
