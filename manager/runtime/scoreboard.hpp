// One worker's page of shared memory, as the manager sees it: hostile, and read-only but for one
// word (`wanted`).
//
// The page is the worker's to write (docs/worker-protocol.md). What is read from it are numbers and
// text for people: each is read once, clamped, and never used as an index, a length or an address.
// The memory is sealed against resizing, so that reading it cannot fail.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/ids.hpp"
#include "ostler/protocol.h"
#include "runtime/unique_fd.hpp"

namespace ostler::runtime {

// A request that a worker says it is serving.
struct InFlight {
  core::Time since;
  std::optional<core::Time> progress;  // of the thread that it holds; none: it holds none
  std::optional<core::Time> until;     // its handler asked for that time
  pid_t thread = 0;                    // 0: not told
  std::string what;                    // "GET /slow", printable
};

struct Figures {
  std::uint32_t worker_class = OSTLER_CLASS_OTHER;
  bool awake = false;
  core::Time beat;
  std::uint64_t requests = 0;
  std::uint64_t connections = 0;
  std::uint64_t active = 0;
  std::uint64_t capacity = 0;     // the most connections that it has open
  std::uint64_t concurrency = 0;  // the most requests that it serves at a time; 0: its CPU decides
  std::optional<core::Time> busy_since;
};

class Scoreboard {
 public:
  // A fresh page. `worker_end` becomes the descriptor to hand to the worker. Throws
  // std::system_error.
  explicit Scoreboard(UniqueFd& worker_end);
  ~Scoreboard();
  Scoreboard(const Scoreboard&) = delete;
  Scoreboard& operator=(const Scoreboard&) = delete;

  // No number is larger than what is possible, no time later than `now`.
  [[nodiscard]] Figures figures(core::Time now) const;
  // Connections that were handed to it; and of these, those that it has named as not taken. To be
  // read in this order: what is in the first and was not taken is in the second.
  [[nodiscard]] std::uint64_t taken() const;
  [[nodiscard]] std::uint64_t not_taken() const;
  // Has the worker say so when it gets room (OSTLER_ROOM). Whatever is read of the page after this
  // call, the worker has either written before it looked, or will say it. True: it has seen what
  // was asked before, if anything was.
  bool want_room() const;
  // Oldest first.
  [[nodiscard]] std::vector<InFlight> in_flight(core::Time now) const;

 private:
  const ostler_scoreboard* page_ = nullptr;
  std::uint64_t* wanted_ = nullptr;  // the one field of the page that is the manager's
};

}  // namespace ostler::runtime
