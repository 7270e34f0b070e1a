// The problems of the control API by name, so that each is worded in one place.
//
// `type` is "urn:ostler:problem:" and the name of the function with dashes.
#pragma once

#include <string>
#include <string_view>

#include "control/messages.hpp"

namespace ostler::control {

Problem bad_request(std::string detail);      // 400
Problem not_permitted(std::string detail);    // 403
Problem no_such_path(std::string_view path);  // 404
Problem no_such_pool(std::string_view pool);  // 404
Problem no_such_worker(int pid);              // 404
Problem method_not_allowed(std::string_view method, std::string_view path,
                           std::string allowed);        // 405, `allowed` as "GET, HEAD"
Problem request_timeout(std::string detail);            // 408
Problem conflict(std::string detail);                   // 409: it was tried and failed
Problem reopen_failed(std::string detail);              // 409: a log file
Problem too_large(std::string detail);                  // 413
Problem expectation_failed(std::string_view expected);  // 417
Problem header_too_large(std::string detail);           // 431
Problem internal_error(std::string detail);             // 500
Problem not_available(std::string_view what);           // 501: not available in this version
Problem busy(std::string detail);                       // 503: too many requests wait
Problem stopping();                                     // 503: the manager stops
Problem version_not_supported();                        // 505

// Untrusted text for a detail: at most 80 bytes of it, quoted, control bytes replaced.
std::string quote(std::string_view text);

}  // namespace ostler::control
