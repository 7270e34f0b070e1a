#include "ctl/text.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <ostream>
#include <utility>

namespace ostler::ctl {
namespace {

template <class... Values>
std::string format(const char* pattern, Values... values) {
  std::array<char, 64> buffer{};
  std::snprintf(buffer.data(), buffer.size(), pattern, values...);
  return buffer.data();
}

unsigned byte(char c) {
  return static_cast<unsigned char>(c);
}

struct Symbol {
  std::uint32_t code = 0;
  std::size_t length = 0;  // 0: not UTF-8
};

// The first symbol of a text that is not empty.
Symbol first_symbol(std::string_view text) {
  const unsigned lead = byte(text[0]);
  if (lead < 0x80) return {lead, 1};
  const std::size_t length = lead < 0xc2   ? 0
                             : lead < 0xe0 ? 2
                             : lead < 0xf0 ? 3
                             : lead < 0xf5 ? 4
                                           : 0;
  if (length == 0 || length > text.size()) return {};
  std::uint32_t code = lead & (0xffu >> (length + 1));
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(text[i]) & 0xc0u) != 0x80) return {};
    code = (code << 6) | (byte(text[i]) & 0x3fu);
  }
  return {code, length};
}

// C0, C1, and what turns the direction of writing or ends a line in Unicode.
bool dangerous(std::uint32_t code) {
  return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x061c ||
         (code >= 0x200e && code <= 0x200f) || (code >= 0x2028 && code <= 0x202e) ||
         (code >= 0x2066 && code <= 0x2069);
}

std::string escape(std::uint32_t code) {
  if (code == '\n') return "\\n";
  if (code == '\r') return "\\r";
  if (code == '\t') return "\\t";
  return format(code < 0x100 ? "\\x%02x" : "\\u%04x", code);
}

std::size_t width(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (byte(c) & 0xc0u) != 0x80; }));
}

}  // namespace

std::string printable(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    const Symbol symbol = first_symbol(text);
    const std::size_t length = std::max<std::size_t>(symbol.length, 1);
    if (symbol.length == 0) {
      result += escape(byte(text[0]));
    } else if (dangerous(symbol.code)) {
      result += escape(symbol.code);
    } else {
      result += text.substr(0, length);
    }
    text.remove_prefix(length);
  }
  return result;
}

std::string duration(double seconds) {
  if (!(seconds >= 0)) return "-";
  if (seconds < 0.995) return format("%.2fs", seconds);
  if (seconds < 9.95) return format("%.1fs", seconds);
  if (seconds < 60) return format("%.0fs", std::floor(seconds));
  const auto pair = [seconds](double unit, char big, char small, double part) {
    const double units = std::floor(seconds / unit);
    return format("%.0f%c%02.0f%c", units, big, std::floor((seconds - units * unit) / part), small);
  };
  if (seconds < 3600) return pair(60, 'm', 's', 1);
  if (seconds < 86400) return pair(3600, 'h', 'm', 60);
  return pair(86400, 'd', 'h', 3600);
}

std::string size(double bytes) {
  if (!(bytes >= 0)) return "-";
  constexpr std::array<const char*, 6> kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  std::size_t unit = 0;
  while (bytes >= 1023.5 && unit + 1 < kUnits.size()) {
    bytes /= 1024;
    ++unit;
  }
  return format(unit > 0 && bytes < 9.95 ? "%.1f %s" : "%.0f %s", bytes, kUnits.at(unit));
}

std::string Terminal::paint(Style style, std::string_view text) const {
  const char* code = nullptr;
  switch (style) {
    case Style::kPlain:
      break;
    case Style::kStrong:
      code = "1";
      break;
    case Style::kGood:
      code = "32";
      break;
    case Style::kWarn:
      code = "33";
      break;
    case Style::kBad:
      code = "1;31";
      break;
  }
  if (!color || code == nullptr) return std::string(text);
  return "\x1b[" + std::string(code) + "m" + std::string(text) + "\x1b[0m";
}

Table::Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

void Table::row(std::vector<Cell> cells) {
  rows_.push_back(std::move(cells));
}

void Table::print(const Terminal& terminal) const {
  std::vector<std::size_t> widths;
  for (std::size_t i = 0; i < columns_.size(); ++i) {
    std::size_t widest = width(columns_[i].name);
    for (const auto& row : rows_) widest = std::max(widest, width(row[i].text));
    widths.push_back(widest);
  }
  const auto line = [&](const auto& cell_at) {
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      const Cell cell = cell_at(i);
      const std::string gap(widths[i] - width(cell.text), ' ');
      const bool last = i + 1 == columns_.size();
      terminal.out << (columns_[i].right ? gap : "") << terminal.paint(cell.style, cell.text)
                   << (columns_[i].right || last ? "" : gap) << (last ? "\n" : "  ");
    }
  };
  line([this](std::size_t i) { return Cell{columns_[i].name, Style::kStrong}; });
  for (const auto& row : rows_) line([&row](std::size_t i) { return row[i]; });
}

}  // namespace ostler::ctl
