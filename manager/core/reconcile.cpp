// Closes the gap between what should be and what is: see core.hpp for the order of the steps.
#include <algorithm>
#include <tuple>
#include <utility>

#include "core/limits.hpp"
#include "core/machine.hpp"

namespace ostler::core {

std::optional<Time> Machine::reconcile() {
  spawns_left_ = limits::kSpawnsPerStep;
  for (const auto& [id, pool] : state_.pools) {
    if (pool.next_deadline && *pool.next_deadline <= now_) state_.touched.insert(id);
  }
  check_first_start();
  // One change may bring about the next: a reload that ends lets the one behind it begin.
  for (int round = 0; round < limits::kRounds && !state_.touched.empty() && !capped_; ++round) {
    reconcile_pools();
    finish_reload();
  }
  finish_reload();
  finish_operations();
  close_listeners();
  check_manager();

  std::optional<Time> next;
  for (const auto& [id, pool] : state_.pools) {
    if (pool.next_deadline && (!next || *pool.next_deadline < *next)) next = pool.next_deadline;
  }
  if (!state_.touched.empty() && !state_.exited) next = now_;  // the rest comes with the next step
  state_.promised = next;
  return next;
}

void Machine::reconcile_pools() {
  for (const PoolId id : std::exchange(state_.touched, {})) {
    auto found = state_.pools.find(id);
    if (found == state_.pools.end()) continue;
    reconcile_pool(found->second);
    found = state_.pools.find(id);
    if (found != state_.pools.end()) found->second.next_deadline = next_deadline(found->second);
  }
}

void Machine::reconcile_pool(Pool& pool) {
  check_deadlines(pool);
  check_closing(pool);
  pool.serves_backlog() ? retire_unready(pool) : adjust_slots(pool);
  if (!state_.stopping && !pool.removed) {
    fill_slots(pool);
    adjust_slots(pool);  // a rollout that has proven itself may give slots up
    if (pool.rollout && rollout_finished(pool)) {
      finish_rollout(pool, pool.rollout->rolling_back ? Outcome::kRolledBack : Outcome::kReloaded);
    }
  }
  note_fullness(pool);
  watch_load(pool);
  if (pool.generations.size() > 1) prune_generations(pool);
  if (pool.removed && pool.only_stuck()) tell_removed(pool);
  if (pool.removed && pool.workers.empty()) return erase_pool(pool.id);
  if (capped_) touch(pool);
}

void Machine::check_deadlines(Pool& pool) {
  for (auto& [id, worker] : pool.workers) check_deadline(pool, worker);
}

void Machine::check_deadline(Pool& pool, Worker& worker) {
  const PoolPlan& plan = pool.generations.at(worker.generation);
  const bool passed = worker.deadline && *worker.deadline <= now_;
  Failure failure;
  switch (worker.state) {
    case WorkerState::kSpawning:
    case WorkerState::kStarting:
      if (worker.state == WorkerState::kStarting && plan.ready_after &&
          now_ >= worker.started + *plan.ready_after) {
        can_serve(pool, worker);
      }
      if (passed && worker.active() && !worker.ready()) {  // its warm-up would be too late
        const bool mute = plan.accept == Accept::kDispatch && !worker.care.speaks;
        failure.kind = mute ? FailureKind::kNotDispatchable : FailureKind::kStartTimeout;
        failure.after = now_ - worker.started;
        if (!mute && !worker.care.warming) failure.stage = why_not_ready(plan, worker);
        abort(pool, worker, failure);
      }
      break;
    case WorkerState::kReady:
      worker.proven = worker.proven || has_settled(pool, worker);
      if (worker.last_beat && plan.heartbeat_timeout &&
          now_ >= *worker.last_beat + *plan.heartbeat_timeout) {
        failure.kind = FailureKind::kHeartbeatTimeout;
        failure.after = now_ - *worker.last_beat;
        failure.was_ready = true;
        abort(pool, worker, failure);
      } else {
        take_care(pool, worker);
      }
      break;
    case WorkerState::kDraining:
      if (passed && worker.emptying) {
        ask_to_stop(pool, worker);  // it does not take what waits for it, or more keeps coming
      } else if (passed && worker.spawned) {
        failure.kind = FailureKind::kStopTimeout;
        failure.after = plan.stop_timeout;
        failure.was_ready = worker.was_ready;
        worker.fault = failure;
        if (pool.rollout) ++pool.rollout->cut_off;
        kill(worker);
      }
      break;
    case WorkerState::kAborting:
      if (passed) kill(worker);
      break;
    case WorkerState::kKilling:
      if (passed && worker.spawned) {
        worker.stuck = true;
        note(pool, worker, NoteKind::kWorkerUnkillable);
        kill(worker);
      }
      break;
  }
}

// Time alone proves a worker, unless it is on trial and has its health checked: then one must pass.
bool Machine::may_settle(const Pool& pool, const Worker& worker) {
  const bool checked = pool.generations.at(worker.generation).health.has_value();
  return !worker.failed && (!checked || worker.care.passed || !pool.on_trial(worker));
}

bool Machine::has_settled(const Pool& pool, const Worker& worker) const {
  const PoolPlan& plan = pool.generations.at(worker.generation);
  return may_settle(pool, worker) && now_ >= worker.ready_at + plan.settle;
}

void Machine::adjust_slots(Pool& pool) {
  const bool over = state_.stopping || pool.removed;
  const auto goal = static_cast<std::size_t>(over ? 0 : pool.slot_goal());
  // A reload to fewer workers that has proven itself holds the new target from here on.
  if (pool.rollout && pool.slot_goal() == pool.target()) pool.rollout->rescaled = true;
  if (pool.slots.size() > goal) give_up_slots(pool, pool.slots.size() - goal);
  if (pool.slots.size() == goal) return;
  std::set<int> taken;  // by a worker that is leaving: better not to have two of one name
  for (const auto& [id, worker] : pool.workers) taken.insert(worker.slot);
  for (int number = 0; pool.slots.size() < goal; ++number) {
    if (!taken.contains(number)) pool.slots.try_emplace(number);
  }
}

void Machine::give_up_slots(Pool& pool, std::size_t surplus) {
  const StopCause cause = state_.stopping ? StopCause::kStop
                          : pool.removed  ? StopCause::kRemoved
                                          : StopCause::kScaledDown;
  // Who goes first: empty slots, not ready ones, outdated ones, those that a reload has yet to
  // prove, those up longest.
  using Rank = std::tuple<bool, bool, bool, bool, Time, int>;
  std::map<int, Rank> ranks;
  for (const auto& [number, slot] : pool.slots) {
    ranks[number] = Rank{false, false, false, false, Time::max(), number};
  }
  for (const auto& [id, worker] : pool.workers) {
    const auto found = ranks.find(worker.slot);
    if (found == ranks.end() || !worker.active()) continue;
    auto& [active, ready, current, proven, since, number] = found->second;
    active = true;
    if (!worker.ready()) continue;
    ready = true;
    current = current || worker.generation == pool.desired;
    proven = proven || (pool.rollout && worker.generation == pool.desired && worker.proven);
    since = std::min(since, worker.ready_at);
  }
  std::vector<Rank> order;
  order.reserve(ranks.size());
  for (const auto& [number, rank] : ranks) order.push_back(rank);
  std::ranges::sort(order);
  for (std::size_t i = 0; i < surplus; ++i) pool.slots.erase(std::get<int>(order[i]));
  for (auto& [id, worker] : pool.workers) {
    if (worker.active() && !pool.slots.contains(worker.slot)) retire(pool, worker, cause);
  }
}

namespace {

// It is leaving through its own fault and never served. Its end makes the slot wait, or the reload
// turn round: until then its place is not free.
bool failed_to_start(const Worker& worker) {
  return !worker.active() && !worker.was_ready && !worker.stuck &&
         (worker.cause == StopCause::kFault || worker.cause == StopCause::kItself);
}

}  // namespace

std::vector<Machine::View> Machine::look_at_slots(Pool& pool) {
  std::vector<View> views;
  views.reserve(pool.slots.size());
  for (auto& [number, slot] : pool.slots) {
    View view;
    view.number = number;
    view.slot = &slot;
    views.push_back(view);
  }
  for (auto& [id, worker] : pool.workers) {
    const auto view = std::ranges::lower_bound(views, worker.slot, {}, &View::number);
    if (view == views.end() || view->number != worker.slot) continue;
    if (failed_to_start(worker)) {
      view->failing = view->failing || worker.generation == pool.desired;
      view->failing_trusted = view->failing_trusted || worker.generation == view->slot->proven;
    }
    if (!worker.active()) {
      view->leaving = view->leaving || !worker.stuck;
      continue;
    }
    ++view->active;
    view->ready = view->ready || worker.ready();
    view->current = view->current || worker.generation == pool.desired;
    // What is rolled back to has been in force before: it proves itself by being ready.
    const bool reliable = worker.proven || (pool.rollout && pool.rollout->rolling_back);
    if (worker.ready() && reliable && worker.generation == pool.desired) {
      view->slot->proven = pool.desired;
    }
    const bool early = worker.ready() && pool.on_trial(worker) && !worker.failed &&
                       view->slot->proven != pool.desired;
    view->unproven = view->unproven || early;
    view->has_trusted = view->has_trusted || worker.generation == view->slot->proven;
    const bool good = worker.generation == pool.desired && !worker.recycle;
    if (!good) continue;
    const auto rank = [](const Worker& one) { return std::pair(one.ready(), one.proven); };
    if (view->good == nullptr || rank(*view->good) < rank(worker)) view->good = &worker;
  }
  return views;
}

void Machine::fill_slots(Pool& pool) {
  if (pool.rollout && pool.rollout->retry_at && *pool.rollout->retry_at <= now_) {
    pool.rollout->retry_at.reset();
  }
  for (auto& [number, slot] : pool.slots) {  // those that are filled, too
    if (slot.retry_at && *slot.retry_at <= now_) slot.retry_at.reset();
  }
  bool outdated = false;
  std::vector<View> views = look_at_slots(pool);
  const bool trusted = pool.trusted();
  for (View& view : views) {
    if (view.good != nullptr && view.good->ready() && (view.good->proven || trusted)) {
      if (view.active > 1) retire_predecessors(pool, view);
      continue;
    }
    const bool useful = view.good != nullptr && (view.ready || view.has_trusted);
    if (view.active > 1 && !useful) retire_useless(pool, view);
    outdated = outdated || view.good == nullptr;
    if (!fill_slot(pool, view)) return;  // the rest in the next step
  }
  if (outdated) replace_outdated(pool);
}

StopCause Machine::cause_of_replacing(const Pool& pool, const Worker& worker) const {
  const bool failed_generation =
      pool.rollout && pool.rollout->rolling_back && worker.generation == pool.rollout->to;
  if (failed_generation) return StopCause::kRolledBack;
  if (worker.wear == Wear::kNone || worker.generation != pool.desired) return StopCause::kReplaced;
  return worker.wear == Wear::kUnhealthy ? StopCause::kUnhealthy : StopCause::kRecycled;
}

// The good worker of a slot is to be relied upon: everybody else in the slot may go.
void Machine::retire_predecessors(Pool& pool, View& view) {
  for (auto& [id, worker] : pool.workers) {
    if (worker.slot != view.number || !worker.active() || &worker == view.good) continue;
    if (pool.rollout && worker.ready()) ++pool.rollout->replaced;
    retire(pool, worker, cause_of_replacing(pool, worker));
  }
}

// All in the slot are outdated, or nobody in it serves or has a generation that did. One is enough:
// the others, such as a successor that is outdated before its predecessor was told to go, only take
// up the room that somebody better needs.
void Machine::retire_useless(Pool& pool, View& view) {
  const auto worth = [&](const Worker& worker) {
    const bool trusted = worker.generation == view.slot->proven;
    const bool good = &worker == view.good;
    return std::tuple(worker.ready(), worker.proven, trusted, good, !worker.recycle, worker.id);
  };
  const Worker* best = nullptr;  // there is one: the slot has several workers
  for (const auto& [id, worker] : pool.workers) {
    if (worker.slot != view.number || !worker.active()) continue;
    if (best == nullptr || worth(worker) > worth(*best)) best = &worker;
  }
  for (auto& [id, worker] : pool.workers) {
    if (worker.slot != view.number || !worker.active() || &worker == best) continue;
    retire(pool, worker, cause_of_replacing(pool, worker));
  }
  view.active = 1;
  view.has_trusted = best != nullptr && best->generation == view.slot->proven;
}

// Sees to it that somebody reliable serves, or is about to serve, in a slot. False: no spawn left.
bool Machine::fill_slot(Pool& pool, View& view) {
  const Slot& slot = *view.slot;
  const bool rolling = pool.rollout && !pool.rollout->rolling_back;
  // While the new generation is unproven here, the one that served before is relied upon.
  const bool trusts_old = rolling && slot.proven != 0 && slot.proven != pool.desired &&
                          slot.doublings == 0 && !slot.vacated &&
                          pool.generations.contains(slot.proven);
  const bool filled = view.active > 0 && (!trusts_old || view.ready || view.has_trusted);
  if (filled) return true;
  if (slot.retry_at) return true;
  if (view.leaving && pool.stops_first()) return true;  // what it holds is not free yet
  const Generation generation = trusts_old ? slot.proven : pool.desired;
  if (trusts_old ? view.failing_trusted : view.failing) return true;
  const bool on_trial = rolling && generation == pool.rollout->to;
  if (on_trial && pool.rollout->retry_at) return true;
  if (spawns_left_ == 0) {
    capped_ = true;
    return false;
  }
  spawn(pool, view.number, generation);
  return true;
}

// Gives outdated workers their successors, as far as the surge budget allows.
void Machine::replace_outdated(Pool& pool) {
  if (pool.rollout && !pool.rollout->rolling_back && pool.rollout->retry_at) return;
  // Not ready ones first, then those of another generation: workers that wear out faster than they
  // can be replaced may not hold a reload up. Then by number.
  std::vector<std::tuple<bool, bool, int>> outdated;
  const std::vector<View> views = look_at_slots(pool);
  for (const View& view : views) {
    const bool waiting = view.failing || view.slot->retry_at || view.unproven;
    if (view.active == 1 && view.good == nullptr && !waiting) {
      outdated.emplace_back(view.ready, view.current, view.number);
    }
  }
  if (outdated.empty()) return;
  std::ranges::sort(outdated);
  if (pool.stops_first()) return make_room(pool, views);
  const int goal = pool.slot_goal();
  int room = goal + pool.plan().surge.of(goal);
  for (const auto& [id, worker] : pool.workers) room -= worker.stuck ? 0 : 1;
  for (const auto& [ready, current, number] : outdated) {
    if (room-- <= 0) return;
    if (spawns_left_ == 0) {
      capped_ = true;
      return;
    }
    spawn(pool, number, pool.desired);
  }
}

// Without surge an outdated worker goes before its successor is started. One that is relied upon
// only while all others serve, so that one slot at a time is without a worker.
void Machine::make_room(Pool& pool, const std::vector<View>& views) {
  for (const View& view : views) {
    const bool waiting = view.slot->retry_at || view.unproven;
    if (view.active != 1 || view.good != nullptr || waiting) continue;
    const bool relied_upon = view.ready || view.has_trusted;
    if (relied_upon && !others_serve(pool, views, view.number)) continue;
    vacate(pool, view.number);
    if (relied_upon) return;
  }
}

// All other slots do, and if there are new workers among them, one of them has proven itself.
bool Machine::others_serve(const Pool& pool, const std::vector<View>& views, int number) {
  bool any_new = false;
  bool proven = false;
  for (const View& view : views) {
    any_new = any_new || view.good != nullptr;
    proven = proven || view.slot->proven == pool.desired;
    if (view.number == number) continue;
    if (!view.ready || view.leaving) return false;
    if (view.good != nullptr && !view.good->ready()) return false;
  }
  return proven || !any_new;
}

// What a worker holds, such as a port of its own, is needed by its successor: it goes first.
void Machine::vacate(Pool& pool, int number) {
  for (auto& [id, worker] : pool.workers) {
    if (worker.slot != number || !worker.active()) continue;
    if (pool.rollout && worker.ready()) ++pool.rollout->replaced;
    retire(pool, worker, cause_of_replacing(pool, worker));
  }
  pool.slots.at(number).vacated = pool.rollout.has_value();
}

void Machine::note_fullness(Pool& pool) {
  const int target = pool.target();
  const bool full = pool.count_ready() >= target && !pool.removed && !state_.stopping;
  if (full && !pool.full) note(pool, NoteKind::kPoolReady, target);
  pool.full = full;
  pool.was_full = pool.was_full || full;
}

// In force, with workers left, or to be rolled back to.
std::set<Generation> Machine::generations_in_use(const Pool& pool) {
  std::set<Generation> used{pool.desired};
  if (pool.rollout) used.insert(pool.rollout->to);
  if (pool.rollout && pool.rollout->from != 0) used.insert(pool.rollout->from);
  for (const auto& [id, worker] : pool.workers) used.insert(worker.generation);
  return used;
}

void Machine::prune_generations(Pool& pool) {
  const std::set<Generation> used = generations_in_use(pool);
  std::set<LaunchId> launches;  // after a restart, generations share one
  std::erase_if(pool.generations, [&](const auto& entry) {
    if (used.contains(entry.first)) return false;
    launches.insert(entry.second.launch);
    return true;
  });
  for (const LaunchId launch : launches) release(launch);
  state_.listeners_touched = state_.listeners_touched || !launches.empty();
}

void Machine::erase_pool(PoolId id) {
  const auto found = state_.pools.find(id);
  Pool pool = std::move(found->second);
  state_.pools.erase(found);
  note(pool, NoteKind::kPoolRemoved);
  std::set<LaunchId> launches;
  for (const auto& [generation, plan] : pool.generations) launches.insert(plan.launch);
  for (const LaunchId launch : launches) release(launch);
  state_.listeners_touched = true;
}

// Nobody is left but those that SIGKILL did not end. The reload does not wait for them.
void Machine::tell_removed(Pool& pool) {
  if (!state_.reload || state_.reload->waiting.erase(pool.id) == 0) return;
  PoolOutcome outcome;
  outcome.pool = pool.name;
  outcome.outcome = Outcome::kRemoved;
  outcome.generation = pool.desired;
  outcome.took = now_ - state_.reload->started;
  if (pool.rollout) {  // a new pool that failed
    outcome.outcome = Outcome::kRolledBack;
    outcome.generation = 0;
    outcome.reason = pool.rollout->reason;
    outcome.failed = pool.rollout->failed;
    outcome.cut_off = pool.rollout->cut_off;
    pool.rollout.reset();
    inherited(pool.id, false);
  }
  state_.reload->outcomes.push_back(std::move(outcome));
}

void Machine::finish_operations() {
  if (state_.operations.empty()) return;
  std::erase_if(state_.operations,
                [&](const WorkerOperation& operation) { return finished(operation); });
}

bool Machine::finished(const WorkerOperation& operation) {
  const auto found = state_.pools.find(operation.pool);
  if (found == state_.pools.end()) {
    reply(operation.op, Outcome::kDone);
    return true;
  }
  const Pool& pool = found->second;
  if (pool.workers.contains(operation.worker)) return false;
  const auto slot = pool.slots.find(operation.slot);
  if (operation.request != WorkerRequest::kRecycle || slot == pool.slots.end()) {
    reply(operation.op, Outcome::kDone, operation.worker);
    return true;
  }
  for (const auto& [id, worker] : pool.workers) {
    if (worker.slot != operation.slot || !worker.ready()) continue;
    reply(operation.op, Outcome::kDone, id);
    return true;
  }
  // The last error may be another slot's: then the next try of this one decides.
  const bool failed = slot->second.retry_at && pool.last_error;
  if (!failed || pool.last_error->slot != operation.slot) return false;
  reply(operation.op, Outcome::kFailed, pool.last_error->worker, pool.last_error->failure);
  return true;
}

// A listener stays open as long as any generation that is in force, or may be again, has it; or,
// at the end, as long as somebody serves what waits there.
void Machine::close_listeners() {
  if (!state_.listeners_touched) return;
  state_.listeners_touched = false;
  std::set<std::string> wanted;
  for (const auto& [id, pool] : state_.pools) {
    if ((pool.removed || state_.stopping) && !pool.serves_backlog()) continue;
    for (const auto& [generation, plan] : pool.generations) {
      wanted.insert(plan.listeners.begin(), plan.listeners.end());
    }
  }
  if (state_.reload) {
    for (const PoolPlan& plan : state_.reload->plan.pools) {
      wanted.insert(plan.listeners.begin(), plan.listeners.end());
    }
  }
  std::erase_if(state_.listeners, [&](const std::string& key) {
    if (wanted.contains(key)) return false;
    act(CloseListener{key});
    return true;
  });
}

void Machine::check_manager() {
  if (!state_.configured && !state_.stopping) return;
  const auto all_pools = [&](auto&& what) {
    return std::ranges::all_of(state_.pools, [&](const auto& entry) { return what(entry.second); });
  };
  if (!state_.was_ready && !state_.stopping && !state_.reload &&
      all_pools([](const Pool& pool) { return pool.was_full || pool.removed; })) {
    state_.was_ready = true;
    Note ready;
    ready.kind = NoteKind::kManagerReady;
    act(ready);
  }
  if (!state_.stopping) return;
  const bool over = all_pools([](const Pool& pool) { return pool.only_stuck(); });
  if (!over) return;
  for (const WorkerOperation& operation : std::exchange(state_.operations, {})) {
    reply(operation.op, Outcome::kStopping);
  }
  state_.exited = true;
  act(ExitManager{state_.exit_reason});
}

// A manager whose pools all fail from the start says so by ending, so that whoever started it sees.
void Machine::check_first_start() {
  if (state_.any_ready || state_.stopping) return;
  std::vector<ExitCause> causes;
  for (const auto& [id, pool] : state_.pools) {
    if (pool.removed || pool.target() == 0) continue;
    causes.push_back({pool.name, pool.last_error ? pool.last_error->failure : Failure{}});
    const bool given_up = std::ranges::any_of(pool.slots, [](const auto& entry) {
      return entry.second.doublings >= limits::kFirstStartTries;
    });
    if (!given_up) return;
  }
  if (causes.empty()) return;
  state_.exit_reason = ExitReason::kAllPoolsFailed;
  state_.exit_causes = std::move(causes);
  begin_stop(false);
}

std::optional<Time> Machine::next_deadline(const Pool& pool) const {
  std::optional<Time> next;
  const auto consider = [&](Time time) {
    if (!next || time < *next) next = time;
  };
  for (const auto& [id, worker] : pool.workers) {
    // What was never reported as started cannot be signalled yet: its report is what comes next.
    const bool owed = worker.spawned || worker.state == WorkerState::kSpawning;
    if (worker.deadline && owed) consider(*worker.deadline);
    const PoolPlan& plan = pool.generations.at(worker.generation);
    if (worker.state == WorkerState::kStarting && plan.ready_after && !worker.care.warming) {
      consider(worker.started + *plan.ready_after);
    }
    if (!worker.ready()) continue;
    if (!worker.proven && may_settle(pool, worker)) consider(worker.ready_at + plan.settle);
    if (worker.last_beat && plan.heartbeat_timeout) {
      consider(*worker.last_beat + *plan.heartbeat_timeout);
    }
    if (state_.stopping || pool.removed) continue;
    const Care& care = worker.care;
    for (const auto& due : {care.probe_at, care.look_at, care.measure_at, care.expires_at}) {
      if (due) consider(*due);
    }
  }
  if (pool.serves_backlog()) consider(pool.closing->until);
  if (state_.stopping || pool.removed) return next;
  for (const auto& [number, slot] : pool.slots) {
    if (slot.retry_at && *slot.retry_at > now_) consider(*slot.retry_at);
  }
  if (pool.rollout && pool.rollout->retry_at) consider(*pool.rollout->retry_at);
  if (pool.scaling.watch_at && !pool.scaling.watching) consider(*pool.scaling.watch_at);
  return next;
}

}  // namespace ostler::core
