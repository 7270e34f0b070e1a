// What a worker says when it is aborted, by its manager because it hangs, or by itself: the
// requests it was serving, oldest first, and where in the program the oldest is.
#pragma once

#include <csignal>

#include "scoreboard.hpp"

namespace ostler::serving {

// Catches SIGABRT for as long as it lives, unless the program does. The report goes to stderr; then
// the signal takes its course (a core dump). One object at a time.
class AbortReport {
 public:
  // `scoreboard` outlives it. Throws std::system_error.
  explicit AbortReport(const Scoreboard& scoreboard);
  ~AbortReport();
  AbortReport(const AbortReport&) = delete;
  AbortReport& operator=(const AbortReport&) = delete;

 private:
  bool installed_ = false;
};

}  // namespace ostler::serving
