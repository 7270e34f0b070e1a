// What the core must do for workers that run: warm-up, health, a watch on their work, their wear.
#include <algorithm>
#include <utility>

#include "core/limits.hpp"
#include "oracle.hpp"

namespace ostler::sim {

using namespace core;  // every word here is the core's

namespace {

// Ten per cent to either side.
Duration spread_of(Duration duration) {
  return duration / 10;
}

}  // namespace

// It said that it can serve, and there may be more to it before it counts as ready.
void Oracle::can_serve(Worker& worker) {
  worker.ready_due.reset();
  if (worker.lacks_channel()) return fail(worker, lack(worker));
  if (worker.plan.warmup > 0) {
    worker.care.warming = 0;
    worker.care.owes_probe = true;
    return;
  }
  become_ready(worker);
  worker.owes_note = NoteKind::kWorkerReady;
}

// It must be aborted in this very step.
void Oracle::fail(Worker& worker, FailureKind kind) {
  leave(worker, StopCause::kFault);
  worker.owes_abort = true;
  worker.owes_note = NoteKind::kWorkerStopping;
  worker.fault = kind;
}

void Oracle::begin_care(Worker& worker) {
  const PoolPlan& plan = worker.plan;
  Care& care = worker.care;
  const auto about = [&](Duration duration) {
    const Duration most = spread_of(duration);
    return Window{now_ + duration - most, now_ + duration + most};
  };
  care.warming.reset();
  care.excused = false;
  if (plan.health)
    care.probe = on_trial(worker) ? Window{now_, now_} : about(plan.health->interval);
  if (plan.recycle.memory) care.measure = about(limits::kMeasureEvery);
  if (care.wear != Wear::kNone) worker.recycle = true;
  if (std::exchange(care.look, std::nullopt)) has_work(worker);
  if (!plan.recycle.lifetime) return;
  care.expiry.earliest = now_ + *plan.recycle.lifetime;
  care.expiry.latest = *care.expiry.earliest + plan.recycle.lifetime_jitter;
}

bool Oracle::cared_for(const Worker* worker) const {
  return worker != nullptr && worker->serves() && !stopping_ && !worker->pool->removed;
}

// --- Warm-up and health
// ---------------------------------------------------------------------------

void Oracle::act(const Probe& action) {
  Worker* worker = find(action.worker);
  if (worker == nullptr) return wrong("probe of one that is not there");
  Care& care = worker->care;
  if (action.warmup >= 0) {
    const bool by_time = worker->lived_until(now_) && !care.warming && !worker->lacks_channel() &&
                         worker->plan.warmup > 0;
    if (by_time) can_serve(*worker);
    check(std::exchange(care.owes_probe, false) && care.warming == action.warmup,
          "warm-up request out of turn: " + name(*worker));
    return;
  }
  check(cared_for(worker) && worker->plan.health, "unfounded health check: " + name(*worker));
  check(!care.probing, "two health checks at once: " + name(*worker));
  check(care.probe.earliest && now_ >= *care.probe.earliest,
        "health check too early: " + name(*worker));
  care.probing = true;
  care.probe = {};
}

void Oracle::act(const LetAccept& action) {
  Worker* worker = find(action.worker);
  check(worker != nullptr && std::exchange(worker->care.owes_accept, false),
        "let to accept out of turn: " + names_.of(action.worker));
}

void Oracle::on(const Probed& event) {
  Worker* worker = find(event.worker);
  if (worker == nullptr || !worker->active()) return;
  event.warmup >= 0 ? warmed_up(*worker, event) : checked(*worker, event);
}

void Oracle::warmed_up(Worker& worker, const Probed& event) {
  Care& care = worker.care;
  if (!care.warming || *care.warming != event.warmup) return;
  const bool excused = std::exchange(care.excused, false);
  if (event.result != ProbeResult::kPassed) {
    if (!excused) return fail(worker, FailureKind::kWarmup);
    care.owes_probe = true;
    return;
  }
  if (++*care.warming < worker.plan.warmup) {
    care.owes_probe = true;
    return;
  }
  care.owes_accept = true;
  become_ready(worker);
  worker.owes_note = NoteKind::kWorkerReady;
}

void Oracle::checked(Worker& worker, const Probed& event) {
  Care& care = worker.care;
  if (!std::exchange(care.probing, false)) return;
  const Time next = now_ + worker.plan.health->interval;
  care.probe = {next, next};
  const bool excused = std::exchange(care.excused, false);
  if (event.result == ProbeResult::kPassed) care.failed_checks = 0;
  if (event.result != ProbeResult::kFailed) {
    care.passed = true;
    Slot& slot = worker.pool->slots[worker.slot];
    if (!slot.unhealthy || worker.failed) return;
    slot.quick_deaths = slot.doublings = 0;
    slot.unhealthy = false;
    slot.earliest = slot.latest = std::nullopt;
    return;
  }
  if (excused) return;
  care.owes_check_note = true;
  if (++care.failed_checks < worker.plan.health->failures || worker.failed) return;
  if (worker.pool->removed || stopping_) return;
  const bool never = !care.passed && worker.generation == worker.pool->desired();
  on_trial(worker) || never ? unfit(worker) : wear_out(worker, Wear::kUnhealthy);
}

// It has never been healthy, or is not while a reload is judged: that counts as if it had died. To
// replace it at once by the next would help nobody.
void Oracle::unfit(Worker& worker) {
  Departed& counted = worker.unfit.emplace();
  counted.pool = worker.pool;
  counted.slot = worker.slot;
  if (on_trial(worker)) {
    trial_failed(worker, counted);
    worker.proven = false;
  } else {
    Slot& slot = worker.pool->slots[worker.slot];
    slot.unhealthy = true;
    wait_in(slot, counted, worker.plan);
  }
  worker.failed = worker.recycle = true;
  if (worker.care.wear == Wear::kNone) worker.care.wear = Wear::kUnhealthy;
}

void Oracle::said_unfit(Worker& worker, const Note& note) {
  if (!worker.unfit) return wrong("called unfit, and is not: " + name(worker));
  check_wait(note, *worker.unfit);
  worker.unfit.reset();
}

void Oracle::unhealthy(Worker& worker, const Note& note) {
  check(std::exchange(worker.care.owes_check_note, false),
        "called unhealthy, and is not: " + name(worker));
  check(note.value == worker.care.failed_checks,
        "failed health checks miscounted: " + name(worker));
}

// --- Work
// -----------------------------------------------------------------------------------------

// Nothing can have lasted too long before the shortest limit has passed.
void Oracle::has_work(Worker& worker) {
  for (const auto& limit : {worker.plan.heartbeat_timeout, worker.plan.request_timeout}) {
    if (limit) look_by(worker, now_ + *limit);
  }
}

void Oracle::look_by(Worker& worker, Time when) {
  worker.care.look = std::min(worker.care.look.value_or(when), when);
}

void Oracle::act(const Look& action) {
  Worker* worker = find(action.worker);
  if (!cared_for(worker)) return wrong("unfounded look: " + names_.of(action.worker));
  check(worker->care.look && now_ >= *worker->care.look,
        "a look though nothing can have lasted too long: " + name(*worker));
  check(action.heartbeat == worker->plan.heartbeat_timeout &&
            action.request == worker->plan.request_timeout,
        "a look with wrong limits: " + name(*worker));
  worker->care.look.reset();
}

// What the manager owes to what began before it stood still.
Duration Oracle::stood_since(Time since) const {
  Duration sum{};
  for (const auto& [until, owed] : stood_still_) {
    if (since <= until) sum += owed;
  }
  return sum;
}

void Oracle::on(const Looked& event) {
  Worker* worker = find(event.worker);
  if (worker == nullptr || !worker->serves()) return;
  if (event.awake) has_work(*worker);
  const auto too_long = [&](const std::optional<Lasting>& work) {
    if (!work) return false;
    const Time until = work->until + stood_since(work->since);
    if (until > now_) look_by(*worker, until);
    return until <= now_;
  };
  if (too_long(event.request)) return fail(*worker, FailureKind::kRequestTimeout);
  if (too_long(event.silent)) return fail(*worker, FailureKind::kSilent);
  if (too_long(event.waiting)) fail(*worker, FailureKind::kStalled);
}

// --- Wear
// -----------------------------------------------------------------------------------------

void Oracle::act(const Measure& action) {
  Worker* worker = find(action.worker);
  if (!cared_for(worker)) return wrong("unfounded measurement: " + names_.of(action.worker));
  check(worker->care.measure.earliest && now_ >= *worker->care.measure.earliest,
        "measured too early: " + name(*worker));
  worker->care.measure = {};
}

void Oracle::on(const Measured& event) {
  Worker* worker = find(event.worker);
  if (worker == nullptr || !worker->serves() || !worker->plan.recycle.memory) return;
  const Time next = now_ + limits::kMeasureEvery;
  worker->care.measure = {next, next};
  if (event.memory && *event.memory > *worker->plan.recycle.memory) {
    wear_out(*worker, Wear::kMemory);
  }
}

void Oracle::wear_out(Worker& worker, Wear wear) {
  if (worker.care.wear != Wear::kNone) return;
  worker.care.wear = wear;
  worker.care.owes_wear_note = true;
  worker.recycle = worker.recycle || worker.ready;
}

void Oracle::worn(Worker& worker, const Note& note) {
  Care& care = worker.care;
  if (!care.owes_wear_note && note.wear == Wear::kStranded) {
    worn_for_stranded(worker);
  } else if (!care.owes_wear_note) {
    const bool expired = care.expiry.earliest && now_ >= *care.expiry.earliest;
    check(cared_for(&worker) && care.wear == Wear::kNone && expired,
          "called worn, and is not: " + name(worker));
    wear_out(worker, Wear::kLifetime);
  }
  care.owes_wear_note = false;
  check(note.wear == care.wear, "worn for another reason: " + name(worker));
}

// One that serves makes room for a successor, which is given the socket; nobody does if somebody is
// about to be given it anyway.
void Oracle::on(const Stranded& event) {
  const auto found =
      std::ranges::find_if(pools_, [&](const auto& pool) { return pool->id == event.pool; });
  if (found == pools_.end() || (*found)->removed || stopping_) return;
  Pool& pool = **found;
  const auto serves_on = [](const Worker* worker) { return worker->serves() && !worker->recycle; };
  const auto active = [](const Worker* worker) { return worker->active(); };
  const auto on_the_way = [&](const Worker* worker) {
    return active(worker) && !serves_on(worker);
  };
  pool.owes_socket = std::ranges::any_of(pool.workers, serves_on) &&
                     std::ranges::none_of(pool.workers, on_the_way);
}

// Whoever is up longest, standing still left out or not.
void Oracle::worn_for_stranded(Worker& worker) {
  Pool& pool = *worker.pool;
  check(std::exchange(pool.owes_socket, false) && worker.serves(),
        "replaced for connections that nobody is known of: " + name(worker));
  const auto counted = [](const Worker& one) { return one.settled_at - one.plan.settle; };
  for (const Worker* other : pool.workers) {
    const bool older = worker.ready_at <= other->ready_at || counted(worker) <= counted(*other);
    check(!other->serves() || older,
          "replaced for stranded connections, and has been up shorter: " + name(worker));
  }
  wear_out(worker, Wear::kStranded);
}

// --- Duties
// ---------------------------------------------------------------------------------------

void Oracle::check_care(const Worker& worker) {
  const Care& care = worker.care;
  if (care.owes_probe) wrong("not warmed up: " + name(worker));
  if (worker.unfit) wrong("nobody says that it is unfit: " + name(worker));
  if (care.owes_accept) wrong("not let to accept: " + name(worker));
  if (care.owes_check_note || care.owes_wear_note) wrong("nothing is said about " + name(worker));
  if (!cared_for(&worker)) return;
  const auto missed = [&](std::optional<Time> time) { return time && now_ >= *time; };
  if (missed(care.probe.latest)) wrong("not checked in time: " + name(worker));
  if (missed(care.look)) wrong("nobody looks at " + name(worker));
  if (missed(care.measure.latest)) wrong("not measured in time: " + name(worker));
  if (missed(care.expiry.latest) && care.wear == Wear::kNone) {
    wrong("lives longer than it may: " + name(worker));
  }
}

std::optional<Time> Oracle::next_care(const Worker& worker) const {
  if (!cared_for(&worker)) return std::nullopt;
  const Care& care = worker.care;
  std::optional<Time> next;
  const auto expiry = care.wear == Wear::kNone ? care.expiry.latest : std::nullopt;
  for (const auto& time : {care.probe.latest, care.look, care.measure.latest, expiry}) {
    if (time && (!next || *time < *next)) next = time;
  }
  return next;
}

}  // namespace ostler::sim
