// The lines of the access log. What a client sent cannot end a line, nor leave the field it
// stands in.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "ostler/http.hpp"

namespace ostler::http {

struct AccessEntry {
  std::chrono::system_clock::time_point time;  // when the request's first byte was there
  std::chrono::nanoseconds duration{0};        // from then until the answer was sent
  std::string_view client;
  std::string_view method;  // empty if the request was none
  std::string_view target;
  unsigned version = 11;
  unsigned status = 0;
  std::uint64_t bytes = 0;  // of the answer's body
  std::string_view user_agent;
  std::string_view referer;
};

// Ends with a line feed. Not for access_log::off.
std::string access_line(access_log format, const AccessEntry& entry);

// Writes the line to stdout with one write(2), so that lines of several processes do not mix.
void write_access_line(const std::string& line) noexcept;

}  // namespace ostler::http
