// What the tests of the configuration share: a scratch folder with a few executables in it, and a
// manager that may do all or nothing, whoever runs the tests.
#pragma once

#include <doctest/doctest.h>

#include <initializer_list>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "config/src/host.hpp"
#include "config/src/load.hpp"
#include "config/src/loader.hpp"

namespace ostler::config {

// A folder under the temporary folder; gone with the object.
class Scratch {
 public:
  Scratch();
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string operator/(std::string_view name) const;
  // Makes the folders above it too; returns the full path.
  std::string write(std::string_view name, std::string_view text, unsigned mode = 0644) const;
  std::string folder(std::string_view name, unsigned mode = 0755) const;

 private:
  std::string path_;
};

using Lines = std::vector<std::string>;

// A scratch folder whose bin/ is the PATH and holds `app`, and the machine to check against.
struct Stable {
  Stable();

  [[nodiscard]] Loaded load(std::string_view text, const LoadOptions& options = {}) const;
  [[nodiscard]] Loaded load_file(std::string_view name, const LoadOptions& options = {}) const;
  // The faults of TEXT, read as "t.yaml".
  [[nodiscard]] Lines faults(std::string_view text,
                             const std::vector<Override>& overrides = {}) const;
  // The faults of a pool `app` with a command and these lines (two blanks before each).
  [[nodiscard]] Lines pool_faults(std::string_view lines) const;
  // The same pool, which must be without fault.
  [[nodiscard]] Pool pool(std::string_view lines) const;

  Scratch scratch;
  Host host;
};

// A manager without any privilege, and one with all.
Host ordinary(Host host);
Host privileged(Host host);

bool running_as_root();
// Whether only root can put files in the place of those in FOLDER; found out without the code under
// test.
bool only_root_writes(const std::string& folder);
// Says why the rest of a test is left out.
void skip(const std::string& reason);

Lines texts(const std::vector<Fault>& faults);
// Whether one of LINES holds all PARTS.
bool has(const Lines& lines, std::initializer_list<std::string_view> parts);

std::string read_text(const std::string& file);

}  // namespace ostler::config

namespace doctest {
template <>
struct StringMaker<std::vector<std::string>> {
  static String convert(const std::vector<std::string>& lines) {
    std::string out;
    for (const std::string& line : lines) out += "\n  " + line;
    return (out.empty() ? "(none)" : out).c_str();
  }
};
}  // namespace doctest
