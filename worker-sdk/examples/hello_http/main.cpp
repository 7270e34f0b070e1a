// ostler-example-http: a small HTTP server as a worker. In class async, the usual here, its handler
// is a coroutine, and a route that waits does not hold the others up; in the other classes it is a
// function that blocks.
#include <getopt.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "ostler/http.hpp"

namespace ostler::example {
namespace {

using std::chrono::milliseconds;

constexpr char kUsage[] =
    "usage: ostler-example-http [OPTION]...\n"
    "\n"
    "Serves HTTP on the listeners inherited from ostlerd or systemd.\n"
    "\n"
    "  --keepalive SECONDS  how long an idle connection is kept (default 5)\n"
    "  --start-delay MS     wait so long before being ready\n"
    "  --listen ADDRESS     open a listener of its own, to run without a manager\n"
    "  --blocking           answer with a function that blocks, for the classes sync (the usual\n"
    "                       one then) and threads; the pool's worker: {class} says which\n"
    "\n"
    "  GET /            who answers: pool and slot, pid, generation\n"
    "  GET /pid         the pid alone\n"
    "  GET /slow?ms=N   the same as /, after N milliseconds (60000 at most)\n"
    "  GET /client      the client's address\n"
    "  GET /stream?n=N  N lines, each as it is written\n"
    "  GET /stuck?ms=N  the same as /, having held its thread for so long\n"
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

// "ms=250" or "n=3"
long long parameter(std::string_view query, std::string_view name) {
  if (!query.starts_with(name)) {
    throw std::invalid_argument("want a parameter, " + std::string(name) + "NUMBER");
  }
  return number<long long>(std::string(name), query.substr(name.size()), 1LL << 60);
}

milliseconds pause_of(std::string_view query) {
  return std::min(milliseconds(parameter(query, "ms=")), kLongestPause);
}

boost::asio::awaitable<void> pause(milliseconds time) {
  boost::asio::steady_timer timer(co_await boost::asio::this_coro::executor, time);
  co_await timer.async_wait(boost::asio::use_awaitable);
}

std::string line(long long number) {
  return "line " + std::to_string(number) + "\n";
}

// As it is written: in class async by a coroutine.
http::response streamed(long long lines, bool blocking) {
  http::response response;
  if (blocking) {
    response.stream = [lines](http::body_writer& out) {
      for (long long i = 0; i < lines; ++i) out.write(line(i));
    };
  } else {
    response.stream = [lines](http::async_body_writer& out) -> boost::asio::awaitable<void> {
      for (long long i = 0; i < lines; ++i) {
        const std::string text = line(i);
        co_await out.write(text);
      }
    };
  }
  return response;
}

struct Path {
  explicit Path(const http::request& request)
      : target(request.target().data(), request.target().size()),
        path(target.substr(0, target.find('?'))),
        query(target.substr(std::min(path.size() + 1, target.size()))) {}
  std::string_view target, path, query;
};

// All but what waits.
http::response answer(const http::request& request, const Identity& identity, bool blocking) {
  const Path at(request);
  const bool get = request.method() == http::verb::get || request.method() == http::verb::head;

  if (at.path == "/echo") {
    if (request.method() != http::verb::post) return not_allowed("POST");
    return http::response{.body = request.body()};
  }
  static constexpr std::array<std::string_view, 6> kPaths{"/",       "/pid",    "/slow",
                                                          "/client", "/stream", "/stuck"};
  if (std::find(kPaths.begin(), kPaths.end(), at.path) == kPaths.end()) {
    return http::response{.status = http::status::not_found,
                          .body = "nothing is at " + std::string(at.path) + "\n"};
  }
  if (!get) return not_allowed("GET, HEAD");
  if (at.path == "/pid") return http::response{.body = identity.pid + "\n"};
  if (at.path == "/client") return http::response{.body = request.client() + "\n"};
  if (at.path == "/stream") return streamed(parameter(at.query, "n="), blocking);
  if (at.path == "/slow") parameter(at.query, "ms=");
  if (at.path == "/stuck") std::this_thread::sleep_for(pause_of(at.query));
  return http::response{.body = "hello from " + identity.name + ", pid " + identity.pid +
                                ", generation " + identity.generation + "\n"};
}

http::response answer_or_refuse(const http::request& request, const Identity& identity,
                                bool blocking) {
  try {
    return answer(request, identity, blocking);
  } catch (const std::invalid_argument& fault) {
    return {.status = http::status::bad_request, .body = std::string(fault.what()) + "\n"};
  }
}

// How long a request is to wait; one that does not say it right is refused later.
milliseconds wait_of(const http::request& request) {
  const Path at(request);
  try {
    return at.path == "/slow" ? pause_of(at.query) : milliseconds(0);
  } catch (const std::invalid_argument&) {
    return milliseconds(0);
  }
}

struct Flags {
  Flags() { options.body_limit = 64 * 1024; }
  http::options options;
  milliseconds start_delay{0};
  bool blocking = false;
};

Flags parse(int argc, char** argv) {
  static const option kOptions[] = {{"keepalive", required_argument, nullptr, 'k'},
                                    {"start-delay", required_argument, nullptr, 'd'},
                                    {"listen", required_argument, nullptr, 'l'},
                                    {"blocking", no_argument, nullptr, 'b'},
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
    } else if (flag == 'b') {
      flags.blocking = true;
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
  const auto finished = [&](const http::request& request) {
    http::response response = answer_or_refuse(request, identity, flags.blocking);
    response.fields.emplace_back("X-Worker", identity.name + " " + identity.pid);
    return response;
  };
  if (flags.blocking) {
    return http::serve(
        worker,
        [&](const http::request& request) {
          std::this_thread::sleep_for(wait_of(request));
          return finished(request);
        },
        flags.options);
  }
  return http::serve(
      worker,
      [&](const http::request& request) -> boost::asio::awaitable<http::response> {
        if (const auto time = wait_of(request); time.count() > 0) co_await pause(time);
        co_return finished(request);
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
