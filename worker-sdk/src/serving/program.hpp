// What every serve() has in common: its command line, and its exit codes.
#pragma once

#include <exception>
#include <optional>
#include <stdexcept>
#include <string>

#include "ostler/options.hpp"

namespace ostler::serving {

// One line on stderr, after the program's name.
void complain(const char* what);

// What an exception says; with "in class NAME" and the like before it, the caller's to add.
std::string reason_of(const std::exception_ptr& error);

// `--listen ADDRESS` into `listen`. The exit code, if the program is not to serve. `protocol`, as
// in "Serves HTTP on …", is for the usage.
std::optional<int> parse_flags(int argc, char** argv, const char* protocol, std::string& listen);

template <class Function>
int exit_code_of(Function function) noexcept {
  try {
    return function();
  } catch (const std::invalid_argument& error) {
    complain(error.what());
    return kUsageError;
  } catch (const std::exception& error) {
    complain(error.what());
    return kFailed;
  }
}

}  // namespace ostler::serving
