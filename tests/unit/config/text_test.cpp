#include "config/src/text.hpp"

#include <doctest/doctest.h>

#include <array>

namespace ostler::config {

TEST_CASE("UTF-8: what is valid, and where it ends to be") {
  CHECK(!first_invalid_utf8(""));
  CHECK(!first_invalid_utf8("plain"));
  CHECK(!first_invalid_utf8("\xC3\xBC \xE2\x82\xAC \xF0\x9F\x90\x8E"));
  CHECK(first_invalid_utf8("ab\xFF") == 2);
  CHECK(first_invalid_utf8("\xC3") == 0);              // cut short
  CHECK(first_invalid_utf8("a\xE2\x82") == 1);         // cut short
  CHECK(first_invalid_utf8("\xC0\x80") == 0);          // overlong NUL
  CHECK(first_invalid_utf8("\xE0\x80\xAF") == 0);      // overlong
  CHECK(first_invalid_utf8("\xF0\x80\x80\xAF") == 0);  // overlong
  CHECK(first_invalid_utf8("\xED\xA0\x80") == 0);      // surrogate
  CHECK(first_invalid_utf8("\xF4\x90\x80\x80") == 0);  // above U+10FFFF
  CHECK(first_invalid_utf8("\x80") == 0);              // no first byte
}

TEST_CASE("text in messages cannot steer a terminal, break lines or fill a screen") {
  CHECK(quote("a b") == "'a b'");
  CHECK(shown("\x1b[31m\n\t\x7f") == "\\x1b[31m\\x0a\\x09\\x7f");
  CHECK(shown("\xC2\x9B") == "\\x9b");  // a C1 control
  CHECK(shown("\xFF") == "\\xff");
  CHECK(shown("\xC3\xBC") == "\xC3\xBC");
  CHECK(shown(std::string(5000, 'x')).size() < 100);
}

TEST_CASE("the nearest word") {
  constexpr std::array<std::string_view, 4> kWords = {"workers", "worker", "user", "umask"};
  CHECK(nearest("wrokers", kWords) == "workers");
  CHECK(nearest("Workers", kWords) == "workers");
  CHECK(nearest("usr", kWords) == "user");
  CHECK(nearest("zzz", kWords).empty());
  CHECK(nearest("", kWords).empty());
  CHECK(nearest(std::string(100000, 'w'), kWords).empty());
  CHECK(did_you_mean("uamsk", kWords) == "; did you mean 'umask'?");
  CHECK(any_of(kWords) == "workers, worker, user or umask");
}

}  // namespace ostler::config
