#include "config/src/tokens.hpp"

#include <algorithm>
#include <array>

namespace ostler::config {
namespace {

struct Word {
  std::string_view text;  // with its braces
  TokenKind kind;
};
constexpr auto kWords = std::to_array<Word>({{"{fd}", TokenKind::kFd},
                                             {"{slot}", TokenKind::kSlot},
                                             {"{pool}", TokenKind::kPool},
                                             {"{generation}", TokenKind::kGeneration}});
constexpr std::string_view kNamed = "{fd:";

bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

bool is_plain_word(std::string_view name) {
  return std::ranges::all_of(name, [](char c) {
    return is_letter(c) || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
  });
}

// The token that TEXT begins with.
std::optional<Token> token_at(std::string_view text, const std::vector<std::string_view>& names) {
  for (const Word& word : kWords) {
    if (text.starts_with(word.text)) return Token{word.kind, {}, text.substr(0, word.text.size())};
  }
  if (!text.starts_with(kNamed)) return std::nullopt;
  const std::size_t end = text.find('}');
  if (end == std::string_view::npos) return std::nullopt;
  const std::string_view name = text.substr(kNamed.size(), end - kNamed.size());
  if (name.empty() || !is_letter(name.front())) return std::nullopt;
  if (std::ranges::find(names, name) == names.end() && !is_plain_word(name)) return std::nullopt;
  return Token{TokenKind::kFd, name, text.substr(0, end + 1)};
}

// Whether B is A with one letter changed, added, left out or swapped with its neighbour.
bool is_one_edit(std::string_view a, std::string_view b) {
  if (a.size() < b.size()) std::swap(a, b);
  const auto [left, right] = std::ranges::mismatch(a, b);
  if (left == a.end()) return false;  // the same
  const std::string_view rest_a(left, a.end());
  const std::string_view rest_b(right, b.end());
  if (a.size() == b.size() + 1) return rest_a.substr(1) == rest_b;
  if (a.size() != b.size()) return false;
  if (rest_a.substr(1) == rest_b.substr(1)) return true;
  return rest_a.size() > 1 && rest_a[0] == rest_b[1] && rest_a[1] == rest_b[0] &&
         rest_a.substr(2) == rest_b.substr(2);
}

}  // namespace

std::vector<Token> find_tokens(std::string_view text, const std::vector<std::string_view>& names) {
  std::vector<Token> out;
  for (std::size_t at = text.find('{'); at != std::string_view::npos;) {
    const auto token = token_at(text.substr(at), names);
    if (token) out.push_back(*token);
    at = text.find('{', at + (token ? token->text.size() : 1));
  }
  return out;
}

std::string replace_tokens(std::string_view text, const std::vector<std::string_view>& names,
                           const std::function<std::optional<std::string>(const Token&)>& value) {
  std::string out;
  const char* from = text.data();
  for (const Token& token : find_tokens(text, names)) {
    out.append(from, token.text.data());
    out += value(token).value_or(std::string(token.text));
    from = token.text.data() + token.text.size();
  }
  return out.append(from, text.data() + text.size());
}

std::vector<Misspelt> find_misspelt_tokens(std::string_view text) {
  constexpr std::size_t kShortest = 4;
  std::vector<Misspelt> out;
  for (std::size_t at = text.find('{'); at != std::string_view::npos; at = text.find('{', at + 1)) {
    const std::size_t end = text.find('}', at);
    if (end == std::string_view::npos) break;
    const std::string_view word = text.substr(at + 1, end - at - 1);
    if (word.size() < kShortest || !std::ranges::all_of(word, is_letter)) continue;
    const auto* const near = std::ranges::find_if(kWords, [&](const Word& known) {
      return is_one_edit(word, known.text.substr(1, known.text.size() - 2));
    });
    if (near != kWords.end()) out.push_back({text.substr(at, end - at + 1), near->text});
  }
  return out;
}

}  // namespace ostler::config
