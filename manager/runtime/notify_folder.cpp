#include "runtime/notify_folder.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <system_error>
#include <utility>
#include <vector>

namespace ostler::runtime {
namespace {

constexpr const char* kSocket = "s";
constexpr int kFolder = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
// What a worker put into its folder is removed up to so much.
constexpr std::size_t kMostLeft = 100;
constexpr int kMostAside = 100;

std::string reason(int error) {
  return std::generic_category().message(error);
}

std::vector<std::string> names_in(int folder, std::size_t most) {
  std::vector<std::string> names;
  const int copy = openat(folder, ".", kFolder);
  const std::unique_ptr<DIR, int (*)(DIR*)> list(copy < 0 ? nullptr : fdopendir(copy), closedir);
  if (!list) {
    if (copy >= 0) close(copy);
    return names;
  }
  while (names.size() < most) {
    const dirent* const entry = readdir(list.get());  // NOLINT(concurrency-mt-unsafe): its own list
    if (entry == nullptr) break;
    const std::string name = static_cast<const char*>(entry->d_name);
    if (name != "." && name != "..") names.push_back(name);
  }
  return names;
}

void remove_entry(int folder, const std::string& name) {
  if (unlinkat(folder, name.c_str(), 0) != 0) unlinkat(folder, name.c_str(), AT_REMOVEDIR);
}

int bind_to(int socket, const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return ENAMETOOLONG;
  std::memcpy(address.sun_path, path.data(), path.size());
  const auto* const any = reinterpret_cast<const sockaddr*>(&address);
  return bind(socket, any, sizeof address) == 0 ? 0 : errno;
}

// The socket's file is given away first, the folder last: until then nobody else can get in.
const char* give_away(int folder, const NotifyOwner& owner, FileId& file) {
  const UniqueFd node(openat(folder, kSocket, O_PATH | O_NOFOLLOW | O_CLOEXEC));
  struct stat status {};
  if (!node || fstat(node.get(), &status) != 0) return "open";
  errno = ESTALE;
  if (!S_ISSOCK(status.st_mode)) return "open";
  file = {status.st_dev, status.st_ino};
  const std::string link = "/proc/self/fd/" + std::to_string(node.get());
  if (chmod(link.c_str(), owner.is_open ? 0666 : 0600) != 0) return "chmod";
  if (owner.is_open) return fchmod(folder, 0711) == 0 ? nullptr : "chmod";
  if (owner.uid == geteuid()) return nullptr;
  if (fchownat(node.get(), "", owner.uid, owner.gid, AT_EMPTY_PATH) == 0) {
    return fchown(folder, owner.uid, owner.gid) == 0 ? nullptr : "chown";
  }
  // Without CAP_CHOWN it can only be left open; the kernel still says which user sends.
  if (errno != EPERM) return "chown";
  if (chmod(link.c_str(), 0666) != 0 || fchmod(folder, 0711) != 0) return "chmod";
  return nullptr;
}

}  // namespace

NotifyFolder::~NotifyFolder() {
  if (!folder_) return;
  empty();
  if (is_there()) rmdir(path_.c_str());
}

std::string NotifyFolder::open(const std::string& path) {
  const auto failed = [&](const char* step, int error) {
    return std::string(step) + " " + path + ": " + reason(error);
  };
  struct stat status {};
  const bool is_left = lstat(path.c_str(), &status) == 0;
  // An earlier version had a socket there.
  if (is_left && S_ISSOCK(status.st_mode) && status.st_uid == geteuid()) unlink(path.c_str());
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return failed("mkdir", errno);
  UniqueFd folder(::open(path.c_str(), kFolder));
  if (!folder || fstat(folder.get(), &status) != 0) return failed("open the folder", errno);
  if (status.st_uid != geteuid()) {
    return "the folder " + path + " belongs to user " + std::to_string(status.st_uid) +
           ", not to user " + std::to_string(geteuid()) + ": it is to be removed";
  }
  if (flock(folder.get(), LOCK_EX | LOCK_NB) != 0) {
    return errno == EWOULDBLOCK ? "the folder " + path + " is in use by another living manager"
                                : failed("lock the folder", errno);
  }
  if (fchmod(folder.get(), geteuid() == 0 ? 0711 : 0700) != 0) return failed("chmod", errno);
  path_ = path;
  folder_ = std::move(folder);
  empty();
  return "";
}

bool NotifyFolder::is_there() const {
  struct stat by_path {};
  struct stat held {};
  return folder_ && lstat(path_.c_str(), &by_path) == 0 && fstat(folder_.get(), &held) == 0 &&
         FileId{by_path.st_dev, by_path.st_ino} == FileId{held.st_dev, held.st_ino};
}

std::string NotifyFolder::socket_path(const std::string& name) const {
  return path_ + "/" + name + "/" + kSocket;
}

int NotifyFolder::make_folder(const std::string& name, UniqueFd& folder) const {
  if (!folder_) return ENOENT;
  int made = mkdirat(folder_.get(), name.c_str(), 0700);
  if (made != 0 && errno == EEXIST) {
    put_aside(name);
    made = mkdirat(folder_.get(), name.c_str(), 0700);
  }
  if (made != 0) return errno;
  folder = UniqueFd(openat(folder_.get(), name.c_str(), kFolder));
  return folder ? 0 : errno;
}

NotifyBinding NotifyFolder::make(const std::string& name, const NotifyOwner& owner) const {
  NotifyBinding result;
  const auto failed = [&](const char* step, int error) {
    result.socket.reset();
    result.step = step;
    result.error = error;
    remove(name);
    return std::move(result);
  };
  UniqueFd folder;
  if (const int error = make_folder(name, folder); error != 0) {
    result.step = "mkdir";
    result.error = error;
    return result;
  }
  result.socket = UniqueFd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  if (!result.socket ||
      setsockopt(result.socket.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof on) != 0) {
    return failed("socket", errno);
  }
  if (const int error = bind_to(result.socket.get(), socket_path(name)); error != 0) {
    return failed("bind", error);
  }
  if (const char* const step = give_away(folder.get(), owner, result.file); step != nullptr) {
    return failed(step, errno);
  }
  return result;
}

bool NotifyFolder::has(const std::string& name, const FileId& file) const {
  struct stat status {};
  const std::string path = name + "/" + kSocket;
  return folder_ && fstatat(folder_.get(), path.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 &&
         file == FileId{status.st_dev, status.st_ino};
}

void NotifyFolder::remove(const std::string& name) const {
  if (!folder_) return;
  {
    const UniqueFd folder(openat(folder_.get(), name.c_str(), kFolder));
    if (!folder) return;
    unlinkat(folder.get(), kSocket, 0);
    if (unlinkat(folder_.get(), name.c_str(), AT_REMOVEDIR) == 0 || errno != ENOTEMPTY) return;
    for (const std::string& left : names_in(folder.get(), kMostLeft)) {
      remove_entry(folder.get(), left);
    }
  }
  unlinkat(folder_.get(), name.c_str(), AT_REMOVEDIR);
}

// A folder that its user has filled so that it cannot be removed. Nobody finds it there any more.
void NotifyFolder::put_aside(const std::string& name) const {
  remove(name);
  for (int i = 0; i < kMostAside; ++i) {
    const std::string aside = "left-" + name + "-" + std::to_string(i);
    const int moved =
        renameat2(folder_.get(), name.c_str(), folder_.get(), aside.c_str(), RENAME_NOREPLACE);
    if (moved == 0 || errno != EEXIST) return;
  }
}

void NotifyFolder::empty() const {
  for (const std::string& name : names_in(folder_.get(), static_cast<std::size_t>(-1))) {
    remove(name);
    unlinkat(folder_.get(), name.c_str(), 0);
  }
}

}  // namespace ostler::runtime
