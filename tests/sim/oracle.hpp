// The judge of a simulated run: it sees what the core is told and what the core answers, keeps
// books of its own, and says which rule was broken first. It never reads the core's state.
//
// Books, not opinions: whether a worker lives follows from Spawn, Spawned and Exited; whether it is
// ready from what it said; when it must be gone from its plan and the clock. What the core says
// about itself (Note, Reply) is a claim, checked against the books like everything else.
//
// Where the contract leaves the core a choice, the books hold both answers (a wait between two
// bounds, a slot of which it is not known any more whether it is still wanted).
//
// Use: begin(now), then event() and action() in the order they happened, then end(promised).
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "core/action.hpp"
#include "core/event.hpp"
#include "text.hpp"

namespace ostler::sim {

using core::Duration;
using core::Generation;
using core::LaunchId;
using core::OperationId;
using core::PoolId;
using core::PoolPlan;
using core::StopCause;
using core::Time;
using core::WorkerId;

class Oracle {
 public:
  void begin(Time now);
  void event(const core::Event& event);
  void action(const core::Action& action);
  void end(std::optional<Time> promised);

  // The first broken rule; empty while all is well.
  [[nodiscard]] const std::string& fault() const { return fault_; }
  // What is still missing of the desired state; empty once everything has settled.
  [[nodiscard]] std::string unfinished() const;
  [[nodiscard]] bool exited() const { return exited_.has_value(); }
  [[nodiscard]] core::ExitReason exit_reason() const { return *exited_; }
  // Once stopping: when the last worker must be gone, if SIGKILL ends those who need it.
  [[nodiscard]] std::optional<Time> stopped_by() const;
  [[nodiscard]] std::vector<WorkerId> living() const;

 private:
  struct Pool;
  struct Window {
    std::optional<Time> earliest, latest;
  };
  // A worker of which the core must still say how it ended, or that it counts as if it had.
  struct Departed {
    Pool* pool = nullptr;
    int slot = 0;
    bool failed = false;
    bool in_order = false;         // it ended by itself, and that is no failure
    bool may_have_worked = false;  // it ended with 0, too soon to know
    bool sure = true;
    std::optional<Time> earliest, latest;
  };
  // What is owed to a worker that runs, and what is known of it.
  struct Care {
    bool speaks = false;
    std::optional<int> warming;  // the warm-up request that it was asked, or is to be
    bool owes_probe = false;     // that one must be asked in this step
    bool owes_accept = false;
    bool probing = false;  // a health check is under way
    bool excused = false;  // the manager stood still meanwhile
    bool passed = false;   // a check, or it was at work when one came
    int failed_checks = 0;
    bool owes_check_note = false;
    core::Wear wear = core::Wear::kNone;
    bool owes_wear_note = false;
    Window probe, measure, expiry;
    std::optional<Time> look;
  };
  struct Worker {
    WorkerId id;
    Pool* pool = nullptr;
    int slot = 0;
    Generation generation = 0;
    LaunchId launch;
    PoolPlan plan;
    Time asked{};
    bool spawned = false;
    bool ready = false;
    bool proven = false;
    bool failed = false;            // its checks did, and that was counted like a death
    std::optional<Departed> unfit;  // what is to be said of that
    Time ready_at{};                // when it said so
    Time settled_at{};              // when it has stayed up long enough to be relied upon
    StopCause told = StopCause::kNone;
    bool recycle = false;
    bool drained = false;     // an operator asked for it
    bool wants_kill = false;  // an operator asked for it, or it failed before it was spawned
    bool stuck = false;       // SIGKILL did not end it: nobody counts on it any more
    std::optional<Time> start_due, ready_due, stop_due, kill_due, last_beat;
    std::optional<Time> said;  // READY=1
    bool owes_stop = false;    // the core said that it goes: the signal must follow
    // Or its own queue is to be emptied first, until `stop_due` at the latest.
    bool owes_empty = false;
    std::set<std::string> last_to_serve;  // these listeners, when it was told to go
    bool emptying = false;
    bool owes_abort = false;
    bool killed = false;
    std::optional<core::NoteKind> owes_note;  // what happened to it must be told
    std::optional<core::FailureKind> fault;   // and why it goes, if it did nothing itself
    Care care;
    [[nodiscard]] bool active() const { return told == StopCause::kNone; }
    [[nodiscard]] bool serves() const { return active() && ready; }
    // It has lived long enough to count as ready, if nothing else is missing.
    [[nodiscard]] bool lived_until(Time now) const {
      return spawned && active() && !ready && ready_due && now >= *ready_due;
    }
    [[nodiscard]] bool lacks_channel() const { return plan.needs_channel && !care.speaks; }
    [[nodiscard]] bool cannot_be_dispatched() const {
      return plan.accept == core::Accept::kDispatch && !care.speaks;
    }
    // It goes through a fault of its own and has never served: its end will make the slot wait.
    [[nodiscard]] bool failing() const {
      return !ready && !stuck && (told == StopCause::kFault || told == StopCause::kItself);
    }
  };
  struct Slot {
    int quick_deaths = 0;
    int doublings = 0;
    bool unhealthy = false;  // the last worker that was judged never passed a check
    bool unsure = false;     // the counts may have been cleared
    bool given_up = false;  // perhaps: then it waits for nothing, and begins anew when wanted again
    [[nodiscard]] bool sure() const { return !unsure && !given_up; }
    Generation fallback = 0;               // what that was when the rollout began
    Generation proven = 0;                 // whose worker last stayed up here for `settle`
    bool forgotten = false;                // perhaps: that was before the slot was given up
    bool vacated = false;                  // in this rollout, for its successor
    std::optional<Time> earliest, latest;  // the next worker: not before, not after
  };
  // The load of a pool that follows it, and what has come of it.
  struct Load {
    struct Answer {
      Time at{};
      double work = 0;  // workers in use, all ready ones taken like those that tell
      double waiting = 0;
      bool full = false, known = false;
      bool failing = false;  // perhaps: a slot has had to wait, and more of the same helps nobody
      int ready = 0;
    };
    int target = 0;
    bool watching = false, awaiting = false;
    std::optional<Time> due;    // the next question
    std::optional<Time> last;   // answer, while they follow one another
    std::optional<Time> woken;  // the next question, if the last answer asks for none
    bool resting = false;       // nothing is used, nobody waits
    std::deque<Answer> row;     // answers that follow one another, since the last decision
    bool may_decide = false, demanded = false;  // in this step
    std::optional<Time> idle_since;
    Duration widest{};  // between two answers since then
    std::optional<Time> gave_up;
    int patience = 0;
    std::optional<Time> eased;  // when that went down last
  };
  struct Rollout {
    Generation from = 0, to = 0;
    bool back = false;
    int failures = 0;
    int replaced = 0, cut_off = 0;
    std::optional<int> scaled_before;
    int target_before = 0;
    bool scaled_since = false;
    std::optional<Time> earliest, latest;
    std::set<WorkerId> failed;
    Time started{};
  };
  // New connections are turned away; those that wait are served before anybody is told to go.
  struct Closing {
    Time since{}, until{};
    bool over = false;
  };
  struct Pool {
    PoolId id;  // none until the first Spawn
    std::string name;
    bool removed = false;
    bool owes_kept = false;  // to be told
    std::optional<Closing> closing;
    std::set<std::string> owes_turning_away;  // from these listeners
    std::map<Generation, PoolPlan> plans;
    Generation current = 0, last = 0;
    std::optional<int> scaled;
    Load load;
    std::optional<Rollout> rollout;
    bool was_full = false;     // all that are wanted served at some time
    bool was_rolling = false;  // when the step began
    std::map<int, Slot> slots;
    std::vector<Worker*> workers;
    int failures = 0;          // deaths of workers that had never been ready
    bool owes_socket = false;  // to a successor: connections wait on it, and its worker is gone
    [[nodiscard]] Generation desired() const {
      return !rollout ? current : rollout->back ? rollout->from : rollout->to;
    }
    [[nodiscard]] bool serves_backlog() const { return closing && !closing->over; }
    [[nodiscard]] bool rolling() const { return rollout && !rollout->back; }
    // No more processes than wanted: a worker goes before its successor is started.
    [[nodiscard]] bool stops_first() const;
  };
  struct Finished {
    core::Outcome outcome = core::Outcome::kReloaded;
    Generation generation = 0;
    int replaced = 0, cut_off = 0;
    bool whole = false;  // a rollout of a pool that stays, so that the numbers count
  };
  struct Asker {
    OperationId op;
    std::string pool;  // "": all
    bool restart = false;
    [[nodiscard]] bool names(const std::string& name) const { return pool.empty() || pool == name; }
  };
  struct Reload {
    std::vector<Asker> askers;  // not answered yet, or never to be
    bool first = false, committed = false, announced = false;
    bool reading = false;    // the file is to be read, or is being read
    bool owes_read = false;  // in this step
    core::Plan plan;
    std::set<std::string> opening;
    bool failing = false;
    std::set<const Pool*> waiting;
    // Pools that the file has no more, and the names of those that got their listeners.
    std::map<Pool*, std::set<std::string>> heirs;
    std::map<std::string, std::vector<Finished>> finished;
    // Whether the file decides about a pool; whether anybody named it at all.
    [[nodiscard]] bool reloads(const std::string& pool) const;
    [[nodiscard]] bool names(const std::string& pool) const;
    [[nodiscard]] bool owes_answers() const;
  };
  struct Operation {
    core::Event request;
    std::optional<core::Outcome> due;  // known already: the answer must come in this step
    WorkerId worker;
    Pool* pool = nullptr;
    int slot = 0;
  };

  // oracle.cpp
  void wrong(const std::string& what);
  void check(bool holds, const std::string& what) {
    if (!holds) wrong(what);
  }
  void notice_late();
  void on(const core::Tick&) {}
  void on(const core::PlanAccepted& event);
  void on(const core::ReloadRequested& event);
  void on(const core::PlanRead& event);
  void on(const core::ScaleRequested& event);
  void on(const core::WorkerRequested& event);
  void on(const core::StopRequested& event);
  void on(const core::ListenerOpened& event);
  void on(const core::ListenerFailed& event);
  void on(const core::Spawned& event);
  void on(const core::SpawnFailed& event);
  void on(const core::WorkerSigned& event);
  void on(const core::Seen& event);
  void on(const core::TimeoutExtended& event);
  void on(const core::Exited& event);
  void on(const core::Probed& event);
  void on(const core::Looked& event);
  void on(const core::Measured& event);
  void on(const core::QueueEmptied& event);
  void on(const core::BacklogServed& event);
  void on(const core::Stranded& event);
  void on(const core::LoadSeen& event);
  void on(const core::Demand& event);
  void remember(OperationId op, const core::Event& request);
  void expect(OperationId op, core::Outcome outcome);
  Worker* find(WorkerId id);
  Pool* find_pool(const std::string& name);
  [[nodiscard]] std::string name(const Worker& worker) const { return names_.of(worker.id); }

  // oracle_workers.cpp: what the core does to workers.
  void act(const core::Spawn& action);
  void act(const core::SignalWorker& action);
  void check_spawn_place(const Pool& pool, const core::Spawn& action);
  void check_spawn_time(Pool& pool, const core::Spawn& action);
  void check_surge(const Pool& pool, const core::Spawn& action);
  static void unsettle_slots(Pool& pool);
  static void clear_counts(Pool& pool);
  static void leave(Worker& worker, StopCause cause);
  void become_ready(Worker& worker);
  void gone(Worker& worker, const core::Exited* exited);
  void ended(const Worker& worker);
  void died(const Worker& worker, Departed& departed);
  void wait(Departed& departed, const PoolPlan& plan, int doublings) const;
  void wait_in(Slot& slot, Departed& departed, const PoolPlan& plan) const;
  void trial_failed(const Worker& worker, Departed& departed);
  void check_wait(const core::Note& note, const Departed& departed);
  [[nodiscard]] bool settled(const Worker& worker) const;
  [[nodiscard]] bool trusted(const Pool& pool) const;
  [[nodiscard]] static bool on_trial(const Worker& worker);
  [[nodiscard]] static bool may_settle(const Worker& worker);
  void told(Worker& worker, const core::Note& note);
  void told_fault(Worker& worker, core::FailureKind kind);
  void said_ready(Worker& worker);
  void let_go(Worker& worker);
  [[nodiscard]] std::set<std::string> last_served_by(const Worker& worker) const;
  void begin_closing(Pool& pool);
  void end_closing(Pool& pool);
  void settle_closing(Pool& pool);
  [[nodiscard]] Time gone_by(const Worker& worker) const;
  [[nodiscard]] static core::FailureKind lack(const Worker& worker);
  void said_gone(const core::Note& note);
  void check_cause(Worker& worker, StopCause cause);
  void check_replaced(Worker& worker, StopCause cause);
  void check_vacated(Worker& worker);
  [[nodiscard]] static bool is_planned(const Pool& pool, const core::Spawn& action);

  // oracle_care.cpp: warm-up, health, work and wear.
  void act(const core::Probe& action);
  void act(const core::EmptyQueue& action);
  void act(const core::TurnAway& action);
  void act(const core::LetAccept& action);
  void act(const core::Look& action);
  void act(const core::Measure& action);
  static bool word_counts(const Worker& worker);
  void can_serve(Worker& worker);
  void fail(Worker& worker, core::FailureKind kind);
  void warmed_up(Worker& worker, const core::Probed& event);
  void checked(Worker& worker, const core::Probed& event);
  void begin_care(Worker& worker);
  void has_work(Worker& worker);
  void look_by(Worker& worker, Time when);
  void wear_out(Worker& worker, core::Wear wear);
  void worn(Worker& worker, const core::Note& note);
  void worn_for_stranded(Worker& worker);
  void unhealthy(Worker& worker, const core::Note& note);
  void unfit(Worker& worker);
  void said_unfit(Worker& worker, const core::Note& note);
  void check_care(const Worker& worker);
  [[nodiscard]] Duration stood_since(Time since) const;
  [[nodiscard]] bool cared_for(const Worker* worker) const;
  [[nodiscard]] std::optional<Time> next_care(const Worker& worker) const;

  // oracle_scaling.cpp: the number of workers, by load.
  void act(const core::Watch& action);
  void act(const core::AwaitDemand& action);
  [[nodiscard]] static int target(const Pool& pool);
  [[nodiscard]] bool follows_load(const Pool& pool) const;
  void begin_load(Pool& pool, int held);
  void watch_by(Pool& pool, Time when);
  void scaled(const core::Note& note);
  void check_scaled_up(const Pool& pool, const core::Note& note);
  void check_calm(const Pool& pool, const core::Note& note);
  void check_load(Pool& pool, bool continues);
  void judge_patience(Pool& pool);
  [[nodiscard]] static bool may_be_failing(const Pool& pool);
  [[nodiscard]] std::string unsettled_load(const Pool& pool) const;

  // oracle_reload.cpp: generations, listeners, answers.
  void act(const core::ReadPlan& action);
  void act(const core::ReloadQueued& action);
  void act(const core::OpenListener& action);
  void act(const core::CloseListener& action);
  void act(const core::DropLaunch& action);
  void act(const core::Note& action);
  void act(const core::Reply& action);
  void act(const core::ExitManager& action);
  void start(std::vector<Asker> askers);
  void take(const core::Plan& read);
  void reject();
  bool start_next();
  void forget_finished_reload();
  [[nodiscard]] bool takes_from_another(const Reload& reload) const;
  void open_or_commit();
  void listener_answered(const std::string& key);
  void commit();
  void remove(Pool& pool);
  void leave(Pool& pool, const core::Plan& plan);
  void inherited(const std::string& heir, bool holds);
  void pool_kept(const std::string& name);
  void notice_removed();
  void roll(Pool& pool, const PoolPlan& plan);
  void abandon();
  void reload_started();
  void pool_finished(const core::Note& note);
  void pool_failing(const core::Note& note);
  void pool_removed(const std::string& name);
  void no_longer_awaited(const Pool& pool);
  void check_reloaded(const Pool& pool);
  void check_rolled_back(const Pool& pool);
  void check_reload_reply(const core::Reply& reply);
  void check_told_outcomes(const Asker& asker, const core::Reply& reply);
  void check_worker_reply(const Operation& operation, const core::WorkerRequested& request,
                          const core::Reply& reply);
  [[nodiscard]] bool needs(LaunchId launch) const;
  [[nodiscard]] static std::set<std::string> listeners_of(const Pool& pool);
  [[nodiscard]] std::set<std::string> needed_listeners() const;

  // oracle_duties.cpp: what must hold when a step is over.
  void check_worker(const Worker& worker);
  void check_pool(Pool& pool, bool continues);
  void judge_scaled_down(const Pool& pool);
  void check_scaled_down(const Pool& pool);
  void check_rollout(const Pool& pool);
  void check_reliance(const Pool& pool);
  void check_replacements(const Pool& pool);
  void check_outcome_due(const Pool& pool);
  void check_promise(std::optional<Time> promised);
  void check_answers();
  void check_reload();
  void check_manager();
  std::optional<Time> first_deadline(std::string* what = nullptr) const;
  [[nodiscard]] bool idle() const;
  [[nodiscard]] std::string unfinished(const Pool& pool) const;

  // The targets that may hold: one, or two while a reload changes it.
  [[nodiscard]] static int most(const Pool& pool);
  [[nodiscard]] static int least(const Pool& pool);

  Time now_{};
  bool begun_ = false;
  std::optional<Time> promised_;
  std::deque<std::pair<Time, Duration>> stood_still_;  // until when, and what it owes for that
  std::string fault_;
  Names names_;
  std::map<WorkerId, std::unique_ptr<Worker>> workers_;
  std::map<WorkerId, Departed> departed_;  // in this step
  std::set<WorkerId> dead_;
  std::vector<std::unique_ptr<Pool>> pools_, removed_pools_;
  std::map<LaunchId, PoolPlan> launches_;  // not dropped yet
  std::set<std::string> open_, opening_;
  std::string stray_;  // a socket that this step's event called open, though nobody waited for it
  std::optional<Reload> reload_;
  std::vector<Asker> waiting_;                   // for the next reload
  std::vector<core::ReloadQueued> queued_;       // who must be told in this step that they wait
  int refused_ = 0;                              // requests in this step
  std::map<OperationId, Operation> operations_;  // not answered yet
  std::set<OperationId> answered_;
  std::vector<const Worker*> given_up_;  // because fewer are wanted, and not judged yet
  std::size_t waiting_requests_ = 0;
  std::size_t spawns_ = 0, actions_ = 0;
  int futile_ = 0;  // steps in a row that wanted another at once and did nothing
  bool configured_ = false, any_ready_ = false;
  bool stopping_ = false, stopping_now_ = false;
  std::optional<core::ExitReason> gave_up_, exited_;
};

}  // namespace ostler::sim
