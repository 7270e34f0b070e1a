// Where the log goes and what it looks like: stderr, a file, journald or syslog; text or JSON.
// A stderr that is a stream to the journal gets each line with its priority and without the time.
//
// Lines are written by a thread of their own from a bounded queue (log_queue.hpp), so that a reader
// that does not read can never hold the manager up. Files are opened anew by that thread too: a
// disk or a file server may take its time. Call from the main thread only.
#pragma once

#include <spdlog/logger.h>

#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "config/src/model.hpp"
#include "runtime/log_line.hpp"
#include "runtime/log_queue.hpp"

namespace ostler::runtime {

// Why a log file could not be opened.
struct LogFileFault {
  std::string path;
  std::string operation;  // "open"
  std::string reason;
  [[nodiscard]] std::string text() const;  // "open /var/log/web.log: Permission denied"
};
class LogFileError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Reopened {
  int files = 0;
  std::vector<LogFileFault> faults;
};

// Makes spdlog's default logger. Throws std::runtime_error; LogFileError names the file that cannot
// be opened.
void open_log(const config::Log& log);
// Changes level and format of the log that is open.
void adjust_log(const config::Log& log);
// Opens log files and workers' output files anew. Where that fails, the file that was open stays
// in use. The log thread calls `done`. False: too many such requests wait already.
bool reopen_logs(std::function<void(const Reopened&)> done);
// Writes out what is queued. False: nobody took it within a moment, and the thread that writes it
// is still at it, so that only `_exit` ends the process.
bool close_log();

// A line of the manager's own about a pool or a worker: JSON and the journal get the members of
// `about` as fields. Its time is not looked at.
void log_event(spdlog::level::level_enum level, const control::EventView& about, std::string text);
template <class... Args>
void log_event(spdlog::level::level_enum level, const control::EventView& about,
               spdlog::format_string_t<Args...> text, Args&&... args) {
  log_event(level, about, fmt::format(text, std::forward<Args>(args)...));
}

// The log thread calls `tell` when a worker whose output had to wait has room in the log again.
void on_log_room(std::function<void()> tell);

// For what a worker writes, whatever the level: forwarded into the manager's log, `who`
// ("POOL.SLOT[PID]") before each line.
std::shared_ptr<LogSource> worker_log(const std::string& who, About about);
// For bare lines in a file, shared by all who name the same file. Throws as open_log does.
std::shared_ptr<LogSource> file_log(const std::string& path, const std::string& who, About about);

}  // namespace ostler::runtime
