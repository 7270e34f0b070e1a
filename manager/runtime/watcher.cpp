#include "runtime/watcher.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include "runtime/limits.hpp"
#include "runtime/procfs.hpp"
#include "runtime/spawner.hpp"

namespace ostler::runtime {

struct Watcher::Entry {
  Tag tag;    // 0: free
  pid_t pid;  // the worker's, and of its session; 0: not started
  int signal;
  std::int64_t timeout;  // milliseconds
  bool leave_behind;
};

struct Watcher::Table {
  std::array<Entry, std::size_t{1} << TagSpace::kIndexBits> entries;
};

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

struct Seen {
  ProcStat stat;
  Tag tag = 0;
  StopTerms terms;
  pid_t worker = 0;
};
using Processes = std::map<pid_t, Seen>;

// The process is looked at again with its pidfd in hand: whoever bears the tag is one of ours.
void signal_tagged(pid_t pid, Tag tag, int signal) {
  const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd || read_tag(pid) != tag) return;
  ::syscall(SYS_pidfd_send_signal, pidfd.get(), signal, nullptr, 0);
}

void hide_command_line(int argc, char** argv, std::string_view title) {
  if (argc < 1) return;
  char* const begin = argv[0];
  char* end = begin;
  for (int i = 0; i < argc && argv[i] == end; ++i) end += std::strlen(argv[i]) + 1;
  std::memset(begin, 0, static_cast<std::size_t>(end - begin));
  title = title.substr(0, static_cast<std::size_t>(end - begin - 1));
  std::copy(title.begin(), title.end(), begin);
}

void keep_only(int fd) {
  const auto number = static_cast<unsigned>(fd);
  const bool below = fd == 0 || ::syscall(SYS_close_range, 0U, number - 1, 0U) == 0;
  if (below && ::syscall(SYS_close_range, number + 1, ~0U, 0U) == 0) return;
  for (int other = 0; other < 65536; ++other) {
    if (other != fd) ::close(other);
  }
}

// What a supervisor, a terminal or a shell sends to all of a group is meant for the manager.
void ignore_signals() {
  for (int signal = 1; signal < SIGRTMAX; ++signal) std::signal(signal, SIG_IGN);
  std::signal(SIGCHLD, SIG_DFL);
}

}  // namespace

Watcher::Watcher() : space_(TagSpace::draw()) {
  void* const memory = ::mmap(nullptr, sizeof(Table), PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    throw std::system_error(errno, std::generic_category(), "mmap the table of workers");
  }
  table_ = static_cast<Table*>(memory);
}

Watcher::~Watcher() {
  ::munmap(table_, sizeof(Table));
}

int Watcher::start(int argc, char** argv) {
  if (::getpid() == 1) return 0;
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) return errno;
  socket_ = UniqueFd(ends[0]);
  const UniqueFd theirs(ends[1]);
  const int error = fork_aside([&] {
    hide_command_line(argc, argv, "ostlerd: watcher");
    ::prctl(PR_SET_NAME, "ostler-watcher");
    ignore_signals();
    keep_only(theirs.get());
    if (::chdir("/") == 0) watch(theirs.get());
  });
  if (error != 0) socket_.reset();
  return error;
}

void Watcher::over() {
  constexpr char kOver = 1;
  if (socket_) [[maybe_unused]]
    const ssize_t said = ::write(socket_.get(), &kOver, 1);
}

Tag Watcher::enter(const StopTerms& terms) {
  ++serial_;
  std::uint32_t index = used_;
  if (!free_.empty()) {
    index = free_.back();
    free_.pop_back();
  } else if (used_ < table_->entries.size()) {
    ++used_;
  } else {
    return serial_;
  }
  const Tag tag = space_.make(serial_, index);
  if (tag == 0) {
    free_.push_back(index);
    return serial_;
  }
  table_->entries[index] = {tag, 0, terms.signal, terms.timeout.count(), terms.leave_behind};
  return tag;
}

void Watcher::started(Tag tag, pid_t pid) {
  if (made(tag)) table_->entries[TagSpace::index(tag)].pid = pid;
}

void Watcher::leave(Tag tag) {
  if (!made(tag)) return;
  table_->entries[TagSpace::index(tag)] = {};
  free_.push_back(TagSpace::index(tag));
}

// --- In the watcher ------------------------------------------------------------------------------

namespace {

// Those that are to be ended.
template <class Describe>
Processes look_around(const TagSpace& space, Describe describe) {
  Processes found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
    const std::string name = entry.path().filename();
    pid_t pid = 0;
    std::from_chars(name.data(), name.data() + name.size(), pid);
    if (pid <= 0) continue;
    Seen seen;
    seen.tag = read_tag(pid);
    if (!space.contains(seen.tag)) continue;
    const auto stat = read_stat(pid);
    if (!stat || !stat->alive()) continue;
    seen.stat = *stat;
    if (describe(seen)) found.emplace(pid, std::move(seen));
  }
  return found;
}

class Ending {
 public:
  // One round. False: nobody is left, or only who cannot be ended.
  bool go_on(const Processes& processes) {
    const auto elapsed = std::chrono::duration_cast<milliseconds>(Clock::now() - begin_);
    bool hope = false;
    for (const auto& [pid, seen] : processes) {
      hope = hope || elapsed < seen.terms.timeout + limits::kWatcherPatience;
      if (elapsed >= seen.terms.timeout) {
        signal_tagged(pid, seen.tag, SIGKILL);
      } else {
        ask(pid, seen, processes);
      }
    }
    return hope;
  }

 private:
  // Once: a worker has had its signal from the kernel, and as long as it lives what it has started
  // is its to wind down, as is later what has a parent among ours. A process that stands still
  // hears of it when it goes on.
  void ask(pid_t pid, const Seen& seen, const Processes& processes) {
    const bool is_worker = pid == seen.worker;
    if (!is_worker && (is_ours(seen.worker, seen.tag, processes) ||
                       is_ours(seen.stat.parent, seen.tag, processes))) {
      return;
    }
    if (!asked_.emplace(pid, seen.stat.started).second) return;
    if (!is_worker) signal_tagged(pid, seen.tag, stop_signal_for(pid, seen.terms.signal));
    signal_tagged(pid, seen.tag, SIGCONT);
  }

  static bool is_ours(pid_t pid, Tag tag, const Processes& processes) {
    const auto found = processes.find(pid);
    return found != processes.end() && found->second.tag == tag;
  }

  const Clock::time_point begin_ = Clock::now();
  std::set<std::pair<pid_t, std::uint64_t>> asked_;  // with the start, as numbers come again
};

}  // namespace

void Watcher::watch(int socket) const {
  char said = 0;
  ssize_t got = 0;
  while ((got = ::read(socket, &said, 1)) < 0 && errno == EINTR) {
  }
  if (got > 0) ::_exit(0);
  const auto describe = [this](Seen& seen) {
    const Entry& entry = table_->entries[TagSpace::index(seen.tag)];
    if (entry.tag != seen.tag) {  // left by one that is long gone
      seen.terms.timeout = limits::kOrphanPatience;
      return true;
    }
    seen.terms = {entry.signal, milliseconds(entry.timeout), entry.leave_behind};
    seen.worker = entry.pid;
    return seen.stat.session == entry.pid || !entry.leave_behind;
  };
  Ending ending;
  for (auto pause = milliseconds(10); ending.go_on(look_around(space_, describe));
       pause = std::min(2 * pause, milliseconds(200))) {
    std::this_thread::sleep_for(pause);  // NOLINT(sleep): between two looks at what is left
  }
  ::_exit(0);
}

}  // namespace ostler::runtime
