// What serves connections, whatever is spoken on them: one loop, the acceptors, the pool of
// threads, the channel to the manager, and the way to a drain.
//
//   Engine engine(worker, options, {worker_class::async});
//   engine.run([&](Socket socket, Origin origin) { … engine.ended(origin); });
//
// A connection is given to the callback on the loop, which is the thread that called run(), and
// belongs to it until ended(). When the process is asked to stop, the listeners are closed,
// stop_token() says so, and run() returns when all have ended.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/posix/basic_stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>

#include "acceptor.hpp"
#include "internals.hpp"
#include "ostler/options.hpp"
#include "ostler/worker.hpp"
#include "serving/net.hpp"

namespace ostler::serving {

// Where a connection came from.
struct Origin {
  bool is_private = false;     // the manager's own: served like any other, but not counted
  bool is_dispatched = false;  // the manager accepted it, and may keep it open for a while
  bool is_over = false;        // see Engine::over()
  std::uint64_t listener = 0;  // of one that is dispatched
  Endpoint peer;
};

// "192.0.2.1:4711", "[2001:db8::1]:4711" or "unix".
std::string text_of(const Endpoint& peer);

// The class to serve in, of those that the handler can run in, the usual one first. Throws
// std::invalid_argument, naming them, if the one that is asked for is not among them.
worker_class choose_class(const serve_options& options, std::initializer_list<worker_class> able);

// Its functions belong to the thread that calls run(), but for those that say otherwise.
class Engine {
 public:
  using OnConnection = std::function<void(Socket, Origin)>;

  // `options` are final (PoolOptions::apply_to). Throws std::invalid_argument, std::system_error.
  Engine(ostler::worker& worker, const serve_options& options,
         std::initializer_list<worker_class> able);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Serves until the process is asked to stop and all connections have ended. Throws what keeps it
  // from serving.
  void run(OnConnection on_connection);

  // Nothing more will be served on the connection, though it is not closed yet: another one may be
  // accepted for it. Without effect where many are so already.
  void over(Origin& origin);

  // The connection has been closed, or will not be waited for.
  void ended(const Origin& origin);

  // Closes the socket so that the client sees it, whoever else has it open.
  static void close(Socket& socket, const Origin& origin);

  // Whether a connection that waits for its next request is for another worker to go on with: then
  // give it to hand_back() instead of waiting. In any thread.
  [[nodiscard]] bool hands_back(const Origin& origin) const {
    return origin.is_dispatched && hands_back_;
  }
  // Says when that begins, on the loop.
  [[nodiscard]] std::stop_token hand_back_token() const { return hand_back_.get_token(); }
  // Instead of ended(). All that was read from it has been answered. If the manager does not take
  // it, the callback of run() gets it again.
  void hand_back(Socket& socket, const Origin& origin);

  // In class threads `work` runs on a thread of the pool and `done` then on the loop; in the others
  // both at once, here. `work` must not throw; what it refers to must live until `done`.
  template <class Work, class Done>
  void call(Work work, Done done) {
    if (!pool_) {
      work();
      return done();
    }
    // Nothing else need be pending on the loop, which would end.
    auto pending = asio::make_work_guard(context_);
    asio::post(*pool_, [this, pending = std::move(pending), work = std::move(work),
                        done = std::move(done)]() mutable {
      Scoreboard::hold_thread();
      work();
      asio::post(context_, std::move(done));
    });
  }

  [[nodiscard]] worker_class kind() const { return kind_; }
  [[nodiscard]] const ostler::worker& worker() const { return worker_; }
  [[nodiscard]] asio::io_context& context() { return context_; }
  [[nodiscard]] Executor executor() { return context_.get_executor(); }
  // In any thread.
  [[nodiscard]] bool draining() const { return stop_.stop_requested(); }
  [[nodiscard]] std::stop_token stop_token() const { return stop_.get_token(); }
  // How many connections there are, private ones and those not yet given to the callback included.
  [[nodiscard]] std::size_t connections() const { return open_; }

 private:
  using Descriptor = asio::posix::basic_stream_descriptor<Executor>;

  struct Returning {
    int fd = -1;
    Origin origin;
  };

  void open_listeners();
  void offer();
  void start_accepting();
  void stop_accepting();
  void close_listeners();
  void arrive(const Acceptor::Arrival& arrival);
  void take_over(const channel_message& message);
  void adopt(int fd, int family, const Origin& origin);
  void give(Socket socket, const Origin& origin);
  void return_later(int fd, const Origin& origin);
  void return_all();
  void return_batch(std::span<const Returning> batch, Clock::time_point deadline);
  void watch_stop();
  void on_stop();
  void watch_channel();
  void watch_timer();
  void hear(int most);
  void begin_to_hand_back();
  void finish_if_drained();

  ostler::worker& worker_;
  Scoreboard& scoreboard_;
  const serve_options options_;
  const worker_class kind_;
  std::stop_source stop_;
  std::atomic<std::size_t> open_{0};
  std::size_t over_ = 0;
  std::size_t most_over_ = 0;
  OnConnection on_connection_;
  asio::io_context context_{1};
  std::optional<asio::thread_pool> pool_;
  Descriptor stop_event_;
  std::uint64_t stop_count_ = 0;
  Descriptor channel_event_;
  Descriptor timer_event_;  // of the scoreboard
  std::stop_source hand_back_;
  std::atomic<bool> hands_back_{false};
  std::vector<Returning> returning_;  // in one turn of the loop
  std::vector<int> listeners_;
  std::string own_path_;  // of a unix socket that it has bound itself
  Gate gate_{0};          // until offer()
  std::list<Acceptor> acceptors_;
};

}  // namespace ostler::serving
