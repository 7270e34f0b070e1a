// ostler-scenario [--update] FILE...: plays scenarios and compares, or rewrites, their transcripts.
//
// In a file, a line that begins with "> " is the transcript of the command above it, "#" begins a
// remark, everything else is a command (player.hpp).
#include <fstream>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>

#include "player.hpp"

namespace {

std::string read(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// The file as it should be: every command followed by what the core answers to it now.
std::string play(const std::string& text) {
  ostler::scenario::Player player;
  std::istringstream in(text);
  std::string out;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(">")) continue;
    out += line + "\n";
    if (line.empty() || line.starts_with("#")) continue;
    try {
      for (const std::string& answer : player.play(line)) out += "> " + answer + "\n";
    } catch (const std::exception& error) {
      throw std::runtime_error("'" + line + "': " + error.what());
    }
  }
  return out;
}

// The first line that differs, with both versions.
std::string difference(const std::string& expected, const std::string& actual) {
  std::istringstream left(expected);
  std::istringstream right(actual);
  for (int number = 1;; ++number) {
    std::string a;
    std::string b;
    const bool more_a = static_cast<bool>(std::getline(left, a));
    const bool more_b = static_cast<bool>(std::getline(right, b));
    if (!more_a && !more_b) return {};
    if (a != b || more_a != more_b) {
      return "line " + std::to_string(number) + ":\n  expected: " + a + "\n  now:      " + b;
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  bool update = false;
  int failed = 0;
  for (int i = 1; i < argc; ++i) {
    const std::string path = argv[i];
    if (path == "--update") {
      update = true;
      continue;
    }
    try {
      const std::string expected = read(path);
      const std::string actual = play(expected);
      if (update) {
        std::ofstream(path) << actual;
      } else if (actual != expected) {
        std::cerr << path << ": " << difference(expected, actual) << "\n";
        ++failed;
      }
    } catch (const std::exception& error) {
      std::cerr << path << ": " << error.what() << "\n";
      ++failed;
    }
  }
  return failed == 0 ? 0 : 1;
}
