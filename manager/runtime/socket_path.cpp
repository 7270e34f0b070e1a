#include "runtime/socket_path.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "runtime/unique_fd.hpp"

namespace ostler::runtime {
namespace {

constexpr mode_t kPermissions = 07777;

int bind_once(int socket, const sockaddr_un& address) {
  const auto* const any = reinterpret_cast<const sockaddr*>(&address);
  return ::bind(socket, any, sizeof address) == 0 ? 0 : errno;
}

// Left over: a socket's file that the kernel knows no socket of. A datagram socket finds out
// without a trace: a stream socket over there is of the wrong type (EPROTOTYPE), listening or not.
bool is_stale(const sockaddr_un& address) {
  struct stat status {};
  if (lstat(address.sun_path, &status) != 0 || !S_ISSOCK(status.st_mode)) return false;
  const UniqueFd probe(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const auto* const any = reinterpret_cast<const sockaddr*>(&address);
  return probe && connect(probe.get(), any, sizeof address) != 0 && errno == ECONNREFUSED;
}

// chmod(2) follows symlinks and fchmod(2) refuses O_PATH; through /proc it is this very file.
int change_mode(int file, mode_t mode) {
  return chmod(("/proc/self/fd/" + std::to_string(file)).c_str(), mode) == 0 ? 0 : errno;
}

}  // namespace

SocketPath& SocketPath::operator=(SocketPath&& other) noexcept {
  if (this != &other) {
    unlink();
    path_ = std::move(other.path_);
    file_ = std::move(other.file_);
    uid_ = other.uid_;
    gid_ = other.gid_;
  }
  return *this;
}

SocketPath::~SocketPath() {
  unlink();
}

int SocketPath::bind(int socket, const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty()) return EINVAL;
  if (path.size() >= sizeof address.sun_path) return ENAMETOOLONG;
  std::memcpy(address.sun_path, path.data(), path.size());
  int error = bind_once(socket, address);
  if (error == EADDRINUSE && is_stale(address)) {
    error = ::unlink(path.c_str()) == 0 || errno == ENOENT ? bind_once(socket, address) : errno;
  }
  if (error != 0) return error;
  path_ = path;
  return hold();
}

// Someone who may write the directory can have put another file in the place of ours meanwhile.
int SocketPath::hold() {
  UniqueFd file(open(path_.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  struct stat status {};
  if (!file || fstat(file.get(), &status) != 0) return errno;
  if (!S_ISSOCK(status.st_mode) || status.st_uid != geteuid()) return ESTALE;
  uid_ = status.st_uid;
  gid_ = status.st_gid;
  file_ = std::move(file);
  return 0;
}

int SocketPath::set_owner_and_mode(uid_t uid, gid_t gid, mode_t mode) const {
  struct stat status {};
  if (fstat(file_.get(), &status) != 0) return errno;
  const mode_t now = status.st_mode & kPermissions;
  if (status.st_uid != uid || status.st_gid != gid) {
    const int error = (now & ~mode) != 0 ? change_mode(file_.get(), now & mode) : 0;
    if (error != 0) return error;
    if (fchownat(file_.get(), "", uid, gid, AT_EMPTY_PATH) != 0) return errno;
  }
  return now == mode ? 0 : change_mode(file_.get(), mode);
}

bool SocketPath::is_there() const {
  struct stat by_path {};
  struct stat held {};
  return file_ && lstat(path_.c_str(), &by_path) == 0 && fstat(file_.get(), &held) == 0 &&
         by_path.st_dev == held.st_dev && by_path.st_ino == held.st_ino;
}

void SocketPath::unlink() {
  if (is_there()) ::unlink(path_.c_str());
  file_.reset();
}

}  // namespace ostler::runtime
