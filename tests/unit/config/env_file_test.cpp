#include "config/src/env_file.hpp"

#include <doctest/doctest.h>

#include "stable.hpp"

namespace ostler::config {

TEST_CASE("environment files: what is understood") {
  const EnvFile file = parse_env_file(
      "\xEF\xBB\xBF# a comment\n"
      "; another\n"
      "\n"
      "PLAIN=a b  # no comment\n"
      "  BLANKS =  x  \r\n"
      "export EXPORTED=1\n"
      "EMPTY=\n"
      "SINGLE='a \\n \"$X\" b'\n"
      "DOUBLE=\"a \\\"q\\\" \\\\ \\$X \\n\"\n"
      "EQUALS=a=b\n"
      "INSIDE=it's\n"
      "TWICE=1\n"
      "TWICE=2");
  CHECK(file.problems.empty());
  CHECK(file.values == std::map<std::string, std::string>{{"PLAIN", "a b  # no comment"},
                                                          {"BLANKS", "x"},
                                                          {"EXPORTED", "1"},
                                                          {"EMPTY", ""},
                                                          {"SINGLE", "a \\n \"$X\" b"},
                                                          {"DOUBLE", "a \"q\" \\ $X \\n"},
                                                          {"EQUALS", "a=b"},
                                                          {"INSIDE", "it's"},
                                                          {"TWICE", "2"}});
}

TEST_CASE("environment files: every faulty line, with its number") {
  const EnvFile file =
      parse_env_file(std::string("A=1\n"
                                 "NOEQUALS\n"
                                 "=x\n"
                                 "B='open\n"
                                 "C=\"a\" b\n"
                                 "A B=c\n"
                                 "D=\xFF\n"
                                 "E=\0x\n",
                                 47));
  Lines lines;
  for (const auto& [line, what] : file.problems) lines.push_back(std::to_string(line) + " " + what);
  CHECK(lines == Lines{"2 must be KEY=VALUE, not 'NOEQUALS'", "3 '' is not a variable's name",
                       "4 the quote must be closed at the end of the line",
                       "5 the quote must be closed at the end of the line",
                       "6 'A B' is not a variable's name", "7 must be text in UTF-8",
                       "8 must be text in UTF-8"});
  CHECK(file.values.size() == 1);
}

}  // namespace ostler::config
