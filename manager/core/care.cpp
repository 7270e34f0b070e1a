// Looks after workers that run: warm-up, health checks, a watch on their work, and their wear.
//
// What is hung is aborted; what is unhealthy or has served its time is marked, and replaced as by a
// recycle, its successor ready first and within the surge budget.
#include <algorithm>
#include <utility>

#include "core/limits.hpp"
#include "core/machine.hpp"

namespace ostler::core {
namespace {

// The shortest time in which a limit on the work of a worker can be exceeded.
std::optional<Duration> shortest_limit(const PoolPlan& plan) {
  if (!plan.heartbeat_timeout) return plan.request_timeout;
  return std::min(*plan.heartbeat_timeout, plan.request_timeout.value_or(*plan.heartbeat_timeout));
}

void earlier(std::optional<Time>& time, Time other) {
  time = time ? std::min(*time, other) : other;
}

}  // namespace

void Machine::says_ready(Pool& pool, Worker& worker) {
  if (worker.state != WorkerState::kStarting) return;
  if (!worker.starting.said) worker.starting.said = now_;
  const PoolPlan& plan = pool.generations.at(worker.generation);
  switch (plan.ready_by) {
    case ReadyBy::kWord:
      return can_serve(pool, worker);
    case ReadyBy::kWordAndSight:
      // An arbiter says it before its application is loaded. One that knows the channel knows what
      // it says.
      if (worker.care.speaks) can_serve(pool, worker);
      return;
    case ReadyBy::kSight:
      // It waits for the manager's word before it waits for connections.
      if (worker.care.speaks && plan.warmup > 0) can_serve(pool, worker);
      return;
    case ReadyBy::kTime:
      return;
  }
}

void Machine::on(const Seen& event) {
  Pool* pool = nullptr;
  Worker* worker = find(event.worker, &pool);
  if (worker == nullptr || !worker->spawned) {
    ++state_.ignored;
    return;
  }
  if (worker->state != WorkerState::kStarting) return;
  Starting& starting = worker->starting;
  starting.seen = event.sight;
  starting.detail = event.detail;
  const ReadyBy ready_by = pool->generations.at(worker->generation).ready_by;
  if (ready_by != ReadyBy::kSight && ready_by != ReadyBy::kWordAndSight) return;
  const bool both = ready_by == ReadyBy::kWordAndSight;
  if (both && (worker->care.speaks || (starting.said && event.since < *starting.said))) return;
  const bool believed = both && starting.said && event.sight == Sight::kUnknown;
  if (event.sight != Sight::kWaiting && !believed) return;
  touch(*pool);
  can_serve(*pool, *worker);
}

// It says, or is seen, that it can serve: it is warmed up first, if it is to be.
void Machine::can_serve(Pool& pool, Worker& worker) {
  const PoolPlan& plan = pool.generations.at(worker.generation);
  if (worker.care.warming) return;
  if (plan.needs_channel && !worker.care.speaks) {
    Failure failure;
    failure.kind =
        plan.accept == Accept::kDispatch ? FailureKind::kNotDispatchable : FailureKind::kNoChannel;
    failure.after = now_ - worker.started;
    return abort(pool, worker, failure);
  }
  if (plan.warmup == 0) return become_ready(pool, worker);
  worker.care.warming = true;
  act(Probe{worker.id, 0});
}

void Machine::on(const Probed& event) {
  Pool* pool = nullptr;
  Worker* worker = find(event.worker, &pool);
  if (worker == nullptr || !worker->spawned) {
    ++state_.ignored;
    return;
  }
  if (!worker->active()) return;
  touch(*pool);
  event.warmup >= 0 ? on_warmed_up(*pool, *worker, event) : on_checked(*pool, *worker, event);
}

void Machine::on_warmed_up(Pool& pool, Worker& worker, const Probed& event) {
  Care& care = worker.care;
  if (worker.state != WorkerState::kStarting || !care.warming || event.warmup != care.warmed) {
    ++state_.ignored;
    return;
  }
  const bool excused = std::exchange(care.excused, false);
  if (event.result != ProbeResult::kPassed) {
    if (excused) return act(Probe{worker.id, care.warmed});
    Failure failure;
    failure.kind = FailureKind::kWarmup;
    failure.stage = event.detail;
    return abort(pool, worker, failure);
  }
  if (++care.warmed < pool.generations.at(worker.generation).warmup) {
    return act(Probe{worker.id, care.warmed});
  }
  care.warming = false;
  act(LetAccept{worker.id});
  become_ready(pool, worker);
}

void Machine::on_checked(Pool& pool, Worker& worker, const Probed& event) {
  const PoolPlan& plan = pool.generations.at(worker.generation);
  if (!worker.care.probing || !plan.health) {
    ++state_.ignored;
    return;
  }
  worker.care.probing = false;
  worker.care.probe_at = now_ + plan.health->interval;
  const bool excused = std::exchange(worker.care.excused, false);
  if (event.result == ProbeResult::kPassed) worker.care.failed_checks = 0;
  if (event.result != ProbeResult::kFailed) return passed_check(pool, worker);
  if (excused) return;
  Failure failure;
  failure.kind = FailureKind::kUnhealthy;
  failure.stage = event.detail;
  failure.was_ready = true;
  note(pool, worker, NoteKind::kHealthFailed, failure, ++worker.care.failed_checks);
  if (worker.care.failed_checks < plan.health->failures || worker.failed) return;
  if (pool.removed || state_.stopping) return;  // it goes anyway, and serves what waits until then
  pool.last_error = LastError{failure, worker.slot, worker.id, worker.generation, now_};
  if (pool.on_trial(worker)) {  // a reload that brings unhealthy workers has failed
    worker.proven = false;
    unfit(pool, worker);
    return trial_failed(pool, worker, failure, NoteKind::kWorkerUnfit);
  }
  const bool cures_nothing = !worker.care.passed && worker.generation == pool.desired;
  cures_nothing ? never_healthy(pool, worker, failure) : wear_out(pool, worker, Wear::kUnhealthy);
}

// It counts as if it had died, and serves until its successor does.
void Machine::unfit(Pool& pool, Worker& worker) {
  ++pool.restarts;
  worker.failed = true;
  if (worker.wear == Wear::kNone) worker.wear = Wear::kUnhealthy;
  worker.recycle = true;
}

// A worker at work when it was asked is as good as one that passed: it serves.
void Machine::passed_check(Pool& pool, Worker& worker) {
  worker.care.passed = true;
  const auto slot = pool.slots.find(worker.slot);
  const bool cured = slot != pool.slots.end() && slot->second.unhealthy && !worker.failed;
  if (cured) slot->second.forget_failures();
}

// It has not passed a check in the time in which a good one does: to replace it by the next, and
// that by the next, would cure nothing. It serves on while its slot waits: it is better than none.
void Machine::never_healthy(Pool& pool, Worker& worker, const Failure& failure) {
  unfit(pool, worker);
  Duration wait{0};
  if (const auto slot = pool.slots.find(worker.slot); slot != pool.slots.end()) {
    slot->second.unhealthy = true;
    const PoolPlan& plan = pool.generations.at(worker.generation);
    wait_longer(slot->second, plan, plan.backoff_max);
    wait = *slot->second.retry_at - now_;
  }
  note(pool, worker, NoteKind::kWorkerUnfit, failure,
       std::chrono::duration_cast<std::chrono::milliseconds>(wait).count());
}

// It became ready: from now on it is looked after. On trial it is checked at once, so that a
// reload need not wait for the interval.
void Machine::begin_care(const Pool& pool, Worker& worker) {
  const PoolPlan& plan = pool.generations.at(worker.generation);
  Care& care = worker.care;
  if (care.look_at) care.look_at = now_ + *shortest_limit(plan);  // from now on
  if (plan.health && pool.on_trial(worker)) {
    care.probing = true;
    act(Probe{worker.id, -1});
  } else if (plan.health) {
    care.probe_at = now_ + spread(plan.health->interval, Duration::max());
  }
  if (plan.recycle.memory) {
    care.measure_at = now_ + spread(limits::kMeasureEvery, Duration::max());
  }
  if (!plan.recycle.lifetime) return;
  const auto jitter = static_cast<std::uint64_t>(plan.recycle.lifetime_jitter.count());
  const std::uint64_t more = jitter == 0 ? 0 : random() % (jitter + 1);
  care.expires_at = now_ + *plan.recycle.lifetime + Duration(static_cast<Duration::rep>(more));
}

// What is due for a worker that is ready.
void Machine::take_care(Pool& pool, Worker& worker) {
  if (state_.stopping || pool.removed) return;
  const PoolPlan& plan = pool.generations.at(worker.generation);
  Care& care = worker.care;
  const auto due = [&](std::optional<Time>& time) {
    if (!time || *time > now_) return false;
    time.reset();
    return true;
  };
  if (due(care.probe_at)) {
    care.probing = true;
    act(Probe{worker.id, -1});
  }
  if (due(care.look_at)) act(Look{worker.id, plan.heartbeat_timeout, plan.request_timeout});
  if (due(care.measure_at)) act(Measure{worker.id});
  if (due(care.expires_at)) wear_out(pool, worker, Wear::kLifetime);
}

// No limit can be exceeded sooner than the shortest one takes: nobody looks before that.
void Machine::has_work(Pool& pool, Worker& worker) {
  const auto limit = shortest_limit(pool.generations.at(worker.generation));
  if (limit) look_again(pool, worker, now_ + *limit);
}

// This comes often, and changes nothing but the next look: no reason to reconcile the pool.
void Machine::look_again(Pool& pool, Worker& worker, Time when) {
  earlier(worker.care.look_at, when);
  if (worker.ready()) earlier(pool.next_deadline, *worker.care.look_at);
}

void Machine::on(const Looked& event) {
  Pool* pool = nullptr;
  Worker* worker = find(event.worker, &pool);
  if (worker == nullptr || !worker->spawned) {
    ++state_.ignored;
    return;
  }
  if (!worker->ready()) return;
  if (event.awake) has_work(*pool, *worker);
  for (const auto& [lasting, kind] : {std::pair(&event.request, FailureKind::kRequestTimeout),
                                      std::pair(&event.silent, FailureKind::kSilent),
                                      std::pair(&event.waiting, FailureKind::kStalled)}) {
    if (!*lasting) continue;
    const Lasting& work = **lasting;
    const Duration lost = lost_since(work.since);
    if (work.until + lost > now_) {
      look_again(*pool, *worker, work.until + lost);
      continue;
    }
    Failure failure;
    failure.kind = kind;
    failure.stage = work.what;
    failure.after = std::max(Duration{0}, now_ - work.since - lost);
    failure.was_ready = true;
    touch(*pool);
    return abort(*pool, *worker, failure);
  }
}

// What a scoreboard tells of a time in which the manager stood still is held against nobody: the
// worker may have stood still with it.
Duration Machine::lost_since(Time since) const {
  Duration lost{};
  for (const Stall& stall : state_.stalls) lost += stall.woke >= since ? stall.lost : Duration{};
  return lost;
}

void Machine::on(const Measured& event) {
  Pool* pool = nullptr;
  Worker* worker = find(event.worker, &pool);
  if (worker == nullptr || !worker->spawned) {
    ++state_.ignored;
    return;
  }
  const auto limit = pool->generations.at(worker->generation).recycle.memory;
  if (!worker->ready() || !limit) return;
  touch(*pool);
  worker->care.measure_at = now_ + limits::kMeasureEvery;
  if (event.memory.value_or(0) <= *limit) return;
  wear_out(*pool, *worker, Wear::kMemory, static_cast<std::int64_t>(*event.memory));
}

// It is replaced as soon as its pool can, but not before it serves: to start one after the other of
// workers that are worn out by their own start would help nobody.
void Machine::wear_out(Pool& pool, Worker& worker, Wear wear, std::int64_t value) {
  if (worker.wear != Wear::kNone) return;
  worker.wear = wear;
  worker.recycle = worker.recycle || worker.ready();
  note(pool, worker, NoteKind::kWorkerWorn, {}, value);
}

// One worker that serves makes room for a successor, which is given the socket. Whoever is up
// longest goes, as in a scale-down.
void Machine::on(const Stranded& event) {
  const auto found = state_.pools.find(event.pool);
  if (found == state_.pools.end() || found->second.removed || state_.stopping) {
    ++state_.ignored;
    return;
  }
  Pool& pool = found->second;
  Worker* oldest = nullptr;
  for (auto& [id, worker] : pool.workers) {
    if (worker.active() && !worker.ready()) return;  // it has been given the socket, or will be
    if (worker.recycle && worker.active()) return;   // its successor will be
    if (!worker.ready() || (oldest != nullptr && oldest->ready_at <= worker.ready_at)) continue;
    oldest = &worker;
  }
  if (oldest == nullptr) return;
  wear_out(pool, *oldest, Wear::kStranded);
  touch(pool);
}

std::uint64_t Machine::draw_requests(const RecyclePlan& recycle) {
  if (recycle.requests == 0 || recycle.requests_jitter == 0) return recycle.requests;
  return recycle.requests + random() % (recycle.requests_jitter + 1);
}

}  // namespace ostler::core
