#include "config/src/words.hpp"

#include <doctest/doctest.h>

#include "stable.hpp"

namespace ostler::config {

TEST_CASE("a command line is split as a shell would") {
  const auto words = [](std::string_view text) {
    const Words split = split_words(text);
    CHECK_MESSAGE(split.problem.empty(), split.problem);
    return split.words;
  };
  CHECK(words("a b  c\td\ne") == Lines{"a", "b", "c", "d", "e"});
  CHECK(words("  a ") == Lines{"a"});
  CHECK(words("").empty());
  CHECK(words("'a b' \"c d\"") == Lines{"a b", "c d"});
  CHECK(words("a'b'\"c\"d") == Lines{"abcd"});
  CHECK(words("a '' \"\"") == Lines{"a", "", ""});
  CHECK(words("a\\ b \\'c \\\\") == Lines{"a b", "'c", "\\"});
  CHECK(words("\"a\\\"b\\\\c\\$d\\`e\\n\"") == Lines{"a\"b\\c$d`e\\n"});
  CHECK(words("'a\\b$HOME`x`|&;<>'") == Lines{"a\\b$HOME`x`|&;<>"});
  CHECK(words("\"|&;<>()\"") == Lines{"|&;<>()"});
  CHECK(words("app --fd {fd} *.py ~ #x 100$ $% a=b") ==
        Lines{"app", "--fd", "{fd}", "*.py", "~", "#x", "100$", "$%", "a=b"});
  CHECK(words("app \\\n  --port 80\\\n80 \\\n") == Lines{"app", "--port", "8080"});
  CHECK(words("\"a\\\nb\" 'c\\\nd'") == Lines{"ab", "c\\\nd"});
  CHECK(words("\\$HOME \\| \\;") == Lines{"$HOME", "|", ";"});
}

TEST_CASE("what only a shell could do is not passed on as text") {
  for (const char* text : {"a | b", "a && b", "a; b", "a > f", "a < f", "(a)", "a $HOME", "a ${X}",
                           "a $(b)", "a `b`", "\"$HOME\"", "\"`b`\"", "a $1", "a $?"}) {
    CAPTURE(text);
    CHECK(split_words(text).problem.find("no shell is run") == 0);
  }
}

TEST_CASE("what cannot be split") {
  CHECK(split_words("a 'b").problem == "a quote (') that is never closed");
  CHECK(split_words("a \"b").problem == "a quote (\") that is never closed");
  CHECK(split_words("a \\").problem == "a backslash at the end, with nothing to keep");
}

}  // namespace ostler::config
