// What the manager is and may do on this machine, and what it finds there: read once, so that a
// check can be made for another manager than the one that runs (and tested).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace ostler::config {

struct Host {
  uid_t uid = 0;  // effective
  gid_t gid = 0;
  std::vector<gid_t> groups;       // supplementary
  std::uint64_t capabilities = 0;  // effective, one bit each
  int first_free_port = 1024;      // below it CAP_NET_BIND_SERVICE is needed
  std::string path;                // PATH
  std::string folder;              // working directory, as working_folder() has it

  static Host current();

  [[nodiscard]] bool may_set_user() const;
  [[nodiscard]] bool may_set_group() const;
  [[nodiscard]] bool may_give_files_away() const;  // chown to anybody
  [[nodiscard]] bool may_bind(std::uint16_t port) const;
  [[nodiscard]] bool in_group(gid_t group) const;
  // The PATH of a program that is started with ENV added to the manager's environment.
  [[nodiscard]] const std::string& path_with(const std::map<std::string, std::string>& env) const;
};

// The working directory by the name that the user knows it by: $PWD if that is the same folder, so
// that a link in it leads to where it points later; else without links.
std::string working_folder();

// A user by name or number. `known` is whether the user database has an entry.
struct UserId {
  uid_t uid = 0;
  bool known = false;
};
std::optional<UserId> find_user(const std::string& name);
std::optional<gid_t> find_group(const std::string& name);
// What the user database has of USER, a name or a number; none if it has no entry.
struct UserEntry {
  uid_t uid = 0;
  gid_t gid = 0;
  std::string name, home, shell;
};
std::optional<UserEntry> find_user_entry(const std::string& user);
// Whom a worker runs as: USER, who is known to exist, in all groups that the user database knows of
// and in GROUP.
struct Account {
  uid_t uid = 0;
  std::vector<gid_t> groups;
};
Account account_of(const std::string& user, const std::optional<std::string>& group);
// The name, or the number if there is none. May be called by any thread.
std::string user_text(uid_t uid);

// Finds an executable: PATH's folders are searched if COMMAND has no slash (relative ones are
// skipped), else it is taken relative to FOLDER.
struct Found {
  std::string path;     // absolute, as it was found: links are not resolved
  std::string problem;  // why there is none
};
Found find_executable(const std::string& command, const std::string& path,
                      const std::string& folder);

}  // namespace ostler::config
