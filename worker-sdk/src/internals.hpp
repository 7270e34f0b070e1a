// What a worker consists of, for the parts of the SDK that build on it. The order matters: what the
// environment promises is taken before anything is opened, and the stop signals are caught next,
// because until then one ends the process.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "channel.hpp"
#include "descriptors.hpp"
#include "environment.hpp"
#include "notifier.hpp"
#include "scoreboard.hpp"
#include "stop_signals.hpp"

namespace ostler {

// What channel_fd() gives: readable if the channel or the timer of the scoreboard is.
class ChannelEvents {
 public:
  // Without a channel it has no descriptor. Throws std::system_error.
  ChannelEvents(const Channel& channel, const Scoreboard& scoreboard);
  ~ChannelEvents();
  ChannelEvents(const ChannelEvents&) = delete;
  ChannelEvents& operator=(const ChannelEvents&) = delete;
  [[nodiscard]] int fd() const noexcept { return epoll_; }
  // The channel has come to its end, and would be readable for ever.
  void forget(const Channel& channel) const noexcept;

 private:
  int epoll_ = -1;
};

struct worker::state {
  bool raised = descriptors::raise_limit();  // before anything is opened
  std::vector<listener> listeners = environment::take_listeners();
  Channel channel = Channel::take();
  StopSignals stop;
  Notifier notifier{environment::text("NOTIFY_SOCKET"), kNotifyPatience};
  std::optional<microseconds> heartbeat_interval = environment::heartbeat_interval();
  std::optional<std::string> pool = environment::text("OSTLER_POOL");
  std::optional<std::uint64_t> slot =
      environment::number("OSTLER_SLOT", std::numeric_limits<std::uint32_t>::max());
  std::optional<std::uint64_t> generation = environment::number("OSTLER_GENERATION");

  // The pool's settings, not yet understood.
  std::string options = environment::take(OSTLER_ENV_WORKER_OPTIONS).value_or("");
  std::atomic<bool> may_accept{environment::take(OSTLER_ENV_WARMUP) != "1"};
  const bool dispatched{environment::take(OSTLER_ENV_ACCEPT) == "dispatch" && channel.connected()};
  std::atomic<bool> watched{false};   // channel_fd() has been asked for
  std::atomic<bool> draining{false};  // the manager has said so over the channel
  std::atomic<bool> channel_ended{false};
  std::atomic<bool> told_no_room{false};  // that there are too few descriptors
  Scoreboard scoreboard;
  ChannelEvents events{channel, scoreboard};

  explicit state(std::initializer_list<int> stop_signals);

  // What worker::receive() does, but for the sign of life.
  channel_message receive() noexcept;
  // The room that there is for so many connections. If there is too little, that is said, once.
  descriptors::Room room_for(std::size_t connections) noexcept;
  // A connection has been closed: another may be waiting for its room.
  void offer_room() noexcept;
};

struct worker_internals {
  static worker::state& of(const worker& worker) { return *worker.state_; }
};

}  // namespace ostler
