// The format of `env_file`: what systemd's EnvironmentFile= and Docker's --env-file have in common.
//
// One KEY=VALUE a line. Empty lines and lines that begin with `#` or `;` are skipped; blanks around
// KEY and VALUE are dropped, and an `export ` before KEY. A VALUE in single quotes is taken as it
// is; in double quotes, `\"`, `\\`, `\$` and a backslash before a backquote stand for the second
// character. Without quotes nothing is special: a `#` or a quote further on is part of the value.
// A value ends with its line. Nothing is expanded. If a KEY is given twice, the last one counts.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ostler::config {

struct EnvFile {
  std::map<std::string, std::string> values;
  std::vector<std::pair<int, std::string>> problems;  // line, what is wrong with it
};
EnvFile parse_env_file(std::string_view text);

}  // namespace ostler::config
