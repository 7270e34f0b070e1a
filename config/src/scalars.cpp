#include "config/src/scalars.hpp"

#include <algorithm>
#include <array>
#include <csignal>
#include <utility>

namespace ostler::config {
namespace {

constexpr std::size_t kMaxDigits = 18;  // what fits into 64 bits for certain

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

bool all_digits(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), is_digit);
}

struct Unit {
  std::string_view name;
  std::int64_t milliseconds;
};
constexpr std::array kUnits = {Unit{"d", 86'400'000}, Unit{"h", 3'600'000}, Unit{"m", 60'000},
                               Unit{"s", 1000}, Unit{"ms", 1}};
constexpr std::int64_t kMostMilliseconds = 1000 * 86'400'000LL;

std::optional<std::int64_t> unit_milliseconds(std::string_view name) {
  if (name.empty()) return 1000;
  for (const Unit& unit : kUnits) {
    if (unit.name == name) return unit.milliseconds;
  }
  return std::nullopt;
}

// DIGITS / 10^digits of UNIT, if that is a whole number.
std::optional<std::int64_t> part_of(std::string_view digits, std::int64_t unit) {
  while (digits.ends_with('0')) digits.remove_suffix(1);
  if (digits.size() > 9) return std::nullopt;
  std::int64_t value = 0;
  std::int64_t scale = 1;
  for (const char c : digits) {
    value = value * 10 + (c - '0');
    scale *= 10;
  }
  if (value * unit % scale != 0) return std::nullopt;
  return value * unit / scale;
}

struct Signal {
  std::string_view name;
  int number;
};
constexpr std::array kSignals = {Signal{"TERM", SIGTERM},  Signal{"INT", SIGINT},
                                 Signal{"QUIT", SIGQUIT},  Signal{"HUP", SIGHUP},
                                 Signal{"USR1", SIGUSR1},  Signal{"USR2", SIGUSR2},
                                 Signal{"WINCH", SIGWINCH}};

}  // namespace

std::optional<std::int64_t> parse_whole(std::string_view text) {
  if (!all_digits(text) || (text.size() > 1 && text.front() == '0')) return std::nullopt;
  if (text.size() > kMaxDigits) return std::numeric_limits<std::int64_t>::max();
  std::int64_t value = 0;
  for (const char c : text) value = value * 10 + (c - '0');
  return value;
}

std::optional<std::int64_t> parse_thousandths(std::string_view text) {
  constexpr std::int64_t kMost = 1'000'000'000'000'000;
  const std::size_t point = text.find('.');
  const auto whole = parse_whole(text.substr(0, point));
  if (!whole) return std::nullopt;
  if (point == std::string_view::npos) return std::min(*whole, kMost) * 1000;
  const std::string_view digits = text.substr(point + 1);
  const auto part = all_digits(digits) ? part_of(digits, 1000) : std::nullopt;
  if (!part) return std::nullopt;
  return std::min(*whole, kMost) * 1000 + *part;
}

std::string thousandths_text(std::int64_t thousandths) {
  std::string text = std::to_string(thousandths / 1000);
  if (thousandths % 1000 == 0) return text;
  const std::string part = std::to_string(thousandths % 1000 + 1000).substr(1);
  return text + "." + part.substr(0, part.find_last_not_of('0') + 1);
}

std::optional<Duration> parse_duration(std::string_view text) {
  const auto whole_end = std::find_if_not(text.begin(), text.end(), is_digit);
  const std::string_view whole(text.begin(), whole_end);
  if (whole.empty()) return std::nullopt;
  std::string_view rest(whole_end, text.end());
  std::string_view part = "0";
  if (rest.starts_with('.')) {
    rest.remove_prefix(1);
    const auto part_end = std::find_if_not(rest.begin(), rest.end(), is_digit);
    part = std::string_view(rest.begin(), part_end);
    rest = std::string_view(part_end, rest.end());
  }
  const auto unit = unit_milliseconds(rest);
  if (part.empty() || !unit) return std::nullopt;
  const auto fraction = part_of(part, *unit);
  if (!fraction) return std::nullopt;
  std::int64_t value = 0;
  for (const char c : whole) {
    value = std::min(value * 10 + (c - '0'), kMostMilliseconds + 1);
  }
  const std::int64_t most = kMostMilliseconds / *unit + 1;
  return std::chrono::milliseconds(std::min(value, most) * *unit + *fraction);
}

std::optional<std::uint64_t> parse_size(std::string_view text) {
  const auto digits_end = std::find_if_not(text.begin(), text.end(), is_digit);
  const auto number = parse_whole(std::string_view(text.begin(), digits_end));
  const std::string_view unit(digits_end, text.end());
  if (!number) return std::nullopt;
  constexpr std::string_view kLetters = "KMG";
  const bool known = unit.empty() || (kLetters.find(unit.front()) != std::string_view::npos &&
                                      (unit.size() == 1 || unit.substr(1) == "iB"));
  if (!known) return std::nullopt;
  const auto shift = unit.empty() ? 0U : 10U * (1U + static_cast<unsigned>(kLetters.find(unit[0])));
  const auto value = static_cast<std::uint64_t>(*number);
  constexpr auto kMost = std::numeric_limits<std::uint64_t>::max();
  return value > (kMost >> shift) ? kMost : value << shift;
}

std::string size_text(std::uint64_t bytes) {
  static constexpr std::array<std::string_view, 4> kSuffixes = {"", "KiB", "MiB", "GiB"};
  std::size_t unit = 0;
  while (bytes != 0 && bytes % 1024 == 0 && unit + 1 < kSuffixes.size()) {
    bytes /= 1024;
    ++unit;
  }
  return std::to_string(bytes) + std::string(kSuffixes[unit]);
}

std::string duration_text(Duration duration) {
  const auto value = std::chrono::duration_cast<std::chrono::milliseconds>(duration).count();
  if (value == 0) return "0s";
  const auto unit = std::find_if(kUnits.begin(), kUnits.end(),
                                 [value](const Unit& u) { return value % u.milliseconds == 0; });
  return std::to_string(value / unit->milliseconds) + std::string(unit->name);
}

std::optional<unsigned> parse_mode(std::string_view text) {
  if (text.starts_with("0o")) text.remove_prefix(2);
  if (text.empty() || text.size() > 4) return std::nullopt;
  unsigned mode = 0;
  for (const char c : text) {
    if (c < '0' || c > '7') return std::nullopt;
    mode = mode * 8 + static_cast<unsigned>(c - '0');
  }
  if (mode > 0777) return std::nullopt;
  return mode;
}

std::string mode_text(unsigned mode) {
  std::string out = "0000";
  for (std::size_t i = out.size(); i-- > 0; mode /= 8) out[i] = static_cast<char>('0' + mode % 8);
  return out;
}

std::optional<int> parse_stop_signal(std::string_view text) {
  if (text.starts_with("SIG")) text.remove_prefix(3);
  for (const Signal& signal : kSignals) {
    if (signal.name == text) return signal.number;
  }
  return std::nullopt;
}

std::string_view stop_signal_text(int number) {
  const auto found = std::find_if(kSignals.begin(), kSignals.end(),
                                  [number](const Signal& s) { return s.number == number; });
  return found == kSignals.end() ? std::string_view() : found->name;
}

std::span<const std::string_view> stop_signal_names() {
  static constexpr auto kNames = [] {
    std::array<std::string_view, kSignals.size()> names;
    std::transform(kSignals.begin(), kSignals.end(), names.begin(),
                   [](const Signal& signal) { return signal.name; });
    return names;
  }();
  return kNames;
}

std::optional<int> parse_percent(std::string_view text) {
  if (!text.ends_with('%')) return std::nullopt;
  const auto value = parse_whole(text.substr(0, text.size() - 1));
  if (!value || *value < 0 || *value > 100) return std::nullopt;
  return static_cast<int>(*value);
}

bool is_pool_name(std::string_view text) {
  const auto is_lower = [](char c) { return c >= 'a' && c <= 'z'; };
  return !text.empty() && text.size() <= 63 && is_lower(text.front()) &&
         std::all_of(text.begin(), text.end(), [is_lower](char c) {
           return is_lower(c) || is_digit(c) || c == '_' || c == '-';
         });
}

bool is_listener_name(std::string_view text) {
  return !text.empty() && text.size() <= 255 && std::all_of(text.begin(), text.end(), [](char c) {
    return c >= 0x20 && c < 0x7F && c != ':';
  });
}

bool is_env_name(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return static_cast<unsigned char>(c) >= 0x20 && c != 0x7F && c != '=';
  });
}

}  // namespace ostler::config
