// The unix socket that the control API is served on: one living manager each.
//
// Uniqueness comes from a lock on `PATH.lock` that the kernel drops with the process, however it
// ends; so a socket without a holder of the lock is stale and is replaced, and a living manager's
// never is.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "runtime/unique_fd.hpp"

namespace ostler::runtime {

struct ControlSocketOptions {
  std::string path;
  // The directory is the runtime directory: it is created if it is missing (0755 for root, 0700
  // otherwise) and must belong to this user alone. Otherwise it must exist, belong to this user or
  // root, and be writable by no stranger.
  bool default_directory = false;
  mode_t mode = 0600;
  std::optional<gid_t> group;
};

// Holds the listening socket and the lock. Its end removes both files, if they are still its own.
class ControlSocket {
 public:
  ControlSocket(ControlSocket&&) noexcept = default;
  ControlSocket& operator=(ControlSocket&& other) noexcept;
  ControlSocket(const ControlSocket&) = delete;
  ControlSocket& operator=(const ControlSocket&) = delete;
  ~ControlSocket();

  // Non-blocking, close-on-exec.
  [[nodiscard]] int listener() const { return listener_.get(); }
  [[nodiscard]] const std::string& path() const { return options_.path; }
  [[nodiscard]] std::string lock() const { return path() + ".lock"; }

  // Both files are there, and its own.
  [[nodiscard]] bool is_whole() const;
  // Makes anew what was removed, the folder too, if the folder above it is there. Another manager
  // that has taken the place meanwhile keeps it. Returns "" or what went wrong. listener() may be
  // another one afterwards, and the one before has been closed.
  [[nodiscard]] std::string restore();

 private:
  friend class ControlSocketOpener;
  ControlSocket() = default;
  void remove();

  UniqueFd listener_;
  UniqueFd lock_;
  UniqueFd node_;  // the socket's inode, held so that its number cannot be used again
  ControlSocketOptions options_;
};

struct ControlSocketResult {
  std::optional<ControlSocket> socket;
  std::string error;  // one sentence without a full stop, if there is no socket
  pid_t holder = 0;   // the living manager that has the socket, if that is the reason
};

ControlSocketResult open_control_socket(const ControlSocketOptions& options);

}  // namespace ostler::runtime
