// What a datagram to a notify socket says: sd_notify(3), the manager's side.
#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace ostler::runtime {

// What one datagram says, as far as it is understood. Unknown keys are ignored.
struct Notification {
  bool ready = false;
  bool stopping = false;
  bool watchdog = false;
  bool trigger = false;
  bool barrier = false;
  // UTF-8 without control characters (\xNN stands for one), of at most kStatusBytes.
  std::optional<std::string> status;
  std::optional<int> error;                         // ERRNO
  std::optional<std::chrono::microseconds> extend;  // at most limits::kExtension of the core
};

inline constexpr std::size_t kStatusBytes = 512;

// Total: any bytes give a Notification. Malformed lines are left out.
Notification parse_notification(std::string_view datagram);

}  // namespace ostler::runtime
