#include "config/src/scalars.hpp"

#include <doctest/doctest.h>

#include <csignal>

namespace ostler::config {

using std::chrono::milliseconds;

TEST_CASE("whole numbers: decimal digits and nothing else") {
  CHECK(parse_whole("0") == 0);
  CHECK(parse_whole("42") == 42);
  CHECK(parse_whole("99999999999999999999999") == std::numeric_limits<std::int64_t>::max());
  for (const char* text : {"", "-1", "+1", "1_000", "0x10", "0b1", "007", "1.0", "1e3", " 1", "1 ",
                           "\xD9\xA1", "one"}) {
    CAPTURE(text);
    CHECK(!parse_whole(text));
  }
}

TEST_CASE("thousandths, and back") {
  CHECK(parse_thousandths("0.7") == 700);
  CHECK(parse_thousandths("12") == 12000);
  CHECK(parse_thousandths("1.250") == 1250);
  CHECK(parse_thousandths("0.001") == 1);
  CHECK(parse_thousandths("999999999999999999999.5").value() > 1'000'000'000'000'000);
  for (const char* text :
       {"", ".", "1.", ".5", "-1", "+1", "01", "0.0001", "1.2.3", "1,5", "1e3"}) {
    CAPTURE(text);
    CHECK(!parse_thousandths(text));
  }
  CHECK(thousandths_text(700) == "0.7");
  CHECK(thousandths_text(1) == "0.001");
  CHECK(thousandths_text(1010) == "1.01");
  CHECK(thousandths_text(100'000'000) == "100000");
}

TEST_CASE("durations") {
  CHECK(parse_duration("250ms") == milliseconds(250));
  CHECK(parse_duration("30s") == milliseconds(30'000));
  CHECK(parse_duration("5m") == milliseconds(300'000));
  CHECK(parse_duration("1h") == milliseconds(3'600'000));
  CHECK(parse_duration("1d") == milliseconds(86'400'000));
  CHECK(parse_duration("30") == milliseconds(30'000));
  CHECK(parse_duration("1.5") == milliseconds(1500));
  CHECK(parse_duration("0.001s") == milliseconds(1));
  CHECK(parse_duration("1.50000000000000000000s") == milliseconds(1500));
  CHECK(parse_duration("0") == milliseconds(0));
  CHECK(parse_duration("007s") == milliseconds(7000));
  for (const char* text : {"", "s", "-1s", "1.s", ".5s", "1 s", "1S", "1min", "1us", "0.0001s",
                           "1.5ms", "1h30m", "1e3", "0x1s", "inf", "nan", "1.0000000001d", "off"}) {
    CAPTURE(text);
    CHECK(!parse_duration(text));
  }
  CHECK(parse_duration("99999999999999999999999999999d").value() > std::chrono::hours(24 * 365));
  CHECK(parse_duration("99999999999999999999999999999ms").value() > std::chrono::hours(24 * 365));
}

TEST_CASE("durations are printed exactly, and read back the same") {
  CHECK(duration_text(milliseconds(0)) == "0s");
  CHECK(duration_text(milliseconds(1500)) == "1500ms");
  CHECK(duration_text(milliseconds(90'000)) == "90s");
  CHECK(duration_text(milliseconds(60'000)) == "1m");
  for (std::int64_t value = 1; value < 40'000'000'000; value = value * 3 + 7) {
    CAPTURE(value);
    CHECK(parse_duration(duration_text(milliseconds(value))) == milliseconds(value));
  }
}

TEST_CASE("modes are octal, with or without a leading zero") {
  CHECK(parse_mode("0660") == 0660U);
  CHECK(parse_mode("660") == 0660U);
  CHECK(parse_mode("0o22") == 022U);
  CHECK(parse_mode("0") == 0U);
  for (const char* text : {"", "0o", "8", "0888", "1777", "00660", "-1", "0x1F", "rw-rw----"}) {
    CAPTURE(text);
    CHECK(!parse_mode(text));
  }
  CHECK(mode_text(0660) == "0660");
  CHECK(mode_text(0) == "0000");
}

TEST_CASE("stop signals: those that ask, by name") {
  CHECK(parse_stop_signal("TERM") == SIGTERM);
  CHECK(parse_stop_signal("SIGUSR2") == SIGUSR2);
  CHECK(parse_stop_signal("WINCH") == SIGWINCH);
  for (const char* text :
       {"KILL", "STOP", "SIGKILL", "term", "15", "", "SIG", "SIGSIGTERM", "CHLD"}) {
    CAPTURE(text);
    CHECK(!parse_stop_signal(text));
  }
  for (const std::string_view name : stop_signal_names()) {
    CHECK(stop_signal_text(*parse_stop_signal(name)) == name);
  }
}

TEST_CASE("percentages") {
  CHECK(parse_percent("0%") == 0);
  CHECK(parse_percent("1%") == 1);
  CHECK(parse_percent("100%") == 100);
  for (const char* text : {"101%", "-5%", "5", "%", "5 %", "1.5%", "05%"}) {
    CAPTURE(text);
    CHECK(!parse_percent(text));
  }
}

TEST_CASE("names") {
  CHECK(is_pool_name("web"));
  CHECK(is_pool_name("a"));
  CHECK(is_pool_name("a-1_b"));
  CHECK(is_pool_name(std::string(63, 'a')));
  for (const std::string& text :
       {std::string(), std::string("1a"), std::string("Web"), std::string("a.b"), std::string("-a"),
        std::string("a b"), std::string(64, 'a')}) {
    CAPTURE(text);
    CHECK(!is_pool_name(text));
  }
  CHECK(is_listener_name("http 1"));
  CHECK(is_listener_name(std::string(255, 'x')));
  CHECK(!is_listener_name(std::string(256, 'x')));
  CHECK(!is_listener_name(""));
  CHECK(!is_listener_name("a:b"));
  CHECK(!is_listener_name("a\n"));
  CHECK(!is_listener_name("\xC3\xBC"));
  CHECK(is_env_name("PATH"));
  CHECK(is_env_name("a.b-c"));
  CHECK(!is_env_name(""));
  CHECK(!is_env_name("A=B"));
  CHECK(!is_env_name(std::string("A\0B", 3)));
}

}  // namespace ostler::config
