// A request of the manager's own to one worker: a health check, or a warm-up request.
//
// One HTTP/1.1 request over a connection that was handed to the worker; the answer's status is what
// counts. Runs on the manager's loop, with a time limit of its own.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <functional>
#include <optional>
#include <string>

#include "config/src/model.hpp"
#include "runtime/unique_fd.hpp"

namespace ostler::runtime {

struct PrivateAnswer {
  std::optional<int> status;  // none: there was no answer
  std::string fault;          // then why: "was not answered within 2s"
  bool late = false;          // that is why
};

// "GET /healthz"
std::string describe(const config::ProbeRequest& request);
// What is wrong with an answer of this status, in words; empty if it is expected.
std::string unexpected(const config::ProbeRequest& request, int status);

// `connection` is a connected stream socket. `done` is called once, from the loop.
void ask_privately(boost::asio::io_context& context, UniqueFd connection,
                   const config::ProbeRequest& request, std::chrono::nanoseconds limit,
                   std::function<void(const PrivateAnswer&)> done);

}  // namespace ostler::runtime
