// Where the log goes and what it looks like: stderr, a file, journald or syslog; text or JSON.
// A stderr that is a stream to the journal gets each line with its priority and without the time.
//
// Lines are written by a thread of their own from a bounded queue, so that a reader that does not
// read can never hold the manager up; when the queue is full the oldest lines are dropped. Call
// from the main thread only.
#pragma once

#include <spdlog/logger.h>

#include <memory>
#include <string>

#include "config/src/model.hpp"

namespace ostler::runtime {

// Makes spdlog's default logger. Throws std::runtime_error naming the file that cannot be opened.
void open_log(const config::Log& log);
// Changes level and format of the log that is open.
void adjust_log(const config::Log& log);
// Opens log files and workers' output files anew; returns how many. A file that cannot be opened
// stays as it is and is complained about.
int reopen_logs();
// Writes out what is queued. False: nobody took it within a moment, and the thread that writes it
// is still at it, so that only `_exit` ends the process.
bool close_log();

// A logger for what a worker writes: forwarded into the manager's log under "POOL.SLOT[PID]".
std::shared_ptr<spdlog::logger> worker_logger(const std::string& name);
// A logger that writes bare lines to a file, shared by all who name the same file. Throws as
// open_log does.
std::shared_ptr<spdlog::logger> file_logger(const std::string& path);

// Text of foreign origin for one line of a log: control bytes as \xNN.
std::string printable(std::string_view text);

}  // namespace ostler::runtime
