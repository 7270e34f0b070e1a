// The folder of the notify sockets, and in it one folder with a socket for each worker.
//
// It is the manager's alone (`PATH.notify` beside the control socket, guarded by the same lock):
// others may pass through it, no more. A worker's folder belongs to the worker's user, who alone
// may enter it, so that nobody else can fill the queue; and what that user does in it harms nobody:
// nothing in it is followed, and nothing is made in it any more once it has been given away.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <string>

#include "runtime/unique_fd.hpp"

namespace ostler::runtime {

// Who may send to a worker's socket.
struct NotifyOwner {
  uid_t uid = 0;
  gid_t gid = 0;
  // A worker that runs as root may switch users itself, so everybody may; who it is, is seen to
  // when it is read.
  bool is_open = false;
};

struct FileId {
  dev_t device = 0;
  ino_t inode = 0;
  bool operator==(const FileId&) const = default;
};

// A bound datagram socket, or why there is none.
struct NotifyBinding {
  UniqueFd socket;
  FileId file;
  std::string step;  // "mkdir", if it failed
  int error = 0;
};

class NotifyFolder {
 public:
  NotifyFolder() = default;
  // Removes what is in it, and itself.
  ~NotifyFolder();
  NotifyFolder(const NotifyFolder&) = delete;
  NotifyFolder& operator=(const NotifyFolder&) = delete;

  // Makes it, or takes the one that a manager before this one left, and empties it. A lock on the
  // folder itself guards it as well: that of the control socket can be removed. Returns "" or what
  // went wrong. May be called again when it is gone.
  [[nodiscard]] std::string open(const std::string& path);
  // Its path still leads to it.
  [[nodiscard]] bool is_there() const;
  [[nodiscard]] const std::string& path() const { return path_; }

  // The path of the socket in the folder `name`.
  [[nodiscard]] std::string socket_path(const std::string& name) const;
  // Makes folder and socket. What is there under the name goes, or is put aside.
  [[nodiscard]] NotifyBinding make(const std::string& name, const NotifyOwner& owner) const;
  [[nodiscard]] bool has(const std::string& name, const FileId& file) const;
  void remove(const std::string& name) const;

 private:
  [[nodiscard]] int make_folder(const std::string& name, UniqueFd& folder) const;
  void put_aside(const std::string& name) const;
  void empty() const;

  std::string path_;
  UniqueFd folder_;
};

// How long the path of a control socket may be, so that the sockets beside it can be used.
inline constexpr std::size_t kControlPathBytes = 90;

}  // namespace ostler::runtime
