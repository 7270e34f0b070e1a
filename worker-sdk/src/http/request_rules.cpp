#include "http/request_rules.hpp"

#include <boost/beast/core/string.hpp>
#include <boost/beast/http/field.hpp>

namespace ostler::http {

std::optional<status> fault_of(const request::message_type& asked) {
  using boost::beast::iequals;
  const bool newer = asked.version() >= 11;
  // RFC 9112 section 3.2.
  const auto hosts = asked.count(field::host);
  if (hosts > 1 || (newer && hosts == 0)) return status::bad_request;
  // RFC 9112 section 6.1 and 6.3: otherwise one cannot be sure where the body ends.
  const auto codings = asked.count(field::transfer_encoding);
  if (codings > 1 || (codings == 1 && !newer)) return status::bad_request;
  if (codings == 1 && !iequals(asked[field::transfer_encoding], "chunked")) {
    return status::not_implemented;
  }
  // RFC 9110 section 10.1.1: of HTTP/1.0 it is ignored.
  if (newer && asked.count(field::expect) > 0 && !iequals(asked[field::expect], "100-continue")) {
    return status::expectation_failed;
  }
  return std::nullopt;
}

}  // namespace ostler::http
