// The inside of the core: one step at work on a state. Private to manager/core.
//
// core.cpp turns events into facts and wishes, reconcile.cpp closes the gap, reload.cpp takes
// requests for reloads one after the other, rollout.cpp changes generations, closing.cpp ends pools
// and the manager, care.cpp looks after workers that run, scaling.cpp follows the load. A Machine
// lives for one `apply` or `reconcile`.
#pragma once

#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "core/core.hpp"

namespace ostler::core {

class Machine {
 public:
  Machine(State& state, Time now, Actions& actions) : state_(state), now_(now), actions_(actions) {}

  // core.cpp: events.
  void notice_time();
  void on(const Tick&) {}
  void on(const ScaleRequested& event);
  void on(const WorkerRequested& event);
  void on(const ListenerOpened& event);
  void on(const ListenerFailed& event);
  void on(const Spawned& event);
  void on(const SpawnFailed& event);
  void on(const WorkerSigned& event);
  void on(const Seen& event);
  void on(const TimeoutExtended& event);
  void on(const Exited& event);

  // reload.cpp: who asks for a reload, and what the file says.
  void on(const PlanAccepted& event);
  void on(const ReloadRequested& event);
  void on(const PlanRead& event);

  // closing.cpp: the end.
  void on(const StopRequested& event);
  void on(const BacklogServed& event);

  // care.cpp: what running workers tell.
  void on(const Probed& event);
  void on(const Looked& event);
  void on(const Measured& event);
  void on(const QueueEmptied& event);
  void on(const Stranded& event);

  // scaling.cpp: what the load of a pool is.
  void on(const LoadSeen& event);
  void on(const Demand& event);

  // reconcile.cpp.
  std::optional<Time> reconcile();

 private:
  // What a slot holds, for one look at it.
  struct View {
    int number = 0;
    Slot* slot = nullptr;
    Worker* good = nullptr;  // of the desired generation, not to be recycled; proven if any is
    int active = 0;
    bool ready = false;        // anybody is
    bool current = false;      // anybody is of the desired generation
    bool has_trusted = false;  // anybody is of the slot's proven generation
    bool leaving = false;      // somebody who is to go is still there
    // Of the desired, or the slot's proven generation: leaves by its own fault, was never ready.
    bool failing = false;
    bool failing_trusted = false;
    bool unproven =
        false;  // of the generation on trial, and to be recycled only when it has proven
  };

  // core.cpp
  void died(Pool& pool, const Worker& worker, const Failure& failure);
  void ended(Pool& pool, const Worker& worker);
  void trial_failed(Pool& pool, const Worker& worker, const Failure& failure, NoteKind kind);
  [[nodiscard]] static Duration longest_wait(const Pool& pool, const Failure& failure,
                                             const PoolPlan& plan);
  void back_off(Slot& slot, const Worker& worker, const PoolPlan& plan, Duration longest);
  void wait_longer(Slot& slot, const PoolPlan& plan, Duration longest);
  void successor_failed(Pool& pool, const Worker& worker, const Failure& failure);
  std::optional<Failure> death_of(const Worker& worker, const Exited& event) const;
  bool ended_in_order(const Pool& pool, const Worker& worker, const Exited& event) const;

  // reconcile.cpp
  void reconcile_pools();
  void reconcile_pool(Pool& pool);
  void check_deadlines(Pool& pool);
  void check_deadline(Pool& pool, Worker& worker);
  [[nodiscard]] static bool may_settle(const Pool& pool, const Worker& worker);
  [[nodiscard]] bool has_settled(const Pool& pool, const Worker& worker) const;
  void adjust_slots(Pool& pool);
  void give_up_slots(Pool& pool, std::size_t surplus);
  void fill_slots(Pool& pool);
  void retire_predecessors(Pool& pool, View& view);
  void retire_useless(Pool& pool, View& view);
  StopCause cause_of_replacing(const Pool& pool, const Worker& worker) const;
  bool fill_slot(Pool& pool, View& view);
  void replace_outdated(Pool& pool);
  void make_room(Pool& pool, const std::vector<View>& views);
  void vacate(Pool& pool, int number);
  [[nodiscard]] static bool others_serve(const Pool& pool, const std::vector<View>& views,
                                         int number);
  std::vector<View> look_at_slots(Pool& pool);
  void note_fullness(Pool& pool);
  void tell_removed(Pool& pool);
  void erase_pool(PoolId id);
  void prune_generations(Pool& pool);
  void finish_operations();
  bool finished(const WorkerOperation& operation);
  void close_listeners();
  void check_manager();
  void check_first_start();
  std::optional<Time> next_deadline(const Pool& pool) const;

  // closing.cpp
  void begin_stop(bool now);
  void kill_everything();
  void begin_closing(Pool& pool);
  void end_closing(Pool& pool);
  void check_closing(Pool& pool);
  void retire_unready(Pool& pool);
  [[nodiscard]] std::vector<std::string> own_listeners(const Pool& pool) const;
  [[nodiscard]] std::vector<std::string> last_served_by(const Pool& pool,
                                                        const Worker& worker) const;
  [[nodiscard]] Time gone_by(const Pool& pool, const Worker& worker) const;

  // care.cpp
  void says_ready(Pool& pool, Worker& worker);
  void can_serve(Pool& pool, Worker& worker);
  void on_warmed_up(Pool& pool, Worker& worker, const Probed& event);
  void on_checked(Pool& pool, Worker& worker, const Probed& event);
  void unfit(Pool& pool, Worker& worker);
  void passed_check(Pool& pool, Worker& worker);
  void never_healthy(Pool& pool, Worker& worker, const Failure& failure);
  void begin_care(const Pool& pool, Worker& worker);
  void take_care(Pool& pool, Worker& worker);
  void has_work(Pool& pool, Worker& worker);
  void look_again(Pool& pool, Worker& worker, Time when);
  Duration lost_since(Time since) const;
  void wear_out(Pool& pool, Worker& worker, Wear wear, std::int64_t value = 0);
  std::uint64_t draw_requests(const RecyclePlan& recycle);

  // scaling.cpp
  void begin_scaling(Pool& pool, int held);
  void watch_load(Pool& pool);
  void watch_soon(Pool& pool);
  void judge_load(Pool& pool, const LoadSeen& load);
  bool scale_up(Pool& pool, const LoadSeen& load);
  void scale_down(Pool& pool, const LoadSeen& load);
  void scale(Pool& pool, int target, ScaleDecision decision);
  void judge_last_scale_down(Pool& pool);

  // reload.cpp
  void refuse(const Asker& asker, Outcome outcome);
  void begin_reload(std::vector<Asker> askers);
  void plan_reload(const Plan& read);
  void answer_unknown();
  void reject();
  void finish_reload();
  void answer_reload();
  void abandon_reload();
  void note_rejected(const std::string& pool, Outcome outcome, std::optional<Failure> failure);

  // rollout.cpp
  void find_taken_listeners();
  [[nodiscard]] static std::set<Generation> generations_in_use(const Pool& pool);
  void open_listeners();
  void listeners_answered();
  void commit();
  void add_pool(const PoolPlan& plan, bool first);
  void begin_rollout(Pool& pool, const PoolPlan& plan, bool restart);
  void roll_back(Pool& pool, const Failure& failure, WorkerId worker);
  bool rollout_finished(const Pool& pool) const;
  void finish_rollout(Pool& pool, Outcome outcome);
  void remove_pool(Pool& pool);
  void keep_for_heirs(Pool& pool);
  void inherited(PoolId heir, bool holds);
  void keep_pool(const Pool& pool);

  // Small steps, used by all.
  void spawn(Pool& pool, int slot, Generation generation);
  void become_ready(Pool& pool, Worker& worker);
  void retire(Pool& pool, Worker& worker, StopCause cause);
  void ask_to_stop(const Pool& pool, Worker& worker);
  void abort(Pool& pool, Worker& worker, const Failure& failure);
  void kill(Worker& worker);
  void signal(const Worker& worker, SignalKind kind);
  Worker* find(WorkerId id, Pool** pool);
  void touch(const Pool& pool) { state_.touched.insert(pool.id); }
  void touch_all();
  void reply(OperationId op, Outcome outcome, WorkerId worker = {},
             std::optional<Failure> reason = {});
  void note(const Pool& pool, const Worker& worker, NoteKind kind,
            std::optional<Failure> failure = {}, std::int64_t value = 0);
  void note(const Pool& pool, NoteKind kind, std::int64_t value = 0,
            Outcome outcome = Outcome::kDone, std::optional<Failure> failure = {});
  void note(const Pool& pool, ScaleDecision decision);
  void release(LaunchId launch);
  std::uint64_t random();
  Duration spread(Duration delay, Duration most);
  template <class T>
  void act(T action) {
    actions_.emplace_back(std::move(action));
  }

  State& state_;
  Time now_;
  Actions& actions_;
  std::size_t spawns_left_ = 0;
  bool capped_ = false;
};

}  // namespace ostler::core
