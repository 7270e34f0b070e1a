#include "runtime/notification.hpp"

#include <algorithm>
#include <charconv>
#include <cstdint>

#include "config/src/text.hpp"
#include "core/limits.hpp"

namespace ostler::runtime {
namespace {

constexpr int kHighestErrno = 4095;

template <class Number>
std::optional<Number> number(std::string_view text) {
  Number value = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  return error == std::errc{} && stop == end ? std::optional(value) : std::nullopt;
}

std::string escaped(unsigned code) {
  static constexpr std::string_view kHex = "0123456789abcdef";
  return {'\\', 'x', kHex[code >> 4U & 15U], kHex[code & 15U]};
}

// One character of valid UTF-8. U+0080 to U+009F can steer a terminal as the first 32 can.
std::string harmless(std::string_view character) {
  const auto first = static_cast<unsigned char>(character.front());
  if (first < 0x20 || first == 0x7F) return escaped(first);
  const auto last = static_cast<unsigned char>(character.back());
  return first == 0xC2 && last < 0xA0 ? escaped(last) : std::string(character);
}

std::size_t character_length(char first) {
  const auto byte = static_cast<unsigned char>(first);
  return byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
}

std::string harmless_text(std::string_view text) {
  std::string out;
  std::size_t valid = config::first_invalid_utf8(text).value_or(text.size());
  while (!text.empty()) {
    const std::size_t length = valid > 0 ? character_length(text.front()) : 1;
    const std::string piece = valid > 0 ? harmless(text.substr(0, length)) : "\uFFFD";
    if (out.size() + piece.size() > kStatusBytes) break;
    out += piece;
    text.remove_prefix(length);
    valid = valid > 0 ? valid - length : config::first_invalid_utf8(text).value_or(text.size());
  }
  return out;
}

void parse_line(std::string_view line, Notification& out) {
  const std::size_t equals = line.find('=');
  if (equals == std::string_view::npos) return;
  const std::string_view key = line.substr(0, equals);
  const std::string_view value = line.substr(equals + 1);
  if (key == "READY") out.ready = out.ready || value == "1";
  if (key == "STOPPING") out.stopping = out.stopping || value == "1";
  if (key == "BARRIER") out.barrier = out.barrier || value == "1";
  if (key == "WATCHDOG") {
    out.watchdog = out.watchdog || value == "1";
    out.trigger = out.trigger || value == "trigger";
  }
  if (key == "STATUS") out.status = harmless_text(value);
  if (key == "ERRNO") {
    const auto error = number<int>(value);
    if (error && *error >= 0 && *error <= kHighestErrno) out.error = error;
  }
  if (key == "EXTEND_TIMEOUT_USEC") {
    using std::chrono::microseconds;
    const auto most = std::chrono::duration_cast<microseconds>(core::limits::kExtension);
    if (const auto extend = number<std::uint64_t>(value)) {
      const auto capped = std::min(*extend, static_cast<std::uint64_t>(most.count()));
      out.extend = microseconds(static_cast<microseconds::rep>(capped));
    }
  }
}

}  // namespace

Notification parse_notification(std::string_view datagram) {
  // Some send the terminating NUL of a C string along.
  while (datagram.ends_with('\0')) datagram.remove_suffix(1);
  Notification result;
  while (!datagram.empty()) {
    const std::string_view line = datagram.substr(0, datagram.find('\n'));
    parse_line(line, result);
    datagram.remove_prefix(std::min(datagram.size(), line.size() + 1));
  }
  return result;
}

}  // namespace ostler::runtime
