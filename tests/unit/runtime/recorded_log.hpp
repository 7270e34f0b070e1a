// A log for tests: keeps its lines, and stands still when it is told to.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "runtime/log_queue.hpp"

struct RecordedLog : ostler::runtime::LogOutput {
  void write(const ostler::runtime::LogLine& line) override {
    std::unique_lock lock(mutex);
    ++begun;
    changed.notify_all();
    changed.wait(lock, [this] { return !is_still; });
    lines.push_back(ostler::runtime::named_text(line));
  }
  void stand_still(bool still) {
    const std::lock_guard lock(mutex);
    is_still = still;
    changed.notify_all();
  }
  // The log thread has a line in its hands.
  void await_line() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [this] { return begun > 0; });
  }

  std::mutex mutex;
  std::condition_variable changed;
  bool is_still = false;
  int begun = 0;
  std::vector<std::string> lines;
};

// What is queued, written out here and now.
inline std::vector<std::string> written(ostler::runtime::LogQueue& queue, RecordedLog& log) {
  queue.finish(std::chrono::milliseconds(0));
  queue.write();
  return std::exchange(log.lines, {});
}
