// What ostler-bench-load is asked to do, as its command line says it.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <boost/asio/generic/stream_protocol.hpp>

namespace ostler::bench {

using Clock = std::chrono::steady_clock;
using Endpoint = boost::asio::generic::stream_protocol::endpoint;

struct Target {
  std::string path;
  double weight = 1;
};

enum class Connections {
  kNew,   // one for each request
  kKept,  // `count` of them; a request waits until one is free
  kHeld,  // `count` of them, with one request each, open until the end
};

struct Options {
  Endpoint address;
  bool loopback = false;  // tcp to 127.0.0.0/8, where every source address is ours
  std::vector<Target> targets;
  double rate = 100;  // requests per second, of all threads
  double seconds = 10;
  bool poisson = true;
  Connections connections = Connections::kNew;
  std::size_t count = 0;
  unsigned threads = 1;
  std::chrono::milliseconds timeout{10'000};
  std::uint64_t seed = 1;
  bool id_in_query = false;
};

// Explains itself and ends the program if it does not understand.
Options parse_options(int argc, char** argv);

}  // namespace ostler::bench
