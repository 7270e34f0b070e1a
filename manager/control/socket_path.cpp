#include "control/socket_path.hpp"

#include <unistd.h>

#include <cstdlib>
#include <string_view>

namespace ostler::control {
namespace {

std::string_view folder(const char* variable) {
  const char* value = std::getenv(variable);
  if (value == nullptr || *value != '/') return {};
  // systemd joins several RuntimeDirectory= with colons; the first is the one meant here.
  const std::string_view text = value;
  return text.substr(0, text.find(':'));
}

}  // namespace

std::string runtime_directory() {
  if (const auto given = folder("RUNTIME_DIRECTORY"); !given.empty()) return std::string(given);
  if (geteuid() == 0) return "/run/ostler";
  if (const auto own = folder("XDG_RUNTIME_DIR"); !own.empty()) return std::string(own) + "/ostler";
  const auto temporary = folder("TMPDIR");
  return std::string(temporary.empty() ? "/tmp" : temporary) + "/ostler-" +
         std::to_string(geteuid());
}

std::string default_control_socket() {
  return runtime_directory() + "/control.sock";
}

}  // namespace ostler::control
