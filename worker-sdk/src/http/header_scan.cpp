#include "http/header_scan.hpp"

#include <algorithm>

namespace ostler::http {

HeaderScan::State HeaderScan::look(std::string_view received) {
  const auto text = received.substr(0, std::min(received.size(), limit_));
  while (seen_ < text.size()) {
    if (line_ > 0 && (text[line_] == ' ' || text[line_] == '\t')) return State::kMalformed;
    const auto end = std::min(text.find('\r', seen_), text.size());
    if (text.substr(seen_, end - seen_).find('\n') != std::string_view::npos) {
      return State::kMalformed;
    }
    seen_ = end;  // a CR is looked at again when there is more
    if (end + 1 >= text.size()) break;
    if (text[end + 1] != '\n') return State::kMalformed;
    if (end == line_) return State::kComplete;
    line_ = seen_ = end + 2;
  }
  return received.size() >= limit_ ? State::kTooLarge : State::kIncomplete;
}

}  // namespace ostler::http
