// From a document's tree to a `Config`: what stands behind load() and load_ad_hoc(), with the
// machine to check against as an argument.
#pragma once

#include <string>
#include <string_view>

#include "config/src/host.hpp"
#include "config/src/load.hpp"
#include "config/src/tree.hpp"

namespace ostler::config {

constexpr std::size_t kMaxPools = 1000;
constexpr std::size_t kMaxIncludedFiles = 1000;
constexpr std::size_t kMaxIncludedBytes = 16 * 1024 * 1024;
// All pools together, with the defaults that are merged under them.
constexpr std::size_t kMaxTotalNodes = 1'000'000;

Loaded load_file(const Host& host, const std::string& file, const LoadOptions& options);
// TEXT as if it were read from FILE.
Loaded load_text(const Host& host, std::string_view text, const std::string& file,
                 const LoadOptions& options);
// ROOT as if it were read from SOURCE; `faults` holds those found before.
Loaded load_tree(const Host& host, const NodePtr& root, const SourcePtr& source, Faults faults,
                 const LoadOptions& options);
Loaded load_options(const Host& host, const std::vector<std::pair<std::string, std::string>>& keys,
                    const std::vector<std::string>& command, const LoadOptions& options);

}  // namespace ostler::config
