// What RFC 9110 and RFC 9112 ask of a request beyond what Beast's parser sees to.
#pragma once

#include <optional>
#include <string_view>

#include "ostler/http.hpp"

namespace ostler::http {

// The status with which to refuse a request of which the header was read; none if it is in order.
std::optional<status> fault_of(const request::message_type& asked);

// Whether the client would send another request on the connection; RFC 9112 section 9.3. Beast
// looks at the first Connection field alone, and in HTTP/1.0 puts keep-alive above close.
bool wants_keep_alive(const request::message_type& asked);

// Whether the extensions of a chunk end in the line they stand in. Beast takes anything for a
// character of a quoted one, also an LF, which a server in front may have taken for the line's end.
bool are_extensions(std::string_view text);

// A target that names the scheme and the host, as for a proxy, becomes what it would be without,
// and its host the Host field; RFC 9112 section 3.2.2. For one that has no fault.
void to_origin_form(request::message_type& asked);

// The first line's version, as the two digits of its number; 0 if it names none.
unsigned version_of(std::string_view request_line);

}  // namespace ostler::http
