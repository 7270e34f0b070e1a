// What the sessions of one HTTP server share.
#pragma once

#include "http/proxies.hpp"
#include "ostler/http.hpp"
#include "serving/engine.hpp"

namespace ostler::http {

struct Service {
  serving::Engine& engine;
  const http::handler& handler;
  const http::options& options;
  const ProxyList& proxies;

  [[nodiscard]] bool keeps_alive() const {
    return options.keepalive > std::chrono::milliseconds::zero() &&
           engine.kind() != worker_class::sync;
  }
};

}  // namespace ostler::http
