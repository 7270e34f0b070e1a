// From what a handler answers to the message that is sent.
#pragma once

#include <string>

#include "ostler/http.hpp"

namespace ostler::http {

using Message = boost::beast::http::response<boost::beast::http::string_body>;

// The response as a message to that request: version, keep-alive, Date, and a body only where one
// may be. Throws std::invalid_argument, saying what and why, if it cannot be sent.
Message to_message(response response, const request& to, bool keep_alive);

// The status' own words, as a response to what was refused.
response refusal(status status);

}  // namespace ostler::http
