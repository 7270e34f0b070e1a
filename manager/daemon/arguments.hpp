// ostlerd's command line (SPEC 3).
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "config/src/load.hpp"

namespace ostler::daemon {

enum class Mode { kRun, kCheck, kPrintConfig };

struct Arguments {
  Mode mode = Mode::kRun;
  std::string config = "/etc/ostler/ostler.yaml";
  bool ad_hoc = false;                                    // a pool from the command line, no file
  std::vector<std::pair<std::string, std::string>> keys;  // ad hoc
  std::vector<std::string> command;                       // ad hoc
  std::vector<config::Override> overrides;                // --set
  std::string trace;
};

// Parses, or says what there is to say (help, version, a usage error) and gives the exit code.
struct Parsed {
  std::optional<Arguments> arguments;
  int exit_code = 0;
};
Parsed parse_arguments(int argc, char** argv);

}  // namespace ostler::daemon
