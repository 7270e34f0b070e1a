// Where a header ends, and which lines are refused, however it arrives.
#include "http/header_scan.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

namespace ostler::test {

using http::HeaderScan;
using State = HeaderScan::State;

namespace {

constexpr std::size_t kLimit = 64;

// What is said in the end if the text comes in pieces of that size.
State scan(std::string_view text, std::size_t piece) {
  HeaderScan scan(kLimit);
  auto state = State::kIncomplete;
  for (std::size_t size = 0; size < text.size() && state == State::kIncomplete;) {
    size = std::min(size + piece, text.size());
    state = scan.look(text.substr(0, size));
  }
  return state;
}

}  // namespace

TEST_CASE("a header is complete, malformed or too large however it is cut") {
  struct Case {
    std::string text;
    State state;
  };
  const std::string fits = "GET / HTTP/1.1\r\nA: " + std::string(kLimit - 23, 'a') + "\r\n\r\n";
  REQUIRE(fits.size() == kLimit);
  for (const auto& each : {
           Case{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", State::kComplete},
           Case{"GET / HTTP/1.1\r\n\r\n", State::kComplete},
           Case{fits, State::kComplete},
           Case{"GET / HTTP/1.1\r\nHost: a\r\n\r", State::kIncomplete},
           Case{"GET / HTTP/1.1\r\nHost: a\r\n", State::kIncomplete},
           Case{"", State::kIncomplete},
           Case{"GET / HTTP/1.1\nHost: a\n\n", State::kMalformed},
           Case{"GET / HTTP/1.1\r\nHost: a\nB: b\r\n\r\n", State::kMalformed},
           Case{"GET / HTTP/1.1\r\nHost: a\r\n\n", State::kMalformed},
           Case{"GET / HTTP/1.1\r\nHost: a\rB: b\r\n\r\n", State::kMalformed},
           Case{"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", State::kMalformed},
           Case{"GET / HTTP/1.1\r\nHost: a\r\n\tb\r\n\r\n", State::kMalformed},
           Case{"GET / HTTP/1.1\r\n Host: a\r\n\r\n", State::kMalformed},
           Case{std::string(kLimit, 'a'), State::kTooLarge},
           Case{std::string(kLimit, 'a') + "\n", State::kTooLarge},
       }) {
    for (const std::size_t piece : {1U, 2U, 3U, 1000U}) {
      CAPTURE(each.text);
      CAPTURE(piece);
      CHECK(scan(each.text, piece) == each.state);
    }
  }
}

}  // namespace ostler::test
