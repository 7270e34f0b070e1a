// What single values mean: durations, whole numbers, modes, signals. Pure functions from text to
// value and back; none says anything about faults, that is left to who knows the key.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "config/src/model.hpp"

namespace ostler::config {

// Decimal digits and nothing else: no sign, no leading zero, no `_`, no exponent. A number too
// large for the result is its largest value, so that the caller's range check refuses it.
std::optional<std::int64_t> parse_whole(std::string_view text);

// `0.7` to 700: decimal digits with at most three decimals that are not 0. What is too large for
// the result is some value above 10^15.
std::optional<std::int64_t> parse_thousandths(std::string_view text);
// 700 to "0.7"
std::string thousandths_text(std::int64_t thousandths);

// `250ms`, `30s`, `5m`, `1h`, `1d`, or a number of seconds; decimals are allowed (`1.5s`), anything
// finer than a millisecond is not. Above 1000 days: some value above, for the range check.
std::optional<Duration> parse_duration(std::string_view text);
// The shortest of these that is exact. Takes whole milliseconds.
std::string duration_text(Duration duration);

// `512MiB`, `64K`, `2GiB` (K, KiB and so on mean the same), or a number of bytes. What is too large
// for the result is its largest value.
std::optional<std::uint64_t> parse_size(std::string_view text);
// The largest of these that is exact: "512MiB".
std::string size_text(std::uint64_t bytes);

// Octal digits with or without a leading `0` or `0o`, at most 0777.
std::optional<unsigned> parse_mode(std::string_view text);
std::string mode_text(unsigned mode);  // "0660"

// "TERM" or "SIGTERM" to its number; only signals that make sense as a request to drain.
std::optional<int> parse_stop_signal(std::string_view text);
std::string_view stop_signal_text(int number);  // "TERM"
std::span<const std::string_view> stop_signal_names();

// `50%` to 50; only 0% to 100%.
std::optional<int> parse_percent(std::string_view text);

// A pool's name: [a-z][a-z0-9_-]{0,62}
bool is_pool_name(std::string_view text);
// A listener's name, as systemd takes it in LISTEN_FDNAMES: 1 to 255 printable ASCII characters
// without ':'.
bool is_listener_name(std::string_view text);
// An environment variable's name: not empty, no '=', no control characters.
bool is_env_name(std::string_view text);

}  // namespace ostler::config
