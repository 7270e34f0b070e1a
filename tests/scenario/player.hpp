// Plays a scenario: commands in, the core's answers out, as text.
//
//   pool NAME KEY=VALUE…   a pool of the next plan: workers, listen, settle, attempts, surge (1, 0
//                          or 50%), stop, start, heartbeat, request, after, backoff, backoff_max,
//                          burst, reset, accept (shared, reuseport, dispatch), health (10s/3: how
//                          often, and how often in a row it may fail), warmup (2), channel (yes),
//                          recycle_requests (100+20, the second is the jitter), lifetime (1h+5m),
//                          memory (bytes), scale (min/max/busy/0.7/2s/60s: by, target, up_after,
//                          down_after)
//   drop NAME              takes a pool out of the next plan
//   load [NAME]            at first the manager starts with the plan, later it is asked to reload;
//                          the plan is read as soon as the core asks for it
//   faulty TEXT            the next attempt to read the plan finds this fault
//   hup                    a reload that nobody waits for
//   load NAME [used=N] [capacity=N] [waiting=N] [full]
//                          the load of a pool from now on: what each question for it is answered
//                          with (thousandths of a worker; without a load, none is answered)
//   demand NAME            somebody connects to a pool whose load nobody watches
//   restart [NAME]         the workers are replaced
//   scale NAME 4|+1|-1|reset
//   stop [now]
//   recycle|drain|kill WORKER
//   ready|beat|trigger|leaving|speaks|awake|worn|garbled WORKER…
//   probed WORKER passed|failed|busy [DETAIL]
//                          the answer to its last probe
//   seen WORKER waiting|nothing|unknown [since TIME]   (so long ago)
//   looked WORKER [awake] [silent=TIME] [request=TIME] [waiting=TIME] [WHAT]
//                          what its scoreboard says: how long it has been silent, how long WHAT
//                          has been served, or has waited for it
//   emptied WORKER         nothing waits on its own socket
//   waiting POOL           when the pool is to end, connections wait for its workers
//   served POOL            they have been served
//   stranded POOL          connections wait on a socket whose worker is gone
//   measured WORKER [BYTES]
//   extend WORKER TIME
//   exit WORKER [CODE [answered|left PROCESS]|SIGNAL-NUMBER signal]
//                          `answered`: it is known to have answered a request
//   status NAME            says the pool's state
//   broken KEY             the next attempt to open this listener fails
//   unstartable            the next process cannot be started
//   wait TIME              time passes, with every step that the core asked for
//   stall TIME             time passes, and the manager does not run meanwhile
//
// A WORKER is web.0 (the newest in that slot), web.0/2 (the newest of that generation in it),
// web.0/old or web.0/2/old (the oldest). A process that is to be started is started, a listener
// that is to be opened opens, unless said otherwise; everything else is up to the scenario.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/core.hpp"

namespace ostler::scenario {

class Player {
 public:
  // One command; returns the transcript's lines. Throws std::runtime_error on a faulty command.
  std::vector<std::string> play(const std::string& command);

 private:
  struct Place {
    std::string pool;
    int slot = 0;
    core::Generation generation = 0;
    [[nodiscard]] std::string name() const;
  };
  void command(const std::vector<std::string>& words);
  void status(const std::string& name);
  void set_pool(const std::vector<std::string>& words);
  void load(const std::string& only);
  core::Plan new_plan();
  void set_load(const std::vector<std::string>& words);
  void probed(const std::vector<std::string>& words);
  void seen(const std::vector<std::string>& words);
  void looked(const std::vector<std::string>& words);
  void measured(const std::vector<std::string>& words);
  void exit(const std::vector<std::string>& words);
  void scale(const std::vector<std::string>& words);
  void pass(core::Duration duration);
  void step(const core::Event& event);
  void perform(const core::Actions& actions);
  void tell(const core::ReadPlan& action);
  void tell(const core::ReloadQueued& action);
  void tell(const core::OpenListener& action);
  void tell(const core::CloseListener& action);
  void tell(const core::Spawn& action);
  void tell(const core::SignalWorker& action);
  void tell(const core::Probe& action);
  void tell(const core::EmptyQueue& action);
  void tell(const core::TurnAway& action);
  void tell(const core::LetAccept& action);
  void tell(const core::Look& action);
  void tell(const core::Measure& action);
  void tell(const core::Watch& action);
  void tell(const core::AwaitDemand& action);
  void tell(const core::DropLaunch& action);
  void tell(const core::Note& note);
  void tell(const core::Reply& reply);
  void tell(const core::ExitManager& action);
  core::OperationId begin(const std::string& what);
  [[nodiscard]] core::PoolId pool(const std::string& name) const;
  [[nodiscard]] core::WorkerId worker(const std::string& text) const;
  [[nodiscard]] std::string name(core::WorkerId worker) const;

  core::Core core_{1};
  core::Time now_{};
  std::optional<core::Time> next_;
  core::Plan plan_;
  std::uint64_t launches_ = 0;
  std::map<core::WorkerId, Place> places_;
  std::map<core::WorkerId, core::Probe> probes_;  // the last ones
  std::map<core::WorkerId, core::Look> looks_;
  std::map<std::string, core::LoadSeen> loads_;  // by pool
  std::map<core::OperationId, std::string> operations_;
  std::set<std::string> broken_;
  std::string faulty_;
  std::map<std::string, core::PoolId> waiting_;  // pools that have a backlog when they end
  bool unstartable_ = false;
  std::vector<core::Event> answers_;
  std::vector<std::string> lines_;
};

}  // namespace ostler::scenario
