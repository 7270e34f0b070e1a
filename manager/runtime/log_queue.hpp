// What waits for the log thread: one queue in the order of arrival, with a bound for each who
// writes.
//
// A worker's output is a LogSource. While its share of the queue is taken it is asked to wait
// (`room()` is 0), so that its pipe is not read and the worker waits in write(2): nothing is lost.
// Where the log thread stands still, a worker must not: then its lines are dropped and counted, and
// the number is said at their place in the log. The manager's own lines have a share of their own:
// no worker's line takes their place.
//
// Sources and the queue are used by the main thread; `write` is the log thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "runtime/log_line.hpp"

namespace ostler::runtime {

// Where lines go. Written to by the log thread alone.
class LogOutput {
 public:
  LogOutput() = default;
  LogOutput(const LogOutput&) = delete;
  LogOutput& operator=(const LogOutput&) = delete;
  virtual ~LogOutput() = default;
  virtual void write(const LogLine& line) = 0;
};

class LogQueue;
using About = std::shared_ptr<const control::EventView>;

// How much of one source, or of several, may wait.
struct LogShare {
  std::size_t lines;
  std::size_t bytes;
};

class LogSource : public std::enable_shared_from_this<LogSource> {
 public:
  struct What {
    std::string who;        // of whom it is said that lines were dropped: "web.0[4243]"
    std::string name;       // before each line; "": none
    std::string continued;  // before what continues a line that was cut
    About about;            // of each line
    std::shared_ptr<LogOutput> output;
  };
  LogSource(std::shared_ptr<LogQueue> queue, What what, LogShare share)
      : queue_(std::move(queue)), what_(std::move(what)), share_(share) {}

  [[nodiscard]] const What& what() const { return what_; }
  // How many lines may be added now. 0: none, and the queue tells when that has changed.
  [[nodiscard]] std::size_t room();
  // As many as `room` said at most. Printable.
  void add(std::vector<std::string> lines);
  // They were not read, and never will be.
  void drop(std::uint64_t lines);

 private:
  friend class LogQueue;
  std::shared_ptr<LogQueue> queue_;
  const What what_;
  const LogShare share_;
  // The queue's, under its lock.
  std::size_t lines_ = 0;
  std::size_t bytes_ = 0;
  std::uint64_t dropped_ = 0;        // what the notice that waits in the queue will say
  bool for_want_of_memory_ = false;  // some of those that were dropped
  bool is_held_ = false;
};

class LogQueue : public std::enable_shared_from_this<LogQueue> {
 public:
  // The manager's own lines and what is said of dropped ones go to `output`.
  explicit LogQueue(std::shared_ptr<LogOutput> output);

  // A line of the manager's own.
  void add(LogLine line);
  std::shared_ptr<LogSource> worker(LogSource::What what);
  // Called by the log thread when a source that had to wait has room again.
  void on_room(std::function<void()> tell);
  // Has the log thread do something else before the next line. False: too much of that waits.
  bool ask(std::function<void()> job);
  // The log thread: ends once it is asked to and has written all.
  void write();
  // False: it takes longer than `patience`. If nobody reads what is written, that is for ever.
  bool finish(std::chrono::milliseconds patience);

 private:
  friend class LogSource;
  using Clock = std::chrono::steady_clock;
  using Lock = std::unique_lock<std::mutex>;
  struct Waiting {
    std::shared_ptr<LogSource> source;
    LogLine line;
    bool is_notice = false;  // says how many lines were dropped here
  };

  // All under the lock.
  [[nodiscard]] bool stands_still() const;
  [[nodiscard]] bool has_room(const LogSource& source) const;
  [[nodiscard]] bool has_room_again(const LogSource& source) const;
  void push(const std::shared_ptr<LogSource>& source, LogLine line);
  void drop(const std::shared_ptr<LogSource>& source, std::uint64_t lines);
  bool take_out(const Waiting& first);
  void lost() noexcept;
  void do_first(Lock& lock);
  void write_first(Lock& lock);

  const std::shared_ptr<LogSource> own_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Waiting> lines_;
  std::size_t workers_bytes_ = 0;
  std::deque<std::function<void()>> jobs_;
  std::function<void()> tell_;
  std::optional<Clock::time_point> busy_since_;  // with what the log thread does now
  bool ending_ = false;
  bool written_ = false;
};

}  // namespace ostler::runtime
