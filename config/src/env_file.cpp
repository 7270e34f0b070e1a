#include "config/src/env_file.hpp"

#include <algorithm>
#include <optional>

#include "config/src/scalars.hpp"
#include "config/src/text.hpp"

namespace ostler::config {
namespace {

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r";
  const std::size_t first = text.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlank) - first + 1);
}

// The value of TEXT, which begins with a quote; none if the quote is not closed at its end.
std::optional<std::string> unquoted(std::string_view text) {
  const char quote = text.front();
  std::string value;
  for (std::size_t i = 1; i < text.size(); ++i) {
    if (text[i] == quote) {
      if (i + 1 != text.size()) return std::nullopt;
      return value;
    }
    const bool escape = quote == '"' && text[i] == '\\' && i + 1 < text.size() &&
                        std::string_view("\"\\$`").find(text[i + 1]) != std::string_view::npos;
    if (escape) ++i;
    value += text[i];
  }
  return std::nullopt;
}

// What is wrong with LINE, or nothing.
std::string parse_line(std::string_view line, std::map<std::string, std::string>& values) {
  if (line.find('\0') != std::string_view::npos || first_invalid_utf8(line)) {
    return "must be text in UTF-8";
  }
  line = trimmed(line);
  if (line.empty() || line.front() == '#' || line.front() == ';') return {};
  const std::size_t equals = line.find('=');
  if (equals == std::string_view::npos) return "must be KEY=VALUE, not " + quote(line);
  std::string_view name = trimmed(line.substr(0, equals));
  if (name.starts_with("export ")) name = trimmed(name.substr(7));
  if (!is_env_name(name) || name.find_first_of(" \t") != std::string_view::npos) {
    return quote(name) + " is not a variable's name";
  }
  const std::string_view value = trimmed(line.substr(equals + 1));
  if (!value.starts_with('"') && !value.starts_with('\'')) {
    values[std::string(name)] = value;
    return {};
  }
  auto inside = unquoted(value);
  if (!inside) return "the quote must be closed at the end of the line";
  values[std::string(name)] = std::move(*inside);
  return {};
}

}  // namespace

EnvFile parse_env_file(std::string_view text) {
  EnvFile out;
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  for (int number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string problem = parse_line(text.substr(0, end), out.values);
    if (!problem.empty()) out.problems.emplace_back(number, std::move(problem));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

}  // namespace ostler::config
