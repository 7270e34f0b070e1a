#include "ctl/text.hpp"

#include <doctest/doctest.h>

#include <sstream>

namespace ostler::ctl {

TEST_CASE("what could harm a terminal is shown as an escape") {
  CHECK(printable("plain") == "plain");
  CHECK(printable("größer 馬 🐎") == "größer 馬 🐎");
  CHECK(printable("\x1b[31mred\x07") == "\\x1b[31mred\\x07");
  CHECK(printable("one\ntwo\tthree\r") == "one\\ntwo\\tthree\\r");
  CHECK(printable(std::string_view("\0\x7f", 2)) == "\\x00\\x7f");
  CHECK(printable("\xc2\x9b"
                  "31m") == "\\x9b31m");  // CSI as one symbol
  // NOLINTBEGIN(misc-misleading-bidirectional): what may not get through
  CHECK(printable("\xe2\x80\xaeoof") == "\\u202eoof");
  CHECK(printable("\xe2\x81\xa6") == "\\u2066");
  // NOLINTEND(misc-misleading-bidirectional)
  CHECK(printable("\xe2\x80\xa8") == "\\u2028");  // a line separator
}

TEST_CASE("what is not UTF-8 is shown byte by byte") {
  CHECK(printable("a\x9bz") == "a\\x9bz");
  CHECK(printable("a\xe2\x80") == "a\\xe2\\x80");  // cut off
  CHECK(printable("\xc0\x8a") == "\\xc0\\x8a");    // an overlong newline
  CHECK(printable("\xff\xfe") == "\\xff\\xfe");
  CHECK(printable("\xc3(") == "\\xc3(");
}

TEST_CASE("durations have two units at most") {
  CHECK(duration(0) == "0.00s");
  CHECK(duration(0.314) == "0.31s");
  CHECK(duration(1.25) == "1.2s");
  CHECK(duration(12.4) == "12s");
  CHECK(duration(59.99) == "59s");
  CHECK(duration(60) == "1m00s");
  CHECK(duration(3599.9) == "59m59s");
  CHECK(duration(7475) == "2h04m");
  CHECK(duration(86400 * 3 + 3600 * 4) == "3d04h");
  CHECK(duration(-1) == "-");
  CHECK(duration(std::stod("nan")) == "-");
}

TEST_CASE("sizes are in binary units") {
  CHECK(size(0) == "0 B");
  CHECK(size(1023) == "1023 B");
  CHECK(size(1024) == "1.0 KiB");
  CHECK(size(5242880) == "5.0 MiB");
  CHECK(size(12.0 * 1024 * 1024 * 1024) == "12 GiB");
  CHECK(size(-1) == "-");
}

TEST_CASE("columns are aligned by symbols, not bytes, with no spaces at the end") {
  Table table({{"NAME"}, {"N", true}, {"LAST"}});
  table.row({{"größe"}, {"7"}, {"x"}});
  table.row({{"a"}, {"1234"}, {"longer"}});
  std::ostringstream out;
  table.print({out, out, false});
  CHECK(out.str() ==
        "NAME      N  LAST\n"
        "größe     7  x\n"
        "a      1234  longer\n");
}

TEST_CASE("colours do not change the alignment, and are left out if not wanted") {
  Table table({{"A"}, {"B"}});
  table.row({{"good", Style::kGood}, {"x"}});
  table.row({{"b", Style::kBad}, {"y"}});
  std::ostringstream out;
  table.print({out, out, true});
  CHECK(out.str() ==
        "\x1b[1mA\x1b[0m     \x1b[1mB\x1b[0m\n"
        "\x1b[32mgood\x1b[0m  x\n"
        "\x1b[1;31mb\x1b[0m     y\n");
}

}  // namespace ostler::ctl
