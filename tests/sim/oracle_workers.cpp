// What the core may do to workers, and when.
#include <algorithm>
#include <set>
#include <utility>

#include "core/core.hpp"
#include "core/limits.hpp"
#include "oracle.hpp"

namespace ostler::sim {

using namespace core;  // every word here is the core's

namespace {

// SPEC: a number, or a share of the target rounded up; none, or at least one.
int surge_of(const PoolPlan& plan, int target) {
  if (plan.surge.count == 0) return 0;
  const int count = plan.surge.percent ? (target * plan.surge.count + 99) / 100 : plan.surge.count;
  return std::max(count, 1);
}

}  // namespace

bool Oracle::Pool::stops_first() const {
  const auto none = [&](Generation one) {  // 0: the pool is new
    return one != 0 && surge_of(plans.at(one), 100) == 0;
  };
  return none(desired()) || (rollout && (none(rollout->from) || none(rollout->to)));
}

void Oracle::act(const Spawn& action) {
  const std::string name = names_.of(action.worker);
  check(action.worker && !workers_.contains(action.worker) && !dead_.contains(action.worker),
        "worker id used twice: " + name);
  check(++spawns_ <= limits::kSpawnsPerStep, "more spawns in a step than allowed");
  check(!stopping_, "spawn while stopping: " + name);
  check(launches_.contains(action.launch), "spawn of a launch that is not there: " + name);
  Pool* pool = find_pool(action.pool_name);
  if (pool == nullptr) return wrong("spawn for a pool that is not in force: " + name);
  if (!pool->id) pool->id = action.pool;
  check(pool->id == action.pool, "spawn with another pool's id: " + name);
  const auto plan = pool->plans.find(action.generation);
  if (plan == pool->plans.end()) return wrong("spawn of an unknown generation: " + name);
  check(plan->second.launch == action.launch, "spawn with another generation's launch: " + name);
  for (const std::string& key : plan->second.listeners) {
    check(open_.contains(key), "spawn before its socket is open: " + name + ", " + key);
  }
  const RecyclePlan& recycle = plan->second.recycle;
  const std::uint64_t jitter = recycle.requests == 0 ? 0 : recycle.requests_jitter;
  check(action.recycle_requests >= recycle.requests &&
            action.recycle_requests <= recycle.requests + jitter,
        "recycled after a wrong number of requests: " + name);
  check_spawn_place(*pool, action);
  check_spawn_time(*pool, action);
  check_surge(*pool, action);
  if (!fault_.empty()) return;

  auto worker = std::make_unique<Worker>();
  worker->id = action.worker;
  worker->pool = pool;
  worker->slot = action.slot;
  worker->generation = action.generation;
  worker->launch = action.launch;
  worker->plan = plan->second;
  worker->asked = now_;
  worker->start_due = now_ + worker->plan.start_timeout;
  if (worker->plan.ready_after) worker->ready_due = now_ + *worker->plan.ready_after;
  worker->owes_note = NoteKind::kWorkerStarting;
  pool->workers.push_back(worker.get());
  workers_[action.worker] = std::move(worker);
}

// A slot holds one worker, or two while one replaces the other; of generations that are in force.
void Oracle::check_spawn_place(const Pool& pool, const Spawn& action) {
  const std::string name = names_.of(action.worker);
  check(action.slot >= 0 && action.slot < limits::kWorkersPerPool, "slot out of range: " + name);
  int active = 0;
  bool served = false;
  for (const Worker* other : pool.workers) {
    if (other->slot != action.slot) continue;
    check(other->stuck || !pool.stops_first(),
          "started before the one is gone whose place it takes: " + name);
    if (!other->active()) continue;
    ++active;
    served = served || other->ready;
    check(other->generation != action.generation || other->recycle,
          "two workers of one generation in a slot: " + name);
  }
  check(active < 2, "three workers in a slot: " + name);
  if (action.generation == pool.desired()) return;
  check(pool.rolling(), "spawn of a generation that is not in force: " + name);
  check(!served, "spawn of the old generation though the slot is served: " + name);
  const auto slot = pool.slots.find(action.slot);
  check(slot == pool.slots.end() || !slot->second.vacated || slot->second.given_up,
        "spawn of the old generation in a slot that was vacated for the new one: " + name);
}

// A planned spawn gives a running worker its successor; all others fill what has become empty.
bool Oracle::is_planned(const Pool& pool, const Spawn& action) {
  bool active = false;
  for (const Worker* other : pool.workers)
    active = active || (other->slot == action.slot && other->active());
  return active && action.generation == pool.desired();
}

void Oracle::check_spawn_time(Pool& pool, const Spawn& action) {
  const std::string name = names_.of(action.worker);
  for (const Worker* other : pool.workers) {
    check(other->slot != action.slot || other->generation != action.generation || !other->failing(),
          "spawn before the failed one before it is gone: " + name);
  }
  Slot& slot = pool.slots[action.slot];
  check(!slot.earliest || !slot.sure() || now_ >= *slot.earliest,
        "spawn before the back-off is over: " + name);
  slot.earliest = slot.latest = std::nullopt;
  const bool began_anew = std::exchange(slot.given_up, false);  // perhaps
  slot.unsure = slot.unsure || (began_anew && (slot.quick_deaths > 0 || slot.proven != 0));
  slot.forgotten = slot.forgotten || began_anew;
  if (!pool.rolling() || action.generation != pool.rollout->to) return;
  Rollout& rollout = *pool.rollout;
  check(!rollout.earliest || now_ >= *rollout.earliest,
        "next try of a reload before its back-off is over: " + name);
  rollout.earliest = rollout.latest = std::nullopt;
}

void Oracle::check_surge(const Pool& pool, const Spawn& action) {
  if (!is_planned(pool, action)) return;
  const int goal = most(pool);
  int surge = surge_of(pool.plans.at(pool.desired()), goal);
  if (pool.rollout && pool.rollout->from != 0) {
    surge = std::max(surge, surge_of(pool.plans.at(pool.rollout->from), goal));
  }
  const auto living =
      std::ranges::count_if(pool.workers, [](const Worker* w) { return !w->stuck; });
  check(living + 1 <= goal + surge, "more than target + surge: " + names_.of(action.worker));
}

void Oracle::act(const SignalWorker& action) {
  Worker* worker = find(action.worker);
  if (worker == nullptr || !worker->spawned) {
    return wrong("signal to a worker that is not there: " + names_.of(action.worker));
  }
  switch (action.kind) {
    case SignalKind::kStop:
      settle_closing(*worker->pool);
      if (worker->emptying && now_ >= *worker->stop_due) let_go(*worker);  // it had its time
      check(worker->owes_stop && !worker->killed, "unfounded stop: " + name(*worker));
      worker->owes_stop = false;
      return;
    case SignalKind::kAbort:
      check(worker->owes_abort && !worker->killed, "unfounded abort: " + name(*worker));
      worker->owes_abort = false;
      worker->kill_due = now_ + limits::kAbort;
      return;
    case SignalKind::kKill:
      break;
  }
  const bool due = worker->kill_due && now_ >= *worker->kill_due;
  const bool overdue =
      !worker->kill_due && !worker->emptying && worker->stop_due && now_ >= *worker->stop_due;
  check(due || overdue, "unfounded kill: " + name(*worker));
  if (overdue && worker->pool->rollout) ++worker->pool->rollout->cut_off;
  worker->stuck = worker->stuck || worker->killed;
  if (worker->killed) worker->owes_note.reset();
  worker->killed = true;
  worker->stop_due.reset();
  worker->owes_stop = worker->owes_abort = worker->emptying = false;
  worker->kill_due = now_ + limits::kKillAgain;
}

void Oracle::said_ready(Worker& worker) {
  if (worker.owes_note == NoteKind::kWorkerReady) {
    worker.owes_note.reset();
    return;
  }
  const bool due = worker.lived_until(now_) && worker.plan.warmup == 0 && !worker.lacks_channel();
  check(due, "called ready, and is not: " + name(worker));
  become_ready(worker);
}

// The core says that a worker is to go. Whether it may, and what must follow.
void Oracle::told(Worker& worker, const Note& note) {
  if (worker.owes_note == NoteKind::kWorkerStopping) {  // its own doing
    check(note.cause == worker.told, "wrong cause of stopping: " + name(worker));
    check(!worker.fault || (note.failure && note.failure->kind == *worker.fault),
          "wrong failure: " + name(worker));
    worker.owes_note.reset();
    return;
  }
  check(worker.active(), "told to go twice: " + name(worker));
  check(!worker.owes_note, "told to go before its state was told: " + name(worker));
  if (note.cause == StopCause::kFault) {
    check(note.failure.has_value(), "given up without a reason: " + name(worker));
    return note.failure ? told_fault(worker, note.failure->kind) : void();
  }
  check_cause(worker, note.cause);
  leave(worker, note.cause);
  if (!worker.spawned) return;
  const bool alone = worker.pool->stops_first() &&
                     std::ranges::none_of(worker.pool->workers,
                                          [](const Worker* other) { return other->serves(); });
  if (stopping_ || worker.pool->removed || !worker.ready) return let_go(worker);
  const bool own_queue = worker.plan.accept == Accept::kReuseport && !alone;
  worker.last_to_serve = last_served_by(worker);
  if (!own_queue && worker.last_to_serve.empty()) return let_go(worker);
  worker.owes_empty = worker.emptying = true;
  worker.stop_due = now_ + worker.plan.stop_timeout;
}

// It must be asked to stop in this very step, and has its whole time for that from now on.
void Oracle::let_go(Worker& worker) {
  worker.emptying = false;
  worker.owes_stop = true;
  worker.stop_due = gone_by(worker);
}

// Its listeners, but for those that will be served when it is gone.
std::set<std::string> Oracle::last_served_by(const Worker& worker) const {
  std::set<std::string> last(worker.plan.listeners.begin(), worker.plan.listeners.end());
  const auto leave_out = [&](const PoolPlan& plan) {
    for (const std::string& key : plan.listeners) last.erase(key);
  };
  leave_out(worker.pool->plans.at(worker.pool->desired()));
  for (const Worker* other : worker.pool->workers) {
    if (other != &worker && other->serves()) leave_out(other->plan);
  }
  for (const auto& pool : pools_) {
    if (pool.get() == worker.pool || pool->removed) continue;
    for (const std::string& key : listeners_of(*pool)) last.erase(key);
  }
  return last;
}

// The pool is to end. Whoever serves goes on for half the shortest stop time, unless the shell says
// that nothing waits; nobody waits for those who do not serve.
void Oracle::begin_closing(Pool& pool) {
  if (pool.closing) return;
  pool.owes_turning_away = listeners_of(pool);
  for (const auto& other : pools_) {
    if (other.get() == &pool || other->removed || stopping_) continue;
    for (const std::string& key : listeners_of(*other)) pool.owes_turning_away.erase(key);
  }
  pool.closing = Closing{now_, now_, false};
  std::optional<Duration> shortest;
  for (const Worker* worker : pool.workers) {
    if (!worker->serves()) continue;
    shortest = std::min(worker->plan.stop_timeout, shortest.value_or(worker->plan.stop_timeout));
  }
  if (shortest && !pool.owes_turning_away.empty()) pool.closing->until += *shortest / 2;
}

// From now on nobody waits for a queue to be emptied, and everybody is told to go.
void Oracle::end_closing(Pool& pool) {
  pool.closing->over = true;
  for (Worker* worker : pool.workers) {
    if (worker->emptying) let_go(*worker);
  }
}

void Oracle::settle_closing(Pool& pool) {
  if (!pool.serves_backlog()) return;
  const bool served =
      std::ranges::any_of(pool.workers, [](const auto* one) { return one->serves(); });
  if (!served || now_ >= pool.closing->until) end_closing(pool);
}

void Oracle::act(const TurnAway& action) {
  const std::set<std::string> listeners(action.listeners.begin(), action.listeners.end());
  const auto pool = std::ranges::find_if(pools_, [&](const auto& one) {
    return one->name == action.pool_name && !one->owes_turning_away.empty();
  });
  if (pool == pools_.end()) return wrong("unfounded turning away: " + action.pool_name);
  const auto list = [](const std::set<std::string>& keys) {
    std::string text;
    for (const std::string& key : keys) text += " " + key;
    return text;
  };
  check((*pool)->owes_turning_away == listeners,
        "turned away from the wrong listeners: " + action.pool_name + list(listeners) + ", not" +
            list((*pool)->owes_turning_away));
  (*pool)->owes_turning_away.clear();
}

void Oracle::on(const BacklogServed& event) {
  const auto pool = std::ranges::find_if(
      pools_, [&](const auto& one) { return one->id == event.pool && one->serves_backlog(); });
  if (pool != pools_.end() && event.pool) end_closing(**pool);
}

// What the backlog has taken counts, up to half of the time.
Time Oracle::gone_by(const Worker& worker) const {
  const Duration stop = worker.plan.stop_timeout;
  const auto& closing = worker.pool->closing;
  return now_ + stop - (closing ? std::min(now_ - closing->since, stop / 2) : Duration{0});
}

void Oracle::act(const EmptyQueue& action) {
  Worker* worker = find(action.worker);
  check(worker != nullptr && std::exchange(worker->owes_empty, false),
        "unfounded emptying of a queue: " + names_.of(action.worker));
  if (worker == nullptr) return;
  check(worker->last_to_serve == std::set(action.listeners.begin(), action.listeners.end()),
        "turned away from the wrong listeners: " + names_.of(action.worker));
}

void Oracle::on(const QueueEmptied& event) {
  Worker* worker = find(event.worker);
  if (worker != nullptr && worker->emptying) let_go(*worker);
}

// How it fails for not speaking the channel.
FailureKind Oracle::lack(const Worker& worker) {
  return worker.plan.accept == Accept::kDispatch ? FailureKind::kNotDispatchable
                                                 : FailureKind::kNoChannel;
}

void Oracle::told_fault(Worker& worker, FailureKind kind) {
  const auto heartbeat = worker.plan.heartbeat_timeout;
  const FailureKind lateness =
      worker.cannot_be_dispatched() ? FailureKind::kNotDispatchable : FailureKind::kStartTimeout;
  const bool late =
      kind == lateness && !worker.ready && worker.start_due && now_ >= *worker.start_due;
  const bool silent = kind == FailureKind::kHeartbeatTimeout && worker.ready && worker.last_beat &&
                      heartbeat && now_ >= *worker.last_beat + *heartbeat;
  const bool mute = kind == lack(worker) && worker.lived_until(now_) && worker.lacks_channel();
  check(late || silent || mute, "given up though no deadline has passed: " + name(worker));
  worker.proven = settled(worker);
  leave(worker, StopCause::kFault);
  worker.owes_abort = worker.spawned;
  worker.wants_kill = !worker.spawned;
}

void Oracle::check_cause(Worker& worker, StopCause cause) {
  switch (cause) {
    case StopCause::kReplaced:
    case StopCause::kRecycled:
    case StopCause::kUnhealthy:
    case StopCause::kRolledBack:
      judge_scaled_down(*worker.pool);  // while this one still counts
      return check_replaced(worker, cause);
    case StopCause::kScaledDown:
      given_up_.push_back(&worker);
      worker.pool->slots[worker.slot] = Slot{};
      worker.pool->slots[worker.slot].given_up = true;
      return;
    case StopCause::kRemoved:
      settle_closing(*worker.pool);
      check(!worker.ready || !worker.pool->serves_backlog(),
            "told to go before the backlog is served: " + name(worker));
      return check(worker.pool->removed, "called removed, and is not: " + name(worker));
    case StopCause::kStop:
      settle_closing(*worker.pool);
      check(!worker.ready || !worker.pool->serves_backlog(),
            "told to go before the backlog is served: " + name(worker));
      return check(stopping_, "stopped, though the manager does not: " + name(worker));
    case StopCause::kRequested:
      return check(worker.drained, "nobody asked for it to go: " + name(worker));
    case StopCause::kNone:
    case StopCause::kItself:
    case StopCause::kFault:
      return wrong("wrong cause of stopping: " + name(worker));
  }
}

// The heart of a reload: whoever serves goes only when another one in its slot serves, and has
// stayed up for `settle`. Of several outdated ones in a slot, the best is enough.
void Oracle::check_replaced(Worker& worker, StopCause cause) {
  Pool& pool = *worker.pool;
  const bool outdated = worker.generation != pool.desired() || worker.recycle;
  const bool unneeded = !worker.proven;  // the one it was to follow stays
  check(outdated || unneeded, "replaced, though nothing is wrong with it: " + name(worker));
  const bool of_failed =
      pool.rollout && pool.rollout->back && worker.generation == pool.rollout->to;
  const bool by_wear = worker.care.wear != Wear::kNone && worker.generation == pool.desired();
  const StopCause right = of_failed                              ? StopCause::kRolledBack
                          : !by_wear                             ? StopCause::kReplaced
                          : worker.care.wear == Wear::kUnhealthy ? StopCause::kUnhealthy
                                                                 : StopCause::kRecycled;
  check(cause == right,
        std::string("called '") + word(cause) + "', and is '" + word(right) + "': " + name(worker));
  const bool has_successor = std::ranges::any_of(pool.workers, [&](const Worker* other) {
    return other != &worker && other->slot == worker.slot && other->serves() && !other->recycle &&
           other->generation == pool.desired() && (settled(*other) || trusted(pool));
  });
  if (has_successor) {
    if (pool.rollout && worker.ready) ++pool.rollout->replaced;
    return;
  }
  const bool alone = std::ranges::none_of(pool.workers, [&](const Worker* other) {
    return other != &worker && other->slot == worker.slot && other->active();
  });
  if (alone && pool.stops_first() && outdated) return check_vacated(worker);
  const bool held = std::ranges::any_of(pool.workers, [&](const Worker* other) {
    return other != &worker && other->slot == worker.slot && other->active() &&
           (other->ready || !worker.ready) && (settled(*other) || !settled(worker));
  });
  const bool begins = pool.rollout && now_ == pool.rollout->started;
  const bool useless = held || (!worker.ready && (of_failed || begins));
  check(useless, "told to go before its successor serves: " + name(worker));
}

// One that goes before its successor is there: one slot at a time is without a worker because of
// that, and no other is touched before the first new worker has proven itself.
void Oracle::check_vacated(Worker& worker) {
  Pool& pool = *worker.pool;
  Slot& slot = pool.slots[worker.slot];
  slot.vacated = pool.rollout.has_value();
  if (settled(worker) &&
      worker.generation == pool.desired()) {  // it has proven itself before it goes
    slot.proven = worker.generation;
    slot.forgotten = false;
  }
  const bool trusted = slot.sure() && !slot.forgotten && slot.proven == worker.generation;
  if (pool.rollout && worker.ready) ++pool.rollout->replaced;
  if (!worker.ready && !trusted) return;
  std::set<int> serving;
  bool any_new = false;
  bool proven = false;
  for (const Worker* other : pool.workers) {
    if (other->slot != worker.slot && other->serves()) serving.insert(other->slot);
    const bool is_new = other->active() && other->generation == pool.desired();
    any_new = any_new || (is_new && !other->recycle);
    proven = proven || (is_new && settled(*other));
    proven = proven || pool.slots[other->slot].proven == pool.desired();
  }
  check(static_cast<int>(serving.size()) >= least(pool) - 1,
        "a second slot goes without a worker: " + name(worker));
  check(!pool.rolling() || !any_new || proven,
        "the next one goes before the first new one has proven itself: " + name(worker));
}

void Oracle::said_gone(const Note& note) {
  const auto found = departed_.find(note.worker);
  if (found == departed_.end()) {
    return wrong("called gone, and is not: " + names_.of(note.worker));
  }
  const Departed departed = found->second;
  departed_.erase(found);
  check(departed.failed == (note.kind == NoteKind::kWorkerFailed),
        "'failed' and 'exited' mixed up: " + names_.of(note.worker));
  check(!departed.in_order || note.cause == StopCause::kItself,
        "ended in order, and is called otherwise: " + names_.of(note.worker));
  if (departed.failed) check_wait(note, departed);
}

// What is said of a failure: why, and how long the slot waits before its next try.
void Oracle::check_wait(const Note& note, const Departed& departed) {
  check(note.failure.has_value(), "failed without a reason: " + names_.of(note.worker));
  const auto wait = [&](std::optional<Time> until) {
    return until ? std::chrono::duration_cast<std::chrono::milliseconds>(*until - now_).count() : 0;
  };
  const bool right = note.value >= wait(departed.earliest) && note.value <= wait(departed.latest);
  check(right, "wrong back-off: " + names_.of(note.worker) + ", " + std::to_string(note.value) +
                   "ms, not " + std::to_string(wait(departed.earliest)) + " to " +
                   std::to_string(wait(departed.latest)));
  if (departed.sure) return;
  Slot& slot = departed.pool->slots[departed.slot];  // now it is known how long the slot waits
  slot.latest = now_ + std::chrono::milliseconds(note.value + 1);
}

}  // namespace ostler::sim
