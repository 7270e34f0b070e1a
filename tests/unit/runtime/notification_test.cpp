#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "runtime/notification.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <string>
#include <string_view>

using namespace std::chrono_literals;
using ostler::runtime::Notification;
using ostler::runtime::parse_notification;

TEST_CASE("what is said is understood") {
  CHECK(parse_notification("READY=1").ready);
  CHECK(parse_notification("READY=1\n").ready);
  CHECK(parse_notification(std::string_view("READY=1\0", 8)).ready);
  CHECK(parse_notification("STOPPING=1").stopping);
  CHECK(parse_notification("WATCHDOG=1").watchdog);
  CHECK(parse_notification("WATCHDOG=trigger").trigger);
  CHECK(parse_notification("BARRIER=1").barrier);
  CHECK(parse_notification("ERRNO=2").error == 2);
  CHECK(parse_notification("EXTEND_TIMEOUT_USEC=1500000").extend == 1500ms);
  const Notification all = parse_notification("STATUS=a=b c\nREADY=1\nX_OTHER=1\n\nWATCHDOG=1");
  CHECK(all.status == "a=b c");
  CHECK(all.ready);
  CHECK(all.watchdog);
  CHECK_FALSE(all.stopping);
  CHECK(parse_notification("STATUS=").status == "");
  CHECK(parse_notification("STATUS=a\nSTATUS=b").status == "b");
}

TEST_CASE("what is malformed is left out") {
  for (const char* text : {"", "\n", "READY", "READY=", "READY=0", "READY=11", " READY=1",
                           "ready=1", "=1", "WATCHDOG=2", "STOPPING=yes", "MAINPID=1"}) {
    CAPTURE(text);
    const Notification empty = parse_notification(text);
    CHECK_FALSE(empty.ready);
    CHECK_FALSE(empty.stopping);
    CHECK_FALSE(empty.watchdog);
    CHECK_FALSE(empty.trigger);
  }
  for (const char* value : {"", "-1", "x", "2x", " 2", "4096", "99999999999999999999"}) {
    CAPTURE(value);
    CHECK_FALSE(parse_notification("ERRNO=" + std::string(value)).error);
  }
  for (const char* value : {"", "-1", "x", "1 ", "99999999999999999999"}) {
    CAPTURE(value);
    CHECK_FALSE(parse_notification("EXTEND_TIMEOUT_USEC=" + std::string(value)).extend);
  }
  CHECK(parse_notification("EXTEND_TIMEOUT_USEC=18446744073709551615").extend == 1h);
}

TEST_CASE("a status is safe to print and not too long") {
  const auto status = [](const std::string& text) {
    return parse_notification("STATUS=" + text).status.value_or("none");
  };
  CHECK(status("grüße €") == "grüße €");
  CHECK(status("\x1b[31mred\x07\x7f\t") == "\\x1b[31mred\\x07\\x7f\\x09");
  CHECK(status("a\xc2\x9b"
               "b\xc2\xa0") ==
        "a\\x9b"
        "b\xc2\xa0");
  CHECK(status("a\xff\xe2\x82") == "a\uFFFD\uFFFD\uFFFD");
  CHECK(status("\xed\xa0\x80") == "\uFFFD\uFFFD\uFFFD");
  CHECK(status(std::string("a\0b", 3)) == "a\\x00b");
  CHECK(status(std::string(4000, 'x')) == std::string(512, 'x'));
  std::string euros;
  for (int i = 0; i < 1000; ++i) euros += "€";
  CHECK(status(euros) == euros.substr(0, 510));
  CHECK(status(std::string(511, 'x') + "\x01") == std::string(511, 'x'));
}
