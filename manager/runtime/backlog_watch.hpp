// Waits until nothing waits any more: the kernel tells nobody when a listen queue has become empty,
// so it is looked at every few milliseconds, only while somebody asks.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "core/ids.hpp"

namespace ostler::runtime {

class BacklogWatch {
 public:
  // Connections that somebody may yet serve; none: nobody asks any more.
  using Waiting = std::function<std::optional<std::int64_t>()>;
  using Served = std::function<void()>;

  explicit BacklogWatch(boost::asio::io_context& context) : timer_(context) {}

  // Calls `served` once: now if nothing waits; else when nothing has for `limits::kLinger`, which
  // leaves the last connections the time to become requests.
  void watch(Waiting waiting, Served served);
  void stop();

 private:
  struct Watched {
    Waiting waiting;
    Served served;
    core::Time empty_since{};
  };
  void look();
  void arm();

  boost::asio::steady_timer timer_;
  std::vector<Watched> watched_;
  bool armed_ = false;
};

}  // namespace ostler::runtime
