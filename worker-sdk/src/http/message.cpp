#include "http/message.hpp"

#include <algorithm>
#include <array>
#include <ctime>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <utility>
#include <variant>

#include <boost/beast/http/field.hpp>

#include "http/date_names.hpp"

namespace ostler::http {
namespace {

namespace beast = boost::beast;

constexpr std::string_view kTokenMarks = "!#$%&'*+-.^_`|~";  // RFC 9110 section 5.6.2

bool is_token_character(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         kTokenMarks.find(c) != std::string_view::npos;
}

bool breaks_value(char c) {
  return (c >= 0 && c < ' ' && c != '\t') || c == '\x7f';
}

void check_name(const std::string& name) {
  if (name.empty() || !std::all_of(name.begin(), name.end(), is_token_character)) {
    throw std::invalid_argument("the response has a field whose name is none: '" + name + "'");
  }
  static constexpr std::array kOwn{
      field::connection, field::content_length,    field::date,   field::keep_alive,
      field::trailer,    field::transfer_encoding, field::upgrade};
  if (std::find(kOwn.begin(), kOwn.end(), beast::http::string_to_field(name)) != kOwn.end()) {
    throw std::invalid_argument("the response's field " + name + " is the server's to set");
  }
}

void check_value(std::string_view name, const std::string& value) {
  if (std::any_of(value.begin(), value.end(), breaks_value)) {
    throw std::invalid_argument("the response's field " + std::string(name) +
                                " has a control character");
  }
}

// Made anew only when the second has changed.
const std::string& http_date() {
  static thread_local std::time_t second = 0;
  static thread_local std::string date;
  const std::time_t now = std::time(nullptr);
  if (now != second || date.empty()) {
    std::tm parts{};
    ::gmtime_r(&now, &parts);
    std::array<char, 32> text{};
    const auto size = std::strftime(text.data(), text.size(), " %Y %H:%M:%S GMT", &parts);
    date = day_name(parts) + ", " + (parts.tm_mday < 10 ? "0" : "") +
           std::to_string(parts.tm_mday) + " " + month_name(parts);
    date.append(text.data(), size);
    second = now;
  }
  return date;
}

void add(std::string& text, std::string_view name, std::string_view value) {
  text.append(name).append(": ").append(value).append("\r\n");
}

void add_status_line(std::string& text, status status, unsigned version) {
  const auto number = static_cast<unsigned>(status);
  if (number < 200 || number > 999) {
    throw std::invalid_argument("the response's status is " + std::to_string(number));
  }
  const auto reason = beast::http::obsolete_reason(status);
  text.append(version >= 11 ? "HTTP/1.1 " : "HTTP/1.0 ").append(std::to_string(number));
  text.append(" ").append(reason.data(), reason.size()).append("\r\n");
}

bool may_have_body(status status) {
  return status != status::no_content && status != status::not_modified;
}

BodyFraming framing_of(const response& response, unsigned version) {
  using Kind = BodyFraming::Kind;
  if (std::holds_alternative<std::monostate>(response.stream)) {
    return {Kind::kLength, response.body.size()};
  }
  if (response.stream_length) return {Kind::kLength, response.stream_length};
  return {version >= 11 ? Kind::kChunked : Kind::kUntilClose, std::nullopt};
}

}  // namespace

Head make_head(const response& response, const request& to, bool keep_alive, std::string memory) {
  using Kind = BodyFraming::Kind;
  const auto version = to.version();
  const bool may_have = may_have_body(response.status);
  Head head;
  head.framing = framing_of(response, version);
  head.has_body = may_have && to.method() != verb::head;
  head.keep_alive = keep_alive && !(head.has_body && head.framing.kind() == Kind::kUntilClose);
  head.text = std::move(memory);
  std::string& text = head.text;
  text.clear();
  add_status_line(text, response.status, version);
  add(text, "Date", http_date());
  if (!response.content_type.empty()) {
    check_value("Content-Type", response.content_type);
    add(text, "Content-Type", response.content_type);
  }
  for (const auto& [name, value] : response.fields) {
    check_name(name);
    check_value(name, value);
    add(text, name, value);
  }
  if (may_have && head.framing.kind() == Kind::kLength) {
    add(text, "Content-Length", std::to_string(head.framing.length()));
  }
  if (may_have && head.framing.kind() == Kind::kChunked) add(text, "Transfer-Encoding", "chunked");
  // Of the versions, 1.1 keeps a connection and 1.0 closes it if nothing is said.
  if (version >= 11 && !head.keep_alive) add(text, "Connection", "close");
  if (version < 11 && head.keep_alive) add(text, "Connection", "keep-alive");
  text.append("\r\n");
  return head;
}

response refusal(status status) {
  return {.status = status, .body = std::string(beast::http::obsolete_reason(status)) + "\n"};
}

}  // namespace ostler::http
