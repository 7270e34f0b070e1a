#include "http/message.hpp"

#include <algorithm>
#include <array>
#include <ctime>
#include <stdexcept>
#include <string_view>
#include <utility>

#include <boost/beast/http/field.hpp>

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
    const auto size = std::strftime(text.data(), text.size(), "%a, %d %b %Y %H:%M:%S GMT", &parts);
    date.assign(text.data(), size);
    second = now;
  }
  return date;
}

// All but what is about the body.
Message make_head(const response& response, const request& to, bool keep_alive) {
  if (static_cast<unsigned>(response.status) < 200 ||
      static_cast<unsigned>(response.status) > 999) {
    throw std::invalid_argument("the response's status is " +
                                std::to_string(static_cast<unsigned>(response.status)));
  }
  check_value("Content-Type", response.content_type);
  Message message{response.status, to.version()};
  message.set(field::date, http_date());
  if (!response.content_type.empty()) message.set(field::content_type, response.content_type);
  for (const auto& [name, value] : response.fields) {
    check_name(name);
    check_value(name, value);
    message.insert(name, value);
  }
  message.keep_alive(keep_alive);
  return message;
}

std::string text_of(const Message& message) {
  const auto version = message.version();
  std::string text = "HTTP/" + std::to_string(version / 10) + "." + std::to_string(version % 10) +
                     " " + std::to_string(message.result_int()) + " ";
  text.append(message.reason().data(), message.reason().size()).append("\r\n");
  for (const auto& each : message) {
    text.append(each.name_string().data(), each.name_string().size()).append(": ");
    text.append(each.value().data(), each.value().size()).append("\r\n");
  }
  return text.append("\r\n");
}

bool may_have_body(status status) {
  return status != status::no_content && status != status::not_modified;
}

}  // namespace

Message to_message(response response, const request& to, bool keep_alive) {
  Message message = make_head(response, to, keep_alive);
  if (!may_have_body(response.status)) return message;
  message.content_length(response.body.size());
  if (to.method() != verb::head) message.body() = std::move(response.body);
  return message;
}

StreamHead to_stream_head(const response& response, const request& to, bool keep_alive) {
  using Kind = BodyFraming::Kind;
  Kind kind = Kind::kLength;
  if (!response.stream_length) kind = to.version() >= 11 ? Kind::kChunked : Kind::kUntilClose;
  StreamHead head;
  head.keep_alive = keep_alive && kind != Kind::kUntilClose;
  head.has_body = may_have_body(response.status) && to.method() != verb::head;
  head.framing = BodyFraming(kind, response.stream_length);
  Message message = make_head(response, to, head.keep_alive);
  if (may_have_body(response.status)) {
    if (response.stream_length) message.content_length(*response.stream_length);
    if (kind == Kind::kChunked) message.chunked(true);
  }
  head.text = text_of(message);
  return head;
}

response refusal(status status) {
  return {.status = status, .body = std::string(beast::http::obsolete_reason(status)) + "\n"};
}

}  // namespace ostler::http
