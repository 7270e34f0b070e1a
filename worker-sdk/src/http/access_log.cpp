#include "http/access_log.hpp"

#include <unistd.h>

#include <array>
#include <cstdio>
#include <ctime>

#include "http/date_names.hpp"

namespace ostler::http {
namespace {

using std::chrono::duration_cast;
using std::chrono::milliseconds;
using std::chrono::system_clock;

constexpr char kHex[] = "0123456789abcdef";

bool is_plain(char c) {
  return c >= ' ' && c <= '~' && c != '"' && c != '\\';
}

// Every byte is one character: what is not ASCII is shown by its number, also where it is part of
// one in UTF-8, so that no line depends on what a client calls UTF-8.
void append_escaped(std::string& line, std::string_view text, std::string_view number_prefix) {
  for (const char c : text) {
    if (is_plain(c)) {
      line += c;
    } else if (c == '"' || c == '\\') {
      line += '\\';
      line += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      line += number_prefix;
      line += kHex[byte >> 4U];
      line += kHex[byte & 15U];
    }
  }
}

std::string version_of(const AccessEntry& entry) {
  return std::to_string(entry.version / 10) + "." + std::to_string(entry.version % 10);
}

// Of numbers alone, which no locale changes.
std::string formatted(const char* format, const std::tm& parts) {
  std::array<char, 40> text{};
  return {text.data(), std::strftime(text.data(), text.size(), format, &parts)};
}

// As NCSA's httpd wrote them: host, identity, user, time, request line, status, bytes.
std::string common_line(const AccessEntry& entry) {
  std::string line(entry.client);
  std::tm parts{};
  const std::time_t second = system_clock::to_time_t(entry.time);
  ::localtime_r(&second, &parts);
  line += formatted(" - - [%d/", parts) + month_name(parts);
  line += formatted("/%Y:%H:%M:%S %z] \"", parts);
  if (entry.method.empty()) {
    line += '-';
  } else {
    append_escaped(line, entry.method, "\\x");
    line += ' ';
    append_escaped(line, entry.target, "\\x");
    line += " HTTP/" + version_of(entry);
  }
  line += "\" " + std::to_string(entry.status) + " ";
  line += entry.bytes > 0 ? std::to_string(entry.bytes) : "-";
  return line += '\n';
}

std::string json_line(const AccessEntry& entry) {
  std::string line;
  const auto append = [&line](std::string_view key, std::string_view value) {
    ((line += line.empty() ? "{\"" : ",\"") += key) += "\":\"";
    append_escaped(line, value, "\\u00");
    line += '"';
  };
  const auto second = std::chrono::floor<std::chrono::seconds>(entry.time);
  std::array<char, 40> rest{};
  std::snprintf(rest.data(), rest.size(), ".%03dZ",
                static_cast<int>(duration_cast<milliseconds>(entry.time - second).count()));
  std::tm parts{};
  const std::time_t whole = system_clock::to_time_t(second);
  ::gmtime_r(&whole, &parts);
  append("time", formatted("%Y-%m-%dT%H:%M:%S", parts) + rest.data());
  append("client", entry.client);
  append("method", entry.method);
  append("target", entry.target);
  append("version", version_of(entry));
  line +=
      ",\"status\":" + std::to_string(entry.status) + ",\"bytes\":" + std::to_string(entry.bytes);
  const auto took = std::chrono::round<std::chrono::microseconds>(entry.duration).count();
  std::snprintf(rest.data(), rest.size(), ",\"duration\":%lld.%06lld",
                static_cast<long long>(took / 1'000'000), static_cast<long long>(took % 1'000'000));
  line += rest.data();
  append("user_agent", entry.user_agent);
  append("referer", entry.referer);
  return line += "}\n";
}

}  // namespace

std::string access_line(access_log format, const AccessEntry& entry) {
  return format == access_log::json ? json_line(entry) : common_line(entry);
}

void write_access_line(const std::string& line) noexcept {
  // Nobody can be told that the log is gone; the worker serves all the same.
  [[maybe_unused]] const auto written = ::write(STDOUT_FILENO, line.data(), line.size());
}

}  // namespace ostler::http
