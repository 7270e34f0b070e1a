// One line of the log, and what it looks like: as text, as JSON, in the journal.
//
// What a line is about is said with the words of the events (GET /v1/events), so that whoever reads
// the one understands the other.
#pragma once

#include <spdlog/common.h>

#include <chrono>
#include <memory>
#include <string>

#include "control/messages.hpp"

namespace ostler::runtime {

struct LogLine {
  std::chrono::system_clock::time_point time;
  spdlog::level::level_enum level = spdlog::level::info;
  std::string name;  // of a worker that wrote it, "web.0[4243]"; "": the manager's own
  std::string text;  // printable
  std::shared_ptr<const control::EventView> about;  // none: the manager as a whole
};

// As syslog(3) counts it.
int priority(spdlog::level::level_enum level);

// "web.0[4243]: text"; the others end with a line break.
std::string named_text(const LogLine& line);
// "2026-01-31T12:34:56.123Z info web.0[4243]: text"
std::string text_line(const LogLine& line);
// {"time":…,"level":…,"event":…,"pool":…,…,"message":"text"}
std::string json_line(const LogLine& line);
// journald's native protocol: FIELD=value lines. OSTLER_EVENT, OSTLER_POOL, OSTLER_WORKER,
// OSTLER_SLOT, OSTLER_WORKER_PID, OSTLER_GENERATION, OSTLER_REASON…
std::string journal_entry(const LogLine& line);

// Text of foreign origin for one line of a log: control bytes as \xNN.
std::string printable(std::string_view text);

}  // namespace ostler::runtime
