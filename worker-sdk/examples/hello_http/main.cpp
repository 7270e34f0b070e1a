// ostler-example-http: a small HTTP server as a worker. It shows all that a worker with its own
// event loop has to do: take the inherited listeners, say that it is ready, and drain when asked
// to.
#include <getopt.h>
#include <poll.h>
#include <unistd.h>

#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>

#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/posix/basic_stream_descriptor.hpp>

#include "ostler/worker.hpp"
#include "server.hpp"

namespace ostler::example {
namespace {

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
constexpr int kUsageError = 2;

struct Flags {
  double keepalive = 5;
  unsigned start_delay = 0;
  std::optional<std::string> listen;
};

template <class Number>
Number number(const char* flag, const char* text, Number most) {
  Number value{};
  const char* end = text + std::strlen(text);
  const auto [rest, error] = std::from_chars(text, end, value);
  if (error != std::errc{} || rest != end || !(value >= 0 && value <= most)) {
    throw std::invalid_argument(std::string(flag) + ": '" + text + "' is not a number from 0 to " +
                                std::to_string(most));
  }
  return value;
}

Flags parse(int argc, char** argv) {
  static const option kOptions[] = {{"keepalive", required_argument, nullptr, 'k'},
                                    {"start-delay", required_argument, nullptr, 'd'},
                                    {"listen", required_argument, nullptr, 'l'},
                                    {"help", no_argument, nullptr, 'h'},
                                    {nullptr, 0, nullptr, 0}};
  Flags flags;
  for (int flag = 0; (flag = ::getopt_long(argc, argv, "", kOptions, nullptr)) != -1;) {
    if (flag == 'k') {
      flags.keepalive = number("--keepalive", optarg, 86400.0);
    } else if (flag == 'd') {
      flags.start_delay = number("--start-delay", optarg, 3'600'000U);
    } else if (flag == 'l') {
      flags.listen = optarg;
    } else {
      std::fputs(kUsage, flag == 'h' ? stdout : stderr);
      std::exit(flag == 'h' ? EXIT_SUCCESS : kUsageError);
    }
  }
  if (optind < argc) throw std::invalid_argument(std::string("unexpected '") + argv[optind] + "'");
  return flags;
}

Identity identity_of(const worker& worker) {
  Identity identity{"alone", "none", ::getpid()};
  if (worker.pool() && worker.slot()) {
    identity.name = *worker.pool() + "." + std::to_string(*worker.slot());
  }
  if (worker.generation()) identity.generation = std::to_string(*worker.generation());
  return identity;
}

// False if the worker was asked to stop meanwhile.
bool wait_before_ready(const worker& worker, unsigned milliseconds) {
  pollfd stop{worker.stop_fd(), POLLIN, 0};
  const auto until = Clock::now() + std::chrono::milliseconds(milliseconds);
  while (!worker.stop_requested()) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
    if (left <= 0) return true;
    ::poll(&stop, 1, static_cast<int>(left));
  }
  return false;
}

int open_listener(asio::io_context& context, const std::string& address) {
  const auto colon = address.rfind(':');
  if (colon == std::string::npos) throw std::invalid_argument("--listen: want IP:PORT");
  auto host = address.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  const auto port = number<std::uint16_t>("--listen", address.c_str() + colon + 1,
                                          std::numeric_limits<std::uint16_t>::max());
  try {
    asio::ip::tcp::acceptor acceptor(context, {asio::ip::make_address(host), port});
    std::printf("listening on port %u\n", unsigned{acceptor.local_endpoint().port()});
    std::fflush(stdout);
    return acceptor.release();
  } catch (const boost::system::system_error& error) {
    throw std::runtime_error("listen on " + address + ": " + error.code().message());
  }
}

// Follows the stop signals for as long as the server has connections.
class StopWatch {
 public:
  StopWatch(asio::io_context& context, const worker& worker, Server& server)
      : worker_(worker), server_(server), event_(context, worker.stop_fd()) {
    watch();
  }
  StopWatch(const StopWatch&) = delete;
  StopWatch& operator=(const StopWatch&) = delete;
  // The descriptor is the worker's.
  ~StopWatch() { event_.release(); }

 private:
  void watch() {
    event_.async_read_some(asio::buffer(&count_, sizeof count_),
                           [this](const Error& error, std::size_t) {
                             if (!error) on_stop();
                           });
  }

  void on_stop() {
    if (worker_.stop_requests() > 1) std::_Exit(EXIT_FAILURE);
    worker_.stopping();
    worker_.status("draining " + std::to_string(server_.sessions()) + " connections");
    watch();
    server_.drain([this] { event_.cancel(); });
  }

  const worker& worker_;
  Server& server_;
  asio::posix::basic_stream_descriptor<Executor> event_;
  std::uint64_t count_ = 0;
};

int run(const Flags& flags) {
  worker worker;
  if (!wait_before_ready(worker, flags.start_delay)) return EXIT_SUCCESS;

  asio::io_context context(BOOST_ASIO_CONCURRENCY_HINT_UNSAFE);  // one thread: no locks
  const auto keepalive = std::chrono::duration<double>(flags.keepalive);
  Server server(context,
                {.identity = identity_of(worker),
                 .keepalive = std::chrono::duration_cast<std::chrono::milliseconds>(keepalive)});
  for (const auto& listener : worker.listeners()) server.serve(listener.fd);
  if (flags.listen) {
    server.serve(open_listener(context, *flags.listen));
  } else if (worker.listeners().empty()) {
    throw std::invalid_argument("no listener was inherited; see --listen to run without a manager");
  }
  StopWatch stop(context, worker, server);
  if (!worker.ready() && worker.managed()) {
    throw std::system_error(errno, std::generic_category(), "tell the manager READY=1");
  }
  context.run();
  return EXIT_SUCCESS;
}

}  // namespace
}  // namespace ostler::example

int main(int argc, char** argv) {
  try {
    return ostler::example::run(ostler::example::parse(argc, argv));
  } catch (const std::invalid_argument& error) {
    std::fprintf(stderr, "ostler-example-http: %s\n", error.what());
    return ostler::example::kUsageError;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "ostler-example-http: %s\n", error.what());
    return EXIT_FAILURE;
  }
}
