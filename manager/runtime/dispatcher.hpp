// Accepts the connections of a pool with `accept: dispatch` and hands each to a worker.
//
// A worker gets one only if it has room: its scoreboard says how many it may have and has, its
// channel how many are on their way to it. Who among those that have room gets it, the policy says;
// one that does not take what it was handed is passed over. If nobody has room, connections stay in
// the kernel's queue, and the workers are asked to say when they do.
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
#include <random>
#include <set>
#include <string>
#include <vector>

#include "config/src/model.hpp"
#include "core/ids.hpp"
#include "runtime/doorbell.hpp"
#include "runtime/listeners.hpp"
#include "runtime/worker_channel.hpp"

namespace ostler::runtime {

class Dispatcher {
 public:
  // Called when a worker has taken nothing for a while of what was handed to it. May not call back.
  using WaitedFor = std::function<void(core::WorkerId)>;

  Dispatcher(boost::asio::io_context& context, Listeners& listeners, Doorbell& doorbell,
             WaitedFor waited_for);

  // A pool as it is now: the listeners of all its generations, and the workers that are ready. A
  // worker gets what came in by the listeners of its own.
  struct Pool {
    config::DispatchPolicy policy = config::DispatchPolicy::kLeastConnections;
    std::vector<std::string> keys;
    // Of these, those that are being closed: whoever there is serves what waits there.
    std::set<std::string> closing;
    std::map<core::WorkerId, std::shared_ptr<WorkerChannel>> workers;
  };
  // All pools that dispatch; others are forgotten, with what is left of theirs.
  void serve(std::map<core::PoolId, Pool> pools);

  // Whether it takes what waits there, now or as soon as somebody has room.
  [[nodiscard]] bool accepts(const std::string& key) const;
  // Whether it has workers for what comes in there.
  [[nodiscard]] bool serves(const std::string& key) const;
  void rung(const std::string& key);
  void has_room(core::PoolId pool);
  // Connections that wait for another worker: given back, or not taken by one that is gone.
  void give_to_others(core::PoolId pool, std::vector<Connection> connections);
  // How many connections it has not taken, and since when none was.
  struct Waiting {
    std::size_t count = 0;
    core::Time since{};
  };
  [[nodiscard]] std::optional<Waiting> waiting(core::WorkerId worker) const;
  // Connections that wait for a worker, and are in no queue of the kernel's.
  [[nodiscard]] std::size_t homeless(core::PoolId pool) const;

 private:
  // A worker, during one turn.
  struct Desk {
    core::WorkerId worker;
    WorkerChannel* channel = nullptr;
    std::uint64_t room = 0;
    std::uint64_t connections = 0;  // those on their way included
    std::uint64_t busy = 0;         // requests, and connections on their way
    std::uint64_t concurrency = 0;  // 0: it can do any number at a time
    [[nodiscard]] bool serves(const std::string& key) const;
    std::vector<Connection> batch;
  };
  // How quickly a worker that does one thing at a time is done with it.
  struct Pace {
    std::uint64_t requests = 0;
    core::Time at{};
    bool quick = false;
  };
  struct State {
    Pool pool;
    std::map<core::WorkerId, Pace> paces;
    std::deque<Connection> homeless;
    std::vector<std::shared_ptr<WorkerChannel>> leaving;  // with something that they may yet take
    std::uint64_t turn = 0;                               // whose it is
    std::size_t next_key = 0;                             // of its listeners, which is asked next
    bool posted = false;
    bool starved = false;      // a connection could not be accepted for want of something
    bool passed_over = false;  // somebody stands still, and others were there
  };
  void pump(core::PoolId id, State& state);
  void pump_soon(core::PoolId id, State& state);
  static std::vector<Desk> desks(State& state);
  static bool is_quick(Pace& pace, const Figures& figures, core::Time at);
  // `key`: of a listener that it has to serve; empty: of any.
  Desk* choose(State& state, std::vector<Desk>& desks, const std::string& key);
  Desk* choose_by(State& state, std::vector<Desk>& desks, const std::string& key);
  Desk* choose_for(State& state, std::vector<Desk>& desks, const Connection& connection);
  // A connection, and who gets it. `full`: nobody had room, for one listener at least.
  std::optional<Connection> next(State& state, std::vector<Desk>& desks, Desk*& desk, bool& full);
  std::optional<Connection> accept_from(State& state, const std::string& key);
  static bool deliver(State& state, Desk& desk);
  std::size_t unserved(State& state, std::vector<Desk>& desks);
  void want_room(core::PoolId id, State& state, std::size_t unserved_before);
  void arm_doorbell(const std::string& key);
  void look_after(core::Duration wait);
  void look();

  boost::asio::io_context& context_;
  Listeners& listeners_;
  Doorbell& doorbell_;
  WaitedFor waited_for_;
  boost::asio::steady_timer timer_;
  std::optional<core::Time> armed_;
  std::map<core::PoolId, State> pools_;
  std::map<core::WorkerId, core::Time> told_;
  std::minstd_rand random_;
  bool starvation_told_ = false;
};

}  // namespace ostler::runtime
