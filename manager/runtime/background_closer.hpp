// Closes descriptors that others sent, on a thread of its own.
//
// What is closed for good may make close(2) wait for as long as a stranger likes: a TCP socket with
// SO_LINGER whose peer does not read, a file of FUSE, a unix socket in whose queue such a thing
// lies. So nothing that came from others is closed on the manager's loop. Each source has one
// closer: who sends what does not close holds up nobody else. The thread lives only while there is
// something to close.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "runtime/unique_fd.hpp"

namespace ostler::runtime {

class BackgroundCloser {
 public:
  BackgroundCloser();
  // What has been handed over is still closed.
  ~BackgroundCloser();
  BackgroundCloser(const BackgroundCloser&) = delete;
  BackgroundCloser& operator=(const BackgroundCloser&) = delete;

  // One after the other, in this order. Returns at once.
  void close(std::vector<UniqueFd> descriptors);
  // So many are not closed yet: whoever takes more from the same source is to wait.
  [[nodiscard]] std::size_t pending() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace ostler::runtime
