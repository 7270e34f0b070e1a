// From YAML to a validated `Config`, or to the complete list of faults.
//
// Reads files, looks commands, users and groups up; opens no socket and starts nothing. The loader
// never throws for faulty input: everything a user can get wrong becomes a `Fault`.
// Thread safety: none needed; no global state.
#pragma once

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "config/src/model.hpp"

namespace ostler::config {

// One thing that is wrong, and what would be right.
struct Fault {
  std::string file;  // "" for the command line
  int line = 0;      // from 1; 0: none
  int column = 0;    // from 1; 0: none
  std::string key;   // "pools.web.timeouts.start"; "" for the document as a whole
  std::string message;
  // "file:line:column: key: message", leaving out what is not known.
  [[nodiscard]] std::string text() const;
  bool operator==(const Fault&) const = default;
};

// One `--set KEY=VALUE`: the value is read as YAML.
struct Override {
  std::string key;
  std::string value;
};

struct LoadOptions {
  std::vector<Override> overrides;  // applied to the file's tree before validation, in order
  bool trusted_file_only = false;   // as root: refuse files that others may write (SPEC 4)
  // What relative paths of the command line are relative to, and where workers without a
  // `directory` start. Empty: working_folder() now.
  std::string folder;
  // The runtime directory: it is made at the start, if the control socket lies in it.
  std::string runtime_folder;
  bool running = false;  // for a reload: the log and the control socket are open already
};

struct Loaded {
  Config config;                      // meaningful only if `faults` is empty
  std::vector<Fault> faults;          // ordered by file, line, column
  std::vector<std::string> warnings;  // e.g. workers that run as root because nothing was said
  [[nodiscard]] bool ok() const { return faults.empty(); }
};

// Loads FILE and everything it includes.
Loaded load(const std::string& file, const LoadOptions& options = {});

// The ad-hoc form: one pool named `app`. `keys` are pool keys as on the command line, dashes
// joining nested ones ("timeouts-stop", "5s"); "listen" and "warmup" may be repeated; `command` is
// argv. "socket" is control.socket; "log-level", "log-format", "log-output" are the keys of `log`.
Loaded load_ad_hoc(const std::vector<std::pair<std::string, std::string>>& keys,
                   const std::vector<std::string>& command, const LoadOptions& options = {});

// The option names of the ad-hoc form with one line of help each, in the order `--help` shows them.
struct AdHocOption {
  std::string name;  // "timeouts-stop"
  std::string help;  // "from the stop signal to SIGKILL (default 30s)"
};
const std::vector<AdHocOption>& ad_hoc_options();

// The effective configuration, defaults filled in, as YAML that reads back to an equal `Config`.
// `show_env` false leaves the values of `env` out (GET /v1/config).
std::string print(const Config& config, bool show_env = true);

}  // namespace ostler::config
