// Whether a user may enter, write or execute what is at a path, found out without becoming that
// user: the mode bits are read. Who may bypass them, and what access lists say, is not known in
// full, so an answer of "no" is only given where it is certain.
#pragma once

#include <sys/stat.h>

#include <string>
#include <utility>

#include "config/src/host.hpp"

namespace ostler::config {

// Somebody who opens files: the manager itself, which the kernel is asked about, or another.
class Who {
 public:
  static Who manager() { return Who{}; }
  explicit Who(Account account) : account_(std::move(account)), self_(false) {}

  // MODE of R_OK, W_OK and X_OK. True also if it is not known.
  [[nodiscard]] bool may(int mode, const std::string& path) const;
  // The folder on the way to PATH, links followed, that cannot be entered; empty: none.
  [[nodiscard]] std::string barred_by(const std::string& path) const;
  [[nodiscard]] std::string name() const;

 private:
  Who() = default;

  Account account_;
  bool self_ = true;
};

// Why WHO cannot make or replace a file at PATH: its folder is not there, or may not be entered or
// written. A clause that stands alone, with what would be right; empty if nothing is known.
std::string folder_problem(const std::string& path, const Who& who);
// Why the manager does not write to FD, which may be open with O_PATH; empty: it may. The file must
// be a regular file of the manager's user with one link, or /dev/null: a user who can replace the
// file could redirect what root writes to any other file. A clause that follows the file's name.
std::string own_file_problem(int fd);
// Why WHO cannot append to the file at PATH, which is made if it is not there. Links are not
// followed.
std::string log_file_problem(const std::string& path, const Who& who);
// Why WHO cannot bind a unix socket at PATH.
std::string socket_problem(const std::string& path, const Who& who);
// Why the manager's control socket cannot lie at PATH.
std::string control_socket_problem(const std::string& path);
// Why a control socket must not lie in a folder: others could put theirs in its place. A clause
// that follows the folder's name. The runtime directory is for its user alone.
std::string control_folder_problem(const struct stat& status, bool runtime_directory);

}  // namespace ostler::config
