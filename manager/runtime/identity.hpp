// Who a worker is.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace ostler::runtime {

// Resolved before anything is started; a user's supplementary groups included.
struct Identity {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;
};

// From `user:` and `group:` as configured (names or numbers); nullopt if nothing is to change.
// A user brings its own primary group, unless one is given, and its supplementary groups. A group
// alone leaves the user as it is and is then the only group. Throws std::runtime_error naming what
// does not exist, a number whose group cannot be known, or a switch that takes privileges the
// manager lacks. Without them the manager's own user and group are no switch.
std::optional<Identity> resolve_identity(const std::optional<std::string>& user,
                                         const std::optional<std::string>& group);

}  // namespace ostler::runtime
