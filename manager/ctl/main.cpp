#include <unistd.h>

#include <cstdlib>
#include <exception>
#include <iostream>
#include <string_view>
#include <vector>

#include "ctl/arguments.hpp"
#include "ctl/commands.hpp"
#include "ctl/failed.hpp"

namespace {

bool colored() {
  const auto value = [](const char* name) {
    const char* text = std::getenv(name);
    return std::string_view(text != nullptr ? text : "");
  };
  return isatty(STDOUT_FILENO) != 0 && value("NO_COLOR").empty() && value("TERM") != "dumb";
}

int run(int count, char** arguments) {
  const auto parsed = ostler::ctl::parse({arguments + 1, arguments + count});
  if (const auto* answer = std::get_if<ostler::ctl::Answer>(&parsed)) {
    std::cout << answer->out;
    std::cerr << answer->err;
    return answer->exit_code;
  }
  return ostler::ctl::run(std::get<ostler::ctl::Options>(parsed),
                          {std::cout, std::cerr, colored()});
}

}  // namespace

int main(int count, char** arguments) {
  try {
    const int code = run(count, arguments);
    if (std::cout.flush()) return code;
    std::cerr << "ostlerctl: cannot write to standard output\n";
  } catch (const std::exception& error) {
    std::cerr << "ostlerctl: " << error.what() << "\n";
  }
  return ostler::ctl::kNotDone;
}
