// Accepts from a listening socket that others have as well, on a thread of its own.
//
// O_NONBLOCK belongs to the open socket, not to a descriptor of it: whoever has it can take it
// back, and accept(2) then waits for as long as no client comes. So the manager's loop accepts only
// from sockets that nobody else has ever had. A thread that is left waiting ends with the next
// client; nothing waits for it.
#pragma once

#include <boost/asio/io_context.hpp>
#include <functional>
#include <memory>
#include <vector>

#include "runtime/unique_fd.hpp"

namespace ostler::runtime {

class BackgroundAcceptor {
 public:
  // Called on the loop.
  struct Hooks {
    std::function<void(std::vector<UniqueFd> connections)> accepted;
    std::function<void(int error)> over;  // errno of what ended it; 0: nothing more waits
  };

  // `listener` stays the caller's.
  BackgroundAcceptor(boost::asio::io_context& context, int listener, Hooks hooks);
  // A client that comes while the thread is left waiting is closed.
  ~BackgroundAcceptor();
  BackgroundAcceptor(const BackgroundAcceptor&) = delete;
  BackgroundAcceptor& operator=(const BackgroundAcceptor&) = delete;

  // Takes a few of those that wait, unless it is at it already. Returns at once, and calls nothing.
  void accept();
  [[nodiscard]] bool busy() const { return busy_; }

 private:
  struct State;
  void collect(bool over, int error);

  boost::asio::io_context& context_;
  int listener_;
  Hooks hooks_;
  std::shared_ptr<State> state_;
  bool busy_ = false;
};

}  // namespace ostler::runtime
