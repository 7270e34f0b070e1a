#include "ctl/config_check.hpp"

#include <unistd.h>

#include <nlohmann/json.hpp>
#include <ostream>

#include "config/src/load.hpp"
#include "control/socket_path.hpp"
#include "ctl/failed.hpp"

namespace ostler::ctl {
namespace {

void print_json(const config::Loaded& loaded, const Terminal& terminal) {
  nlohmann::json answer = {{"errors", nlohmann::json::array()}, {"warnings", loaded.warnings}};
  for (const config::Fault& fault : loaded.faults)
    answer["errors"].push_back({{"file", fault.file},
                                {"line", fault.line},
                                {"column", fault.column},
                                {"key", fault.key},
                                {"message", fault.message}});
  terminal.out << answer.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
}

}  // namespace

int check_config(const std::string& file, bool json, const Terminal& terminal) {
  config::LoadOptions options;
  options.trusted_file_only = geteuid() == 0;
  options.runtime_folder = control::runtime_directory();
  const config::Loaded loaded = config::load(file, options);
  if (json) {
    print_json(loaded, terminal);
    return loaded.ok() ? kDone : kNotDone;
  }
  for (const config::Fault& fault : loaded.faults) terminal.err << printable(fault.text()) << "\n";
  for (const std::string& warning : loaded.warnings)
    terminal.err << "warning: " << printable(warning) << "\n";
  if (loaded.ok()) terminal.out << printable(file) << ": no faults\n";
  return loaded.ok() ? kDone : kNotDone;
}

}  // namespace ostler::ctl
