// Finds the end of a request's header while it arrives, and what makes its lines ambiguous: a
// server in front may have read them differently (request smuggling). Beast's parser waits for the
// empty line before it looks at anything, and takes a folded field for one line.
#pragma once

#include <cstddef>
#include <string_view>

namespace ostler::http {

class HeaderScan {
 public:
  enum class State { kIncomplete, kComplete, kMalformed, kTooLarge };

  explicit HeaderScan(std::size_t limit) : limit_(limit) {}

  // `received` is all that came since the request's first byte; what was seen before is not looked
  // at again. kMalformed: a CR or LF that is not part of CR LF, or a line that begins with a blank
  // (obs-fold, RFC 9112 section 5.2). kTooLarge: there is no end within the limit.
  State look(std::string_view received);

  [[nodiscard]] bool in_first_line() const { return line_ == 0; }

 private:
  std::size_t limit_;
  std::size_t seen_ = 0;
  std::size_t line_ = 0;  // where the current line began
};

}  // namespace ostler::http
