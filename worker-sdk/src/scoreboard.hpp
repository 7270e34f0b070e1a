// The page on which the manager sees what its worker does (docs/worker-protocol.md), and the sign
// of life that goes with it. Without a manager it is a page of this process's own: no branches.
//
// A request costs no system call. Only when work begins after a rest, the manager is told to look,
// and a timer is armed, by which the loop shows that it runs: `beat`. When the timer finds that
// there was no work since it last ran out, it is not armed again, and the manager need not look.
//
// Everything but tick() may be called in any thread. No locks, but where more requests are in
// flight than the page has entries.
#pragma once

#include <sys/types.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string_view>

#include "channel.hpp"
#include "ostler/protocol.h"
#include "ostler/worker.hpp"

namespace ostler {

// Owns one descriptor, and the page if it is its own.
class Scoreboard {
 public:
  using nanoseconds = std::chrono::nanoseconds;

  // The most of a request's text that is kept for the report when this process is aborted.
  static constexpr std::size_t kWholeText = 500;

  // `recycle_after`: so many requests are enough; 0: they never are. `channel` outlives it. Throws
  // std::system_error.
  Scoreboard(const Channel& channel, nanoseconds beat_every, std::uint64_t recycle_after);
  ~Scoreboard();
  Scoreboard(const Scoreboard&) = delete;
  Scoreboard& operator=(const Scoreboard&) = delete;

  // Before there are requests: OSTLER_CLASS_…, how many connections are enough, and how many
  // requests are served at the same time (0: its CPU is the limit).
  void describe(std::uint32_t worker_class, std::uint32_t capacity,
                std::uint32_t concurrency) noexcept;

  // From now on the loop waits for timer_fd() and calls tick() when it is readable.
  void watch() noexcept;
  [[nodiscard]] int timer_fd() const noexcept { return timer_; }
  void tick() noexcept;

  // The thread that called this is the one whose loop `beat` is about, and runs the handlers. A
  // thread that called hold_thread() serves one request at a time; without a loop beside it, its
  // progress is a beat as well.
  static void run_loop() noexcept;
  static void hold_thread(bool without_loop = false) noexcept;
  void beat() noexcept;

  void connection_opened() noexcept;
  void connection_closed() noexcept;
  [[nodiscard]] std::uint64_t connections() const noexcept;
  // After that: tells the manager, if a connection waits for room. Once for each time that the
  // manager has said so.
  void offer_room() noexcept;

  // What in_flight does.
  void begin(in_flight& request, std::string_view method, std::string_view target) noexcept;
  void end(in_flight& request) noexcept;
  void progress(in_flight& request) noexcept;
  void extend(in_flight& request, nanoseconds time) noexcept;
  void discount(in_flight& request, nanoseconds time) noexcept;

  // For the report; async-signal-safe. False if entry `index` is free.
  struct Shown {
    std::uint64_t start = 0;
    std::uint64_t progress = 0;  // 0: it holds no thread
    std::uint64_t until = 0;
    pid_t thread = 0;
    std::array<char, kWholeText> text{};
    std::size_t size = 0;
  };
  bool show(std::size_t index, Shown& shown) const noexcept;

 private:
  struct Whole {
    std::array<char, kWholeText> text;
    std::size_t size;
  };

  void wake() noexcept;
  void arm(nanoseconds interval) const noexcept;
  int take_entry() noexcept;
  void give_entry(int entry) noexcept;
  void list_waiting() noexcept;
  void overflow(in_flight& request, std::string_view method, std::string_view target) noexcept;
  void fill(const in_flight& request, std::string_view method, std::string_view target) noexcept;
  void count(const in_flight& request) noexcept;

  const Channel& channel_;
  ostler_scoreboard& page_;
  const nanoseconds beat_every_;
  const std::uint64_t recycle_after_;
  int timer_ = -1;
  std::atomic<bool> asleep_{false};  // the next request wakes the manager
  std::atomic<bool> worn_{false};
  std::atomic<bool> room_unsaid_{false};     // the manager's queue was full
  std::atomic<std::uint64_t> entries_{0};    // one bit each, 1: in use
  std::atomic<std::uint64_t> uncounted_{0};  // private requests that ended
  std::uint64_t last_seen_ = 0;              // of tick()
  std::array<Whole, OSTLER_REQUESTS_SHOWN> whole_{};

  // Requests without an entry, oldest first.
  std::mutex mutex_;
  std::map<std::uint64_t, in_flight*> waiting_;
  std::atomic<std::size_t> waiting_count_{0};
  std::uint64_t next_number_ = 0;
};

}  // namespace ostler
