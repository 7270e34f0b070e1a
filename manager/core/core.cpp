#include "core/core.hpp"

#include <algorithm>
#include <utility>

#include "core/limits.hpp"
#include "core/machine.hpp"

namespace ostler::core {

Core::Core(std::uint64_t seed) {
  state_.jitter = seed;
}

Core::Core(State state) : state_(std::move(state)) {}

std::optional<Time> Core::step(const Event& event, Time now, Actions& actions) {
  apply(event, now, actions);
  return reconcile(now, actions);
}

void Core::apply(const Event& event, Time now, Actions& actions) {
  if (state_.exited) return;
  Machine machine(state_, now, actions);
  machine.notice_time();
  std::visit([&](const auto& what) { machine.on(what); }, event);
}

std::optional<Time> Core::reconcile(Time now, Actions& actions) {
  if (state_.exited) return std::nullopt;
  Machine machine(state_, now, actions);
  machine.notice_time();
  return machine.reconcile();
}

// A manager that stood still has missed what its workers said meanwhile: every deadline moves by
// the time it lost, and by a grace in which it can catch up on what they said.
void Machine::notice_time() {
  if (state_.promised && now_ > *state_.promised + limits::kLate) {
    const Duration stood = now_ - *state_.promised;
    const Duration lost = stood + limits::kGrace;
    for (auto& [id, pool] : state_.pools) {
      if (pool.serves_backlog()) {
        pool.closing->since += lost;
        pool.closing->until += lost;
      }
      for (auto& [worker_id, worker] : pool.workers) {
        if (worker.deadline) *worker.deadline += lost;
        if (worker.last_beat) *worker.last_beat += lost;
        worker.care.excused = worker.care.probing || worker.care.warming;
        // Nobody saw whether it stayed up meanwhile.
        if (worker.was_ready) worker.ready_at += stood;
        if (worker.active() && !worker.ready()) worker.started += stood;
      }
    }
    state_.stalls.push_back({now_, lost});
    if (state_.stalls.size() > limits::kStalls) state_.stalls.pop_front();
    Note jumped;
    jumped.kind = NoteKind::kClockJumped;
    jumped.value = std::chrono::duration_cast<std::chrono::milliseconds>(stood).count();
    act(jumped);
    touch_all();
    state_.promised = now_;
  }
  state_.now = now_;
}

void Machine::on(const ScaleRequested& event) {
  const auto found = std::ranges::find_if(state_.pools, [&](const auto& entry) {
    return entry.second.name == event.pool && !entry.second.removed;
  });
  if (found == state_.pools.end()) return reply(event.op, Outcome::kNotFound);
  if (state_.stopping) return reply(event.op, Outcome::kStopping);
  Pool& pool = found->second;
  ScaleDecision decision;
  decision.from = pool.target();
  switch (event.kind) {
    case ScaleKind::kSet:
      pool.scaled = std::clamp(event.value, 0, limits::kWorkersPerPool);
      break;
    case ScaleKind::kAdd: {
      const int difference =
          std::clamp(event.value, -limits::kWorkersPerPool, limits::kWorkersPerPool);
      pool.scaled = std::clamp(pool.target() + difference, 0, limits::kWorkersPerPool);
      break;
    }
    case ScaleKind::kReset:
      pool.scaled.reset();
      begin_scaling(pool, decision.from);
      break;
  }
  if (pool.rollout) {
    pool.rollout->rescaled = true;
    pool.rollout->scaled_before = pool.scaled;  // a rollback keeps it
  }
  note(pool, decision);
  touch(pool);
  reply(event.op, Outcome::kDone);
}

void Machine::on(const WorkerRequested& event) {
  Pool* pool = nullptr;
  Worker* worker = find(event.worker, &pool);
  if (worker == nullptr) return reply(event.op, Outcome::kNotFound);
  // Without an operation nobody waits for its end.
  if (event.op && state_.operations.size() >= limits::kOperations) {
    return reply(event.op, Outcome::kBusy);
  }
  const bool recycle = event.request == WorkerRequest::kRecycle;
  if (recycle && (state_.stopping || pool->removed)) return reply(event.op, Outcome::kStopping);
  switch (event.request) {
    case WorkerRequest::kRecycle:
      worker->recycle = true;
      break;
    case WorkerRequest::kDrain:
      if (worker->active()) retire(*pool, *worker, StopCause::kRequested);
      break;
    case WorkerRequest::kKill:
      if (worker->active()) worker->cause = StopCause::kRequested;
      if (worker->state != WorkerState::kKilling) kill(*worker);
      break;
  }
  touch(*pool);
  if (!event.op) return;
  state_.operations.push_back({event.op, event.request, pool->id, worker->slot, worker->id});
}

void Machine::on(const Spawned& event) {
  Pool* pool = nullptr;
  Worker* worker = find(event.worker, &pool);
  if (worker == nullptr || worker->spawned) {
    ++state_.ignored;
    return;
  }
  worker->spawned = true;
  touch(*pool);
  switch (worker->state) {
    case WorkerState::kSpawning:
      worker->state = WorkerState::kStarting;
      break;
    case WorkerState::kDraining:
      ask_to_stop(*pool, *worker);
      break;
    case WorkerState::kAborting:
    case WorkerState::kKilling:
      kill(*worker);
      break;
    case WorkerState::kStarting:
    case WorkerState::kReady:
      break;  // not before Spawned
  }
}

void Machine::on(const SpawnFailed& event) {
  Pool* pool = nullptr;
  Worker* worker = find(event.worker, &pool);
  if (worker == nullptr || worker->spawned) {
    ++state_.ignored;
    return;
  }
  Failure failure;
  failure.kind = FailureKind::kSpawn;
  failure.stage = event.stage;
  failure.error = event.error;
  const Worker gone = *worker;
  pool->workers.erase(gone.id);
  touch(*pool);
  if (gone.active() || gone.cause == StopCause::kFault) return died(*pool, gone, failure);
  note(*pool, gone, NoteKind::kWorkerExited, failure);
}

void Machine::on(const WorkerSigned& event) {
  Pool* pool = nullptr;
  Worker* worker = find(event.worker, &pool);
  if (worker == nullptr || !worker->spawned) {
    ++state_.ignored;
    return;
  }
  if (!worker->active()) return;  // it may talk until it is gone; nothing depends on it
  switch (event.sign) {
    case WorkerSign::kReady:
      says_ready(*pool, *worker);
      break;
    case WorkerSign::kHeartbeat: {
      // The first one makes a deadline; later ones only move it, which a step finds out by itself.
      const bool first = !worker->last_beat;
      worker->last_beat = first ? now_ : std::max(*worker->last_beat, now_);  // grace stays
      if (first) touch(*pool);
      return;
    }
    case WorkerSign::kStopping:
      worker->state = WorkerState::kDraining;
      worker->cause = StopCause::kItself;
      worker->deadline = now_ + pool->generations.at(worker->generation).stop_timeout;
      note(*pool, *worker, NoteKind::kWorkerStopping);
      break;
    case WorkerSign::kGarbled:
      if (!pool->generations.at(worker->generation).needs_channel) return;
      [[fallthrough]];
    case WorkerSign::kTrigger: {
      const bool garbled = event.sign == WorkerSign::kGarbled;
      Failure failure;
      failure.kind = garbled ? FailureKind::kGarbled : FailureKind::kTrigger;
      failure.was_ready = worker->was_ready;
      failure.after = now_ - worker->started;
      abort(*pool, *worker, failure);
      break;
    }
    case WorkerSign::kSpeaks:
      worker->care.speaks = true;
      if (!worker->starting.said) return;
      says_ready(*pool, *worker);  // which meant less before
      break;
    case WorkerSign::kAwake:
      watch_soon(*pool);
      has_work(*pool, *worker);
      return;
    case WorkerSign::kWorn: {
      const bool asked = pool->generations.at(worker->generation).recycle.requests > 0;
      if (asked) wear_out(*pool, *worker, Wear::kRequests);
      break;
    }
  }
  touch(*pool);
}

void Machine::on(const TimeoutExtended& event) {
  Pool* pool = nullptr;
  Worker* worker = find(event.worker, &pool);
  if (worker == nullptr) {
    ++state_.ignored;
    return;
  }
  // Whoever has not been asked to stop yet means something else by it.
  const bool extensible = worker->state == WorkerState::kStarting ||
                          (worker->state == WorkerState::kDraining && !worker->emptying);
  if (!extensible || !worker->deadline) return;
  const Duration by = std::clamp(event.by, Duration{0}, limits::kExtension);
  worker->deadline = std::max(*worker->deadline, now_ + by);
  touch(*pool);
}

void Machine::on(const QueueEmptied& event) {
  Pool* pool = nullptr;
  Worker* worker = find(event.worker, &pool);
  if (worker == nullptr || !worker->emptying) {
    ++state_.ignored;
    return;
  }
  ask_to_stop(*pool, *worker);
  touch(*pool);
}

// Why an exit is a failure; nullopt if the worker was to go.
std::optional<Failure> Machine::death_of(const Worker& worker, const Exited& event) const {
  switch (worker.cause) {
    case StopCause::kReplaced:
    case StopCause::kRecycled:
    case StopCause::kUnhealthy:
    case StopCause::kRolledBack:
    case StopCause::kScaledDown:
    case StopCause::kRemoved:
    case StopCause::kStop:
    case StopCause::kRequested:
      return std::nullopt;
    case StopCause::kNone:
    case StopCause::kItself:
    case StopCause::kFault:
      break;
  }
  Failure failure;
  if (worker.fault && worker.cause == StopCause::kFault) {
    failure = *worker.fault;
  } else {
    failure.kind = event.signaled ? FailureKind::kSignaled : FailureKind::kExited;
    failure.code = event.code;
    failure.after = now_ - worker.started;
    failure.stage = event.left_running;
  }
  failure.core_dumped = event.core_dumped;
  failure.was_ready = worker.was_ready;
  return failure;
}

void Machine::on(const Exited& event) {
  Pool* pool = nullptr;
  Worker* worker = find(event.worker, &pool);
  if (worker == nullptr || !worker->spawned) {
    ++state_.ignored;
    return;
  }
  Worker gone = *worker;
  pool->workers.erase(gone.id);
  touch(*pool);
  const bool in_order = ended_in_order(*pool, gone, event);
  if (in_order) {
    gone.cause = StopCause::kItself;
    ended(*pool, gone);
  } else if (const auto failure = death_of(gone, event)) {
    return died(*pool, gone, *failure);
  }
  Failure how;
  how.kind = event.signaled ? FailureKind::kSignaled : FailureKind::kExited;
  how.code = event.code;
  how.was_ready = gone.was_ready;
  how.after = now_ - gone.started;
  note(*pool, gone, NoteKind::kWorkerExited, gone.fault ? *gone.fault : how);
}

// By itself, and not before it was of use. A worker that is ready and ends at once is of none, nor
// is one on trial that has passed no health check.
bool Machine::ended_in_order(const Pool& pool, const Worker& worker, const Exited& event) const {
  const bool by_itself = worker.cause == StopCause::kNone || worker.cause == StopCause::kItself;
  if (!by_itself || event.signaled || event.code != 0 || !worker.was_ready) return false;
  if (!may_settle(pool, worker)) return false;
  return event.answered || now_ - worker.ready_at >= limits::kWorked;
}

// It ended in order: its slot is filled again at once, and what others did wrong there before is
// forgotten. Of a new generation, such a worker has proven itself: it may never live for `settle`.
void Machine::ended(Pool& pool, const Worker& worker) {
  const auto slot = pool.slots.find(worker.slot);
  if (slot == pool.slots.end() || worker.failed) return;
  if (pool.on_trial(worker)) slot->second.proven = worker.generation;
  slot->second.forget_failures();
}

namespace {

std::int64_t milliseconds(Duration duration) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(duration).count();
}

}  // namespace

// A worker is gone that was not told to go. `worker` is no longer in the table.
void Machine::died(Pool& pool, const Worker& worker, const Failure& failure) {
  if (state_.stopping || pool.removed) {
    return note(pool, worker, NoteKind::kWorkerExited, failure);
  }
  if (!worker.failed) ++pool.restarts;
  pool.last_error = LastError{failure, worker.slot, worker.id, worker.generation, now_};
  const PoolPlan& plan = pool.generations.at(worker.generation);
  const bool lived = worker.proven && now_ - worker.ready_at >= plan.reset_after;
  if (pool.on_trial(worker) && !lived && !worker.failed) {
    return trial_failed(pool, worker, failure, NoteKind::kWorkerFailed);
  }
  const auto slot = pool.slots.find(worker.slot);
  // Nobody waits for a generation that is given up.
  const bool given_up =
      pool.rollout && worker.generation != pool.desired && worker.generation == pool.rollout->to;
  const bool counts = slot != pool.slots.end() && !given_up && !worker.failed;
  if (counts) back_off(slot->second, worker, plan, longest_wait(pool, failure, plan));
  const bool waits = slot != pool.slots.end() && slot->second.retry_at && !given_up;
  const auto wait = waits ? std::max(*slot->second.retry_at - now_, Duration{0}) : Duration{0};
  note(pool, worker, NoteKind::kWorkerFailed, failure, milliseconds(wait));
  successor_failed(pool, worker, failure);
  // The old generation cannot be had back either: say so now, and go on trying.
  if (waits && pool.rollout && pool.rollout->rolling_back) {
    finish_rollout(pool, Outcome::kRolledBack);
  }
}

// A worker of the generation on trial died or failed its checks, in whatever slot. `attempts` are
// counted over the pool.
void Machine::trial_failed(Pool& pool, const Worker& worker, const Failure& failure,
                           NoteKind kind) {
  Rollout& rollout = *pool.rollout;
  const PoolPlan& plan = pool.generations.at(worker.generation);
  ++rollout.failures;
  const auto slot = pool.slots.find(worker.slot);
  const bool relied_upon = slot != pool.slots.end() && slot->second.proven == rollout.to;
  if (relied_upon) slot->second.proven = slot->second.fallback;  // it served well until now
  const Duration delay = spread(plan.backoff, plan.backoff_max);
  const bool again = rollout.failures < plan.attempts;
  if (again) rollout.retry_at = now_ + delay;
  note(pool, worker, kind, failure, again ? milliseconds(delay) : -1);
  if (!again) roll_back(pool, failure, worker.id);
}

// Nobody knows whether a program that ends with 0 soon after its start has served: under load, one
// that ends after so many requests lives for milliseconds. So its slot waits, lest it spin, and
// where the pool has served before it waits briefly.
Duration Machine::longest_wait(const Pool& pool, const Failure& failure, const PoolPlan& plan) {
  const bool may_have_worked =
      failure.kind == FailureKind::kExited && failure.code == 0 && pool.was_full;
  if (!may_have_worked) return plan.backoff_max;
  return std::min(std::max<Duration>(limits::kWorked, plan.backoff), plan.backoff_max);
}

void Machine::back_off(Slot& slot, const Worker& worker, const PoolPlan& plan, Duration longest) {
  slot.retry_at.reset();
  if (worker.was_ready && now_ - worker.ready_at >= plan.reset_after) {
    slot.quick_deaths = 0;
    slot.doublings = 0;
    return;
  }
  ++slot.quick_deaths;
  if (worker.was_ready && slot.quick_deaths <= plan.burst) return;
  wait_longer(slot, plan, longest);
}

void Machine::wait_longer(Slot& slot, const PoolPlan& plan, Duration longest) {
  Duration delay = plan.backoff;
  for (int i = 0; i < slot.doublings && delay < longest; ++i) delay *= 2;
  slot.retry_at = now_ + spread(std::min(delay, longest), longest);
  slot.doublings = std::min(slot.doublings + 1, limits::kBackoffDoublings);
}

// A recycle whose successor does not come up is given up, if an operator asked for it: the old
// worker stays. One that has served its time gets another, as soon as the slot has waited.
void Machine::successor_failed(Pool& pool, const Worker& worker, const Failure& failure) {
  const bool another = std::ranges::any_of(pool.workers, [&](const auto& entry) {
    const Worker& other = entry.second;
    return other.slot == worker.slot && other.active() && !other.recycle &&
           other.generation == pool.desired;
  });
  if (worker.proven || another) return;
  for (auto& entry : pool.workers) {
    Worker& old = entry.second;
    if (old.slot != worker.slot || !old.active() || !old.recycle) continue;
    old.recycle = old.wear != Wear::kNone;
    std::erase_if(state_.operations, [&](const WorkerOperation& operation) {
      if (operation.worker != old.id || operation.request != WorkerRequest::kRecycle) return false;
      reply(operation.op, Outcome::kFailed, worker.id, failure);
      return true;
    });
  }
}

// The generator is part of the state (splitmix64).
std::uint64_t Machine::random() {
  std::uint64_t z = (state_.jitter += 0x9e3779b97f4a7c15U);
  z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31U);
}

// Ten per cent to either side.
Duration Machine::spread(Duration delay, Duration most) {
  const auto tenth = delay.count() / 10;
  if (tenth == 0) return delay;
  const auto offset =
      static_cast<Duration::rep>(random() % static_cast<std::uint64_t>(2 * tenth + 1));
  return std::min(delay - Duration(tenth) + Duration(offset), most);
}

void Machine::spawn(Pool& pool, int slot, Generation generation) {
  const PoolPlan& plan = pool.generations.at(generation);
  Worker worker;
  worker.id = WorkerId{++state_.last_id};
  worker.slot = slot;
  worker.generation = generation;
  worker.started = now_;
  worker.deadline = now_ + plan.start_timeout;
  --spawns_left_;
  act(Spawn{worker.id, pool.id, pool.name, slot, generation, plan.launch,
            draw_requests(plan.recycle)});
  note(pool, worker, NoteKind::kWorkerStarting);
  pool.workers.emplace(worker.id, worker);
}

void Machine::become_ready(Pool& pool, Worker& worker) {
  worker.state = WorkerState::kReady;
  worker.was_ready = true;
  worker.ready_at = now_;
  worker.deadline.reset();
  if (worker.last_beat) worker.last_beat = now_;
  if (worker.wear != Wear::kNone) worker.recycle = true;
  state_.any_ready = true;
  worker.proven = has_settled(pool, worker);
  note(pool, worker, NoteKind::kWorkerReady);
  begin_care(pool, worker);
}

void Machine::retire(Pool& pool, Worker& worker, StopCause cause) {
  const PoolPlan& plan = pool.generations.at(worker.generation);
  worker.state = WorkerState::kDraining;
  worker.cause = cause;
  worker.deadline = gone_by(pool, worker);
  note(pool, worker, NoteKind::kWorkerStopping);
  if (!worker.spawned) return;
  if (!state_.stopping && !pool.removed && worker.was_ready) {
    // Without surge it may be the only one: then its successor gets what waits.
    const bool alone = pool.stops_first() && pool.count_ready() == 0;
    const bool own_queue = plan.accept == Accept::kReuseport && !alone;
    std::vector<std::string> last = last_served_by(pool, worker);
    worker.emptying = own_queue || !last.empty();
    if (worker.emptying) return act(EmptyQueue{worker.id, std::move(last)});
  }
  signal(worker, SignalKind::kStop);
}

void Machine::ask_to_stop(const Pool& pool, Worker& worker) {
  worker.emptying = false;
  worker.deadline = gone_by(pool, worker);
  signal(worker, SignalKind::kStop);
}

void Machine::abort(Pool& pool, Worker& worker, const Failure& failure) {
  worker.cause = StopCause::kFault;
  worker.fault = failure;
  note(pool, worker, NoteKind::kWorkerStopping, failure);
  if (!worker.spawned) return kill(worker);
  worker.state = WorkerState::kAborting;
  worker.deadline = now_ + limits::kAbort;
  signal(worker, SignalKind::kAbort);
}

void Machine::kill(Worker& worker) {
  worker.state = WorkerState::kKilling;
  worker.emptying = false;
  worker.deadline = now_ + limits::kKillAgain;
  if (worker.spawned) signal(worker, SignalKind::kKill);
}

void Machine::signal(const Worker& worker, SignalKind kind) {
  act(SignalWorker{worker.id, kind});
}

Worker* Machine::find(WorkerId id, Pool** pool) {
  for (auto& [pool_id, candidate] : state_.pools) {
    const auto found = candidate.workers.find(id);
    if (found == candidate.workers.end()) continue;
    *pool = &candidate;
    return &found->second;
  }
  return nullptr;
}

void Machine::touch_all() {
  for (const auto& [id, pool] : state_.pools) state_.touched.insert(id);
}

void Machine::reply(OperationId op, Outcome outcome, WorkerId worker,
                    std::optional<Failure> reason) {
  if (!op) return;
  Reply answer;
  answer.op = op;
  answer.outcome = outcome;
  answer.worker = worker;
  answer.reason = std::move(reason);
  act(std::move(answer));
}

void Machine::note(const Pool& pool, const Worker& worker, NoteKind kind,
                   std::optional<Failure> failure, std::int64_t value) {
  Note note;
  note.kind = kind;
  note.pool = pool.name;
  note.slot = worker.slot;
  note.worker = worker.id;
  note.generation = worker.generation;
  note.cause = worker.cause;
  note.wear = worker.wear;
  note.failure = std::move(failure);
  note.value = value;
  act(std::move(note));
}

void Machine::note(const Pool& pool, NoteKind kind, std::int64_t value, Outcome outcome,
                   std::optional<Failure> failure) {
  Note note;
  note.kind = kind;
  note.pool = pool.name;
  note.generation = pool.desired;
  note.value = value;
  note.outcome = outcome;
  note.failure = std::move(failure);
  act(std::move(note));
}

// Tells the shell that a launch is of no use any more, if that is so.
void Machine::release(LaunchId launch) {
  const auto uses = [&](const PoolPlan& plan) { return plan.launch == launch; };
  for (const auto& [id, pool] : state_.pools) {
    for (const auto& [generation, plan] : pool.generations) {
      if (uses(plan)) return;
    }
  }
  if (state_.reload && std::ranges::any_of(state_.reload->plan.pools, uses)) return;
  act(DropLaunch{launch});
}

}  // namespace ostler::core
