#include "config/src/access.hpp"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include "config/src/descriptor.hpp"
#include "config/src/files.hpp"
#include "config/src/text.hpp"

namespace ostler::config {
namespace {

// Of a file with no execute bit at all even root may execute nothing.
bool root_may(int mode, const struct stat& status) {
  return (mode & X_OK) == 0 || !S_ISREG(status.st_mode) || (status.st_mode & 0111) != 0;
}

bool bits_allow(int mode, const struct stat& status, const Account& account) {
  unsigned shift = 0;
  if (status.st_uid == account.uid) {
    shift = 6;
  } else if (std::ranges::count(account.groups, status.st_gid) > 0) {
    shift = 3;
  }
  const auto wanted = static_cast<unsigned>(mode);
  return (status.st_mode >> shift & wanted) == wanted;
}

std::string parent_of(const std::string& path) {
  return std::filesystem::path(path).parent_path().string();
}

std::string reason(int error) {
  return std::generic_category().message(error);
}

// Why WHO cannot come to what is in FOLDER.
std::string way_problem(const std::string& folder, const Who& who) {
  struct stat status {};
  const bool there = stat(folder.c_str(), &status) == 0;
  if (!there && (errno == ENOENT || errno == ENOTDIR)) {
    return "the folder " + quote(folder) + " does not exist (mkdir -p " + quote(folder) + ")";
  }
  if (!there && errno != EACCES) return "the folder " + quote(folder) + ": " + reason(errno);
  if (there && !S_ISDIR(status.st_mode)) return quote(folder) + " is not a folder";
  const std::string barred = who.barred_by(folder + "/x");
  return barred.empty() ? "" : who.name() + " may not enter the folder " + quote(barred);
}

// What is no regular file; empty: it is one.
std::string kind_of(mode_t mode) {
  if (S_ISLNK(mode)) return "a symbolic link, and none is followed; name the file itself";
  if (S_ISDIR(mode)) return "a folder, not a file";
  if (S_ISFIFO(mode)) return "a named pipe, not a file";
  if (S_ISSOCK(mode)) return "a socket, not a file";
  return S_ISREG(mode) ? "" : "a device, not a file";
}

// Files by which the kernel is asked or told something are regular ones by their mode.
bool is_of_the_kernel(int fd) {
  constexpr std::array<unsigned long, 9> kTypes = {
      PROC_SUPER_MAGIC, SYSFS_MAGIC,   CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, DEBUGFS_MAGIC,
      SECURITYFS_MAGIC, TRACEFS_MAGIC, SELINUX_MAGIC,      EFIVARFS_MAGIC};
  struct statfs status {};
  return fstatfs(fd, &status) == 0 &&
         std::ranges::count(kTypes, static_cast<unsigned long>(status.f_type)) > 0;
}

}  // namespace

bool Who::may(int mode, const std::string& path) const {
  if (self_) {
    if (faccessat(AT_FDCWD, path.c_str(), mode, AT_EACCESS) == 0) return true;
    return errno != EACCES && errno != EROFS && errno != EPERM;
  }
  struct stat status {};
  if (stat(path.c_str(), &status) != 0 || has_access_list(path)) return true;
  return account_.uid == 0 ? root_may(mode, status) : bits_allow(mode, status, account_);
}

std::string Who::barred_by(const std::string& path) const {
  const std::string folder = parent_of(path);
  for (const std::string& way : {folder, real_path(folder)}) {
    std::filesystem::path part;
    for (const std::filesystem::path& name : std::filesystem::path(way)) {
      part /= name;
      struct stat status {};
      if (stat(part.c_str(), &status) != 0 || !S_ISDIR(status.st_mode)) break;
      if (!may(X_OK, part)) return part;
    }
  }
  return {};
}

std::string Who::name() const {
  return self_ ? "the manager, which runs as " + quote(user_text(geteuid())) + ","
               : quote(user_text(account_.uid));
}

std::string folder_problem(const std::string& path, const Who& who) {
  const std::string folder = parent_of(path);
  std::string problem = way_problem(folder, who);
  if (!problem.empty() || who.may(W_OK, folder)) return problem;
  return who.name() + " may not write the folder " + quote(folder);
}

std::string own_file_problem(int fd) {
  constexpr unsigned kNullMajor = 1;
  constexpr unsigned kNullMinor = 3;
  struct stat status {};
  if (fstat(fd, &status) != 0) return "cannot be looked at: " + reason(errno);
  if (S_ISCHR(status.st_mode) && status.st_rdev == makedev(kNullMajor, kNullMinor)) return {};
  const std::string kind = kind_of(status.st_mode);
  if (!kind.empty()) return "is " + kind;
  if (is_of_the_kernel(fd)) return "belongs to the kernel (proc, sysfs or the like), and is no log";
  const uid_t self = geteuid();
  if (status.st_uid != self) {
    const std::string name = quote(user_text(self));
    return "belongs to " + quote(user_text(status.st_uid)) + ", not to " + name +
           ", as whom ostlerd runs; chown it to " + name + ", or remove it";
  }
  if (status.st_nlink == 0) return "was removed while it was opened";
  if (status.st_nlink == 1) return {};
  return "has " + std::to_string(status.st_nlink) +
         " names (hard links), and is not written to under one of them; remove this one";
}

std::string log_file_problem(const std::string& path, const Who& who) {
  if (path == "/dev/stdout" || path == "/dev/stderr") {
    return quote(path) + " is a symbolic link, and none is followed; for the manager's own, a " +
           "pool says 'inherit' and the log 'stderr'";
  }
  // O_PATH has no effect on a device or a pipe, as opening it would have.
  const Descriptor file(open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (file.get() < 0) {
    if (errno == ENOENT) return folder_problem(path, who);
    const int error = errno;
    std::string problem = way_problem(parent_of(path), who);
    return problem.empty() ? quote(path) + ": " + reason(error) : problem;
  }
  const std::string problem = own_file_problem(file.get());
  if (!problem.empty()) return quote(path) + " " + problem;
  return who.may(W_OK, path) ? "" : who.name() + " may not write " + quote(path);
}

std::string socket_problem(const std::string& path, const Who& who) {
  struct stat status {};
  if (lstat(path.c_str(), &status) == 0 && !S_ISSOCK(status.st_mode)) {
    return "there is something else at " + quote(path) + ", no socket; remove it";
  }
  return folder_problem(path, who);
}

std::string control_socket_problem(const std::string& path) {
  std::string problem = socket_problem(path, Who::manager());
  if (!problem.empty()) return problem;
  struct stat beside {};
  const std::string notify = path + ".notify";
  // An earlier version had a socket there.
  if (lstat(notify.c_str(), &beside) == 0 && !S_ISDIR(beside.st_mode) &&
      !S_ISSOCK(beside.st_mode)) {
    return "there is something else at " + quote(notify) +
           ", where the folder of the notify sockets is to be; remove it";
  }
  const std::string lock = path + ".lock";
  if (lstat(lock.c_str(), &beside) == 0 && !S_ISREG(beside.st_mode)) {
    return "there is something else at " + quote(lock) + ", where the lock is to be; remove it";
  }
  const std::string folder = parent_of(path);
  struct stat status {};
  if (stat(folder.c_str(), &status) != 0)
    return "the folder " + quote(folder) + ": " + reason(errno);
  problem = control_folder_problem(status, false);
  return problem.empty() ? "" : "the folder " + quote(folder) + " " + problem;
}

std::string control_folder_problem(const struct stat& status, bool runtime_directory) {
  const uid_t self = geteuid();
  const bool own = status.st_uid == self;
  if (!own && (runtime_directory || status.st_uid != 0)) {
    return "belongs to user " + std::to_string(status.st_uid) + ", not to user " +
           std::to_string(self);
  }
  const bool strangers = (status.st_mode & S_IWOTH) != 0 && (status.st_mode & S_ISVTX) == 0;
  const bool anybody = (status.st_mode & (S_IWOTH | S_IWGRP)) != 0;
  if (runtime_directory ? anybody : strangers) return "is writable by other users";
  return {};
}

}  // namespace ostler::config
