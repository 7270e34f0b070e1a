// Accepts the connections of a pool with `accept: dispatch` and hands each to a worker.
//
// From a socket that workers have had it accepts on another thread (background_acceptor.hpp).
//
// Who gets it, and what to wait for if no worker can have it, decides the Handover of the pool
// (handover.hpp); here is what it decides about: the kernel's queue, the channels, the timers.
//
// Connections come in and go out in batches, a bounded number a turn. Of what was handed over the
// channel keeps a copy until it is taken (worker_channel.hpp): a worker that dies, and one that
// drains and gives back what it holds idle, leave them to others.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "config/src/model.hpp"
#include "core/ids.hpp"
#include "runtime/doorbell.hpp"
#include "runtime/handover.hpp"
#include "runtime/listeners.hpp"
#include "runtime/worker_channel.hpp"

namespace ostler::runtime {

class Dispatcher {
 public:
  // Called when a worker has taken nothing for a while of what was handed to it. May not call back.
  using WaitedFor = std::function<void(core::WorkerId)>;

  Dispatcher(boost::asio::io_context& context, Listeners& listeners, Doorbell& doorbell,
             WaitedFor waited_for);
  ~Dispatcher();
  Dispatcher(const Dispatcher&) = delete;
  Dispatcher& operator=(const Dispatcher&) = delete;

  // A pool as it is now: the listeners of all its generations, and the workers that are ready. A
  // worker gets what came in by the listeners of its own.
  struct Pool {
    config::DispatchPolicy policy = config::DispatchPolicy::kLeastConnections;
    std::vector<std::string> keys;
    // Of these, those that are being closed: any worker serves what waits there.
    std::set<std::string> closing;
    std::map<core::WorkerId, std::shared_ptr<WorkerChannel>> workers;
  };
  // All pools that dispatch; others are forgotten, with what is left of theirs.
  void serve(std::map<core::PoolId, Pool> pools);

  // Whether it takes what waits there, now or as soon as a worker has capacity.
  [[nodiscard]] bool accepts(const std::string& key) const;
  // Whether it has workers for what comes in there.
  [[nodiscard]] bool serves(const std::string& key) const;
  void rung(const std::string& key);
  // A listening socket is about to be closed.
  void forget(int fd);
  void has_room(core::PoolId pool);
  // Connections that wait for another worker: given back, or not taken by one that is gone.
  void give_to_others(core::PoolId pool, std::vector<Connection> connections);
  // Connections that a worker had no descriptors for: it gets nothing more for a while.
  void not_taken(core::PoolId pool, core::WorkerId worker, std::vector<Connection> connections);
  // How many connections it has not taken, and since when none was.
  struct Waiting {
    std::size_t count = 0;
    core::Time since{};
  };
  [[nodiscard]] std::optional<Waiting> waiting(core::WorkerId worker) const;
  // Connections that wait for a worker, and are in no queue of the kernel's.
  [[nodiscard]] std::size_t pending(core::PoolId pool) const;

 private:
  class Port;  // of one pool

  void look_after(core::Duration wait);
  void look();

  boost::asio::io_context& context_;
  Listeners& listeners_;
  Doorbell& doorbell_;
  WaitedFor waited_for_;
  boost::asio::steady_timer timer_;
  std::optional<core::Time> armed_;
  std::map<core::PoolId, std::unique_ptr<Port>> pools_;
  std::map<core::WorkerId, core::Time> told_;
  bool starvation_told_ = false;
};

}  // namespace ostler::runtime
