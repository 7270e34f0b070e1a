#include "config/src/host.hpp"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string_view>
#include <system_error>

#include "config/src/files.hpp"
#include "config/src/scalars.hpp"
#include "config/src/text.hpp"

namespace ostler::config {
namespace {

constexpr std::string_view kDefaultPath = "/usr/local/bin:/usr/bin:/bin";

std::string reason(int error) {
  return std::generic_category().message(error);
}

std::uint64_t effective_capabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> data{};
  if (syscall(SYS_capget, &header, data.data()) != 0) return 0;
  return data[0].effective | (std::uint64_t{data[1].effective} << 32U);
}

std::vector<gid_t> supplementary_groups() {
  std::vector<gid_t> groups(static_cast<std::size_t>(std::max(getgroups(0, nullptr), 0)));
  const int count = getgroups(static_cast<int>(groups.size()), groups.data());
  groups.resize(static_cast<std::size_t>(std::max(count, 0)));
  return groups;
}

int first_free_port() {
  int port = 1024;
  std::ifstream file("/proc/sys/net/ipv4/ip_unprivileged_port_start");
  int read = 0;
  if (file >> read) port = read;
  return port;
}

bool has(std::uint64_t capabilities, unsigned bit) {
  return (capabilities >> bit & 1U) != 0;
}

// A number that can be an id; the highest one means "none" to the kernel.
std::optional<std::uint32_t> number(const std::string& name) {
  const auto value = parse_whole(name);
  if (!value || *value >= std::numeric_limits<std::uint32_t>::max()) return std::nullopt;
  return static_cast<std::uint32_t>(*value);
}

// Why PATH cannot be executed; empty if it can.
std::string not_executable(const std::string& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) {
    if (errno == ENOENT) return quote(path) + " does not exist";
    return quote(path) + ": " + reason(errno);
  }
  if (S_ISDIR(status.st_mode)) return quote(path) + " is a folder, not an executable";
  if (!S_ISREG(status.st_mode)) return quote(path) + " is not a file that can be executed";
  if (faccessat(AT_FDCWD, path.c_str(), X_OK, AT_EACCESS) == 0) return {};
  if (errno == EACCES) return quote(path) + " is not executable (chmod +x)";
  return quote(path) + ": " + reason(errno);
}

}  // namespace

Host Host::current() {
  Host host;
  host.uid = geteuid();
  host.gid = getegid();
  host.groups = supplementary_groups();
  host.capabilities = effective_capabilities();
  host.first_free_port = config::first_free_port();
  const char* path = getenv("PATH");
  host.path = path == nullptr || *path == 0 ? kDefaultPath : path;
  host.folder = working_folder();
  return host;
}

const std::string& Host::path_with(const std::map<std::string, std::string>& env) const {
  const auto own = env.find("PATH");
  return own == env.end() ? path : own->second;
}

std::string working_folder() {
  const char* const pwd = getenv("PWD");
  struct stat named {};
  struct stat real {};
  const bool same = pwd != nullptr && *pwd == '/' && stat(pwd, &named) == 0 &&
                    stat(".", &real) == 0 && named.st_dev == real.st_dev &&
                    named.st_ino == real.st_ino;
  if (same) return absolute_path(pwd, "/");
  std::error_code error;
  const std::string folder = std::filesystem::current_path(error).string();
  return error ? "/" : folder;  // it is gone; only absolute paths make sense
}

bool Host::may_set_user() const {
  return has(capabilities, CAP_SETUID);
}
bool Host::may_set_group() const {
  return has(capabilities, CAP_SETGID);
}
bool Host::may_give_files_away() const {
  return has(capabilities, CAP_CHOWN);
}

bool Host::may_bind(std::uint16_t port) const {
  return port == 0 || port >= first_free_port || has(capabilities, CAP_NET_BIND_SERVICE);
}

bool Host::in_group(gid_t group) const {
  return group == gid || std::find(groups.begin(), groups.end(), group) != groups.end();
}

std::optional<UserId> find_user(const std::string& name) {
  if (const auto uid = number(name)) return UserId{*uid, getpwuid(*uid) != nullptr};
  const passwd* entry = getpwnam(name.c_str());
  if (entry == nullptr) return std::nullopt;
  return UserId{entry->pw_uid, true};
}

std::optional<UserEntry> find_user_entry(const std::string& user) {
  const auto id = find_user(user);
  if (!id) return std::nullopt;
  // One number may have several names, each with groups of its own.
  const passwd* entry = getpwnam(user.c_str());
  if (entry == nullptr || entry->pw_uid != id->uid) entry = getpwuid(id->uid);
  if (entry == nullptr) return std::nullopt;
  const std::string shell = entry->pw_shell;
  return UserEntry{entry->pw_uid, entry->pw_gid, entry->pw_name, entry->pw_dir,
                   shell.empty() ? "/bin/sh" : shell};
}

std::optional<gid_t> find_group(const std::string& name) {
  if (const auto gid = number(name)) return *gid;
  const group* entry = getgrnam(name.c_str());
  if (entry == nullptr) return std::nullopt;
  return entry->gr_gid;
}

Account account_of(const std::string& user, const std::optional<std::string>& group) {
  Account account;
  account.uid = find_user(user).value_or(UserId{}).uid;
  if (const passwd* entry = getpwuid(account.uid); entry != nullptr) {
    const std::string name = entry->pw_name;
    const gid_t own = entry->pw_gid;
    int count = 0;
    getgrouplist(name.c_str(), own, nullptr, &count);
    account.groups.resize(static_cast<std::size_t>(count));
    getgrouplist(name.c_str(), own, account.groups.data(), &count);
  }
  if (const auto gid = group ? find_group(*group) : std::nullopt) account.groups.push_back(*gid);
  return account;
}

std::string user_text(uid_t uid) {
  passwd found{};
  passwd* entry = nullptr;
  std::array<char, 16384> texts{};
  getpwuid_r(uid, &found, texts.data(), texts.size(), &entry);
  return entry == nullptr ? std::to_string(uid) : entry->pw_name;
}

Found find_executable(const std::string& command, const std::string& path,
                      const std::string& folder) {
  if (command.find('/') != std::string::npos) {
    // Only made absolute: what `..` stands for behind a symbolic link is the kernel's business.
    const std::string full = command.starts_with('/') ? command : folder + "/" + command;
    const std::string problem = not_executable(full);
    return problem.empty() ? Found{full, {}} : Found{{}, problem};
  }
  std::string near_miss;
  std::string_view rest = path;
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find(':'), rest.size());
    const std::string_view part = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (!part.starts_with('/')) continue;
    const std::string full = absolute_path(command, std::string(part));
    struct stat status {};
    if (stat(full.c_str(), &status) != 0) continue;
    const std::string problem = not_executable(full);
    if (problem.empty()) return {full, {}};
    if (near_miss.empty()) near_miss = problem;
  }
  if (!near_miss.empty()) return {{}, near_miss};
  return {{}, quote(command) + " is in no folder of PATH (" + shown(path) + ")"};
}

}  // namespace ostler::config
