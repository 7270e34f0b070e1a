// ostler-bench-mixed: a worker whose requests take 1 ms or 50 ms, as /short and /long ask. They
// sleep, so that what is measured is how requests find a worker, and not the machine's cores.
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <string>
#include <string_view>
#include <thread>

#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "ostler/http.hpp"
#include "ostler/protocol.h"

namespace {

namespace asio = boost::asio;
namespace http = ostler::http;
using std::chrono::milliseconds;

std::string_view path_of(const http::request& request) {
  const std::string_view target(request.target().data(), request.target().size());
  return target.substr(0, target.find('?'));
}

milliseconds time_of(const http::request& request) {
  const std::string_view path = path_of(request);
  return milliseconds(path == "/short" ? 1 : path == "/long" ? 50 : 0);
}

http::response answer(const http::request& request) {
  const std::string_view path = path_of(request);
  http::response response;
  if (path != "/short" && path != "/long" && path != "/pid") {
    response.status = http::status::not_found;
  }
  response.body = std::to_string(::getpid()) + "\n";
  // Says whose answer it is, so that a client sees when it got another's.
  const auto id = request.find("X-Request-Id");
  if (id != request.end()) response.fields.emplace_back("X-Request-Id", std::string(id->value()));
  return response;
}

http::response block(const http::request& request) {
  std::this_thread::sleep_for(time_of(request));  // NOLINT(sleep): what a handler that blocks does
  return answer(request);
}

asio::awaitable<void> pause(milliseconds time) {
  asio::steady_timer timer(co_await asio::this_coro::executor, time);
  co_await timer.async_wait(asio::use_awaitable);
}

asio::awaitable<http::response> wait(const http::request& request) {
  co_await pause(time_of(request));
  co_return answer(request);
}

}  // namespace

int main(int argc, char** argv) {
  // One program for all classes: a coroutine where the pool asks for an event loop.
  const char* options = std::getenv(OSTLER_ENV_WORKER_OPTIONS);
  const bool loop = std::string_view(options == nullptr ? "" : options).find("class=async") !=
                    std::string_view::npos;
  return http::serve(argc, argv, loop ? http::handler(wait) : http::handler(block));
}
