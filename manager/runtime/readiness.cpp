#include "runtime/readiness.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/fsuid.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "runtime/unique_fd.hpp"

namespace ostler::runtime {
namespace {

constexpr std::size_t kProcesses = 256;
constexpr std::size_t kThreads = 64;        // of one process
constexpr std::size_t kDescriptors = 1024;  // of one process
constexpr std::size_t kLooks = 8192;        // threads and descriptors, of all processes together
constexpr std::size_t kPolled = 4096;
constexpr std::size_t kSmallFile = 4096;
constexpr std::size_t kEpollFile = std::size_t{256} << 10U;

// --- Text from /proc -----------------------------------------------------------------------------

template <class Number>
std::optional<Number> number(std::string_view text, int base = 10) {
  Number value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc{} || stop == text.data()) return std::nullopt;
  return value;
}

// Takes the first word off TEXT.
std::string_view word(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  const std::string_view first = text.substr(0, text.find(' '));
  text.remove_prefix(first.size());
  return first;
}

// What follows LABEL in TEXT.
std::string_view after(std::string_view text, std::string_view label) {
  const std::size_t at = text.find(label);
  if (at == std::string_view::npos) return {};
  text.remove_prefix(at + label.size());
  return text.substr(std::min(text.find_first_not_of(' '), text.size()));
}

// `error`: why nothing, or not all, could be read.
std::string read_at(int directory, const char* name, std::size_t limit, int& error) {
  const UniqueFd file(openat(directory, name, O_RDONLY | O_CLOEXEC));
  std::string text;
  if (!file) error = errno;
  if (!file) return text;
  for (std::size_t size = 0; size < limit;) {
    text.resize(std::min(limit, size + kSmallFile));
    const ssize_t got = read(file.get(), text.data() + size, text.size() - size);
    if (got <= 0) {
      if (got < 0) error = errno;
      text.resize(size);
      break;
    }
    size += static_cast<std::size_t>(got);
    text.resize(size);
  }
  return text;
}

struct Numbers {
  std::vector<int> all;
  int error = 0;      // why there are none
  bool more = false;  // than the limit
};

// The entries of a directory whose names are numbers: descriptors, threads.
Numbers numbers_in(int directory, const char* name, std::size_t limit) {
  Numbers numbers;
  const int fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* const entries = fd < 0 ? nullptr : fdopendir(fd);
  if (entries == nullptr) numbers.error = errno;
  if (entries == nullptr) return numbers;
  while (const dirent* const entry = readdir(entries)) {
    numbers.more = numbers.all.size() >= limit;
    if (numbers.more) break;
    if (const auto value = number<int>(entry->d_name)) numbers.all.push_back(*value);
  }
  closedir(entries);
  return numbers;
}

// The device of the file system that all sockets are in, as epoll's fdinfo writes it: an inode
// number alone may be any file's.
unsigned socket_device() {
  static const unsigned kDevice = [] {
    const UniqueFd probe(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    struct stat status {};
    if (!probe || fstat(probe.get(), &status) != 0) return ~0U;
    return (major(status.st_dev) << 20U) | minor(status.st_dev);
  }();
  return kDevice;
}

// Some kernels and sandboxes do not show the system call that a thread is blocked in.
bool shows_system_calls() {
  static const bool kShows = access("/proc/self/syscall", F_OK) == 0;
  return kShows;
}

// --- Identity -----------------------------------------------------------------------------------

// The file system ids of this thread, while it lives.
class Borrowed {
 public:
  explicit Borrowed(UserIds identity)
      : gid_(setfsgid(identity.gid)), uid_(setfsuid(identity.uid)), taken_(identity) {}
  ~Borrowed() {
    setfsuid(static_cast<uid_t>(uid_));
    setfsgid(static_cast<gid_t>(gid_));
  }
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;

  // These calls tell no error; an invalid id changes nothing and says what there is.
  [[nodiscard]] bool holds() const {
    return setfsuid(kNoUser) == static_cast<int>(taken_.uid) &&
           setfsgid(kNoGroup) == static_cast<int>(taken_.gid);
  }

 private:
  static constexpr uid_t kNoUser = ~uid_t{0};
  static constexpr gid_t kNoGroup = ~gid_t{0};
  int gid_;
  int uid_;
  UserIds taken_;
};

bool is_refusal(int error) {
  return error == EACCES || error == EPERM;
}

// --- One process ---------------------------------------------------------------------------------

// Where a socket is bound.
struct Place {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
};

// Of another process's socket, if it listens, or if it is connected. Our copy is gone at once.
std::optional<Place> place_of(int process, int fd, bool listens) {
  const UniqueFd copy(static_cast<int>(syscall(SYS_pidfd_getfd, process, fd, 0)));
  int accepts = 0;
  socklen_t size = sizeof accepts;
  if (!copy || getsockopt(copy.get(), SOL_SOCKET, SO_ACCEPTCONN, &accepts, &size) != 0) return {};
  if ((accepts != 0) != listens) return {};
  Place place;
  auto* const address = reinterpret_cast<sockaddr*>(&place.address);
  if (!listens && getpeername(copy.get(), address, &place.size) != 0) return {};
  place = {};
  if (getsockname(copy.get(), address, &place.size) != 0) return {};
  return place;
}

// Whether a connected socket is bound where a listener is, which may have been bound to every
// address of the machine: so it was accepted from it.
bool same_place(const Place& connection, const Place& listener) {
  if (connection.address.ss_family != listener.address.ss_family) return false;
  switch (connection.address.ss_family) {
    case AF_INET:
      return reinterpret_cast<const sockaddr_in&>(connection.address).sin_port ==
             reinterpret_cast<const sockaddr_in&>(listener.address).sin_port;
    case AF_INET6:
      return reinterpret_cast<const sockaddr_in6&>(connection.address).sin6_port ==
             reinterpret_cast<const sockaddr_in6&>(listener.address).sin6_port;
    case AF_UNIX:
      return connection.size > offsetof(sockaddr_un, sun_path) &&
             connection.size == listener.size &&
             std::memcmp(&connection.address, &listener.address, connection.size) == 0;
    default:
      return false;
  }
}

class Look {
 public:
  Look(const std::vector<ino_t>& listeners, std::optional<UserIds> worker)
      : listeners_(listeners), worker_(worker) {}

  // Breadth first: the process itself answers most of the time.
  Sighting at_family_of(pid_t pid) {
    family_ = {pid};
    for (std::size_t i = 0; i < family_.size() && looks_ < kLooks; ++i) {
      if (at_process(family_[i])) return {core::Sight::kWaiting, {}};
    }
    if (looks_ >= kLooks || truncated_) {
      unknown("it has more processes, threads or descriptors than are looked at");
    }
    if (!shows_system_calls()) unknown("/proc does not show system calls here");
    if (unknown_.empty()) return {core::Sight::kNothing, {}};
    return {core::Sight::kUnknown, unknown_};
  }

 private:
  [[nodiscard]] bool is_listener(ino_t inode) const {
    return std::find(listeners_.begin(), listeners_.end(), inode) != listeners_.end();
  }

  void unknown(std::string why) {
    if (unknown_.empty()) unknown_ = std::move(why);
  }

  void refuse(pid_t pid, const std::string& name, int error) {
    if (!is_refusal(error) || !refused_.empty()) return;
    refused_ =
        "/proc/" + std::to_string(pid) + "/" + name + ": " + std::generic_category().message(error);
  }

  // As the manager is, then as the process is.
  bool at_process(pid_t pid) {
    refused_.clear();
    if (look_into(pid)) return true;
    // One of another user may be hidden (hidepid); one that is gone is nobody's any more.
    if (gone_ && worker_ && family_.front() == pid) refuse(pid, "fd", EACCES);
    const auto identity = refused_.empty() ? std::nullopt : identity_of(pid);
    if (identity && (identity->uid != geteuid() || identity->gid != getegid())) {
      const Borrowed borrowed(*identity);
      if (borrowed.holds()) {
        refused_.clear();
        if (look_into(pid)) return true;
      }
    }
    if (!refused_.empty()) {
      unknown(refused_ + " (CAP_SYS_PTRACE, or its own user and group, is needed)");
    }
    return false;
  }

  // Its own, or, if it is hidden (hidepid), the one that it was started with.
  [[nodiscard]] std::optional<UserIds> identity_of(pid_t pid) const {
    struct stat status {};
    const std::string path = "/proc/" + std::to_string(pid);
    if (stat(path.c_str(), &status) == 0) return UserIds{status.st_uid, status.st_gid};
    return family_.front() == pid ? worker_ : std::nullopt;
  }

  bool look_into(pid_t pid) {
    const std::string path = "/proc/" + std::to_string(pid);
    const UniqueFd process(open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    gone_ = !process;
    if (!process) return false;
    if (read_descriptors(pid, process.get())) return true;
    const Numbers threads = numbers_in(process.get(), "task", kThreads);
    truncated_ = truncated_ || threads.more;
    for (const int thread : threads.all) {
      if (looks_++ >= kLooks) return false;
      const std::string task = "task/" + std::to_string(thread);
      if (!held_.empty() && blocked_on_listener(pid, process.get(), thread, task)) return true;
      add_children(process.get(), task);
    }
    return has_accepted(pid);
  }

  // A busy worker is hardly ever caught waiting: the next connection is there before it asks.
  [[nodiscard]] bool has_accepted(pid_t pid) {
    if (held_.empty() || sockets_.empty()) return false;
    const UniqueFd process(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
    if (!process) return false;
    std::vector<Place> listeners;
    for (const int fd : held_) {
      if (const auto place = place_of(process.get(), fd, true)) listeners.push_back(*place);
    }
    for (const int fd : sockets_) {
      if (looks_++ >= kLooks) return false;
      const auto place = place_of(process.get(), fd, false);
      const auto same = [&](const Place& listener) {
        return place && same_place(*place, listener);
      };
      if (std::any_of(listeners.begin(), listeners.end(), same)) return true;
    }
    return false;
  }

  // Fills `held_`. Who holds no listener waits for none, whatever an epoll set still says of a
  // descriptor that was closed.
  bool read_descriptors(pid_t pid, int process) {
    held_.clear();
    sockets_.clear();
    std::vector<int> epolls;
    const Numbers descriptors = numbers_in(process, "fd", kDescriptors);
    refuse(pid, "fd", descriptors.error);
    truncated_ = truncated_ || descriptors.more;
    for (const int fd : descriptors.all) {
      if (looks_++ >= kLooks) break;
      std::array<char, 64> target{};
      const std::string link = "fd/" + std::to_string(fd);
      const ssize_t size = readlinkat(process, link.c_str(), target.data(), target.size());
      if (size < 0) refuse(pid, link, errno);
      if (size <= 0) continue;
      const std::string_view kind(target.data(), static_cast<std::size_t>(size));
      if (kind == "anon_inode:[eventpoll]") epolls.push_back(fd);
      if (kind == "anon_inode:[io_uring]") unknown("it has an io_uring, whose waits are not shown");
      const auto inode = number<ino_t>(after(kind, "socket:["));
      if (inode) (is_listener(*inode) ? held_ : sockets_).push_back(fd);
    }
    if (held_.empty()) return false;
    return std::any_of(epolls.begin(), epolls.end(), [&](int fd) {
      const std::string name = "fdinfo/" + std::to_string(fd);
      int error = 0;
      const std::string info = read_at(process, name.c_str(), kEpollFile, error);
      refuse(pid, name, error);
      truncated_ = truncated_ || info.size() == kEpollFile;
      return registers_listener(info);
    });
  }

  // "tfd: 5 events: 19 data: 5 pos:0 ino:3a7c sdev:8", a line for each descriptor. The number is
  // that of the moment it was registered; what counts is the inode.
  [[nodiscard]] bool registers_listener(std::string_view info) const {
    while (!info.empty()) {
      const std::string_view line = info.substr(0, info.find('\n'));
      info.remove_prefix(std::min(info.size(), line.size() + 1));
      if (!line.starts_with("tfd:")) continue;
      const auto events = number<std::uint32_t>(after(line, "events:"), 16);
      const auto inode = number<ino_t>(after(line, " ino:"), 16);
      const auto device = number<unsigned>(after(line, " sdev:"), 16);
      if (events && (*events & EPOLLIN) != 0 && device == socket_device() && inode &&
          is_listener(*inode)) {
        return true;
      }
    }
    return false;
  }

  // "232 0x4 0x7ffd… 0x10 0x64 0x0 0x8 0x7ffd… 0x7f11…": the call, six arguments, stack, place.
  // "running" or "-1 …" if it is in none.
  bool blocked_on_listener(pid_t pid, int process, pid_t thread, const std::string& task) {
    int error = 0;
    const std::string text = read_at(process, (task + "/syscall").c_str(), kSmallFile, error);
    refuse(pid, task + "/syscall", error);
    std::string_view rest = text;
    const auto call = number<long>(word(rest));
    if (!call) return false;
    std::array<std::uint64_t, 2> arguments{};
    for (std::uint64_t& argument : arguments) {
      const std::string_view hex = word(rest);
      if (!hex.starts_with("0x")) return false;
      argument = number<std::uint64_t>(hex.substr(2), 16).value_or(0);
    }
    switch (*call) {
      case SYS_accept:
      case SYS_accept4:
        return holds(arguments[0]);
#ifdef SYS_poll  // newer architectures have but ppoll and pselect6
      case SYS_poll:
#endif
      case SYS_ppoll:
        return polls({pid, process, thread}, arguments[0], arguments[1]);
#ifdef SYS_select
      case SYS_select:
#endif
      case SYS_pselect6:
        return selects({pid, process, thread}, arguments[1], arguments[0]);
      default:
        return false;
    }
  }

  [[nodiscard]] bool holds(std::uint64_t fd) const {
    return std::any_of(held_.begin(), held_.end(),
                       [&](int held) { return static_cast<std::uint64_t>(held) == fd; });
  }

  struct Thread {
    pid_t process;
    int folder;  // /proc/PID
    pid_t id;
  };

  [[nodiscard]] bool polls(Thread thread, std::uint64_t address, std::uint64_t count) {
    std::vector<pollfd> polled(static_cast<std::size_t>(std::min<std::uint64_t>(count, kPolled)));
    if (!peek(thread, address, polled.data(), polled.size() * sizeof(pollfd))) return false;
    return std::any_of(polled.begin(), polled.end(), [&](const pollfd& entry) {
      return entry.fd >= 0 && (entry.events & (POLLIN | POLLRDNORM)) != 0 &&
             holds(static_cast<std::uint64_t>(entry.fd));
    });
  }

  // The kernel reads whole longs; programs may use more than FD_SETSIZE.
  [[nodiscard]] bool selects(Thread thread, std::uint64_t address, std::uint64_t count) {
    constexpr std::size_t kBits = sizeof(unsigned long) * 8;
    const auto bits = static_cast<std::size_t>(std::min<std::uint64_t>(count, kPolled));
    std::vector<unsigned long> set((bits + kBits - 1) / kBits);
    if (!peek(thread, address, set.data(), set.size() * sizeof(unsigned long))) return false;
    return std::any_of(held_.begin(), held_.end(), [&](int held) {
      const auto fd = static_cast<std::size_t>(held);
      return fd < bits && ((set[fd / kBits] >> (fd % kBits)) & 1U) != 0;
    });
  }

  // Another process's memory; false if not all of it is there. process_vm_readv goes by real ids,
  // /proc/PID/mem by those of the file system, and by the right to open it.
  bool peek(Thread thread, std::uint64_t address, void* to, std::size_t size) {
    if (address == 0 || size == 0) return false;
    iovec local{to, size};
    // NOLINTNEXTLINE(performance-no-int-to-ptr): an address over there, never followed here
    iovec remote{reinterpret_cast<void*>(address), size};
    const ssize_t got = process_vm_readv(thread.id, &local, 1, &remote, 1, 0);
    if (got >= 0 || !is_refusal(errno)) return got == static_cast<ssize_t>(size);
    const UniqueFd memory(openat(thread.folder, "mem", O_RDONLY | O_CLOEXEC));
    if (!memory) refuse(thread.process, "mem", errno);
    return memory &&
           pread(memory.get(), to, size, static_cast<off_t>(address)) == static_cast<ssize_t>(size);
  }

  void add_children(int process, const std::string& task) {
    int error = 0;
    const std::string text = read_at(process, (task + "/children").c_str(), kSmallFile, error);
    std::string_view rest = text;
    while (const auto child = number<pid_t>(word(rest))) {
      truncated_ = truncated_ || family_.size() >= kProcesses;
      if (family_.size() >= kProcesses) return;
      if (std::find(family_.begin(), family_.end(), *child) != family_.end()) continue;
      family_.push_back(*child);
    }
  }

  const std::vector<ino_t>& listeners_;
  const std::optional<UserIds> worker_;
  std::vector<pid_t> family_;
  std::vector<int> held_;     // descriptors of the process at hand that are listeners
  std::vector<int> sockets_;  // and its other sockets
  std::string refused_;       // what could not be read of it
  bool gone_ = false;
  std::string unknown_;  // why nothing seen is not nothing there
  bool truncated_ = false;
  std::size_t looks_ = 0;
};

}  // namespace

Sighting look_for_waiting(pid_t pid, const std::vector<ino_t>& listeners,
                          std::optional<UserIds> worker) {
  if (pid <= 0 || listeners.empty()) return {};
  return Look(listeners, worker).at_family_of(pid);
}

}  // namespace ostler::runtime
