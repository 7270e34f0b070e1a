// ostler::http::serve: the options and how a connection comes to its session.
#include <memory>
#include <stdexcept>
#include <utility>
#include <variant>

#include "http/session.hpp"
#include "internals.hpp"
#include "serving/pool_options.hpp"
#include "serving/program.hpp"

namespace ostler::http {
namespace {

constexpr std::uint64_t kMostHeader = std::uint64_t{1} << 20U;
constexpr std::uint64_t kMostBody = std::uint64_t{1} << 40U;

access_log log_of(const std::string& word) {
  if (word == "off") return access_log::off;
  if (word == "common") return access_log::common;
  if (word == "json") return access_log::json;
  throw std::invalid_argument("the pool's setting access_log=" + word +
                              ": want off, common or json");
}

// The pool's settings win.
void apply(const serving::PoolOptions& pool, options& options) {
  pool.apply_to(options);
  const auto time = [&](const char* key, std::chrono::milliseconds& value) {
    if (const auto given = pool.duration(key)) value = *given;
  };
  time("keepalive", options.keepalive);
  time("header_timeout", options.header_timeout);
  time("body_timeout", options.body_timeout);
  time("write_timeout", options.write_timeout);
  if (const auto limit = pool.number("header_limit", 1, kMostHeader)) {
    options.header_limit = static_cast<std::uint32_t>(*limit);
  }
  if (const auto limit = pool.number("body_limit", 0, kMostBody)) options.body_limit = *limit;
  if (const auto word = pool.word("access_log")) options.access_log = log_of(*word);
  if (const auto proxies = pool.list("trusted_proxies")) options.trusted_proxies = *proxies;
}

void run(worker& worker, const handler& answer, options options) {
  if (!std::visit([](const auto& function) { return static_cast<bool>(function); }, answer)) {
    throw std::invalid_argument("the handler is empty");
  }
  apply(serving::PoolOptions(worker_internals::of(worker).options), options);
  const ProxyList proxies(options.trusted_proxies);
  const std::initializer_list<worker_class> any{worker_class::sync, worker_class::threads,
                                                worker_class::async};
  const std::initializer_list<worker_class> coroutine{worker_class::async};
  const serve_options& of_any_protocol = options;
  serving::Engine engine(worker, of_any_protocol,
                         std::holds_alternative<async_handler>(answer) ? coroutine : any);
  const Service service{engine, answer, options, proxies};
  engine.run([&](Socket socket, serving::Origin origin) {
    std::make_shared<Session>(std::move(socket), service, std::move(origin))->start();
  });
}

}  // namespace

int serve(worker& worker, handler answer, const options& options) noexcept {
  return serving::exit_code_of([&] {
    run(worker, answer, options);
    return kDrained;
  });
}

int serve(handler answer, const options& options) noexcept {
  return serving::exit_code_of([&] {
    worker worker;
    return serve(worker, std::move(answer), options);
  });
}

int serve(int argc, char** argv, handler answer, options options) noexcept {
  return serving::exit_code_of([&]() -> int {
    if (const auto code = serving::parse_flags(argc, argv, "HTTP", options.listen)) return *code;
    return serve(std::move(answer), options);
  });
}

}  // namespace ostler::http
