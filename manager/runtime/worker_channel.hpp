// The private channel to one worker: a socket for messages, and its scoreboard.
//
// Every worker gets one; a program that is not built on the SDK never says a word on it. What comes
// in is a few kinds of messages of one size (docs/worker-protocol.md). A worker that sends anything
// else, or too much, has its channel closed and is from then on like a program without one.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "core/event.hpp"
#include "runtime/scoreboard.hpp"
#include "runtime/unique_fd.hpp"

namespace ostler::runtime {

class WorkerChannel : public std::enable_shared_from_this<WorkerChannel> {
 public:
  // The descriptors to hand to the worker.
  struct WorkerEnds {
    UniqueFd channel;
    UniqueFd scoreboard;
  };
  using Heard = std::function<void(core::WorkerSign)>;            // kSpeaks, kAwake or kWorn
  using Broken = std::function<void(const std::string& reason)>;  // the channel has been closed

  // Throws std::system_error.
  WorkerChannel(boost::asio::io_context& context, WorkerEnds& worker_ends);

  // From now on messages are delivered as they come. The callbacks may not close the channel.
  void start(Heard heard, Broken broken);
  // Delivers what is waiting now: what the worker said before it said something elsewhere.
  void drain();
  void close();

  // Hands the worker a connection of the manager's own. Returns 0 or errno (EPIPE: closed, or
  // nobody is there; EAGAIN: it does not read).
  [[nodiscard]] int hand_over(const UniqueFd& connection);
  [[nodiscard]] int let_accept();

  // Whether it has said that it speaks the channel.
  [[nodiscard]] bool speaks() const { return speaks_; }
  [[nodiscard]] const Scoreboard& scoreboard() const { return scoreboard_; }

 private:
  void wait();
  // False: nothing more to be had.
  bool receive_one();
  void take(const ostler_message& message);
  void give_up(const std::string& reason);
  bool too_many();
  [[nodiscard]] int send(const ostler_message& message, int descriptor);

  Scoreboard scoreboard_;
  boost::asio::posix::stream_descriptor socket_;
  Heard heard_;
  Broken broken_;
  bool speaks_ = false;
  int received_ = 0;  // since then
  std::chrono::steady_clock::time_point since_;
};

}  // namespace ostler::runtime
