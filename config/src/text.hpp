// Small helpers over text that came from a user: is it UTF-8, how is it shown in a message, and
// which known word did the user mean. Pure functions; nothing here throws but for lack of memory.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace ostler::config {

// The offset of the first byte that does not belong to valid UTF-8; none if all of it does.
std::optional<std::size_t> first_invalid_utf8(std::string_view text);

// TEXT with control characters escaped and cut to a length that a message can bear.
std::string shown(std::string_view text);

// shown(), in single quotes.
std::string quote(std::string_view text);

// "a, b or c"
std::string any_of(std::span<const std::string_view> words);

// The candidate that WORD is most likely a misspelling of; empty if none is near.
std::string_view nearest(std::string_view word, std::span<const std::string_view> candidates);

// "; did you mean 'workers'?", or nothing if no candidate is near.
std::string did_you_mean(std::string_view word, std::span<const std::string_view> candidates);

}  // namespace ostler::config
