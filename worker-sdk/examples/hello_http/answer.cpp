#include "answer.hpp"

#include <array>
#include <charconv>
#include <ctime>
#include <optional>
#include <string_view>
#include <utility>

namespace ostler::example {
namespace {

constexpr std::string_view kSlowQuery = "ms=";

std::string_view as_view(boost::beast::string_view text) {
  return {text.data(), text.size()};
}

Answer not_found(std::string_view path) {
  return {http::status::not_found, "nothing is at " + std::string(path) + "\n", "", {}};
}

Answer not_allowed(std::string_view methods) {
  return {http::status::method_not_allowed,
          "only " + std::string(methods) + " is possible here\n",
          std::string(methods),
          {}};
}

std::string introduce(const Identity& identity) {
  return "hello from " + identity.name + ", pid " + std::to_string(identity.pid) + ", generation " +
         identity.generation + "\n";
}

Answer slow(std::string_view query, const Identity& identity) {
  std::int64_t wanted = -1;
  if (query.starts_with(kSlowQuery)) {
    query.remove_prefix(kSlowQuery.size());
    const auto [rest, error] = std::from_chars(query.begin(), query.end(), wanted);
    if (error != std::errc{} || rest != query.end()) wanted = -1;
  }
  if (wanted < 0) return {http::status::bad_request, "want /slow?ms=NUMBER\n", "", {}};
  return {http::status::ok, introduce(identity), "",
          std::min(std::chrono::milliseconds(wanted), kLongestPause)};
}

std::string now_as_http_date() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  std::array<char, 32> text{};
  const auto size = std::strftime(text.data(), text.size(), "%a, %d %b %Y %H:%M:%S GMT", &parts);
  return {text.data(), size};
}

}  // namespace

Answer answer_to(const Request& request, const Identity& identity) {
  const auto target = as_view(request.target());
  const auto question = target.find('?');
  const auto path = target.substr(0, question);
  const auto query =
      question == std::string_view::npos ? std::string_view{} : target.substr(question + 1);
  const bool get = request.method() == http::verb::get || request.method() == http::verb::head;

  if (path == "/echo") {
    if (request.method() != http::verb::post) return not_allowed("POST");
    return {http::status::ok, request.body(), "", {}};
  }
  if (path != "/" && path != "/pid" && path != "/slow") return not_found(path);
  if (!get) return not_allowed("GET, HEAD");
  if (path == "/slow") return slow(query, identity);
  if (path == "/pid") return {http::status::ok, std::to_string(identity.pid) + "\n", "", {}};
  return {http::status::ok, introduce(identity), "", {}};
}

Response to_response(Answer answer, const Identity& identity, const Request& request,
                     bool keep_alive) {
  Response response{answer.status, request.version()};
  response.set(http::field::date, now_as_http_date());
  response.set(http::field::content_type, "text/plain; charset=utf-8");
  response.set("X-Worker", identity.name + " " + std::to_string(identity.pid));
  if (!answer.allow.empty()) response.set(http::field::allow, answer.allow);
  response.content_length(answer.body.size());
  response.keep_alive(keep_alive);
  if (request.method() != http::verb::head) response.body() = std::move(answer.body);
  return response;
}

}  // namespace ostler::example
