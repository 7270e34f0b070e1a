#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "runtime/log_line.hpp"

#include <doctest/doctest.h>

#include <memory>

using namespace ostler;
using namespace ostler::runtime;

namespace {

// What a line about a worker that failed is made of.
LogLine failed() {
  control::EventView event;
  event.event = "worker.failed";
  event.pool = "web";
  event.worker = "web.0";
  event.slot = 0;
  event.pid = 4243;
  event.generation = 3;
  event.members = {{"reason", std::string("said \"no\"\n")},
                   {"retry_in", 0.25},
                   {"output", control::Lines{"no database"}}};
  LogLine line;
  line.time = std::chrono::system_clock::time_point(std::chrono::milliseconds(1234));
  line.level = spdlog::level::err;
  line.text = "web.0[4243] failed";
  line.about = std::make_shared<const control::EventView>(event);
  return line;
}

}  // namespace

TEST_CASE("a line of text says when, how bad, who and what") {
  LogLine line = failed();
  CHECK(text_line(line) == "1970-01-01T00:00:01.234Z error web.0[4243] failed\n");
  line.name = "web.0[4243]";
  line.text = "hello";
  line.level = spdlog::level::info;
  CHECK(text_line(line) == "1970-01-01T00:00:01.234Z info web.0[4243]: hello\n");
}

TEST_CASE("a JSON line bears the event's members as fields, numbers as numbers") {
  CHECK(json_line(failed()) ==
        R"({"time":"1970-01-01T00:00:01.234Z","level":"error","event":"worker.failed",)"
        R"("pool":"web","worker":"web.0","slot":0,"pid":4243,"generation":3,)"
        R"("reason":"said \"no\"\n","retry_in":0.25,"message":"web.0[4243] failed"})"
        "\n");
  LogLine plain;
  plain.text = "\xff";
  CHECK(
      json_line(plain) ==
      "{\"time\":\"1970-01-01T00:00:00.000Z\",\"level\":\"info\",\"message\":\"\xef\xbf\xbd\"}\n");
}

TEST_CASE("the journal gets the same fields, and none of them can make another") {
  CHECK(journal_entry(failed()) ==
        "SYSLOG_IDENTIFIER=ostlerd\nPRIORITY=3\nMESSAGE=web.0[4243] failed\n"
        "OSTLER_EVENT=worker.failed\nOSTLER_POOL=web\nOSTLER_WORKER=web.0\nOSTLER_SLOT=0\n"
        "OSTLER_WORKER_PID=4243\nOSTLER_GENERATION=3\nOSTLER_REASON=said \"no\"\\x0a\n"
        "OSTLER_RETRY_IN=0.25\n");
}

TEST_CASE("what a terminal would obey is shown and not done") {
  CHECK(printable("a\tb") == "a\tb");
  CHECK(printable(std::string_view("\x1b[31m\x7f\0", 7)) == "\\x1b[31m\\x7f\\x00");
  CHECK(printable("\xc2\x9b"
                  "31mred") == "\\xc2\\x9b31mred");  // CSI as one character
  CHECK(printable("\xc2\xa0\xc3\xa9\xe2\x82\xac") == "\xc2\xa0\xc3\xa9\xe2\x82\xac");
  CHECK(printable("\xc2") == "\xc2");
}
