#include "serving/pool_options.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <stdexcept>

namespace ostler::serving {
namespace {

constexpr std::array<std::string_view, 11> kKeys{
    "class",          "threads",      "connections",   "keepalive",  "header_limit",   "body_limit",
    "header_timeout", "body_timeout", "write_timeout", "access_log", "trusted_proxies"};
constexpr std::uint64_t kMostConnections = 1'000'000;
constexpr std::uint64_t kLongestMs = std::uint64_t{1000} * 60 * 60 * 24 * 365;

[[noreturn]] void refuse(std::string_view key, const std::string& value,
                         const std::string& wanted) {
  throw std::invalid_argument("the pool's setting " + std::string(key) + "=" + value + ": want " +
                              wanted);
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(separator), text.size());
    if (end > 0) parts.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

}  // namespace

const char* name_of(worker_class kind) {
  switch (kind) {
    case worker_class::sync:
      return "sync";
    case worker_class::threads:
      return "threads";
    case worker_class::async:
      return "async";
  }
  return "";
}

PoolOptions::PoolOptions(std::string_view text) {
  for (const auto& part : split(text, ' ')) {
    const std::size_t equals = part.find('=');
    const std::string key = part.substr(0, equals);
    if (equals == std::string::npos || std::ranges::find(kKeys, key) == kKeys.end()) {
      std::fprintf(stderr, "the pool's setting '%s' is unknown to this worker, and ignored\n",
                   part.c_str());
    } else {
      settings_.push_back({key, part.substr(equals + 1)});
    }
  }
}

std::optional<std::string> PoolOptions::word(std::string_view key) const {
  const auto found = std::ranges::find(settings_, key, &Setting::key);
  if (found == settings_.end()) return std::nullopt;
  return found->value;
}

std::optional<std::uint64_t> PoolOptions::number(std::string_view key, std::uint64_t least,
                                                 std::uint64_t most) const {
  const auto text = word(key);
  if (!text) return std::nullopt;
  std::uint64_t value = 0;
  const char* const end = text->data() + text->size();
  const auto [rest, error] = std::from_chars(text->data(), end, value);
  if (error != std::errc{} || rest != end || value < least || value > most) {
    refuse(key, *text, "a number from " + std::to_string(least) + " to " + std::to_string(most));
  }
  return value;
}

std::optional<std::chrono::milliseconds> PoolOptions::duration(std::string_view key) const {
  const auto value = number(key, 0, kLongestMs);
  if (!value) return std::nullopt;
  return std::chrono::milliseconds(*value);
}

std::optional<std::vector<std::string>> PoolOptions::list(std::string_view key) const {
  const auto text = word(key);
  if (!text) return std::nullopt;
  return split(*text, ',');
}

void PoolOptions::apply_to(serve_options& options) const {
  if (const auto text = word("class")) {
    options.worker_class.reset();
    for (const auto kind : {worker_class::sync, worker_class::threads, worker_class::async}) {
      if (*text == name_of(kind)) options.worker_class = kind;
    }
    if (!options.worker_class) refuse("class", *text, "sync, threads or async");
  }
  if (const auto threads = number("threads", 1, kMostThreads)) {
    options.threads = static_cast<int>(*threads);
  }
  if (const auto connections = number("connections", 1, kMostConnections)) {
    options.connections = *connections;
  }
}

}  // namespace ostler::serving
