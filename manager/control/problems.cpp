#include "control/problems.hpp"

#include <cstddef>
#include <utility>

namespace ostler::control {

namespace {

Problem make(int status, const char* kind, const char* title, std::string detail) {
  return {std::string("urn:ostler:problem:") + kind, title, status, std::move(detail), {}};
}

}  // namespace

std::string quote(std::string_view text) {
  constexpr std::size_t kMost = 80;
  std::string result = "'";
  for (const char c : text.substr(0, kMost)) {
    const auto byte = static_cast<unsigned char>(c);
    result += byte < 0x20 || byte == 0x7f ? '?' : c;
  }
  return result + (text.size() > kMost ? "…'" : "'");
}

Problem bad_request(std::string detail) {
  return make(400, "bad-request", "The request is not understood", std::move(detail));
}

Problem not_permitted(std::string detail) {
  return make(403, "not-permitted", "Not permitted", std::move(detail));
}

Problem no_such_path(std::string_view path) {
  return make(404, "no-such-path", "There is nothing at this path", "no endpoint " + quote(path));
}

Problem no_such_pool(std::string_view pool) {
  return make(404, "no-such-pool", "No such pool", "there is no pool " + quote(pool));
}

Problem no_such_worker(int pid) {
  return make(404, "no-such-worker", "No such worker", "no worker has pid " + std::to_string(pid));
}

Problem method_not_allowed(std::string_view method, std::string_view path, std::string allowed) {
  Problem problem =
      make(405, "method-not-allowed", "The method is not allowed here",
           quote(method) + " is not allowed for " + quote(path) + "; allowed: " + allowed);
  problem.allow = std::move(allowed);
  return problem;
}

Problem request_timeout(std::string detail) {
  return make(408, "request-timeout", "The request took too long", std::move(detail));
}

Problem conflict(std::string detail) {
  return make(409, "conflict", "It was tried and failed", std::move(detail));
}

Problem reopen_failed(std::string detail) {
  return make(409, "reopen-failed", "A log file could not be opened anew", std::move(detail));
}

Problem too_large(std::string detail) {
  return make(413, "too-large", "The body is too large", std::move(detail));
}

Problem expectation_failed(std::string_view expected) {
  return make(417, "expectation-failed", "The expectation cannot be met",
              "'Expect: 100-continue' is all that is understood, not " + quote(expected));
}

Problem header_too_large(std::string detail) {
  return make(431, "header-too-large", "The header is too large", std::move(detail));
}

Problem internal_error(std::string detail) {
  return make(500, "internal-error", "Unexpected failure", std::move(detail));
}

Problem not_available(std::string_view what) {
  return make(501, "not-available", "Not available in this version",
              std::string(what) + " is not available in this version");
}

Problem busy(std::string detail) {
  return make(503, "busy", "Too many requests wait", std::move(detail));
}

Problem stopping() {
  return make(503, "stopping", "The manager is stopping",
              "the manager is stopping; what was asked is not done");
}

Problem version_not_supported() {
  return make(505, "version-not-supported", "The HTTP version is not supported",
              "HTTP/1.1 and HTTP/1.0 are spoken here");
}

}  // namespace ostler::control
