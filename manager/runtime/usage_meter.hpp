// Measures what workers use, for their recycling by memory and for status answers.
//
// To measure one takes as long as it likes (hundreds of large mappings: seconds), so that is done
// by looks (looks.hpp), one sweep at a time. A worker whose look does not come back in time is told
// as overdue, and left out until it does; the others are measured. What comes late is told as well.
#pragma once

#include <sys/types.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/ids.hpp"
#include "runtime/limits.hpp"
#include "runtime/looks.hpp"
#include "runtime/usage.hpp"

namespace ostler::runtime {

class UsageMeter {
 public:
  struct Subject {
    core::WorkerId worker;
    pid_t pid = 0;
    bool operator==(const Subject&) const = default;
  };
  struct Hooks {
    // As of `since`, when its look began. What is not known is none.
    std::function<void(core::WorkerId, core::Time since, const Usage&)> measured;
    // What it uses is not known, and why. It is told as measured when, and if, its look comes back.
    std::function<void(core::WorkerId, const std::string& why)> overdue;
    // How one process is measured: measure_usage, but in tests. Called in another thread.
    std::function<Usage(pid_t)> measure = measure_usage;
    std::chrono::milliseconds patience = limits::kMeasurePatience;  // with one look
    std::chrono::milliseconds answer = limits::kSamplePatience;     // of `refresh`
  };

  UsageMeter(boost::asio::io_context& context, Hooks hooks);

  // Measures it. Where no look can be made, it is told as overdue and measured with nothing known.
  void measure(const Subject& subject);
  // Measures as many of these as a sweep has time for, in this order, and calls `then`: at once if
  // there is nothing to do, when all is done, or when an answer can wait no longer.
  void refresh(const std::vector<Subject>& subjects, std::function<void()> then);

 private:
  struct Sweep;
  struct Waiting;
  void start_sweep();
  void finished(const Sweep& sweep);
  void give_up(const std::shared_ptr<Sweep>& sweep, std::size_t number);
  void came_back(const Sweep& sweep);
  void tell(const Sweep& sweep, std::size_t number) const;
  void go_on();

  boost::asio::io_context& context_;
  Hooks hooks_;
  std::vector<Subject> wanted_;  // by `measure`: each is to be measured
  std::vector<Subject> old_;     // by `refresh`: as many as there is time for
  std::shared_ptr<Sweep> sweep_;
  std::vector<Subject> lost_;  // their looks have not come back
  std::vector<std::shared_ptr<Waiting>> waiting_;
  Looks looks_;
};

}  // namespace ostler::runtime
