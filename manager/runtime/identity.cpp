#include "runtime/identity.hpp"

#include <grp.h>

#include <cstddef>
#include <stdexcept>

#include "config/src/host.hpp"
#include "config/src/text.hpp"

namespace ostler::runtime {
namespace {

constexpr std::size_t kMaxGroups = 65536;  // as the kernel has it

// Its name is empty if the user database has no entry.
config::UserEntry find(const std::string& user) {
  const auto id = config::find_user(user);
  if (!id) throw std::runtime_error("there is no user " + config::quote(user));
  return config::find_user_entry(user).value_or(config::UserEntry{id->uid, 0, {}, {}, {}});
}

std::vector<gid_t> groups_of(const config::UserEntry& user, gid_t gid) {
  if (user.name.empty()) return {gid};
  std::vector<gid_t> groups(64);
  while (groups.size() <= kMaxGroups) {
    int count = static_cast<int>(groups.size());
    const int found = getgrouplist(user.name.c_str(), gid, groups.data(), &count);
    groups.resize(found < 0 ? groups.size() * 4 : static_cast<std::size_t>(count));
    if (found >= 0) return groups;
  }
  throw std::runtime_error("user " + config::quote(user.name) + " is in too many groups");
}

}  // namespace

std::optional<Identity> resolve_identity(const std::optional<std::string>& user,
                                         const std::optional<std::string>& group) {
  if (!user && !group) return std::nullopt;
  const config::Host host = config::Host::current();
  Identity identity{host.uid, host.gid, {}};
  config::UserEntry entry;
  if (user) {
    entry = find(*user);
    if (entry.name.empty() && !group) {
      throw std::runtime_error("user " + config::quote(*user) +
                               " is not in the user database, so its group must be given");
    }
    identity.uid = entry.uid;
    identity.gid = entry.gid;
  }
  if (group) {
    const auto gid = config::find_group(*group);
    if (!gid) throw std::runtime_error("there is no group " + config::quote(*group));
    identity.gid = *gid;
  }
  if (identity.uid != host.uid && !(host.may_set_user() && host.may_set_group())) {
    throw std::runtime_error("to switch to user " + config::quote(*user) +
                             " the manager must be root");
  }
  if (group && identity.gid != host.gid && !host.may_set_group()) {
    throw std::runtime_error("to switch to group " + config::quote(*group) +
                             " the manager must be root");
  }
  if (!host.may_set_group()) return std::nullopt;  // it is that user and that group already
  identity.groups = user ? groups_of(entry, identity.gid) : std::vector<gid_t>{identity.gid};
  return identity;
}

}  // namespace ostler::runtime
