// Turns signals into a readable descriptor and a count. The handlers belong to the process, so
// there is one object at a time. The counters may be read from any thread.
#pragma once

#include <csignal>

#include <initializer_list>
#include <utility>
#include <vector>

namespace ostler {

class StopSignals {
 public:
  // Throws std::system_error if a signal cannot be caught, std::logic_error if an object exists.
  explicit StopSignals(std::initializer_list<int> signals);
  // Restores the dispositions found by the constructor.
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  [[nodiscard]] int fd() const noexcept { return fd_; }
  [[nodiscard]] int requests() const noexcept;

  // From now on the second request ends the process at once, with this exit code, whatever its
  // threads are doing.
  void leave_at_second(int exit_code) noexcept;

 private:
  void install(std::initializer_list<int> signals);
  void remove() noexcept;

  int fd_ = -1;
  std::vector<std::pair<int, struct sigaction>> previous_;
};

}  // namespace ostler
