// What the oracle writes into its books when the core is told something.
#include "oracle.hpp"

#include <algorithm>

#include "core/limits.hpp"

namespace ostler::sim {

using namespace core;  // every word here is the core's

void Oracle::wrong(const std::string& what) {
  if (fault_.empty()) fault_ = what;
}

void Oracle::begin(Time now) {
  now_ = now;
  spawns_ = actions_ = 0;
  given_up_.clear();
  departed_.clear();
  stray_.clear();
  queued_.clear();
  refused_ = 0;
  for (const auto& pool : pools_) {
    pool->was_rolling = pool->rollout.has_value();
    pool->load.may_decide = pool->load.demanded = false;
  }
  notice_late();
  begun_ = true;
}

// A manager that stood still owes everybody the time it lost, and a grace on top. What a worker has
// to live through, it lived through only as long as somebody looked.
void Oracle::notice_late() {
  if (!promised_ || now_ <= *promised_ + limits::kLate) return;
  const Duration stood = now_ - *promised_;
  const auto shift = [](std::optional<Time>& time, Duration by) {
    if (time) *time += by;
  };
  for (auto& [id, worker] : workers_) {
    shift(worker->start_due, stood + limits::kGrace);
    shift(worker->stop_due, stood + limits::kGrace);
    shift(worker->kill_due, stood + limits::kGrace);
    shift(worker->last_beat, stood + limits::kGrace);
    shift(worker->ready_due, stood);
    if (worker->ready) worker->settled_at += stood;
    worker->care.excused = worker->care.probing || worker->care.warming;
  }
  stood_still_.emplace_back(now_, stood + limits::kGrace);
  if (stood_still_.size() > limits::kStalls) stood_still_.pop_front();
  for (const auto& pool : pools_) {
    if (pool->serves_backlog()) {
      pool->closing->since += stood + limits::kGrace;
      pool->closing->until += stood + limits::kGrace;
    }
    for (auto& [number, slot] : pool->slots) shift(slot.latest, stood);
    if (pool->rollout) shift(pool->rollout->latest, stood);
  }
}

void Oracle::event(const Event& event) {
  if (fault_.empty()) std::visit([&](const auto& what) { on(what); }, event);
}

void Oracle::action(const Action& action) {
  if (!fault_.empty()) return;
  check(!exited_, "something is done after the end");
  if (const auto* spawn = std::get_if<Spawn>(&action)) names_.learn(*spawn);
  ++actions_;
  std::visit([&](const auto& what) { act(what); }, action);
}

void Oracle::remember(OperationId op, const Event& request) {
  if (!op) return;
  Operation operation;
  operation.request = request;
  operations_.emplace(op, std::move(operation));
}

void Oracle::expect(OperationId op, Outcome outcome) {
  const auto found = operations_.find(op);
  if (found != operations_.end()) found->second.due = outcome;
}

Oracle::Worker* Oracle::find(WorkerId id) {
  const auto found = workers_.find(id);
  return found == workers_.end() ? nullptr : found->second.get();
}

Oracle::Pool* Oracle::find_pool(const std::string& name) {
  for (const auto& pool : pools_) {
    if (pool->name == name && !pool->removed) return pool.get();
  }
  return nullptr;
}

void Oracle::on(const PlanAccepted& event) {
  remember(event.op, event);
  for (const PoolPlan& plan : event.plan.pools) launches_.emplace(plan.launch, plan);
  if (stopping_) return expect(event.op, Outcome::kStopping);
  if (reload_ || configured_) return expect(event.op, Outcome::kBusy);
  reload_.emplace();
  reload_->askers.push_back({event.op, "", false});
  reload_->first = true;
  take(event.plan);
}

void Oracle::on(const ReloadRequested& event) {
  remember(event.op, event);
  const auto refuse = [&](Outcome outcome) {
    ++refused_;
    expect(event.op, outcome);
  };
  if (stopping_) return refuse(Outcome::kStopping);
  if (!reload_) return start({{event.op, event.pool, event.restart}});
  // One that nobody waits for is in good hands with another that does all that it would.
  const auto does_it = [&](const Asker& other) {
    const bool pools = other.pool.empty() || other.pool == event.pool;
    return pools && (!other.restart || event.restart);
  };
  const bool joins = event.op || std::ranges::none_of(waiting_, does_it);
  if (joins && waiting_.size() >= limits::kReloadAskers) return refuse(Outcome::kBusy);
  if (joins) waiting_.push_back({event.op, event.pool, event.restart});
  queued_.push_back({event.op, event.pool, reload_->askers.front().op, reload_->first});
}

void Oracle::on(const PlanRead& event) {
  for (const PoolPlan& plan : event.plan.pools) launches_.emplace(plan.launch, plan);
  if (!reload_ || !reload_->reading || reload_->owes_read) return;
  reload_->reading = false;
  event.faults.empty() ? take(event.plan) : reject();
}

void Oracle::on(const ScaleRequested& event) {
  remember(event.op, event);
  Pool* pool = find_pool(event.pool);
  if (pool == nullptr) return expect(event.op, Outcome::kNotFound);
  if (stopping_) return expect(event.op, Outcome::kStopping);
  expect(event.op, Outcome::kDone);
  const int before = target(*pool);
  const auto bounded = [](long value) {
    return static_cast<int>(std::clamp(value, 0L, static_cast<long>(limits::kWorkersPerPool)));
  };
  switch (event.kind) {
    case ScaleKind::kSet:
      pool->scaled = bounded(event.value);
      break;
    case ScaleKind::kAdd:
      pool->scaled = bounded(static_cast<long>(before) + event.value);
      break;
    case ScaleKind::kReset:
      pool->scaled.reset();
      begin_load(*pool, before);
      break;
  }
  if (pool->rollout) pool->rollout->scaled_since = true;
  unsettle_slots(*pool);
}

// Fewer slots may be wanted now. Which were given up shows at the end of the step: not those that
// are held then.
void Oracle::unsettle_slots(Pool& pool) {
  for (const Worker* worker : pool.workers) pool.slots.try_emplace(worker->slot);
  for (auto& [number, slot] : pool.slots) slot.given_up = true;
}

void Oracle::clear_counts(Pool& pool) {
  for (auto& entry : pool.slots) {
    const int number = entry.first;
    Slot& slot = entry.second;
    Slot fresh;
    fresh.given_up = slot.given_up;
    fresh.forgotten = slot.forgotten;
    fresh.vacated = slot.vacated;
    const bool served = std::ranges::any_of(pool.workers, [&](const Worker* worker) {
      return worker->slot == number && worker->serves();
    });
    fresh.proven =
        slot.doublings == 0 || served ? slot.proven : 0;  // what fails is not relied upon
    slot = fresh;
  }
}

void Oracle::on(const WorkerRequested& event) {
  remember(event.op, event);
  Worker* worker = find(event.worker);
  if (worker == nullptr) return expect(event.op, Outcome::kNotFound);
  if (waiting_requests_ >= limits::kOperations) return expect(event.op, Outcome::kBusy);
  const bool recycle = event.request == WorkerRequest::kRecycle;
  if (recycle && (stopping_ || worker->pool->removed)) {
    return expect(event.op, Outcome::kStopping);
  }
  switch (event.request) {
    case WorkerRequest::kRecycle:
      worker->recycle = true;
      break;
    case WorkerRequest::kDrain:
      worker->drained = true;
      break;
    case WorkerRequest::kKill:
      if (worker->active()) leave(*worker, StopCause::kRequested);
      worker->emptying = false;
      if (!worker->killed && !worker->wants_kill) {
        worker->wants_kill = true;
        if (worker->spawned) worker->kill_due = now_;
      }
      break;
  }
  const auto found = operations_.find(event.op);
  if (found == operations_.end()) return;
  found->second.worker = worker->id;
  found->second.pool = worker->pool;
  found->second.slot = worker->slot;
  ++waiting_requests_;
}

void Oracle::on(const StopRequested& event) {
  remember(event.op, event);
  expect(event.op, Outcome::kDone);
  stopping_ = true;
  stopping_now_ = stopping_now_ || event.now;
  abandon();
  if (!event.now) return;
  for (auto& [id, worker] : workers_) {
    worker->emptying = false;
    if (worker->active()) leave(*worker, StopCause::kStop);
    if (worker->killed || worker->wants_kill) continue;
    worker->wants_kill = true;
    if (worker->spawned) worker->kill_due = now_;
  }
}

void Oracle::on(const ListenerOpened& event) {
  if (opening_.erase(event.key) == 0) {
    stray_ = event.key;
    return;
  }
  open_.insert(event.key);
  listener_answered(event.key);
}

void Oracle::on(const ListenerFailed& event) {
  if (opening_.erase(event.key) == 0) return;
  if (reload_ && reload_->opening.contains(event.key)) reload_->failing = true;
  listener_answered(event.key);
}

void Oracle::on(const Spawned& event) {
  Worker* worker = find(event.worker);
  if (worker == nullptr || worker->spawned) return;
  worker->spawned = true;
  if (worker->active()) return;
  if (worker->wants_kill) {
    worker->kill_due = now_;
  } else {
    worker->owes_stop = true;
    worker->stop_due = gone_by(*worker);
  }
}

void Oracle::on(const SpawnFailed& event) {
  Worker* worker = find(event.worker);
  if (worker != nullptr && !worker->spawned) gone(*worker, nullptr);
}

void Oracle::on(const Exited& event) {
  Worker* worker = find(event.worker);
  if (worker != nullptr && worker->spawned) gone(*worker, &event);
}

void Oracle::on(const WorkerSigned& event) {
  Worker* worker = find(event.worker);
  if (worker == nullptr || !worker->spawned || !worker->active()) return;
  switch (event.sign) {
    case WorkerSign::kReady:
      worker->said = worker->said.value_or(now_);
      if (!worker->ready && !worker->care.warming && word_counts(*worker)) can_serve(*worker);
      return;
    case WorkerSign::kHeartbeat:
      worker->last_beat = std::max(now_, worker->last_beat.value_or(now_));
      return;
    case WorkerSign::kStopping:
      leave(*worker, StopCause::kItself);
      worker->stop_due = now_ + worker->plan.stop_timeout;
      break;
    case WorkerSign::kGarbled:
      if (worker->plan.needs_channel) fail(*worker, FailureKind::kGarbled);
      return;
    case WorkerSign::kTrigger:
      return fail(*worker, FailureKind::kTrigger);
    case WorkerSign::kSpeaks:
      worker->care.speaks = true;
      if (!worker->ready && !worker->care.warming && worker->said && word_counts(*worker)) {
        can_serve(*worker);
      }
      return;
    case WorkerSign::kAwake:
      watch_by(*worker->pool, now_ + limits::kWatchEvery);
      return has_work(*worker);
    case WorkerSign::kWorn:
      if (worker->plan.recycle.requests > 0) wear_out(*worker, Wear::kRequests);
      return;
  }
  worker->owes_note = NoteKind::kWorkerStopping;
}

// Whether READY=1 alone makes it ready.
bool Oracle::word_counts(const Worker& worker) {
  const core::ReadyBy by = worker.plan.ready_by;
  return by == core::ReadyBy::kWord || (by == core::ReadyBy::kWordAndSight && worker.care.speaks) ||
         (by == core::ReadyBy::kSight && worker.care.speaks && worker.plan.warmup > 0);
}

// What it is believed by: its word, or eyes, or both, and the eyes after the word.
void Oracle::on(const Seen& event) {
  Worker* worker = find(event.worker);
  if (worker == nullptr || !worker->spawned || !worker->active()) return;
  if (worker->ready || worker->care.warming) return;
  const bool waits = event.sight == core::Sight::kWaiting;
  const core::ReadyBy by = worker->plan.ready_by;
  const bool sight = by == core::ReadyBy::kSight && waits;
  const bool silent = by == core::ReadyBy::kWordAndSight && !worker->said && waits;
  const bool heard = by == core::ReadyBy::kWordAndSight && worker->said &&
                     event.since >= *worker->said && event.sight != core::Sight::kNothing;
  if (sight || ((silent || heard) && !worker->care.speaks)) can_serve(*worker);
}

void Oracle::on(const TimeoutExtended& event) {
  Worker* worker = find(event.worker);
  if (worker == nullptr || !worker->spawned || worker->killed) return;
  const Time until = now_ + std::clamp(event.by, Duration{0}, limits::kExtension);
  if (worker->active() && !worker->ready && worker->start_due) {
    worker->start_due = std::max(*worker->start_due, until);
  } else if (worker->stop_due && !worker->kill_due && !worker->emptying) {
    worker->stop_due = std::max(*worker->stop_due, until);
  }
}

void Oracle::leave(Worker& worker, StopCause cause) {
  worker.told = cause;
  worker.start_due.reset();
  worker.ready_due.reset();
  worker.care.owes_probe = worker.care.owes_accept = false;
}

void Oracle::become_ready(Worker& worker) {
  worker.ready = true;
  worker.ready_at = now_;
  worker.settled_at = now_ + worker.plan.settle;
  worker.proven = settled(worker);
  worker.start_due.reset();
  worker.ready_due.reset();
  if (worker.last_beat) worker.last_beat = now_;
  any_ready_ = true;
  begin_care(worker);
}

// The end of a process, or of the attempt to make one.
void Oracle::gone(Worker& worker, const Exited* exited) {
  Pool& pool = *worker.pool;
  Departed departed;
  departed.pool = &pool;
  departed.slot = worker.slot;
  const bool unexpected = worker.told == StopCause::kNone || worker.told == StopCause::kItself ||
                          worker.told == StopCause::kFault;
  const bool by_itself = unexpected && worker.told != StopCause::kFault;
  const Duration up = now_ - (worker.settled_at - worker.plan.settle);
  departed.in_order = by_itself && worker.ready && exited != nullptr && !exited->signaled &&
                      exited->code == 0 && (exited->answered || up >= std::chrono::seconds(1)) &&
                      may_settle(worker);
  const bool with_zero = by_itself && exited != nullptr && !exited->signaled && exited->code == 0;
  departed.may_have_worked = with_zero && pool.was_full;
  departed.failed = unexpected && !departed.in_order && !stopping_ && !pool.removed;
  std::erase(pool.workers, &worker);
  if (departed.in_order) ended(worker);
  if (departed.failed) died(worker, departed);
  departed_.emplace(worker.id, departed);
  dead_.insert(worker.id);
  workers_.erase(worker.id);
}

// It was of use until it ended: whatever went wrong in its slot before is over. A new generation
// has shown there that it works.
void Oracle::ended(const Worker& worker) {
  Slot& slot = worker.pool->slots[worker.slot];
  if (worker.failed) return;
  if (on_trial(worker)) {
    slot.proven = worker.generation;
    slot.forgotten = slot.given_up;
  }
  slot.quick_deaths = slot.doublings = 0;
  slot.unhealthy = false;
  slot.earliest = slot.latest = std::nullopt;
}

void Oracle::wait(Departed& departed, const PoolPlan& plan, int doublings) const {
  Duration most = plan.backoff_max;
  if (departed.may_have_worked) {
    most = std::min(most, std::max<Duration>(std::chrono::seconds(1), plan.backoff));
  }
  Duration delay = plan.backoff;
  for (int i = 0; i < doublings && delay < most; ++i) delay *= 2;
  delay = std::min(delay, most);
  departed.earliest = now_ + delay - delay / 10;
  departed.latest = now_ + std::min(delay + delay / 10, most);
}

// The slot waits, longer each time, for as long as the books know.
void Oracle::wait_in(Slot& slot, Departed& departed, const PoolPlan& plan) const {
  wait(departed, plan, slot.doublings++);
  departed.sure = slot.sure();
  if (!slot.sure()) {
    departed.earliest.reset();
    departed.latest = now_ + plan.backoff_max;
  }
  slot.earliest = departed.earliest;
  slot.latest = departed.latest;
}

// Whoever is of the generation that is rolled out decides the reload, in whatever slot.
bool Oracle::on_trial(const Worker& worker) {
  return worker.pool->rolling() && worker.generation == worker.pool->rollout->to;
}

// Nothing but time is missing: on trial, its health was found good.
bool Oracle::may_settle(const Worker& worker) {
  return !worker.failed && (worker.care.passed || !worker.plan.health || !on_trial(worker));
}

// It has stayed up for `settle`.
bool Oracle::settled(const Worker& worker) const {
  return worker.proven || (worker.ready && may_settle(worker) && now_ >= worker.settled_at);
}

// Some worker of the desired generation has shown that it works, or it did so before.
bool Oracle::trusted(const Pool& pool) const {
  if (!pool.rolling()) return true;
  const Generation to = pool.desired();
  return std::ranges::any_of(pool.slots, [&](const auto& s) { return s.second.proven == to; }) ||
         std::ranges::any_of(pool.workers, [&](const Worker* worker) {
           return worker->generation == to && worker->serves() && settled(*worker);
         });
}

// One worker fewer that a reload may lose. What its slot relied upon is relied upon no more.
void Oracle::trial_failed(const Worker& worker, Departed& departed) {
  Rollout& rollout = *worker.pool->rollout;
  rollout.failed.insert(worker.id);
  Slot& slot = worker.pool->slots[worker.slot];
  if (slot.proven == rollout.to) slot.proven = slot.fallback;
  departed.may_have_worked = false;  // what is tried out has to show that it works
  if (++rollout.failures < worker.plan.attempts) {
    wait(departed, worker.plan, 0);
    rollout.earliest = departed.earliest;
    rollout.latest = departed.latest;
  } else {
    departed.earliest = departed.latest = now_ - std::chrono::milliseconds(1);  // said as -1
  }
}

// Somebody died who was not told to go: what the slot, or the reload, has to wait for.
void Oracle::died(const Worker& worker, Departed& departed) {
  Pool& pool = *worker.pool;
  const PoolPlan& plan = worker.plan;
  if (!worker.ready) ++pool.failures;
  const Duration up = now_ - (worker.settled_at - plan.settle);
  const bool lived = worker.ready && up >= plan.reset_after;
  if (on_trial(worker) && !worker.failed && !(worker.proven && lived)) {
    return trial_failed(worker, departed);
  }
  Slot& slot = pool.slots[worker.slot];
  const bool given_up = pool.rollout && pool.rollout->back && worker.generation == pool.rollout->to;
  if (worker.failed && !given_up) {  // it was counted before
    if (slot.latest && now_ >= *slot.latest) slot.earliest = slot.latest = std::nullopt;
    departed.sure = slot.sure();
    departed.earliest = slot.earliest;
    departed.latest = slot.sure() ? slot.latest : now_ + plan.backoff_max;
    slot.latest = departed.latest;
  } else if (!given_up) {
    slot.earliest = slot.latest = std::nullopt;
    departed.sure = slot.sure();
    if (lived) {
      slot.quick_deaths = slot.doublings = 0;
      slot.unsure = false;
      departed.sure = slot.sure();
    } else if (++slot.quick_deaths > plan.burst || !worker.ready) {
      wait_in(slot, departed, plan);
    }
    if (!departed.sure) departed.latest = slot.latest = now_ + plan.backoff_max;
  }
  const bool another = std::ranges::any_of(pool.workers, [&](const Worker* other) {
    return other->slot == worker.slot && other->active() && !other->recycle &&
           other->generation == pool.desired();
  });
  if (worker.proven || another) return;
  for (Worker* old : pool.workers) {  // recycling has failed, for what is not worn
    if (old->slot != worker.slot || !old->active()) continue;
    old->recycle = old->recycle && old->care.wear != Wear::kNone;
  }
}

}  // namespace ostler::sim
