// The kernel, the workers and the network of a simulated run: performs the core's actions and makes
// what comes of them, in every order that a real system can produce, and some that it cannot.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <queue>
#include <set>
#include <string>
#include <vector>

#include "core/action.hpp"
#include "core/event.hpp"
#include "random.hpp"

namespace ostler::sim {

// How often what goes wrong. All zero: a healthy world.
struct Faults {
  double spawn_late = 0;  // Spawned is reported later
  double spawn_fails = 0;
  double slow_start = 0;  // ready only after a good part of the start timeout
  double never_ready = 0;
  double exits_early = 0;  // before it is ready
  double crashes = 0;      // some time after it was ready
  double short_lived = 0;  // soon after it was ready, again and again
  double says_stopping = 0;
  double falls_silent = 0;  // its heartbeats end
  double triggers = 0;
  double extends = 0;
  double ignores_stop = 0;
  double drains_slowly = 0;
  double ignores_abort = 0;
  double outlives_kill = 0;  // sits in the kernel for a while
  double bad_launch = 0;     // every worker of a generation goes wrong in the same way
  double mute = 0;           // does not speak the channel, or not in time
  double fails_warmup = 0;   // fails its warm-up
  double unhealthy = 0;      // fails a health check, perhaps for good
  double never_healthy = 0;  // never passes one
  double ends = 0;           // ends with 0, by itself, soon or late after it was ready
  double hangs = 0;          // is stuck in its work
  double lies = 0;           // its scoreboard tells what cannot be
  double bloats = 0;         // takes more memory than it may
  double wears = 0;          // has served all its requests
  double answers_late = 0;   // probes, looks, measurements and loads take long
  double empties_late = 0;   // what waits on its socket takes long to be served
  double never_empties = 0;  // or is not served at all
  double strands = 0;        // connections wait on a socket whose worker is gone
  double file_faulty = 0;
  double file_late = 0;  // to be read
  double listener_fails = 0;
  double listener_late = 0;
  double doubles = 0;    // an event comes again, later
  double strangers = 0;  // an event about somebody who is gone or never was
};

class World {
 public:
  explicit World(std::uint64_t seed) : random_(seed) {}

  Faults faults;
  double beating = 0.5;  // workers that heartbeat, of those whose plan asks for it

  void learn(const core::Plan& plan);
  void perform(const core::Action& action, core::Time now);
  // The file is read, and this is what it says.
  void read(core::Plan plan, core::Time now);
  // When the next event is due.
  [[nodiscard]] std::optional<core::Time> next();
  // The next event that is due at `now`.
  std::optional<core::Event> pop(core::Time now);
  // From now on nobody new misbehaves, and those that live do not die by themselves.
  void heal();
  // From now on every pool's clients keep so many thousandths of a worker at work; 0: nobody comes.
  void crowd(std::int64_t work, core::Time now);
  // From now on all workers say what they are at.
  void let_tell();
  // Everything but the clock stands still.
  void suspend(core::Duration by);
  // Longest time between SIGKILL and the end.
  [[nodiscard]] static core::Duration longest_death() { return std::chrono::seconds(25); }

 private:
  enum class Flaw { kNone, kCannotSpawn, kNeverReady, kExitsEarly, kDiesSettling, kShortLived };
  struct Process {
    core::PoolId pool;
    core::PoolPlan plan;
    Flaw flaw = Flaw::kNone;
    bool spawned = false;
    bool beats = false;
    bool silent = false;
    core::Duration beat{};
    bool deaf_to_stop = false, deaf_to_abort = false;
    bool speaks = false, fails_warmup = false, sick = false, bloated = false;
    std::optional<core::Time> stuck_since;
    std::optional<core::Time> full_since;  // its queue was to be emptied then, and is not
    std::optional<core::Time> serves_at;
  };
  // Who wants what of a pool.
  struct Clients {
    enum class Kind { kSteady, kWandering, kBursts, kWaves };
    Kind kind = Kind::kSteady;
    bool tells = true;       // its workers say what they are at
    std::int64_t most = 0;   // thousandths of a worker, as is what follows
    std::int64_t work = 0;   // what they would keep busy now
    std::int64_t queue = 0;  // connections
  };
  struct Due {
    core::Time at{};
    std::uint64_t order = 0;
    core::Event event;
    bool misdeed = false;  // healing takes it back
    bool word = false;     // said by a process: nothing once it is gone, unless it is late
    bool echo = false;     // not the first time
    bool operator<(const Due& other) const {  // the queue's top is the greatest
      return at != other.at ? at > other.at : order > other.order;
    }
  };

  void post(core::Time at, core::Event event, bool misdeed = false, bool word = false);
  void start(const core::Spawn& spawn, core::Time now);
  void live(core::WorkerId worker, Process& process, core::Time now);
  void signal(const core::SignalWorker& signal, core::Time now);
  void open(const core::OpenListener& listener, core::Time now);
  void serve(core::WorkerId worker, const Process& process, core::Time now, core::Time ready);
  void probe(const core::Probe& probe, core::Time now);
  void look(const core::Look& look, core::Time now);
  void measure(const core::Measure& measure, core::Time now);
  void watch(const core::Watch& watch, core::Time now);
  void await(const core::AwaitDemand& action, core::Time now);
  Clients& clients_of(core::PoolId pool);
  void go_on(Clients& clients, core::Time now);
  void empty(const core::EmptyQueue& queue, core::Time now);
  void serve_backlog(const core::TurnAway& action, core::Time now);
  void share(core::WorkerId worker, const Process& process, core::Time now);
  std::optional<core::Lasting> lasting(std::optional<core::Duration> limit, const Process& process,
                                       core::Time now);
  core::Duration answer_time(const Process& process);
  void mend(core::Event& event);
  void show_ready(core::WorkerId worker, const core::PoolPlan& plan, core::Time now,
                  core::Time ready);
  void die(core::WorkerId worker, core::Time at, bool signaled, int code, bool misdeed);
  void say(core::WorkerId worker, core::Time at, core::WorkerSign sign, bool misdeed = false);
  Flaw flaw_of(core::LaunchId launch);
  Flaw choose_flaw();
  bool deliver(Due& due, core::Time now);
  void disturb(const Due& due, core::Time now);
  core::Event stranger();
  core::Duration extension();
  bool happens(double probability) { return probability > 0 && random_.chance(probability); }

  Random random_;
  std::priority_queue<Due> queue_;
  std::uint64_t order_ = 0;
  std::map<core::LaunchId, core::PoolPlan> plans_;
  std::map<core::LaunchId, Flaw> flaws_;
  std::map<core::WorkerId, Process> processes_;
  std::vector<core::WorkerId> dead_;  // some of them
  std::vector<core::PoolId> pools_;   // all that ever had a worker
  std::set<std::string> asked_;       // sockets that are being opened
  std::map<core::PoolId, Clients> clients_;
  std::set<core::PoolId> awaiting_;
  std::optional<std::int64_t> crowd_;
  bool healed_ = false;
};

}  // namespace ostler::sim
