#include "serving/abort_report.hpp"

#include <execinfo.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <ctime>
#include <limits>
#include <string_view>
#include <system_error>

#include "wake_signal.hpp"

namespace ostler::serving {
namespace {

constexpr std::size_t kMostNamed = 16;
// The innermost calls say where it hangs; the manager keeps the last lines for its report.
constexpr int kMostLines = 24;

std::atomic<const Scoreboard*> shown{nullptr};

// A line of bounded length, put together without allocating.
class Line {
 public:
  Line& operator<<(std::string_view text) {
    const std::size_t size = std::min(text.size(), text_.size() - 1 - size_);
    std::copy_n(text.begin(), size, text_.begin() + static_cast<std::ptrdiff_t>(size_));
    size_ += size;
    return *this;
  }
  Line& operator<<(std::uint64_t number) {
    std::array<char, 20> digits{};
    const auto end = std::to_chars(digits.begin(), digits.end(), number).ptr;
    return *this << std::string_view(digits.data(), static_cast<std::size_t>(end - digits.data()));
  }
  // What came from a client must not look like a line of its own.
  Line& printable(std::string_view text) {
    for (const char c : text) {
      const bool plain = static_cast<unsigned char>(c) >= 0x20 && c != 0x7f;
      *this << std::string_view(plain ? &c : "?", 1);
    }
    return *this;
  }
  void write() {
    text_[size_++] = '\n';
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text_.data(), size_);
  }

 private:
  std::array<char, Scoreboard::kWholeText + 100> text_{};
  std::size_t size_ = 0;
};

struct Entry {
  std::size_t index;
  std::uint64_t start;
};

// Oldest first. Returns how many there are.
std::size_t sort_entries(const Scoreboard& board,
                         std::array<Entry, OSTLER_REQUESTS_SHOWN>& entries) {
  std::size_t count = 0;
  Scoreboard::Shown request;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (board.show(i, request)) entries[count++] = {i, request.start};
  }
  std::ranges::sort(entries.begin(), entries.begin() + static_cast<std::ptrdiff_t>(count), {},
                    &Entry::start);
  return count;
}

std::uint64_t nanoseconds_now() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000U +
         static_cast<std::uint64_t>(time.tv_nsec);
}

void write_request(const Scoreboard::Shown& request, std::uint64_t now) {
  const std::uint64_t tenths = (now - std::min(request.start, now)) / 100'000'000U;
  Line line;
  line << "serving ";
  line.printable({request.text.data(), request.size});
  line << " for " << tenths / 10 << "." << tenths % 10 << " s, thread "
       << static_cast<std::uint64_t>(request.thread);
  line.write();
}

// Whom this worker may be aborted for: the request that takes longest and the thread that has been
// silent for longest, of those that have not been granted more time; which of the two it is only
// the manager knows. 0: nobody.
class Suspects {
 public:
  explicit Suspects(std::uint64_t now) : now_(now) {}

  // Oldest first.
  void consider(const Scoreboard::Shown& request) {
    if (oldest_ == 0) oldest_ = request.thread;
    if (request.until > now_) return;
    if (overdue_ == 0) overdue_ = request.thread;
    if (request.progress != 0 && request.progress < progress_) {
      progress_ = request.progress;
      silent_ = request.thread;
    }
  }
  [[nodiscard]] pid_t overdue() const { return overdue_ != 0 ? overdue_ : oldest_; }
  [[nodiscard]] pid_t silent() const { return silent_; }

 private:
  std::uint64_t now_;
  std::uint64_t progress_ = std::numeric_limits<std::uint64_t>::max();
  pid_t oldest_ = 0;
  pid_t overdue_ = 0;
  pid_t silent_ = 0;
};

void write_stack(pid_t thread, int most) {
  const auto stack = wake_signal::stack_of(thread);
  Line line;
  line << "stack of thread " << static_cast<std::uint64_t>(thread)
       << (stack.depth > 0 ? ":" : ": it does not answer");
  line.write();
  ::backtrace_symbols_fd(stack.frames.data(), std::min(stack.depth, most), STDERR_FILENO);
}

void write_report(const Scoreboard& board) {
  std::array<Entry, OSTLER_REQUESTS_SHOWN> entries{};
  const std::size_t count = sort_entries(board, entries);
  const std::uint64_t now = nanoseconds_now();
  Suspects suspects(now);
  Scoreboard::Shown request;
  for (std::size_t i = 0; i < count; ++i) {
    if (!board.show(entries[i].index, request)) continue;  // it has just ended
    suspects.consider(request);
    if (i < kMostNamed) write_request(request, now);
  }
  if (count > kMostNamed) {
    Line line;
    line << "and " << count - kMostNamed << " more requests";
    line.write();
  }
  const pid_t overdue = suspects.overdue();
  const pid_t silent = suspects.silent();
  const bool both = silent != 0 && silent != overdue;
  if (both) write_stack(silent, kMostLines / 2);
  if (overdue != 0) write_stack(overdue, both ? kMostLines / 2 : kMostLines);
}

extern "C" void ostler_on_abort(int signal) {
  // Only the first; a thread that aborts meanwhile waits for the end here.
  static std::atomic<bool> reporting{false};
  if (!reporting.exchange(true)) {
    if (const Scoreboard* const board = shown) write_report(*board);
    ::signal(signal, SIG_DFL);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    ::sigprocmask(SIG_UNBLOCK, &set, nullptr);
    ::raise(signal);
  }
  while (true) ::pause();
}

}  // namespace

AbortReport::AbortReport(const Scoreboard& scoreboard) {
  struct sigaction before {};
  if (::sigaction(SIGABRT, nullptr, &before) != 0 || before.sa_handler != SIG_DFL) return;
  wake_signal::number();
  shown = &scoreboard;
  struct sigaction action {};
  action.sa_handler = ostler_on_abort;
  sigemptyset(&action.sa_mask);
  if (::sigaction(SIGABRT, &action, nullptr) != 0) {
    throw std::system_error(errno, std::generic_category(), "catch SIGABRT");
  }
  installed_ = true;
}

AbortReport::~AbortReport() {
  if (!installed_) return;
  ::signal(SIGABRT, SIG_DFL);
  shown = nullptr;
}

}  // namespace ostler::serving
