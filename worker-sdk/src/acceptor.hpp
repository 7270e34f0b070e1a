// A thread that blocks in accept(2) on a listener that many processes share, so that the kernel
// wakes them in turn; one that waits in epoll(7) would be favoured or starved.
#pragma once

#include <sys/socket.h>

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace ostler {

// How many more connections may be accepted, for all acceptors of a worker. Thread-safe.
class Gate {
 public:
  explicit Gate(long room) : room_(room) {}

  // Below 0 for a moment, if there are several acceptors.
  void take();
  void give(long room = 1);

  // Waits for room, and not for itself to take it. False: it has been closed.
  bool wait();
  // Waits until it is closed, at most this long. False: it has been.
  bool pause(std::chrono::milliseconds time);
  void close();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  long room_;
  bool closed_ = false;
};

class Acceptor {
 public:
  struct Arrival {
    int fd = -1;  // close-on-exec; the receiver's to close
    int family = AF_UNSPEC;
    sockaddr_storage peer{};
    socklen_t peer_size = sizeof(sockaddr_storage);
  };
  // Called on the acceptor's thread, once for each connection that was accepted; must not throw.
  using Deliver = std::function<void(const Arrival&)>;

  // Starts to accept while `gate`, which outlives it, has room, and takes from it for each
  // connection. `listener` stays the caller's. Throws std::system_error if it is no listening
  // stream socket, or no thread can be had.
  Acceptor(Gate& gate, int listener, Deliver deliver);

  // Returns when the thread has ended. Close the gate first. A connection that accept(2) returned
  // in that moment has been delivered then: none is lost.
  ~Acceptor();
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

 private:
  void run();
  bool accept_one();
  bool on_error(int error);

  Gate& gate_;
  const int listener_;
  const int family_;
  Deliver deliver_;
  bool starved_ = false;  // the last accept failed, and that was said
  std::mutex mutex_;
  std::condition_variable ended_;
  bool has_ended_ = false;
  std::thread thread_;  // the last: it uses all others
};

}  // namespace ostler
