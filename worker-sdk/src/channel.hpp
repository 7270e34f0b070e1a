// The worker's end of the private channel to its manager (docs/worker-protocol.md): one socket.
//
// It must never stop a worker from serving: what is wrong with it is one line on stderr, and the
// worker is then one without a channel. Sending may be done in any thread, receiving in one at a
// time.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "ostler/protocol.h"
#include "ostler/worker.hpp"

namespace ostler {

// Owns its descriptor, and those of connections that were taken from it and not yet given.
class Channel {
 public:
  // What the environment promises, taken out of it. To be called before anything is opened, which
  // would take the number of a descriptor that is not there, and pass for it.
  static Channel take();
  ~Channel();
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;
  Channel(Channel&& other) noexcept;
  Channel& operator=(Channel&&) = delete;

  [[nodiscard]] bool connected() const noexcept { return socket_ >= 0; }
  [[nodiscard]] int fd() const noexcept { return socket_; }

  // The page, mapped for writing; nullptr if there is none. It stays mapped for good: requests may
  // end late.
  [[nodiscard]] ostler_scoreboard* page() const noexcept { return page_; }

  // False if the manager's queue is full: to be tried again. Does not block.
  bool send(std::uint32_t type, std::uint64_t value = 0) const noexcept;

  // What must be heard: waits so long for the manager's queue. False, with errno set, if it was not
  // taken.
  bool deliver(const ostler_message& message, std::chrono::milliseconds patience) const noexcept;

  // Connections, OSTLER_BATCH at most, for another worker; `listener` as they came. They stay the
  // caller's, to be closed if this succeeds. Waits for the manager's queue until `deadline`. False:
  // none of them was handed back.
  bool hand_back(std::span<const int> connections, std::uint64_t listener,
                 std::chrono::steady_clock::time_point deadline) const noexcept;

  // Skips what is malformed. `ended` is set when the manager has closed its end. Of connections
  // that came together one after the other is given; they are on the page as taken before the first
  // is. Those for which this process has no descriptor go back to the manager. Blocks only while
  // that is to be said and the manager's queue is full, and then not for long.
  channel_message receive(bool& ended) noexcept;
  // Whether the next receive() gives one that came together with the last.
  [[nodiscard]] bool has_more() const noexcept { return next_ < end_; }

 private:
  using Descriptors = std::array<int, OSTLER_BATCH>;

  Channel() = default;
  channel_message understand(const ostler_message& message, const Descriptors& descriptors,
                             std::size_t count) noexcept;
  channel_message take_batch(const ostler_message& message, const Descriptors& descriptors,
                             std::size_t count) noexcept;
  void give_up(std::size_t count, std::uint64_t before) noexcept;
  void say_starved(const char* what) noexcept;
  channel_message next_of_batch() noexcept;

  int socket_ = -1;
  ostler_scoreboard* page_ = nullptr;
  Descriptors batch_{};  // from next_ to end_: still to be given
  std::size_t next_ = 0;
  std::size_t end_ = 0;
  std::uint64_t batch_listener_ = 0;
  bool starved_ = false;  // the last message found too few descriptors, and that was said
};

}  // namespace ostler
