#include "options.hpp"

#include <getopt.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string_view>
#include <system_error>

#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/system/system_error.hpp>

namespace ostler::bench {
namespace {

namespace asio = boost::asio;

constexpr char kUsage[] =
    "usage: ostler-bench-load --address tcp://IP:PORT|unix:///PATH|unix:@NAME [OPTION]...\n"
    "\n"
    "Sends HTTP requests at planned times, whether or not the earlier ones were answered, and\n"
    "measures from the planned time; counts each request that is lost. Prints one JSON object.\n"
    "TERM or INT ends the plan early.\n"
    "\n"
    "  --target PATH[:WEIGHT]    what to GET; several share by their weights (default /)\n"
    "  --rate N                  requests per second (default 100)\n"
    "  --seconds S               how long (default 10)\n"
    "  --arrivals poisson|constant   how they are spread (default poisson)\n"
    "  --seed N                  of arrivals and targets (default 1)\n"
    "  --keepalive N             over N connections, instead of a new one for each\n"
    "  --hold N                  open N connections at --rate, one request on each; print "
    "\"holding\"\n"
    "                            when all were answered, and hold them for --seconds\n"
    "  --timeout S               the longest wait for an answer (default 10)\n"
    "  --threads N               that share the rate and the connections (default 1)\n"
    "  --id header|query         where a request bears its id: X-Request-Id (the default), ?id=\n";

template <class Number>
Number number(const char* text, Number least, Number most) {
  const std::string_view whole(text);
  Number value{};
  const auto [rest, error] = std::from_chars(whole.begin(), whole.end(), value);
  if (error != std::errc{} || rest != whole.end() || !(value >= least && value <= most)) {
    throw std::invalid_argument("'" + std::string(whole) + "' is not a number from " +
                                std::to_string(least) + " to " + std::to_string(most));
  }
  return value;
}

void parse_tcp(std::string_view text, Options& options) {
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos) throw std::invalid_argument("the address has no port");
  std::string host(text.substr(0, colon));
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  const auto ip = asio::ip::make_address(host);
  options.loopback = ip.is_v4() && ip.to_v4().is_loopback();
  const std::string port(text.substr(colon + 1));
  options.address = asio::ip::tcp::endpoint(ip, number<std::uint16_t>(port.c_str(), 1, 65535));
}

void parse_address(std::string_view text, Options& options) {
  if (text.starts_with("tcp://")) {
    parse_tcp(text.substr(6), options);
  } else if (text.starts_with("unix://")) {
    options.address = asio::local::stream_protocol::endpoint(std::string(text.substr(7)));
  } else if (text.starts_with("unix:@")) {
    std::string name(text.substr(5));
    name[0] = '\0';
    options.address = asio::local::stream_protocol::endpoint(name);
  } else {
    throw std::invalid_argument("'" + std::string(text) + "' is not an address");
  }
}

Target parse_target(std::string_view text) {
  Target target;
  const auto colon = text.rfind(':');
  target.path = text.substr(0, colon);
  if (!target.path.starts_with('/')) throw std::invalid_argument("a target begins with /");
  if (colon != std::string_view::npos) {
    target.weight = number(std::string(text.substr(colon + 1)).c_str(), 0.0, 1e9);
  }
  return target;
}

bool choice(const char* text, std::string_view yes, std::string_view no) {
  if (text != yes && text != no) {
    throw std::invalid_argument("'" + std::string(text) + "' is not " + std::string(yes) + " or " +
                                std::string(no));
  }
  return text == yes;
}

void apply(int flag, Options& options) {
  switch (flag) {
    case 'a':
      return parse_address(optarg, options);
    case 't':
      return options.targets.push_back(parse_target(optarg));
    case 'r':
      options.rate = number(optarg, 0.001, 1e7);
      return;
    case 's':
      options.seconds = number(optarg, 0.0, 1e6);
      return;
    case 'p':
      options.poisson = choice(optarg, "poisson", "constant");
      return;
    case 'e':
      options.seed = number<std::uint64_t>(optarg, 0, UINT64_MAX);
      return;
    case 'k':
    case 'h':
      options.connections = flag == 'k' ? Connections::kKept : Connections::kHeld;
      options.count = number<std::size_t>(optarg, 1, 1'000'000);
      return;
    case 'o':
      options.timeout =
          std::chrono::milliseconds(static_cast<long>(number(optarg, 0.001, 86400.0) * 1000));
      return;
    case 'n':
      options.threads = number<unsigned>(optarg, 1, 64);
      return;
    case 'i':
      options.id_in_query = choice(optarg, "query", "header");
      return;
    default:
      throw std::invalid_argument("wrong option");
  }
}

}  // namespace

Options parse_options(int argc, char** argv) {
  static const option kOptions[] = {
      {"address", required_argument, nullptr, 'a'},   {"target", required_argument, nullptr, 't'},
      {"rate", required_argument, nullptr, 'r'},      {"seconds", required_argument, nullptr, 's'},
      {"arrivals", required_argument, nullptr, 'p'},  {"seed", required_argument, nullptr, 'e'},
      {"keepalive", required_argument, nullptr, 'k'}, {"hold", required_argument, nullptr, 'h'},
      {"timeout", required_argument, nullptr, 'o'},   {"threads", required_argument, nullptr, 'n'},
      {"id", required_argument, nullptr, 'i'},        {nullptr, 0, nullptr, 0}};
  Options options;
  try {
    for (int flag = 0; (flag = ::getopt_long(argc, argv, "", kOptions, nullptr)) != -1;) {
      apply(flag, options);
    }
    if (optind < argc) throw std::invalid_argument("what is '" + std::string(argv[optind]) + "'?");
    if (options.address.size() == 0) throw std::invalid_argument("--address is missing");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "ostler-bench-load: %s\n%s", error.what(), kUsage);
    std::exit(2);
  }
  if (options.targets.empty()) options.targets.push_back({.path = "/"});
  // A thread without a connection of its own could send nothing.
  if (options.connections == Connections::kKept) {
    options.threads = static_cast<unsigned>(std::min<std::size_t>(options.threads, options.count));
  }
  return options;
}

}  // namespace ostler::bench
