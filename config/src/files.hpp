// The files a configuration is read from: their bytes, whether others may write them, and which
// ones a pattern stands for.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "config/src/host.hpp"

namespace ostler::config {

constexpr std::size_t kMaxFileBytes = 1024 * 1024;

// An absolute path without `.`, doubled slashes, and `..` but behind a link, where it is the
// kernel's business what it stands for; PATH may be relative to FOLDER. No link is resolved.
std::string absolute_path(const std::string& path, const std::string& folder);
// PATH with all links resolved; empty, and errno set, if it is not there.
std::string real_path(const std::string& path);
// PATH with the links in its folder resolved and its last component as it is; PATH itself if the
// folder is not there.
std::string in_real_folder(const std::string& path);

// Whether there are permissions beside the mode bits.
bool has_access_list(const std::string& path);

struct FileText {
  std::string text;
  std::string problem;  // why there is no text: a clause that follows the file's name
};
// Reads a regular file of at most kMaxFileBytes. TRUSTED: also refuses one that anybody but root
// may write or put another in the place of; what is checked is the file that is read.
FileText read_file(const std::string& path, bool trusted);

// The first folder on the way to PATH, links followed, that ACCOUNT may write: it could put
// something else in the place of what lies below. Empty: none.
std::string folder_writable_by(const Account& account, const std::string& path);

struct Matches {
  std::vector<std::string> files;  // in order
  std::string problem;
};
bool has_wildcard(std::string_view pattern);
// The files that PATTERN (`*`, `?`, `[…]` in any component, relative to FOLDER) stands for. None is
// no problem. Files whose names begin with a dot are not matched.
Matches match_files(const std::string& pattern, const std::string& folder);

}  // namespace ostler::config
