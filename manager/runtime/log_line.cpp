#include "runtime/log_line.hpp"

#include <syslog.h>

#include <array>
#include <ctime>
#include <type_traits>
#include <variant>

#include "control/codec.hpp"

namespace ostler::runtime {
namespace {

std::string timestamp(std::chrono::system_clock::time_point time) {
  const auto since = time.time_since_epoch();
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(since).count();
  const auto seconds = static_cast<std::time_t>(ms / 1000);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  std::array<char, 40> text{};
  const auto length = std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%S", &parts);
  return std::string(text.data(), length) + "." + std::to_string(1000 + ms % 1000).substr(1) + "Z";
}

const char* level_word(spdlog::level::level_enum level) {
  switch (level) {
    case spdlog::level::trace:
      return "trace";
    case spdlog::level::debug:
      return "debug";
    case spdlog::level::info:
      return "info";
    case spdlog::level::warn:
      return "warning";
    case spdlog::level::err:
    case spdlog::level::critical:
    case spdlog::level::off:
    case spdlog::level::n_levels:
      break;
  }
  return "error";
}

// What the line is about. A worker's last lines are left out: they have lines of their own.
control::Members fields_of(const LogLine& line) {
  if (!line.about) return {};
  control::Members fields = control::members_of(*line.about);
  std::erase_if(fields, [](const auto& field) {
    return std::holds_alternative<control::Lines>(field.second);
  });
  return fields;
}

std::string journal_name(const std::string& field) {
  if (field == "pid") return "OSTLER_WORKER_PID";  // _PID is the manager's
  std::string name = "OSTLER_";
  for (const char c : field) name += c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  return name;
}

std::string plain(const control::Value& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return printable(*text);
  return control::to_json(value);
}

}  // namespace

int priority(spdlog::level::level_enum level) {
  switch (level) {
    case spdlog::level::trace:
    case spdlog::level::debug:
      return LOG_DEBUG;
    case spdlog::level::info:
      return LOG_INFO;
    case spdlog::level::warn:
      return LOG_WARNING;
    case spdlog::level::err:
    case spdlog::level::critical:
    case spdlog::level::off:
    case spdlog::level::n_levels:
      break;
  }
  return LOG_ERR;
}

std::string named_text(const LogLine& line) {
  return line.name.empty() ? line.text : line.name + ": " + line.text;
}

std::string text_line(const LogLine& line) {
  return timestamp(line.time) + " " + level_word(line.level) + " " + named_text(line) + "\n";
}

std::string json_line(const LogLine& line) {
  control::Members members = {{"time", timestamp(line.time)},
                              {"level", std::string(level_word(line.level))}};
  for (auto& field : fields_of(line)) members.push_back(std::move(field));
  members.emplace_back("message", line.text);
  return control::to_json(members) + "\n";
}

// Neither the text nor a field holds a line break, so the form with a length is not needed.
std::string journal_entry(const LogLine& line) {
  std::string entry =
      "SYSLOG_IDENTIFIER=ostlerd\nPRIORITY=" + std::to_string(priority(line.level)) +
      "\nMESSAGE=" + named_text(line) + "\n";
  for (const auto& [name, value] : fields_of(line)) {
    entry += journal_name(name) + "=" + plain(value) + "\n";
  }
  return entry;
}

std::string printable(std::string_view text) {
  static constexpr std::string_view kHex = "0123456789abcdef";
  std::string out;
  out.reserve(text.size());
  const auto escape = [&](unsigned char byte) {
    out += "\\x";
    out += kHex[byte >> 4U];
    out += kHex[byte & 0xfU];
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    // U+0080 to U+009F in UTF-8: to a terminal U+009B is what ESC [ is.
    const auto next = i + 1 < text.size() ? static_cast<unsigned char>(text[i + 1]) : 0U;
    if (byte == 0xc2 && next >= 0x80 && next <= 0x9f) {
      escape(byte);
      escape(static_cast<unsigned char>(text[++i]));
    } else if ((byte >= 0x20 && byte != 0x7f) || byte == '\t') {
      out += text[i];
    } else {
      escape(byte);
    }
  }
  return out;
}

}  // namespace ostler::runtime
