// One thread of the generator: takes up each request of its plan at its time, on a connection as
// the options say, and tells its tally what became of it. It never waits for one request before it
// sends another.
//
// A connection is in one state at a time, below. It owns its descriptor, and its place in
// `connections_` is what epoll reports; only a plan's new request uses a place again, and those are
// begun between two batches of events, so no event is taken for another connection's.
#pragma once

#include <atomic>
#include <cstddef>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

#include "options.hpp"
#include "plan.hpp"
#include "tally.hpp"

namespace ostler::bench {

// What the threads tell each other.
struct Shared {
  std::atomic<bool> stop{false};          // asked to end early
  std::atomic<std::size_t> outcomes{0};   // requests answered or lost
  std::atomic<bool> hold_is_over{false};  // the held connections may be closed
};

class Engine {
 public:
  Engine(const Options& options, unsigned thread, Clock::time_point start, Shared& shared);
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  ~Engine();

  void run();
  [[nodiscard]] const Tally& tally() const { return tally_; }

 private:
  using Parser = boost::beast::http::response_parser<boost::beast::http::string_body>;

  struct Connection {
    enum class State { kUnused, kQueueFull, kSending, kReceiving, kIdle };
    State state = State::kUnused;
    int fd = -1;
    bool wants_room = false;  // registered for EPOLLOUT
    Request request;
    std::string out;
    std::size_t sent = 0;
    std::size_t received = 0;
    boost::beast::flat_buffer in;
    std::optional<Parser> answer;

    // Whether it carries a request of which nothing is known yet.
    [[nodiscard]] bool busy() const { return state != State::kUnused && state != State::kIdle; }
  };
  // Latest when a request on a connection, or still waiting for one, counts as lost.
  struct Deadline {
    std::size_t place = 0;
    std::uint64_t id = 0;
    Clock::time_point at;
  };

  void take_up(Clock::time_point now);
  void retry_full_queues(Clock::time_point now);
  void expire(Clock::time_point now);
  void wait();
  [[nodiscard]] Clock::time_point next_event() const;
  [[nodiscard]] bool finished() const;

  std::optional<std::size_t> free_place();
  void assign(std::size_t place, const Request& request);
  void connect(std::size_t place);
  void open_socket(Connection& one);
  void watch(std::size_t place, int operation, bool room);
  void handle(std::size_t place);
  void send(std::size_t place);
  void receive(std::size_t place);
  bool parse(Connection& one, std::size_t size, boost::system::error_code& error);
  void ended(std::size_t place);
  void finish(std::size_t place);
  void idle_readable(std::size_t place);

  void fail(std::size_t place, Loss loss, const std::string& why);
  void fail_with(std::size_t place, const char* what, int error);
  void release(std::size_t place, bool keep);

  const Options& options_;
  Shared& shared_;
  Plan plan_;
  Tally tally_;
  int epoll_ = -1;
  unsigned source_ = 0;  // of the next connection, on loopback
  std::size_t busy_ = 0;
  std::deque<Connection> connections_;  // they stay where they are
  std::deque<std::size_t> free_;    // places that can take a request: unused ones, and idle ones
  std::deque<Request> waiting_;     // for a kept connection to become free
  std::deque<Deadline> deadlines_;  // in the order of planned times, with those long answered
  std::deque<std::size_t> full_;    // unix: the queue of the listener was full
  Clock::time_point retry_at_;
};

}  // namespace ostler::bench
