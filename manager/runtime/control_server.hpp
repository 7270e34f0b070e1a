// The control API over HTTP/1.1 on a listening unix socket.
//
// Lives on the manager's one io_context and thread; every member is called there. No client can
// block it: reading and writing have deadlines, everything is bounded, and when all sessions are
// taken the one that has been reading or idle the longest makes way for the newcomer. Without
// clients nothing wakes up.
//
// The server answers what needs no manager itself: requests that are no command, /livez, and the
// events that `publish` hands it. All else goes to `Handle`.
#pragma once

#include <sys/types.h>

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>

#include "control/messages.hpp"
#include "control/routes.hpp"

namespace ostler::runtime {

// Who is at the other end, from the kernel (SO_PEERCRED), as of its connect.
struct Peer {
  uid_t uid = 0;
  gid_t gid = 0;
  pid_t pid = 0;
};

// What clients may take, and for how long.
struct ControlLimits {
  std::size_t sessions = 256;
  std::size_t header = std::size_t{8} * 1024;
  std::size_t events_kept = 256;
  std::size_t bodies = std::size_t{1024} * 1024;  // of all requests that are being read or served
  // What may wait for one follower of events.
  std::size_t queued_lines = 1024;
  std::size_t queued_bytes = std::size_t{1024} * 1024;
  std::chrono::milliseconds idle{30'000};       // between requests
  std::chrono::milliseconds read{10'000};       // one request, from its first byte to its last
  std::chrono::milliseconds write{30'000};      // one answer
  std::chrono::milliseconds linger{2'000};      // reading on after a refusal, so that it is seen
  std::chrono::milliseconds farewell{1'000};    // answers on their way when the server shuts down
  std::chrono::milliseconds accept_again{100};  // when there are no descriptors to be had
};

class ControlServer {
 public:
  // To be called once, at once or much later. Further calls are ignored, and so is an answer to a
  // client that left; one that is dropped without a call answers with status 500. May outlive the
  // server.
  using Respond = std::function<void(control::Response)>;
  using Handle = std::function<void(const control::Command&, const Peer&, Respond)>;

  // Serves `listening_fd`, which stays the caller's (the server has a duplicate).
  ControlServer(boost::asio::io_context& context, int listening_fd, Handle handle,
                ControlLimits limits = {});
  // Cuts off everybody.
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

  // Takes clients from this socket from now on; who has connected to the one before is served.
  void listen_on(int listening_fd);

  // Keeps the event for those who ask what happened, and sends it to those who follow.
  void publish(const control::EventView& event);

  // Stops accepting; idle sessions are closed, streams ended, unanswered commands answered with
  // 503, and answers on their way get a second. `done` is called once, when nobody is left.
  void shut_down(std::function<void()> done = {});

  // Memory is short: cuts off those that are still sending their requests, or say nothing.
  void give_memory_back();

  [[nodiscard]] std::size_t sessions() const;

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace ostler::runtime
