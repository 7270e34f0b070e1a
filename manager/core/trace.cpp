#include "core/trace.hpp"

#include <charconv>

#include "core/snapshot.hpp"

namespace ostler::core {
namespace {

constexpr std::string_view kHeader = "ostler-trace 4 ";

// Strings in events may hold line breaks; a trace has one record a line.
std::string escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\\') {
      out += "\\\\";
    } else {
      out += c;
    }
  }
  return out;
}

std::string unescape(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 == text.size()) {
      out += text[i];
      continue;
    }
    ++i;
    out += text[i] == 'n' ? '\n' : text[i];
  }
  return out;
}

std::string stamp(Time now) {
  return std::to_string(now.time_since_epoch().count());
}

template <class T>
std::optional<T> take_number(std::string_view& text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{}) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  if (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  return value;
}

// Goes through a trace line by line, a fresh core beside it.
class Replay {
 public:
  std::string line(std::string_view text) {
    ++number_;
    if (number_ == 1) return header(text);
    if (text.size() < 2 || text[1] != ' ') return fault("neither event, action nor reconcile");
    const char kind = text[0];
    text.remove_prefix(2);
    if (kind == 'A') return action(text);
    if (next_ < actions_.size()) return fault("the core also answers " + write(actions_[next_]));
    actions_.clear();
    next_ = 0;
    const auto now = take_number<std::int64_t>(text);
    if (!now) return fault("no time");
    const Time time{Duration(*now)};
    if (kind == 'R') {
      core_.reconcile(time, actions_);
      return {};
    }
    const auto event = read_event(unescape(text));
    if (kind != 'E' || !event) return fault("not an event");
    core_.apply(*event, time, actions_);
    return {};
  }

 private:
  std::string header(std::string_view text) {
    if (!text.starts_with(kHeader)) return fault("not a trace");
    text.remove_prefix(kHeader.size());
    const auto seed = take_number<std::uint64_t>(text);
    if (!seed) return fault("no seed");
    core_ = Core(*seed);
    return {};
  }
  std::string action(std::string_view text) {
    if (next_ == actions_.size()) return fault("recorded, and not answered now");
    const std::string now = escape(write(actions_[next_++]));
    return now == text ? std::string{} : fault("the core now answers " + now);
  }
  [[nodiscard]] std::string fault(const std::string& what) const {
    return "line " + std::to_string(number_) + ": " + what;
  }

  Core core_;
  Actions actions_;
  std::size_t next_ = 0;
  std::size_t number_ = 0;
};

}  // namespace

std::string trace_header(std::uint64_t seed) {
  return std::string(kHeader) + std::to_string(seed) + "\n";
}
std::string trace_event(Time now, const Event& event) {
  return "E " + stamp(now) + " " + escape(write(event)) + "\n";
}
std::string trace_reconcile(Time now) {
  return "R " + stamp(now) + "\n";
}
std::string trace_action(const Action& action) {
  return "A " + escape(write(action)) + "\n";
}

std::string replay(std::string_view trace) {
  Replay replay;
  while (!trace.empty()) {
    const auto end = trace.find('\n');
    if (end == std::string_view::npos) break;
    if (std::string what = replay.line(trace.substr(0, end)); !what.empty()) return what;
    trace.remove_prefix(end + 1);
  }
  return {};
}

}  // namespace ostler::core
