// Decides which worker of a pool with `accept: dispatch` gets the next connection.
//
// Pure: no clock, no I/O. What it needs to know and to do, it asks of a HandoverPort: the
// dispatcher in the manager, a fake in the simulator (tests/sim/handover.cpp), which checks the one
// promise: a connection that waits while some worker has capacity is handed over within 5 ms.
//
// A worker has capacity if its scoreboard says that it may have more connections than it has, those
// on their way to it included, and if no more than kUntaken are on their way. Who among those gets
// the next one, the policy says. A worker that takes nothing of what it was handed is passed over.
//
// If no worker has capacity, connections stay in the kernel's queue. Everything that can bring
// capacity back has a wake-up of its own:
//   a connection is closed          the worker says so, because it was asked (`await_capacity`), or
//                                   the second look, after it was asked, sees it
//   what was on its way is taken    the next look sees it
//   a table of descriptors is full  a look after a while tries again
//   a worker comes or goes          the dispatcher is told, and calls `hand_over`
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "core/ids.hpp"

namespace ostler::runtime {

// What a worker says of itself, and what its channel knows. The numbers are not trusted, but
// clamped by whoever read them.
struct WorkerLoad {
  core::WorkerId worker;
  const std::vector<std::string>* listeners = nullptr;  // the keys of those that it serves
  std::uint64_t connections = 0;                        // that it has taken and not closed
  std::uint64_t active = 0;                             // requests that it is serving
  std::uint64_t capacity = 0;                           // the most connections that it has open
  std::uint64_t concurrency = 0;  // the most requests at a time; 0: any number
  std::uint64_t requests = 0;     // that it has answered
  std::uint64_t untaken = 0;      // connections on their way to it
  core::Time untaken_since{};     // since when it took none of them
};

// The world of one pool.
class HandoverPort {
 public:
  enum class Accepted { kOne, kNone, kFailed };  // kFailed: for want of descriptors or memory

  HandoverPort() = default;
  HandoverPort(const HandoverPort&) = delete;
  HandoverPort& operator=(const HandoverPort&) = delete;
  virtual ~HandoverPort() = default;

  [[nodiscard]] virtual core::Time now() const = 0;
  // All that can be handed something, in a fixed order.
  [[nodiscard]] virtual std::vector<WorkerLoad> loads() = 0;

  // Connections that were accepted and wait for another worker, oldest first.
  [[nodiscard]] virtual std::size_t pending() const = 0;
  [[nodiscard]] virtual const std::string& pending_listener(std::size_t index) const = 0;
  virtual void take_pending(std::size_t index, core::WorkerId worker) = 0;
  // Accepts a connection of a listener for a worker.
  virtual Accepted accept(const std::string& listener, core::WorkerId worker) = 0;
  // Sends a worker what was taken and accepted for it. False: it receives nothing now, and what it
  // did not get is pending.
  virtual bool deliver(core::WorkerId worker) = 0;

  // The wake-ups. Each leads to one call of `hand_over`, or of `look`.
  virtual void await_connection(const std::string& listener) = 0;
  // Every worker is to say, once, when it has closed a connection.
  virtual void await_capacity() = 0;
  virtual void continue_soon() = 0;
  virtual void look_after(core::Duration wait) = 0;
};

enum class HandoverPolicy { kLeastConnections, kRoundRobin, kRandom };

// One pool. Not thread-safe.
class Handover {
 public:
  // `seed`: for kRandom.
  explicit Handover(std::uint32_t seed) : random_(seed) {}

  // `listeners`: the keys of those whose connections are to be handed over. `closing`: of these,
  // those that are being closed, whose connections any worker gets if none serves them any more.
  void configure(HandoverPolicy policy, std::vector<std::string> listeners,
                 std::set<std::string> closing);

  // Hands over what waits, a bounded number at a time, and asks for what is needed to go on.
  void hand_over(HandoverPort& port);

  // A worker had no descriptors for what it was handed. It gets nothing until it has closed a
  // connection, or a while has passed.
  void table_full(HandoverPort& port, core::WorkerId worker);

  // To be called at the time that `look_after` asked for. Returns the workers that stand still:
  // they have taken nothing for a while of what was handed to them.
  std::vector<core::WorkerId> look(HandoverPort& port);

 private:
  // A worker during one call.
  struct Candidate {
    WorkerLoad load;
    std::uint64_t capacity = 0;  // connections that it may be handed now
    std::uint64_t handed = 0;    // in this call
    bool stands_still = false;   // it takes nothing of what was handed to it
    [[nodiscard]] bool serves(const std::string& listener) const;
  };
  // How quickly a worker that does one thing at a time is done with it.
  struct Pace {
    std::uint64_t requests = 0;
    core::Time at{};
    bool quick = false;
  };
  // A channel that was full, or had nobody at its other end: not tried again until the worker has
  // taken something, or a while has passed.
  struct Refusal {
    std::uint64_t untaken = 0;
    core::Time until{};
  };
  struct FullTable {
    std::uint64_t connections = 0;  // that it had
    core::Time until{};
  };
  enum class Step { kHanded, kNothingWaits, kNoCapacity };

  std::vector<Candidate> candidates(HandoverPort& port);
  Candidate assess(const WorkerLoad& load, core::Time now);
  static bool is_quick(Pace& pace, const WorkerLoad& load, core::Time now);
  [[nodiscard]] bool has_full_table(const WorkerLoad& load, core::Time now);
  static bool stands_still(const WorkerLoad& load, core::Time now);
  // `listener`: that it has to serve; empty: any.
  Candidate* choose(std::vector<Candidate>& all, const std::string& listener);
  Candidate* choose_for_new(std::vector<Candidate>& all, const std::string& listener);
  Candidate* choose_for_pending(std::vector<Candidate>& all, const std::string& listener);
  Step hand_one(HandoverPort& port, std::vector<Candidate>& all);
  bool hand_pending(HandoverPort& port, std::vector<Candidate>& all, bool& none_has_capacity);
  void note(Candidate& chosen, const std::vector<Candidate>& all);
  bool deliver(HandoverPort& port, const std::vector<Candidate>& all);
  std::size_t blocked(const HandoverPort& port, std::vector<Candidate>& all);
  void wait_for_capacity(HandoverPort& port, std::vector<Candidate>& all);

  HandoverPolicy policy_ = HandoverPolicy::kLeastConnections;
  std::vector<std::string> listeners_;  // whose turn is next, first
  std::set<std::string> closing_;
  std::map<core::WorkerId, Pace> paces_;
  std::map<core::WorkerId, Refusal> refusals_;
  std::map<core::WorkerId, FullTable> full_tables_;
  std::uint64_t turn_ = 0;        // whose it is
  std::set<std::string> failed_;  // listeners that could not be accepted from in this call
  bool passed_over_ = false;      // a worker stands still, and others were there
  bool waits_ = false;            // connections may wait for what a look will see
  std::minstd_rand random_;
};

}  // namespace ostler::runtime
