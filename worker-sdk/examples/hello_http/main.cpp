// ostler-example-http: a small HTTP server as a worker, with a route that waits without holding the
// others up.
#include <getopt.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "ostler/http.hpp"

namespace ostler::example {
namespace {

using std::chrono::milliseconds;

constexpr char kUsage[] =
    "usage: ostler-example-http [--keepalive SECONDS] [--start-delay MS] [--listen IP:PORT]\n"
    "\n"
    "Serves HTTP on the listeners inherited from ostlerd or systemd.\n"
    "\n"
    "  --keepalive SECONDS  how long an idle connection is kept (default 5)\n"
    "  --start-delay MS     wait so long before being ready\n"
    "  --listen IP:PORT     open a listener of its own, to run without a manager\n"
    "\n"
    "  GET /            who answers: pool and slot, pid, generation\n"
    "  GET /pid         the pid alone\n"
    "  GET /slow?ms=N   the same as /, after N milliseconds (60000 at most)\n"
    "  POST /echo       the request's body (64 KiB at most)\n"
    "\n"
    "TERM, INT or QUIT: drain and exit 0; once more: exit 1 at once.\n";
constexpr milliseconds kLongestPause{60'000};

// Who answers: "web.0", or "alone" without a manager.
struct Identity {
  explicit Identity(const worker& worker) {
    if (worker.pool() && worker.slot())
      name = *worker.pool() + "." + std::to_string(*worker.slot());
    if (worker.generation()) generation = std::to_string(*worker.generation());
  }
  std::string name = "alone";
  std::string generation = "none";
  std::string pid = std::to_string(::getpid());
};

template <class Number>
Number number(const std::string& what, std::string_view text, Number most) {
  Number value{};
  const auto [rest, error] = std::from_chars(text.begin(), text.end(), value);
  if (error != std::errc{} || rest != text.end() || !(value >= 0 && value <= most)) {
    throw std::invalid_argument(what + ": '" + std::string(text) + "' is not a number from 0 to " +
                                std::to_string(most));
  }
  return value;
}

http::response not_allowed(const std::string& methods) {
  return {.status = http::status::method_not_allowed,
          .body = "only " + methods + " is possible here\n",
          .fields = {{"Allow", methods}}};
}

boost::asio::awaitable<void> pause(std::string_view query) {
  if (!query.starts_with("ms=")) throw std::invalid_argument("want /slow?ms=NUMBER");
  const auto wanted = number<long long>("ms", query.substr(3), 1LL << 60);
  boost::asio::steady_timer timer(co_await boost::asio::this_coro::executor,
                                  std::min(milliseconds(wanted), kLongestPause));
  co_await timer.async_wait(boost::asio::use_awaitable);
}

boost::asio::awaitable<http::response> answer(const http::request& request,
                                              const Identity& identity) {
  const std::string_view target{request.target().data(), request.target().size()};
  const auto path = target.substr(0, target.find('?'));
  const auto query = target.substr(std::min(path.size() + 1, target.size()));
  const bool get = request.method() == http::verb::get || request.method() == http::verb::head;

  if (path == "/echo") {
    if (request.method() != http::verb::post) co_return not_allowed("POST");
    co_return http::response{.body = request.body()};
  }
  if (path != "/" && path != "/pid" && path != "/slow") {
    co_return http::response{.status = http::status::not_found,
                             .body = "nothing is at " + std::string(path) + "\n"};
  }
  if (!get) co_return not_allowed("GET, HEAD");
  if (path == "/pid") co_return http::response{.body = identity.pid + "\n"};
  try {
    if (path == "/slow") co_await pause(query);
  } catch (const std::invalid_argument& fault) {
    co_return http::response{.status = http::status::bad_request,
                             .body = std::string(fault.what()) + "\n"};
  }
  co_return http::response{.body = "hello from " + identity.name + ", pid " + identity.pid +
                                   ", generation " + identity.generation + "\n"};
}

struct Flags {
  http::options options{.body_limit = 64 * 1024};
  milliseconds start_delay{0};
};

Flags parse(int argc, char** argv) {
  static const option kOptions[] = {{"keepalive", required_argument, nullptr, 'k'},
                                    {"start-delay", required_argument, nullptr, 'd'},
                                    {"listen", required_argument, nullptr, 'l'},
                                    {"help", no_argument, nullptr, 'h'},
                                    {nullptr, 0, nullptr, 0}};
  Flags flags;
  for (int flag = 0; (flag = ::getopt_long(argc, argv, "", kOptions, nullptr)) != -1;) {
    if (flag == 'k') {
      flags.options.keepalive =
          milliseconds(static_cast<long>(number("--keepalive", optarg, 86400.0) * 1000));
    } else if (flag == 'd') {
      flags.start_delay = milliseconds(number("--start-delay", optarg, 3'600'000));
    } else if (flag == 'l') {
      flags.options.listen = optarg;
    } else {
      std::fputs(kUsage, flag == 'h' ? stdout : stderr);
      std::exit(flag == 'h' ? EXIT_SUCCESS : http::kUsageError);
    }
  }
  if (optind < argc) throw std::invalid_argument(std::string("unexpected '") + argv[optind] + "'");
  return flags;
}

// False if the worker was asked to stop meanwhile.
bool wait_before_ready(const worker& worker, milliseconds delay) {
  pollfd stop{worker.stop_fd(), POLLIN, 0};
  while (::poll(&stop, 1, static_cast<int>(delay.count())) < 0 && !worker.stop_requested()) {
  }
  return !worker.stop_requested();
}

int run(const Flags& flags) {
  worker worker;
  if (!wait_before_ready(worker, flags.start_delay)) return EXIT_SUCCESS;
  const Identity identity(worker);
  return http::serve(
      worker,
      [&](const http::request& request) -> boost::asio::awaitable<http::response> {
        auto response = co_await answer(request, identity);
        response.fields.emplace_back("X-Worker", identity.name + " " + identity.pid);
        co_return response;
      },
      flags.options);
}

}  // namespace
}  // namespace ostler::example

int main(int argc, char** argv) {
  try {
    return ostler::example::run(ostler::example::parse(argc, argv));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "ostler-example-http: %s\n", error.what());
    return dynamic_cast<const std::invalid_argument*>(&error) != nullptr ? ostler::http::kUsageError
                                                                         : EXIT_FAILURE;
  }
}
