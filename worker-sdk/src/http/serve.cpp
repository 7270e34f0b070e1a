#include <errno.h>  // program_invocation_short_name
#include <getopt.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <variant>

#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/posix/basic_stream_descriptor.hpp>

#include "http/server.hpp"
#include "ostler/http.hpp"

namespace ostler::http {
namespace {

constexpr std::string_view kTcp = "tcp://";

asio::ip::tcp::endpoint endpoint_of(const std::string& address) {
  std::string_view text = address;
  if (text.starts_with(kTcp)) text.remove_prefix(kTcp.size());
  const auto colon = text.rfind(':');
  const std::invalid_argument fault("--listen: '" + address + "' is not tcp://IP:PORT");
  if (colon == std::string_view::npos) throw fault;
  auto host = text.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  std::uint16_t port = 0;
  const auto [rest, error] = std::from_chars(text.begin() + colon + 1, text.end(), port);
  if (error != std::errc{} || rest != text.end()) throw fault;
  Error bad;
  const auto ip = asio::ip::make_address(std::string(host), bad);
  if (bad) throw fault;
  return {ip, port};
}

int open_listener(asio::io_context& context, const std::string& address) {
  const auto endpoint = endpoint_of(address);
  try {
    asio::ip::tcp::acceptor acceptor(context, endpoint);
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
    if (worker_.stop_requests() > 1) std::_Exit(kFailed);
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

void run(const worker& worker, http::handler answer, const options& options) {
  // One thread; without locks if no handler can reach the context from another one.
  const bool is_async = std::holds_alternative<async_handler>(answer);
  asio::io_context context(is_async ? 1 : BOOST_ASIO_CONCURRENCY_HINT_UNSAFE);
  Server server(context, std::move(answer), options);
  for (const auto& listener : worker.listeners()) server.serve(listener.fd);
  if (!options.listen.empty()) {
    server.serve(open_listener(context, options.listen));
  } else if (worker.listeners().empty()) {
    throw std::invalid_argument(
        "no listener was inherited; to run without a manager, give --listen tcp://IP:PORT");
  }
  StopWatch stop(context, worker, server);
  if (!worker.ready() && worker.managed()) {
    throw std::system_error(errno, std::generic_category(), "tell the manager READY=1");
  }
  context.run();
}

void complain(const char* what) {
  std::fprintf(stderr, "%s: %s\n", program_invocation_short_name, what);
}

template <class Function>
int exit_code_of(Function function) noexcept {
  try {
    return function();
  } catch (const std::invalid_argument& error) {
    complain(error.what());
    return kUsageError;
  } catch (const std::exception& error) {
    complain(error.what());
    return kFailed;
  }
}

// The exit code, if the program is not to serve.
std::optional<int> parse(int argc, char** argv, options& options) {
  static const std::array<option, 3> kOptions{{{"listen", required_argument, nullptr, 'l'},
                                               {"help", no_argument, nullptr, 'h'},
                                               {nullptr, 0, nullptr, 0}}};
  int flag = 0;
  while ((flag = ::getopt_long(argc, argv, "", kOptions.data(), nullptr)) == 'l') {
    options.listen = optarg;
  }
  if (flag == -1 && optind == argc) return std::nullopt;
  std::fprintf(flag == 'h' ? stdout : stderr,
               "usage: %s [--listen tcp://IP:PORT]\n\n"
               "Serves HTTP on the listeners inherited from ostlerd or systemd, or on one of its "
               "own.\n",
               program_invocation_short_name);
  return flag == 'h' ? EXIT_SUCCESS : kUsageError;
}

}  // namespace

int serve(worker& worker, handler answer, const options& options) noexcept {
  return exit_code_of([&] {
    run(worker, std::move(answer), options);
    return kDrained;
  });
}

int serve(handler answer, const options& options) noexcept {
  return exit_code_of([&] {
    worker worker;
    return serve(worker, std::move(answer), options);
  });
}

int serve(int argc, char** argv, handler answer, options options) noexcept {
  return exit_code_of([&]() -> int {
    if (const auto code = parse(argc, argv, options)) return *code;
    return serve(std::move(answer), options);
  });
}

}  // namespace ostler::http
