#include "http/request_rules.hpp"

#include <cstddef>

#include <algorithm>
#include <string>

#include <boost/beast/core/string.hpp>
#include <boost/beast/http/field.hpp>
#include <boost/beast/http/rfc7230.hpp>

namespace ostler::http {
namespace {

using boost::beast::iequals;

constexpr std::string_view kDigits = "0123456789";
constexpr std::string_view kHexDigits = "0123456789abcdefABCDEF";
// Of a registered name, RFC 3986 section 3.2.2; letters and digits apart.
constexpr std::string_view kNameMarks = "-._~!$&'()*+,;=%";

// The fields that say where the request goes and where it ends.
struct Framing {
  int hosts = 0;
  int lengths = 0;
  int codings = 0;
  int unknown_expectations = 0;
  std::string_view host;
  std::string_view length;
  std::string_view coding;
};

Framing framing_of(const request::message_type& asked) {
  Framing framing;
  const auto take = [](std::string_view& into, const auto& each) {
    into = {each.value().data(), each.value().size()};
    return 1;
  };
  for (const auto& each : asked) {
    const auto name = each.name();
    if (name == field::host) framing.hosts += take(framing.host, each);
    if (name == field::content_length) framing.lengths += take(framing.length, each);
    if (name == field::transfer_encoding) framing.codings += take(framing.coding, each);
    if (name == field::expect && !iequals(each.value(), "100-continue")) {
      ++framing.unknown_expectations;
    }
  }
  return framing;
}

bool consists_of(std::string_view text, std::string_view characters) {
  return text.find_first_not_of(characters) == std::string_view::npos;
}

bool is_name(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           kNameMarks.find(c) != std::string_view::npos;
  });
}

// host [":" port], RFC 9110 section 7.2. It may be empty.
bool is_authority(std::string_view text) {
  std::size_t end = text.find(':');
  if (text.starts_with('[')) {
    end = text.find(']');
    if (end == std::string_view::npos) return false;
    const auto address = text.substr(1, end - 1);
    if (address.empty() || !consists_of(address, std::string(kHexDigits) + ":.")) return false;
    text.remove_prefix(end + 1);
    if (text.empty()) return true;
    end = 0;
    if (text[0] != ':') return false;
  } else if (!is_name(text.substr(0, end))) {
    return false;
  }
  return end == std::string_view::npos || consists_of(text.substr(end + 1), kDigits);
}

// From a target in absolute form: the host, and what follows it. Nothing if it is of another form.
struct Absolute {
  std::string_view authority;
  std::string_view rest;
};

std::optional<Absolute> absolute(std::string_view target) {
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!iequals(target.substr(0, scheme.size()), scheme)) continue;
    target.remove_prefix(scheme.size());
    const auto end = std::min(target.find_first_of("/?#"), target.size());
    return Absolute{target.substr(0, end), target.substr(end)};
  }
  return std::nullopt;
}

std::string_view target_of(const request::message_type& asked) {
  return {asked.target().data(), asked.target().size()};
}

// RFC 9112 section 3.2. What a CONNECT asks for only a proxy can do.
std::optional<status> fault_of_target(const request::message_type& asked) {
  const auto target = target_of(asked);
  if (asked.method() == verb::connect) return status::not_implemented;
  if (target.starts_with('/')) return std::nullopt;
  if (target == "*" && asked.method() == verb::options) return std::nullopt;
  // A name without a host, or with a user in it, is none: RFC 9110 section 4.2.
  const auto parts = absolute(target);
  if (parts && !parts->authority.empty() && is_authority(parts->authority)) return std::nullopt;
  return status::bad_request;
}

// RFC 9112 section 6.3: chunked has to be the last coding, and only that, or one cannot be sure
// where the body ends. If it is, the codings below it are merely unknown.
status fault_of_coding(std::string_view list) {
  for (bool last = false; !last;) {
    const auto comma = std::min(list.find(','), list.size());
    auto coding = list.substr(0, comma);
    coding.remove_prefix(std::min(coding.find_first_not_of(" \t"), coding.size()));
    coding = coding.substr(0, coding.find_last_not_of(" \t") + 1);
    last = comma == list.size();
    if (iequals(coding, "chunked") != last) return status::bad_request;
    list.remove_prefix(last ? comma : comma + 1);
  }
  return status::not_implemented;
}

}  // namespace

std::optional<status> fault_of(const request::message_type& asked) {
  const bool newer = asked.version() >= 11;
  const auto framing = framing_of(asked);
  // RFC 9112 section 3.2.
  if (framing.hosts > 1 || (newer && framing.hosts == 0) || !is_authority(framing.host)) {
    return status::bad_request;
  }
  // RFC 9112 section 6.1 and 6.3: otherwise one cannot be sure where the body ends.
  if (framing.codings > 1 || (framing.codings == 1 && (!newer || framing.lengths > 0))) {
    return status::bad_request;
  }
  if (framing.lengths > 1 || !consists_of(framing.length, kDigits)) return status::bad_request;
  if (framing.codings == 1 && !iequals(framing.coding, "chunked")) {
    return fault_of_coding(framing.coding);
  }
  // RFC 9110 section 10.1.1: of HTTP/1.0 it is ignored.
  if (newer && framing.unknown_expectations > 0) return status::expectation_failed;
  return fault_of_target(asked);
}

bool wants_keep_alive(const request::message_type& asked) {
  bool wanted = asked.version() >= 11;
  const auto [begin, end] = asked.equal_range(field::connection);
  for (auto each = begin; each != end; ++each) {
    boost::beast::http::token_list options(each->value());
    if (options.exists("close")) return false;
    wanted = wanted || options.exists("keep-alive");
  }
  return wanted;
}

bool are_extensions(std::string_view text) {
  return std::none_of(text.begin(), text.end(),
                      [](char c) { return (c >= 0 && c < ' ' && c != '\t') || c == '\x7f'; });
}

void to_origin_form(request::message_type& asked) {
  const auto parts = absolute(target_of(asked));
  if (!parts) return;
  const std::string authority(parts->authority);
  std::string target(parts->rest);
  if (!target.starts_with('/')) {
    // RFC 9112 section 3.2.4: the server as a whole is asked about.
    const bool whole = target.empty() && asked.method() == verb::options;
    target.insert(0, whole ? "*" : "/");
  }
  asked.set(field::host, authority);
  asked.target(target);
}

unsigned version_of(std::string_view request_line) {
  constexpr std::string_view kForm = " HTTP/0.0";
  if (request_line.size() < kForm.size()) return 0;
  const auto version = request_line.substr(request_line.size() - kForm.size());
  const bool named =
      std::equal(kForm.begin(), kForm.end(), version.begin(), [](char wanted, char found) {
        return wanted == '0' ? found >= '0' && found <= '9' : found == wanted;
      });
  if (!named) return 0;
  return static_cast<unsigned>(version[6] - '0') * 10 + static_cast<unsigned>(version[8] - '0');
}

}  // namespace ostler::http
