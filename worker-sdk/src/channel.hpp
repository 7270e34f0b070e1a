// The worker's end of the private channel to its manager (docs/worker-protocol.md): one socket.
//
// It must never stop a worker from serving: what is wrong with it is one line on stderr, and the
// worker is then one without a channel. Sending may be done in any thread, receiving in one at a
// time.
#pragma once

#include <cstdint>
#include <string>

#include "ostler/protocol.h"
#include "ostler/worker.hpp"

namespace ostler {

// Owns two descriptors.
class Channel {
 public:
  // What the environment promises, taken out of it. To be called before anything is opened, which
  // would take the number of a descriptor that is not there, and pass for it.
  static Channel take();
  ~Channel();
  Channel(Channel&& other) noexcept;
  Channel& operator=(Channel&&) = delete;

  [[nodiscard]] bool connected() const noexcept { return socket_ >= 0; }
  [[nodiscard]] int fd() const noexcept { return socket_; }

  // The page, mapped for writing; nullptr if there is none. It stays mapped for good: requests may
  // end late.
  [[nodiscard]] ostler_scoreboard* page() const noexcept { return page_; }

  // False if the manager's queue is full: to be tried again. Does not block.
  bool send(std::uint32_t type, std::uint64_t value = 0) const noexcept;

  // Skips what is malformed. `ended` is set when the manager has closed its end.
  channel_message receive(bool& ended) const noexcept;

 private:
  Channel() = default;

  int socket_ = -1;
  ostler_scoreboard* page_ = nullptr;
};

}  // namespace ostler
