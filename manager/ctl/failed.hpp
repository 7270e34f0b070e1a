// How a command ends: the exit codes, and what is thrown to end it early.
#pragma once

#include <stdexcept>
#include <string>

namespace ostler::ctl {

enum ExitCode : int {
  kDone = 0,
  kNotDone = 1,       // it was tried and failed
  kUsage = 2,         // wrong usage
  kNoManager = 3,     // no manager answers at the socket
  kNotFound = 4,      // no such pool or worker
  kNotPermitted = 5,  // the socket's mode, or the manager, says no
  kInterrupted = 130  // Ctrl-C while waiting
};

// Thrown; `what()` is the sentence for standard error, already fit for a terminal.
class Failed : public std::runtime_error {
 public:
  Failed(ExitCode code, const std::string& sentence) : std::runtime_error(sentence), code_(code) {}
  [[nodiscard]] ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

// Thrown by a wait that Ctrl-C ended.
class Interrupted : public std::exception {};

}  // namespace ostler::ctl
