// Who gets new connections where each worker has a socket of its own (`accept: reuseport`).
//
// A selector (selector.hpp) sends them to workers that are ready and least busy: nothing waits on
// their socket and, as far as their scoreboard tells, they have room. It is renewed while there is
// load, as often as `limits::kSteerEvery` and for a small share of the manager's time; when all is
// quiet a doorbell takes over, and nothing runs.
//
// The same look at the queues tells which worker that is to go has served what waited for it, which
// worker does not take what waits for it, and which socket nobody has any more: that is closed when
// nothing waits on it, and otherwise told, so that somebody gets it.
#pragma once

#include <linux/filter.h>
#include <poll.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/ids.hpp"
#include "runtime/doorbell.hpp"
#include "runtime/listeners.hpp"
#include "runtime/scoreboard.hpp"
#include "runtime/selector.hpp"

namespace ostler::runtime {

class Steering {
 public:
  // What is to be known of a worker.
  enum class Seat {
    kReady,
    kStarting,
    kEmptying,  // to be told to stop when nothing waits on its socket
    kLeaving,   // it may still accept, or not
    kGone,
  };
  struct Standing {
    Seat seat = Seat::kGone;
    const Scoreboard* board = nullptr;  // of a worker that speaks the channel
  };
  // May not call back into Steering.
  struct Hooks {
    std::function<Standing(core::WorkerId)> standing;
    // The manager itself accepts, for workers, from the sockets that nobody has.
    std::function<bool(const std::string& key)> accepted;
    std::function<void(core::WorkerId)> emptied;
    std::function<void(core::WorkerId)> waited_for;        // connections wait for it
    std::function<void(const std::string& key)> stranded;  // on a socket that nobody has
  };
  // Connections that a worker has not accepted, none of them since `since`.
  struct Queue {
    std::int64_t length = 0;
    core::Time since{};
  };

  Steering(boost::asio::io_context& context, Listeners& listeners, Doorbell& doorbell, Hooks hooks);

  // The listeners that are steered; others are forgotten.
  void steer(const std::set<std::string>& keys);
  // Something has changed among the workers: the selectors are renewed now.
  void look();
  // This socket is being closed: who has which index changes.
  void forget(int fd);
  // Somebody knocked.
  void rung(const std::string& key);
  [[nodiscard]] std::optional<Queue> queue(core::WorkerId worker) const;

  // A connection to the socket of this worker alone. `error`: what failed.
  [[nodiscard]] UniqueFd connect(const std::string& key, core::WorkerId worker, ListenError& error);

 private:
  struct Place;
  struct Group {
    bool awake = true;
    core::Time busy_at{};  // when it was last seen to have work
    std::map<int, Queue> queues;
    std::map<int, core::Time> free_since;  // and not selected
    std::vector<sock_filter> attached;
    std::vector<std::size_t> selected;
  };
  void pass();
  void look_at(const std::string& key, Group& group);
  std::vector<Place> places(const std::string& key, Group& group);
  void count(Group& group, int fd, bool some);
  void select(const std::string& key, Group& group, std::vector<Place>& places);
  void attach(const std::string& key, Group& group, const std::optional<SteeredProbe>& probe);
  void mind_the_leaving(const std::vector<Place>& places, const Group& group);
  void mind_the_free(const std::string& key, Group& group, const std::vector<Place>& places);
  void rest(const std::string& key, Group& group, const std::vector<Place>& places);
  void arm(core::Duration took);

  Listeners& listeners_;
  Doorbell& doorbell_;
  Hooks hooks_;
  boost::asio::steady_timer timer_;
  std::vector<pollfd> polled_;
  bool armed_ = false;
  bool changed_ = false;  // something moved in the last look
  core::Duration wait_{};
  std::map<std::string, Group> groups_;
  std::map<core::WorkerId, core::Time> emptying_;  // when something was last seen to wait for it
  std::map<core::WorkerId, core::Time> told_;      // waited_for
  core::Time stranded_told_{};
};

}  // namespace ostler::runtime
