// From what a handler answers to what is sent first of it: the status line and the fields.
#pragma once

#include <string>

#include "http/body_stream.hpp"
#include "ostler/http.hpp"

namespace ostler::http {

struct Head {
  std::string text;
  BodyFraming framing;
  bool keep_alive = false;
  bool has_body = false;  // not for HEAD, 204, 304
};

// The head of the response to that request: version, keep-alive, Date, and what frames the body.
// Throws std::invalid_argument, saying what and why, if it cannot be sent. `memory` is used again.
Head make_head(const response& response, const request& to, bool keep_alive,
               std::string memory = {});

// The status' own words, as a response to what was refused.
response refusal(status status);

}  // namespace ostler::http
