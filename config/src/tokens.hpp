// The tokens {fd}, {fd:NAME}, {slot}, {pool} and {generation} in `command`, `env` and `output`. Any
// other brace is the program's own text and is left as it is.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ostler::config {

enum class TokenKind { kFd, kSlot, kPool, kGeneration };

struct Token {
  TokenKind kind = TokenKind::kFd;
  std::string_view name;  // kFd: the listener's; empty: the first one
  std::string_view text;  // with its braces
};

// The tokens in TEXT, in order. A NAME begins with a letter, so that {fd:3} in a line of JavaScript
// is none; it is one of NAMES, or else a plain word (letters, digits, '_', '-', '.').
std::vector<Token> find_tokens(std::string_view text, const std::vector<std::string_view>& names);

// TEXT with each token replaced by what VALUE has for it; those for which it has none stay.
std::string replace_tokens(std::string_view text, const std::vector<std::string_view>& names,
                           const std::function<std::optional<std::string>(const Token&)>& value);

// Words in braces that must be misspelt tokens: of four letters or more, and one letter or a
// transposition away from one. Each with what was meant: {"{slto}", "{slot}"}.
struct Misspelt {
  std::string_view text;
  std::string_view meant;
};
std::vector<Misspelt> find_misspelt_tokens(std::string_view text);

}  // namespace ostler::config
