// The file of `--trace`: what the core was told and what it decided, for bug reports.
#pragma once

#include <string>

#include "runtime/unique_fd.hpp"

namespace ostler::runtime {

class TraceFile {
 public:
  // Begins anew at PATH, which may hold an earlier trace. Throws std::runtime_error.
  void open(std::string path);
  [[nodiscard]] bool is_open() const { return static_cast<bool>(file_); }
  // The first line that cannot be written ends the trace, and the log says so.
  void record(const std::string& line);

 private:
  std::string path_;
  UniqueFd file_;
};

}  // namespace ostler::runtime
