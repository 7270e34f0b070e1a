// From what a handler answers to the message that is sent.
#pragma once

#include <string>

#include "http/body_stream.hpp"
#include "ostler/http.hpp"

namespace ostler::http {

// What is sent first of a response with a stream, and how its body is framed.
struct StreamHead {
  std::string text;
  BodyFraming framing;
  bool keep_alive = false;
  bool has_body = false;  // not for HEAD, 204, 304
};

using Message = boost::beast::http::response<boost::beast::http::string_body>;

// The response as a message to that request: version, keep-alive, Date, and a body only where one
// may be. Throws std::invalid_argument, saying what and why, if it cannot be sent.
Message to_message(response response, const request& to, bool keep_alive);

// As above, for a response whose body is a stream.
StreamHead to_stream_head(const response& response, const request& to, bool keep_alive);

// The status' own words, as a response to what was refused.
response refusal(status status);

}  // namespace ostler::http
