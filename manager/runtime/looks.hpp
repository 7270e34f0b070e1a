// Looks at other processes, which may take as long as those processes like.
//
// A read of another process's memory or maps waits for that process: for its mmap lock, for its
// exec, for a page that a user's program is to deliver. So a sweep, which is some looks one after
// the other, runs in a thread of its own, and says on the loop when it is over. If a look does not
// come back in time, the sweep is given up: the thread is left alone with it, and makes no further
// look. How many sweeps there are, also of those that never come back, is bounded.
//
// Not here: what no process can hold up (procfs.hpp). Processes are started from the main thread
// alone (their death signal follows it): a look starts none.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace ostler::runtime {

class Looks {
 public:
  struct Sweep {
    // In the thread: makes the look with this number, from 0; false: it was the last one, and so is
    // one that throws. It may outlive all else, so it owns what it writes to. That is read when it
    // has been made.
    std::function<bool(std::size_t)> look;
    // On the loop, one of the two: all have been made; or that one has not come back, while those
    // before it have been made.
    std::function<void()> done;
    std::function<void(std::size_t)> given_up;
    // On the loop: the one that was given up has come back after all.
    std::function<void()> back = [] {};
    std::chrono::milliseconds patience{};  // with one look, or up to twice that after others
  };

  Looks(boost::asio::io_context& context, std::size_t most);
  // Nothing is told any more.
  ~Looks();
  Looks(const Looks&) = delete;
  Looks& operator=(const Looks&) = delete;

  // "", or why it cannot be made; then nothing of it is called.
  std::string start(Sweep sweep);

 private:
  struct Shared;
  struct Running;
  void arm(const std::shared_ptr<Running>& running);
  void late(const std::shared_ptr<Running>& running);
  void came_back(const std::shared_ptr<Running>& running);

  boost::asio::io_context& context_;
  std::size_t most_;
  std::vector<std::shared_ptr<Running>> running_;  // also those that were given up
};

}  // namespace ostler::runtime
