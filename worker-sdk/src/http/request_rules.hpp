// What RFC 9110 and RFC 9112 ask of a request beyond what Beast's parser sees to.
#pragma once

#include <optional>

#include "ostler/http.hpp"

namespace ostler::http {

// The status with which to refuse a request of which the header was read; none if it is in order.
std::optional<status> fault_of(const request::message_type& asked);

}  // namespace ostler::http
