#include "config/src/probe_request.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/src/scalars.hpp"
#include "config/src/text.hpp"
#include "config/src/walk.hpp"

namespace ostler::config {
namespace {

constexpr std::size_t kLongestRequest = 1024;
constexpr std::size_t kLongestHost = 255;
constexpr std::size_t kMostHeaders = 32;
constexpr std::size_t kLongestValue = 4096;
constexpr std::size_t kMostRanges = 32;
// A status below 200 is no final answer (RFC 9110 section 15).
constexpr int kLeastStatus = 200;
constexpr int kMostStatus = 599;

bool is_letter_or_digit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

// A method (RFC 9110 section 9.1, in capitals as all of them are) and a path.
bool parse_request(const std::string& text, ProbeRequest& out) {
  const std::size_t space = text.find(' ');
  if (space == 0 || space == std::string::npos || text.size() > kLongestRequest) return false;
  const std::string_view method = std::string_view(text).substr(0, space);
  const std::string_view target = std::string_view(text).substr(space + 1);
  const auto capital = [](char c) { return c >= 'A' && c <= 'Z'; };
  const auto visible = [](char c) { return c > ' ' && c < '\x7F'; };
  const bool good = std::all_of(method.begin(), method.end(), capital) && target.starts_with('/') &&
                    std::all_of(target.begin(), target.end(), visible);
  if (!good) return false;
  out.method = method;
  out.target = target;
  return true;
}

// A name or an address, perhaps with a port.
bool is_host(const std::string& text) {
  constexpr std::string_view kOther = "-._:[]";
  return !text.empty() && text.size() <= kLongestHost &&
         std::all_of(text.begin(), text.end(), [&](char c) {
           return is_letter_or_digit(c) || kOther.find(c) != std::string_view::npos;
         });
}

// A token (RFC 9110 section 5.6.2).
bool is_header_name(const std::string& text) {
  constexpr std::string_view kOther = "!#$%&'*+-.^_`|~";
  return !text.empty() && text.size() <= kLongestHost &&
         std::all_of(text.begin(), text.end(), [&](char c) {
           return is_letter_or_digit(c) || kOther.find(c) != std::string_view::npos;
         });
}

// No control characters, so that a value cannot become a header of its own; blanks at its ends
// would be lost.
bool is_header_value(const std::string& text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t'; };
  if (text.size() > kLongestValue) return false;
  if (!text.empty() && (blank(text.front()) || blank(text.back()))) return false;
  return std::all_of(text.begin(), text.end(), [&](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return c == '\t' || (byte >= 0x20 && byte != 0x7F);
  });
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return text;
}

// Why a header may not be given; empty: it may.
std::string refusal(const std::string& name) {
  static constexpr std::array<std::string_view, 7> kOwn = {
      "connection", "content-length", "expect", "te", "trailer", "transfer-encoding", "upgrade"};
  const std::string small = lower(name);
  if (small == "host") return "is given by 'host'";
  if (std::find(kOwn.begin(), kOwn.end(), small) == kOwn.end()) return {};
  return "is the manager's own to send: its requests have no body, and one connection each";
}

std::optional<int> parse_status(std::string_view text) {
  const auto number = parse_whole(text);
  if (!number || *number < kLeastStatus || *number > kMostStatus) return std::nullopt;
  return static_cast<int>(*number);
}

std::optional<StatusRange> parse_range(const std::string& text) {
  const std::size_t dash = text.find('-');
  const auto from = parse_status(std::string_view(text).substr(0, dash));
  const auto to =
      dash == std::string::npos ? from : parse_status(std::string_view(text).substr(dash + 1));
  if (!from || !to || *from > *to) return std::nullopt;
  return StatusRange{*from, *to};
}

}  // namespace

bool read_request_line(Reader& reader, const At& at, ProbeRequest& out) {
  if (at.node->kind == NodeKind::kScalar && parse_request(at.node->text, out)) return true;
  reader.wrong(at, "a method and a path, such as \"GET /healthz\"");
  return false;
}

void read_probe_host(Reader& reader, const At& at, ProbeRequest& out) {
  if (at.node->kind != NodeKind::kScalar || !is_host(at.node->text)) {
    return reader.wrong(at, "a host, such as shop.example or shop.example:8080");
  }
  out.host = at.node->text;
}

void read_probe_headers(Reader& reader, const At& at, ProbeRequest& out) {
  if (at.node->kind != NodeKind::kMap) {
    return reader.wrong(at, "a map such as {X-Forwarded-Proto: https}");
  }
  if (at.node->entries.size() > kMostHeaders) {
    return reader.wrong(at, "a map of at most " + std::to_string(kMostHeaders) + " headers");
  }
  std::map<std::string, std::string> headers;
  std::map<std::string, std::string> seen;  // by its name in small letters
  for (const Entry& entry : at.node->entries) {
    const At value = child(at, entry);
    const auto fault = [&](const std::string& what) {
      reader.faults().add(entry.place, value.path, what);
    };
    if (!is_header_name(entry.key)) {
      fault("is not a header's name; it is made of letters, digits and '-'");
    } else if (const std::string why = refusal(entry.key); !why.empty()) {
      fault(why);
    } else if (const auto [same, added] = seen.emplace(lower(entry.key), entry.key); !added) {
      fault("is the same header as " + quote(same->second));
    } else if (value.node->kind != NodeKind::kScalar || !is_header_value(value.node->text)) {
      reader.wrong(value, "text without control characters or blanks at its ends");
    } else {
      headers[entry.key] = value.node->text;
    }
  }
  out.headers = std::move(headers);
}

void read_probe_expect(Reader& reader, const At& at, ProbeRequest& out) {
  constexpr std::string_view kWhat =
      "a status from 200 to 599, a range such as 200-399, or a list of them";
  const bool list = at.node->kind == NodeKind::kList;
  const std::size_t count = list ? at.node->items.size() : 1;
  if (count == 0) return reader.wrong(at, kWhat);
  if (count > kMostRanges) {
    return reader.wrong(at, "a list of at most " + std::to_string(kMostRanges) + " items");
  }
  std::vector<StatusRange> ranges;
  for (std::size_t i = 0; i < count; ++i) {
    const At one = list ? item(at, i) : at;
    const bool scalar = one.node->kind == NodeKind::kScalar;
    const auto range = scalar ? parse_range(one.node->text) : std::nullopt;
    if (!range) {
      reader.wrong(one, list ? "a status from 200 to 599, or a range such as 200-399" : kWhat);
      continue;
    }
    ranges.push_back(*range);
  }
  if (ranges.size() == count) out.expect = std::move(ranges);
}

bool read_probe_request(Reader& reader, const At& at, ProbeRequest& out) {
  static constexpr std::array kKeys = {
      Key<ProbeRequest>{{"request", "", "a method and a path"},
                        [](Reader& r, const At& value, ProbeRequest& request) {
                          read_request_line(r, value, request);
                        }},
      Key<ProbeRequest>{{"host", "", "the Host header"}, read_probe_host},
      Key<ProbeRequest>{{"headers", "", "other headers"}, read_probe_headers},
      Key<ProbeRequest>{{"expect", "", "the statuses of a good answer"}, read_probe_expect}};
  if (at.node->kind != NodeKind::kMap) return read_request_line(reader, at, out);
  const std::size_t before = reader.faults().added();
  walk(reader, at, std::span<const Key<ProbeRequest>>(kKeys), out);
  if (reader.faults().added() == before && out.method.empty()) {
    reader.faults().add(at, "needs a 'request' such as \"GET /healthz\"");
  }
  return reader.faults().added() == before;
}

std::string text_of(const StatusRange& range) {
  const std::string from = std::to_string(range.from);
  return range.from == range.to ? from : from + "-" + std::to_string(range.to);
}

}  // namespace ostler::config
