// What workers write to their stdout and stderr: read from a pipe each, cut into lines, logged, and
// the last lines kept for the report if one fails.
//
// Pipes on which something waits are read in turn, a few lines each, for a bounded time; then
// others have the loop. A pipe is read no faster than the log is written: if there is no room for a
// worker's lines (log_queue.hpp), it has to wait. When nothing is written nothing runs.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/log_queue.hpp"
#include "runtime/unique_fd.hpp"

namespace ostler::runtime {

class WorkerOutput;

// Whose turn it is. Outlives its outputs' handlers.
class OutputTurns {
 public:
  explicit OutputTurns(boost::asio::io_context& context)
      : context_(context), timer_(context), patience_(context) {}

  void add(const std::shared_ptr<WorkerOutput>& output);
  // Those that had to wait are looked at again.
  void log_has_room();
  // Something that a worker wrote before it died is not in the log yet.
  [[nodiscard]] bool has_last_words() const;
  // Called at the end of a turn.
  void on_turn(std::function<void()> tell) { tell_ = std::move(tell); }
  // What is left of what dead workers wrote is dropped, and counted.
  void give_up();

 private:
  void schedule(std::chrono::nanoseconds after);
  void take_turn();
  void look_at_held();

  boost::asio::io_context& context_;
  boost::asio::steady_timer timer_;
  boost::asio::steady_timer patience_;
  bool is_scheduled_ = false;
  bool is_patient_ = false;
  std::deque<std::shared_ptr<WorkerOutput>> waiting_;  // to be read
  std::deque<std::shared_ptr<WorkerOutput>> held_;     // by the log
  std::function<void()> tell_;
};

class WorkerOutput : public std::enable_shared_from_this<WorkerOutput> {
 public:
  using Clock = std::chrono::steady_clock;
  enum class Left : std::uint8_t { kNothing, kMore, kHeld };

  // `reading_end` is non-blocking.
  WorkerOutput(boost::asio::io_context& context, OutputTurns& turns, UniqueFd reading_end);

  // From now on lines go to `log` as they come; none: they are only kept.
  void start(std::shared_ptr<LogSource> log);
  // The worker is gone: reads what is there now, and logs it until `end`, the rest in its turn.
  void drain(Clock::time_point end);
  // No more is read. Descendants that still write get SIGPIPE.
  void close();
  [[nodiscard]] std::vector<std::string> tail() const;

 private:
  friend class OutputTurns;
  void wait();
  // A few lines.
  Left read_batch();
  // 0: nothing to be had now; the pipe is closed if there never will be.
  std::size_t read_into(std::span<char> buffer);
  // Takes lines off `bytes`.
  void take(std::string_view& bytes, std::size_t most);
  std::string finished(std::string_view part, bool is_whole);
  void log(std::vector<std::string> lines);
  void give_up();
  [[nodiscard]] std::string_view unread() const { return std::string_view(unread_).substr(taken_); }

  boost::asio::posix::stream_descriptor pipe_;
  OutputTurns& turns_;
  std::shared_ptr<LogSource> log_;
  std::string unread_;  // came from the pipe, and is not in lines yet, from `taken_` on
  std::size_t taken_ = 0;
  std::string partial_;  // of a line
  bool is_cut_ = false;  // the last line: what follows continues it
  // The worker is gone, and not all that it wrote before is in lines.
  bool has_last_words_ = false;
  bool is_awaited_ = false;  // something to read
  bool is_listed_ = false;   // at `turns_`
  std::deque<std::string> tail_;
};

}  // namespace ostler::runtime
