#include "config/src/files.hpp"

#include <fcntl.h>
#include <glob.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <system_error>

#include "config/src/descriptor.hpp"
#include "config/src/text.hpp"

namespace ostler::config {
namespace {

std::string reason(int error) {
  return std::generic_category().message(error);
}

std::string user_name(uid_t uid) {
  const passwd* entry = getpwuid(uid);
  return entry == nullptr ? "user " + std::to_string(uid) : quote(entry->pw_name);
}

bool others_may_write(const struct stat& status, const std::string& path) {
  if ((status.st_mode & S_IWOTH) != 0) return true;
  return (status.st_mode & S_IWGRP) != 0 && (status.st_gid != 0 || has_access_list(path));
}

// What to do so that only root may write PATH; empty if that is so.
std::string remedy(const struct stat& status, const std::string& path) {
  const std::string name = quote(path);
  const bool open = others_may_write(status, path);
  if (status.st_uid == 0) return open ? "chmod go-w " + name : "";
  return "chown root " + name + (open ? " && chmod go-w " + name : "");
}

// Whoever may write a folder can put another file in the place of the one that was checked. A
// sticky bit keeps all but the folder's owner from that.
std::string distrust_folders(const std::string& path) {
  std::string folder = path;
  while (folder.size() > 1) {
    folder.resize(std::max<std::size_t>(folder.rfind('/'), 1));
    struct stat status {};
    if (stat(folder.c_str(), &status) != 0) {
      return "cannot be trusted: looking at the folder " + quote(folder) + ": " + reason(errno);
    }
    if ((status.st_mode & S_ISVTX) != 0) status.st_mode &= ~static_cast<mode_t>(S_IWGRP | S_IWOTH);
    const std::string fix = remedy(status, folder);
    if (fix.empty()) continue;
    const std::string who = status.st_uid != 0 ? user_name(status.st_uid) : "others";
    return "may be replaced by " + who + ", who may write the folder " + quote(folder) +
           ", and the manager runs as root; move it to a folder that only root may write, such as "
           "/etc/ostler, or: " +
           fix;
  }
  return {};
}

// Why root should not do as the open file says; empty if only root can have written it.
std::string distrust(int fd, const struct stat& status, const std::string& path) {
  const std::string fix = remedy(status, "/proc/self/fd/" + std::to_string(fd));
  if (status.st_uid != 0 || !fix.empty()) {
    const std::string who = status.st_uid != 0 ? user_name(status.st_uid) : "others";
    return "may be written by " + who + ", and the manager runs as root: " + remedy(status, path);
  }
  const std::string real = real_path(path);
  struct stat seen {};
  if (real.empty() || stat(real.c_str(), &seen) != 0) return "cannot be found: " + reason(errno);
  if (seen.st_dev != status.st_dev || seen.st_ino != status.st_ino) {
    return "was replaced while it was read";
  }
  std::string problem = distrust_folders(path);
  return problem.empty() ? distrust_folders(real) : problem;
}

FileText no_text(std::string problem) {
  return {{}, std::move(problem)};
}

FileText read_all(int fd) {
  FileText out;
  std::array<char, 65536> chunk{};
  while (out.text.size() <= kMaxFileBytes) {
    const ssize_t count = read(fd, chunk.data(), chunk.size());
    if (count == 0) return out;
    if (count > 0) {
      out.text.append(chunk.data(), static_cast<std::size_t>(count));
    } else if (errno != EINTR) {
      return no_text("cannot be read: " + reason(errno));
    }
  }
  return no_text("is larger than 1 MiB");
}

// In a pattern, a folder's own name stands for itself.
std::string escaped(const std::string& folder) {
  std::string out;
  for (const char c : folder) {
    if (std::string_view("*?[]\\").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

}  // namespace

// It shows as the group's permissions, whatever the group is.
bool has_access_list(const std::string& path) {
  return getxattr(path.c_str(), "system.posix_acl_access", nullptr, 0) >= 0;
}

std::string absolute_path(const std::string& path, const std::string& folder) {
  std::filesystem::path out = "/";
  for (const std::filesystem::path& part : std::filesystem::path(folder) / path) {
    if (part.empty() || part == "." || part == "/") continue;
    std::error_code ignored;
    const bool kept = out.filename() == ".." || std::filesystem::is_symlink(out, ignored);
    out = part == ".." && !kept ? out.parent_path() : out / part;
  }
  return out.string();
}

std::string real_path(const std::string& path) {
  const std::unique_ptr<char, decltype(&std::free)> real(realpath(path.c_str(), nullptr),
                                                         &std::free);
  return real == nullptr ? std::string() : std::string(real.get());
}

std::string in_real_folder(const std::string& path) {
  const std::filesystem::path whole(path);
  const std::string folder = real_path(whole.parent_path().string());
  return folder.empty() ? path : (std::filesystem::path(folder) / whole.filename()).string();
}

namespace {

bool may_write(const Account& account, const struct stat& status, const std::string& path) {
  if (status.st_uid == account.uid) return true;
  if ((status.st_mode & S_IWOTH) != 0 && (status.st_mode & S_ISVTX) == 0) return true;
  if ((status.st_mode & S_IWGRP) == 0) return false;
  return has_access_list(path) || std::ranges::count(account.groups, status.st_gid) > 0;
}

}  // namespace

std::string folder_writable_by(const Account& account, const std::string& path) {
  std::filesystem::path folder = std::filesystem::path(path).parent_path();
  for (const std::filesystem::path& way : {folder, std::filesystem::path(real_path(folder))}) {
    std::filesystem::path part;
    for (const std::filesystem::path& name : way) {
      part /= name;
      struct stat status {};
      if (stat(part.c_str(), &status) != 0) break;  // that it is not there, is for others to say
      if (may_write(account, status, part)) return part;
    }
  }
  return {};
}

FileText read_file(const std::string& path, bool trusted) {
  // Not blocking: opening a FIFO would wait for somebody to write to it.
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (file.get() < 0) return no_text("cannot be read: " + reason(errno));
  struct stat status {};
  if (fstat(file.get(), &status) != 0) return no_text("cannot be read: " + reason(errno));
  if (S_ISDIR(status.st_mode)) return no_text("is a folder, not a file");
  if (!S_ISREG(status.st_mode)) return no_text("is not a regular file");
  if (trusted) {
    std::string problem = distrust(file.get(), status, path);
    if (!problem.empty()) return no_text(std::move(problem));
  }
  return read_all(file.get());
}

bool has_wildcard(std::string_view pattern) {
  return pattern.find_first_of("*?[") != std::string_view::npos;
}

Matches match_files(const std::string& pattern, const std::string& folder) {
  const std::string full = pattern.starts_with('/') ? pattern : escaped(folder) + "/" + pattern;
  glob_t found{};
  // A folder that is not there matches nothing; one that cannot be read might have.
  const auto is_problem = [](const char*, int error) {
    return error == ENOENT || error == ENOTDIR ? 0 : 1;
  };
  const int outcome = glob(full.c_str(), 0, is_problem, &found);
  const int error = errno;
  Matches out;
  if (outcome == 0) {
    for (std::size_t i = 0; i < found.gl_pathc; ++i) out.files.emplace_back(found.gl_pathv[i]);
  } else if (outcome != GLOB_NOMATCH) {
    out.problem =
        outcome == GLOB_NOSPACE ? "matches too much" : "cannot be looked up: " + reason(error);
  }
  globfree(&found);
  return out;
}

}  // namespace ostler::config
