// The private channel to one worker: a socket for messages, and its scoreboard.
//
// Every worker gets one; a program that is not built on the SDK never says a word on it. What comes
// in is a few kinds of messages of one size (docs/worker-protocol.md). A worker that sends anything
// else, or too much, has its channel closed and is from then on like a program without one.
//
// Connections that are handed over are kept in a copy until the worker has taken them, so that
// those which it has not taken when it dies, or has no descriptors for, can be given to another.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/event.hpp"
#include "runtime/background_closer.hpp"
#include "runtime/scoreboard.hpp"
#include "runtime/unique_fd.hpp"

namespace ostler::runtime {

// A client's connection, and the key of the listener it came in by.
struct Connection {
  Connection() = default;
  Connection(UniqueFd socket, std::string key) : fd(std::move(socket)), listener(std::move(key)) {}
  ~Connection();
  Connection(Connection&&) = default;
  Connection& operator=(Connection&& other) noexcept {
    std::swap(fd, other.fd);
    std::swap(listener, other.listener);
    return *this;
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  UniqueFd fd;
  std::string listener;
};

class WorkerChannel : public std::enable_shared_from_this<WorkerChannel> {
 public:
  // The descriptors to hand to the worker.
  struct WorkerEnds {
    UniqueFd channel;
    UniqueFd scoreboard;
  };
  // May not close the channel.
  struct Hooks {
    std::function<void(core::WorkerSign)> heard;             // kSpeaks, kReady, kAwake or kWorn
    std::function<void(const std::string& reason)> broken;   // the channel has been closed
    std::function<void()> room;                              // it has room for a connection
    std::function<void(std::vector<Connection>)> returned;   // it gives connections back
    std::function<void(std::vector<Connection>)> not_taken;  // it has no descriptors for these
  };

  // Throws std::system_error.
  WorkerChannel(boost::asio::io_context& context, WorkerEnds& worker_ends);
  ~WorkerChannel();
  WorkerChannel(const WorkerChannel&) = delete;
  WorkerChannel& operator=(const WorkerChannel&) = delete;

  // From now on messages are delivered as they come. `listeners`: the keys of those that the worker
  // serves, in the order in which it counts them.
  void start(Hooks hooks, std::vector<std::string> listeners);
  // Delivers what is waiting now: what the worker said before it said something elsewhere.
  void drain();
  // Delivers all that a worker which is gone has left, the connections it gave back among it.
  void read_to_end();
  void close();

  // Hands the worker a connection of the manager's own. Returns 0 or errno (EPIPE: closed, or
  // nobody is there; EAGAIN: it does not read).
  [[nodiscard]] int hand_over(const UniqueFd& connection);
  [[nodiscard]] int let_accept();

  // Hands the worker connections that came in by one listener, OSTLER_BATCH at most, and keeps
  // copies. As hand_over; then they are left as they are.
  [[nodiscard]] int dispatch(std::vector<Connection>& connections);
  // Drops the copies of those that the worker has taken. How many it has not taken; and since when
  // none was, if there are any.
  std::size_t untaken();
  [[nodiscard]] core::Time untaken_since() const { return untaken_since_; }
  // Those that it has not taken, in the order in which they came.
  std::vector<Connection> take_back();
  // The stop signal follows: what it serves idle connections for is over.
  [[nodiscard]] int tell_to_return();
  [[nodiscard]] const std::vector<std::string>& listeners() const { return listeners_; }
  // It is to say when it has room.
  void want_room();

  [[nodiscard]] bool is_open() const { return socket_.is_open(); }
  // Whether it has said that it speaks the channel.
  [[nodiscard]] bool speaks() const { return speaks_; }
  [[nodiscard]] const Scoreboard& scoreboard() const { return scoreboard_; }

 private:
  void wait();
  // False: nothing more to be had.
  bool receive_one();
  // Of the descriptors that came along those that are kept are taken out.
  void take(const ostler_message& message, std::vector<UniqueFd>& descriptors);
  void take_returned(const ostler_message& message, std::vector<UniqueFd>& descriptors);
  void take_not_taken(const ostler_message& message);
  void drop_taken(std::uint64_t taken);
  [[nodiscard]] bool came_in_by(const std::string& listener, int fd) const;
  void give_up(const std::string& reason);
  [[nodiscard]] bool expected(const ostler_message& message) const;
  bool too_many();
  [[nodiscard]] int send(const ostler_message& message, const std::vector<int>& descriptors);

  Scoreboard scoreboard_;
  boost::asio::posix::stream_descriptor socket_;
  Hooks hooks_;
  std::vector<std::string> listeners_;
  // Where their connections have their end here.
  std::map<std::string, std::set<std::string>> places_;
  BackgroundCloser closer_;  // of what the worker sends
  bool speaks_ = false;
  int room_awaited_ = 0;            // how often it has been asked and has not answered
  std::deque<Connection> untaken_;  // empty ones: given to another already
  core::Time untaken_since_{};
  std::uint64_t handed_ = 0;    // connections, in all
  std::uint64_t returned_ = 0;  // of them, those not taken included
  std::uint64_t not_taken_ = 0;
  bool asked_back_ = false;
  int received_ = 0;  // since then
  std::chrono::steady_clock::time_point since_;
};

}  // namespace ostler::runtime
