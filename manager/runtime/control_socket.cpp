#include "runtime/control_socket.hpp"

#include "runtime/descriptors.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <string_view>
#include <utility>

#include "config/src/access.hpp"

namespace ostler::runtime {

namespace {

constexpr int kBacklog = 512;
// Whoever removes a lock file that we have just opened is on its way out; more than a few such in
// a row is somebody's mischief.
constexpr int kLockTries = 16;

std::string reason(int error) {
  return std::strerror(error);
}

std::string directory_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

bool same_file(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

// The path still names the file that `fd` has open.
bool still_names(const std::string& path, int fd) {
  struct stat by_path {};
  struct stat by_fd {};
  return fstatat(AT_FDCWD, path.c_str(), &by_path, AT_SYMLINK_NOFOLLOW) == 0 &&
         fstat(fd, &by_fd) == 0 && same_file(by_path, by_fd);
}

// New files get exactly the permissions they are asked with.
class Umask {
 public:
  explicit Umask(mode_t mask) : before_(umask(mask)) {}
  ~Umask() { umask(before_); }
  Umask(const Umask&) = delete;
  Umask& operator=(const Umask&) = delete;

 private:
  mode_t before_;
};

}  // namespace

// Does the work step by step; the first step that fails leaves its reason in the result.
class ControlSocketOpener {
 public:
  explicit ControlSocketOpener(const ControlSocketOptions& options)
      : options_(options), directory_(directory_of(options.path)) {
    socket_.options_ = options;
  }

  ControlSocketResult open() {
    const bool is_made = options_.default_directory;
    if (good_path() && prepare_directory(is_made) && take_lock() && remove_stale() &&
        bind_socket()) {
      result_.socket = std::move(socket_);
    }
    return std::move(result_);
  }

  std::string restore(ControlSocket& lost) {
    if (!prepare_directory(true)) return result_.error;
    if (!still_names(lost.lock(), lost.lock_.get())) {
      if (!take_lock()) return result_.error;
      lost.lock_ = std::move(socket_.lock_);
    }
    if (!still_names(lost.path(), lost.node_.get())) {
      if (!remove_stale() || !bind_socket()) return result_.error;
      lost.node_ = std::move(socket_.node_);
      lost.listener_ = std::move(socket_.listener_);
    }
    return "";
  }

 private:
  bool fail(std::string what) {
    result_.error = "control socket " + options_.path + ": " + std::move(what);
    return false;
  }

  bool in_use(pid_t holder) {
    result_.holder = holder;
    return fail("in use by a living manager" +
                (holder > 0 ? " (pid " + std::to_string(holder) + ")" : std::string()));
  }

  bool good_path() {
    constexpr std::size_t kMost = sizeof(sockaddr_un::sun_path) - 1;
    if (options_.path.empty() || options_.path.back() == '/') return fail("the path names no file");
    if (options_.path.find('\0') != std::string::npos) return fail("the path holds a NUL byte");
    if (options_.path.size() <= kMost) return true;
    return fail("the path has " + std::to_string(options_.path.size()) + " bytes; " +
                std::to_string(kMost) + " are the most for a unix socket");
  }

  bool prepare_directory(bool is_made) {
    bool created = false;
    const mode_t mode = geteuid() == 0 ? 0755 : 0700;
    if (is_made) {
      const Umask narrow(077);
      created = mkdir(directory_.c_str(), mode) == 0;
      if (!created && errno != EEXIST)
        return fail("cannot create the directory " + directory_ + ": " + reason(errno));
    }
    // What an administrator configured may lead through links of theirs.
    const int links = options_.default_directory ? O_NOFOLLOW : 0;
    const UniqueFd fd(::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | links));
    if (!fd) return fail(cannot_open_directory(errno));
    if (created && fchmod(fd.get(), mode) != 0)
      return fail("cannot set the mode of " + directory_ + ": " + reason(errno));
    struct stat status {};
    if (fstat(fd.get(), &status) != 0)
      return fail("cannot examine " + directory_ + ": " + reason(errno));
    return trustworthy(status);
  }

  [[nodiscard]] std::string cannot_open_directory(int error) const {
    if (error == ENOENT) return "the directory " + directory_ + " does not exist";
    if (error == ELOOP || error == ENOTDIR)
      return directory_ + " is a symbolic link or not a directory";
    return "cannot open the directory " + directory_ + ": " + reason(error);
  }

  bool trustworthy(const struct stat& status) {
    const std::string problem = config::control_folder_problem(status, options_.default_directory);
    if (!problem.empty()) return fail("the directory " + directory_ + " " + problem);
    return true;
  }

  bool take_lock() {
    const std::string path = socket_.lock();
    for (int i = 0; i < kLockTries; ++i) {
      UniqueFd fd = open_lock(path);
      if (!fd) return fail("cannot open " + path + ": " + reason(errno));
      if (!own_plain_file(fd.get(), path)) return false;
      struct flock lock {};
      lock.l_type = F_WRLCK;
      lock.l_whence = SEEK_SET;
      if (fcntl(fd.get(), F_OFD_SETLK, &lock) != 0) {
        if (errno != EAGAIN && errno != EACCES)
          return fail("cannot lock " + path + ": " + reason(errno));
        return in_use(written_pid(fd.get()));
      }
      // The manager before us may have removed the file after we opened it.
      if (!still_names(path, fd.get())) continue;
      socket_.lock_ = std::move(fd);
      return write_pid(path);
    }
    return fail(path + " is replaced faster than it can be locked");
  }

  static UniqueFd open_lock(const std::string& path) {
    const Umask narrow(077);
    return UniqueFd(
        ::open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600));
  }

  // In a directory like /tmp others may have put something under the name first.
  bool own_plain_file(int fd, const std::string& path) {
    struct stat status {};
    if (fstat(fd, &status) != 0) return fail("cannot examine " + path + ": " + reason(errno));
    if (S_ISREG(status.st_mode) && status.st_uid == geteuid() && status.st_nlink <= 1) return true;
    return fail(path + " is not a plain file of this user alone");
  }

  static pid_t written_pid(int fd) {
    char text[16];
    const ssize_t size = pread(fd, text, sizeof text, 0);
    pid_t pid = 0;
    if (size > 0) std::from_chars(text, text + size, pid);
    return pid > 0 ? pid : 0;
  }

  bool write_pid(const std::string& path) {
    const std::string text = std::to_string(getpid()) + "\n";
    const int fd = socket_.lock_.get();
    if (ftruncate(fd, 0) == 0 &&
        pwrite(fd, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()))
      return true;
    return fail("cannot write to " + path + ": " + reason(errno));
  }

  // Only a socket is removed, and only one that nobody answers on: the lock says so already, but
  // its file may have been deleted under a living manager.
  bool remove_stale() {
    struct stat status {};
    const char* path = options_.path.c_str();
    if (lstat(path, &status) != 0)
      return errno == ENOENT || fail("cannot examine it: " + reason(errno));
    if (!S_ISSOCK(status.st_mode)) return fail("there is something else at this path, no socket");
    const UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!probe) return fail("cannot make a socket: " + reason(errno));
    const sockaddr_un address = unix_address();
    if (connect(probe.get(), as_sockaddr(&address), sizeof address) == 0 || errno == EAGAIN) {
      ucred peer{};
      socklen_t size = sizeof peer;
      if (getsockopt(probe.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) peer.pid = 0;
      return in_use(peer.pid);
    }
    if (errno != ECONNREFUSED && errno != ENOENT)
      return fail("cannot tell whether somebody listens on it: " + reason(errno));
    if (unlink(path) != 0 && errno != ENOENT)
      return fail("cannot remove the stale socket: " + reason(errno));
    return true;
  }

  [[nodiscard]] sockaddr_un unix_address() const {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    options_.path.copy(static_cast<char*>(address.sun_path), sizeof address.sun_path - 1);
    return address;
  }

  static const sockaddr* as_sockaddr(const sockaddr_un* address) {
    return reinterpret_cast<const sockaddr*>(address);
  }

  // Group and mode are set before `listen`, which is the first moment somebody can connect.
  bool bind_socket() {
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd) return fail("cannot make a socket: " + reason(errno));
    const sockaddr_un address = unix_address();
    {
      const Umask narrow(0777 & ~(options_.mode & 0700));
      if (bind(fd.get(), as_sockaddr(&address), sizeof address) != 0)
        return fail("cannot bind: " + reason(errno));
    }
    socket_.node_ = UniqueFd(::open(options_.path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!socket_.node_) return fail("cannot open what was bound: " + reason(errno));
    if (!set_access()) return false;
    refuse_descriptors(fd.get());
    if (listen(fd.get(), kBacklog) != 0) return fail("cannot listen: " + reason(errno));
    socket_.listener_ = std::move(fd);
    return true;
  }

  // Through the inode we hold, so that no link put in its place can lead astray.
  bool set_access() {
    const int node = socket_.node_.get();
    struct stat status {};
    if (fstat(node, &status) != 0 || !S_ISSOCK(status.st_mode) || status.st_uid != geteuid())
      return fail("what was bound is not there any more");
    if (options_.group &&
        fchownat(node, "", static_cast<uid_t>(-1), *options_.group, AT_EMPTY_PATH) != 0)
      return fail("cannot give it to group " + std::to_string(*options_.group) + ": " +
                  reason(errno));
    const std::string link = "/proc/self/fd/" + std::to_string(node);
    if (chmod(link.c_str(), options_.mode & 0777) != 0)
      return fail("cannot set its mode: " + reason(errno));
    return true;
  }

  const ControlSocketOptions& options_;
  std::string directory_;
  ControlSocket socket_;
  ControlSocketResult result_;
};

ControlSocket& ControlSocket::operator=(ControlSocket&& other) noexcept {
  if (this != &other) {
    remove();
    listener_ = std::move(other.listener_);
    lock_ = std::move(other.lock_);
    node_ = std::move(other.node_);
    options_ = std::move(other.options_);
  }
  return *this;
}

ControlSocket::~ControlSocket() {
  remove();
}

// The lock goes last: until then no other manager looks at the socket.
void ControlSocket::remove() {
  if (node_ && still_names(path(), node_.get())) unlink(path().c_str());
  listener_.reset();
  node_.reset();
  if (lock_ && still_names(lock(), lock_.get())) unlink(lock().c_str());
  lock_.reset();
}

bool ControlSocket::is_whole() const {
  return still_names(path(), node_.get()) && still_names(lock(), lock_.get());
}

std::string ControlSocket::restore() {
  const ControlSocketOptions options = options_;
  return ControlSocketOpener(options).restore(*this);
}

ControlSocketResult open_control_socket(const ControlSocketOptions& options) {
  return ControlSocketOpener(options).open();
}

}  // namespace ostler::runtime
