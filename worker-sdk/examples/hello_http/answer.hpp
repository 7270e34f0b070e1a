// What the example answers to which request. Pure: it reads the request and nothing else.
#pragma once

#include <unistd.h>

#include <chrono>
#include <string>

#include <boost/beast/http/message.hpp>
#include <boost/beast/http/string_body.hpp>

namespace ostler::example {

namespace http = boost::beast::http;
using Request = http::request<http::string_body>;
using Response = http::response<http::string_body>;

// The most that GET /slow waits.
inline constexpr std::chrono::milliseconds kLongestPause{60'000};

// Who answers: "web.0", or "alone" without a manager.
struct Identity {
  std::string name;
  std::string generation;
  pid_t pid = 0;
};

struct Answer {
  http::status status = http::status::ok;
  std::string body;
  std::string allow;                   // with 405: the methods there are
  std::chrono::milliseconds after{0};  // how long to wait before it is sent
};

Answer answer_to(const Request& request, const Identity& identity);

// The answer as a message to that request: version, keep-alive, Date, and no body for HEAD.
Response to_response(Answer answer, const Identity& identity, const Request& request,
                     bool keep_alive);

}  // namespace ostler::example
