// Datagrams of a hostile worker: whatever they hold, what comes out is within its bounds and safe
// to print.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "config/src/text.hpp"
#include "core/limits.hpp"
#include "runtime/notification.hpp"

namespace {

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

bool is_control(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte < 0x20 || byte == 0x7F;
}

bool has_c1(std::string_view text) {
  for (std::size_t i = 0; i + 1 < text.size(); ++i) {
    if (text[i] == '\xC2' && static_cast<unsigned char>(text[i + 1]) < 0xA0) return true;
  }
  return false;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ostler;
  const std::string_view datagram(reinterpret_cast<const char*>(data), size);
  const runtime::Notification parsed = runtime::parse_notification(datagram);
  if (parsed.status) {
    const std::string& status = *parsed.status;
    require(status.size() <= runtime::kStatusBytes, "a status has a bound");
    require(!config::first_invalid_utf8(status), "a status is UTF-8");
    require(std::none_of(status.begin(), status.end(), is_control), "no control bytes");
    require(!has_c1(status), "no C1 controls");
  }
  if (parsed.error) require(*parsed.error >= 0 && *parsed.error <= 4095, "an errno is one");
  if (parsed.extend) {
    require(parsed.extend->count() >= 0 && *parsed.extend <= core::limits::kExtension,
            "an extension has a bound");
  }
  return 0;
}
