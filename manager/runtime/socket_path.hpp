// The path that a unix socket is bound to: bound, guarded and taken away by the one who made it.
//
// Nothing is done by name to what lies at the path: the file is held open (O_PATH), so that its
// owner and mode are changed whatever the name leads to by now, and its inode number is not used
// again for a file that could be mistaken for it.
#pragma once

#include <sys/types.h>

#include <string>

#include "runtime/unique_fd.hpp"

namespace ostler::runtime {

class SocketPath {
 public:
  SocketPath() = default;
  SocketPath(SocketPath&&) noexcept = default;
  SocketPath& operator=(SocketPath&& other) noexcept;
  SocketPath(const SocketPath&) = delete;
  SocketPath& operator=(const SocketPath&) = delete;
  // Unlinks the path if it still is the file that `bind` made.
  ~SocketPath();

  // Once: binds `socket` to `path`. The file of a socket that nobody has open any more is
  // replaced; anything else that is there is EADDRINUSE. Returns 0 or errno; then nothing is left
  // behind.
  [[nodiscard]] int bind(int socket, const std::string& path);
  // At no moment is the file open to anyone who is not to have it before or after. Returns 0 or
  // errno.
  [[nodiscard]] int set_owner_and_mode(uid_t uid, gid_t gid, mode_t mode) const;

  explicit operator bool() const { return static_cast<bool>(file_); }
  // Whether the path still leads to the file that `bind` made.
  [[nodiscard]] bool is_there() const;
  // If it does.
  void unlink();
  // As the file was made.
  [[nodiscard]] uid_t made_by() const { return uid_; }
  [[nodiscard]] gid_t made_by_group() const { return gid_; }

 private:
  [[nodiscard]] int hold();

  std::string path_;
  UniqueFd file_;
  uid_t uid_ = 0;
  gid_t gid_ = 0;
};

}  // namespace ostler::runtime
