// Follows the load: how many workers a pool has where its plan gives bounds instead of a number.
//
// Watching. While a pool has load, or more workers than its min, the shell is asked for it every
// kWatchEvery. When nothing is in use, nobody waits and no worker can be given up, nobody asks any
// more, and the pool costs no wake-ups: a worker that wakes, or somebody who connects (Demand),
// starts it again. Answers that are further apart than kLoadGap (the manager stood still, the shell
// was late) do not make a span between them: it begins anew, and nothing is decided on such an
// answer.
//
// Up. `wanted` says how many workers the load asks for; more than the target for `up_after` in a
// row, and the last answer's number is the new target, at most max. At once if a listen queue is
// full, or if there is no worker at all.
//   by busy: work / target; work is what is in use, in workers. That does not depend on how many
//     workers there are, so it is stable by itself; and workers that are still starting do not add
//     to it, so that it exceeds a target that was raised only if there is more to do than was
//     known.
//   by backlog: more than target × workers wait. A queue says that there is too little, not by how
//     much: its length grows with the time for which there has been too little. So its length
//     bounds the answer (with waiting / target workers each has its share), and so does a doubling.
//     And while workers are starting it says nothing: it grows until they are there.
// A pool with a slot whose worker fails again and again is not scaled up: more of what crashes
// serves nobody, and takes room and time from those that do not.
//
// Down. Fewer must have been enough for `down_after` in a row. That time is cut into kCalmParts;
// the average of each says how many it needed with a margin (the load would be below nine tenths of
// target with them), and the busiest part's number is the new target: with it, no part of the time
// would have been a reason to scale up. One answer's number would follow each quarter of a second's
// luck, and the average of the whole would forget the bursts. A backlog of none does not say how
// many can be spared, so there it is one at a time, as long as at most half of what may wait does
// and, if workers tell, they are not in use all the same. During a rollout nobody is given up: the
// load is not what it will be.
//
// A scale-down is wrong if it is followed by a scale-up before it has stood for `down_after` (and
// `up_after`, which the scale-up takes). Then the next one takes twice as long, up to
// kCalmDoublings times; each that proves right takes one doubling back. So a load that swings with
// a period near `down_after` is not followed for long.
#include <algorithm>

#include "core/limits.hpp"
#include "core/machine.hpp"

namespace ostler::core {
namespace {

std::int64_t quotient_up(std::int64_t number, std::int64_t by) {
  return (number + by - 1) / by;
}

// What cannot be is cut to what can.
LoadSeen bounded(LoadSeen load) {
  load.capacity = std::clamp<std::int64_t>(load.capacity, 0, limits::kCapacity);
  load.used = std::clamp<std::int64_t>(load.used, 0, load.capacity);
  load.waiting = std::clamp<std::int64_t>(load.waiting, 0, limits::kWaiting);
  return load;
}

std::int64_t share_in_use(const LoadSeen& load) {
  return load.capacity == 0 ? 0 : quotient_up(load.used * 1000, load.capacity);
}

// Thousandths of workers at work, all ready ones taken like those that tell.
std::int64_t work_of(const Pool& pool, const LoadSeen& load) {
  return share_in_use(load) * pool.count_ready();
}

std::int64_t allowed(const ScalingPlan& plan) {
  return std::max<std::int64_t>(plan.target, 1);
}

// A slot has had to wait, and nobody serves in it.
bool failing(const Pool& pool) {
  if (pool.rollout && pool.rollout->failures > 0) return true;
  return std::ranges::any_of(pool.slots, [&](const auto& entry) {
    return entry.second.doublings > 0 && std::ranges::none_of(pool.workers, [&](const auto& other) {
             return other.second.slot == entry.first && other.second.ready();
           });
  });
}

// How many workers a queue asks for.
std::int64_t wanted_by_queue(const Pool& pool, const LoadSeen& load) {
  const std::int64_t target = pool.target();
  if (target == 0) return load.waiting > 0 ? 1 : 0;
  if (pool.count_ready() < target) return 0;
  if (load.full) return 2 * target;
  const std::int64_t share = allowed(*pool.plan().scaling);
  if (pool.plan().scaling->by != ScaleBy::kBacklog) return 0;
  if (load.waiting * 1000 <= share * target) return 0;
  return std::min(2 * target, quotient_up(load.waiting * 1000, share));
}

std::int64_t wanted_by_work(const Pool& pool, const LoadSeen& load) {
  const ScalingPlan& plan = *pool.plan().scaling;
  return plan.by == ScaleBy::kBusy ? quotient_up(work_of(pool, load), allowed(plan)) : 0;
}

// How many workers would have done for the part that is over; no fewer than there are if none can
// be spared.
std::int64_t needed(const Pool& pool, const Calm& calm) {
  const ScalingPlan& plan = *pool.plan().scaling;
  const int target = pool.target();
  const std::int64_t work = quotient_up(calm.work, calm.answers);
  const std::int64_t least = calm.work > 0 || calm.waiting > 0 ? 1 : 0;
  if (plan.by == ScaleBy::kBusy) {
    const std::int64_t share = std::max<std::int64_t>(allowed(plan) * 9 / 10, 1);
    return std::max(least, quotient_up(work, share));
  }
  const bool waits = calm.waiting * 2000 > allowed(plan) * (target - 1) * calm.answers;
  if (waits) return target;
  return std::max<std::int64_t>({least, target - 1, quotient_up(work, 1000)});
}

}  // namespace

// The load takes over from another way to set the target, or another generation's bounds hold.
// Nobody is given up for that: the load decides, beginning from what there was.
void Machine::begin_scaling(Pool& pool, int held) {
  const auto& plan = pool.plan().scaling;
  if (!plan) return;
  Scaling scaling;
  scaling.target = std::clamp(held, plan->min, plan->max);
  scaling.watching = pool.scaling.watching;
  scaling.awaiting = pool.scaling.awaiting;
  if (pool.follows_load()) scaling.watch_at = now_;
  pool.scaling = scaling;
}

// Asks for the load when it is time, or for a word when there is any.
void Machine::watch_load(Pool& pool) {
  Scaling& scaling = pool.scaling;
  if (state_.stopping || !pool.follows_load()) return scaling.watch_at.reset();
  if (scaling.watching) return;
  if (scaling.watch_at && *scaling.watch_at <= now_) {
    scaling.watch_at.reset();
    scaling.watching = true;
    scaling.awaiting = false;
    return act(Watch{pool.id, pool.name});
  }
  if (scaling.watch_at || scaling.awaiting) return;
  scaling.awaiting = true;
  act(AwaitDemand{pool.id, pool.name});
}

// This comes often, and changes nothing but the next question: no reason to reconcile the pool.
void Machine::watch_soon(Pool& pool) {
  if (state_.stopping || !pool.follows_load()) return;
  const Time next = now_ + limits::kWatchEvery;
  Scaling& scaling = pool.scaling;
  scaling.watch_at = std::min(scaling.watch_at.value_or(next), next);
  if (scaling.watching) return;  // the answer comes first
  const Time watch_at = *scaling.watch_at;
  pool.next_deadline = std::min(pool.next_deadline.value_or(watch_at), watch_at);
}

void Machine::on(const LoadSeen& event) {
  const auto found = state_.pools.find(event.pool);
  if (found == state_.pools.end() || !found->second.scaling.watching) {
    ++state_.ignored;
    return;
  }
  Pool& pool = found->second;
  pool.scaling.watching = false;
  if (state_.stopping || !pool.follows_load()) return;
  const LoadSeen load = bounded(event);
  judge_load(pool, load);
  const bool more = load.used > 0 || load.waiting > 0 || pool.target() > pool.plan().scaling->min;
  if (more) return watch_soon(pool);
  pool.scaling.seen_at.reset();
  touch(pool);
}

void Machine::on(const Demand& event) {
  const auto found = state_.pools.find(event.pool);
  if (found == state_.pools.end() || !found->second.scaling.awaiting) {
    ++state_.ignored;
    return;
  }
  Pool& pool = found->second;
  pool.scaling.awaiting = false;
  if (state_.stopping || !pool.follows_load()) return;
  judge_last_scale_down(pool);
  if (pool.target() == 0) scale(pool, 1, {ScaleReason::kDemand, 0, 1, 0, {}, false});
  watch_soon(pool);
}

void Machine::judge_load(Pool& pool, const LoadSeen& load) {
  Scaling& scaling = pool.scaling;
  const bool follows = !scaling.seen_at || now_ - *scaling.seen_at <= limits::kLoadGap;
  if (!scaling.seen_at || !follows) {
    scaling.above_since.reset();
    scaling.calm.reset();
  }
  scaling.seen_at = now_;
  if (!follows) return;
  judge_last_scale_down(pool);
  if (!scale_up(pool, load)) scale_down(pool, load);
}

bool Machine::scale_up(Pool& pool, const LoadSeen& load) {
  Scaling& scaling = pool.scaling;
  const ScalingPlan& plan = *pool.plan().scaling;
  const int target = pool.target();
  const std::int64_t by_work = wanted_by_work(pool, load);
  const std::int64_t by_queue = wanted_by_queue(pool, load);
  const std::int64_t wanted = std::min<std::int64_t>(std::max(by_work, by_queue), plan.max);
  if (wanted <= target || failing(pool)) {
    scaling.above_since.reset();
    return false;
  }
  if (!scaling.above_since) scaling.above_since = now_;
  ScaleDecision decision;
  decision.from = target;
  decision.load = load.waiting;
  decision.lasted = now_ - *scaling.above_since;
  if (target == 0) {
    decision.reason = ScaleReason::kDemand;
  } else if (load.full) {
    decision.reason = ScaleReason::kFull;
  } else {
    if (decision.lasted < plan.up_after) return false;
    decision.reason = plan.by == ScaleBy::kBusy ? ScaleReason::kBusy : ScaleReason::kBacklog;
    decision.allowed = plan.target;
    if (plan.by == ScaleBy::kBusy) decision.load = share_in_use(load);
  }
  scale(pool, static_cast<int>(wanted), decision);
  return true;
}

void Machine::scale_down(Pool& pool, const LoadSeen& load) {
  Scaling& scaling = pool.scaling;
  const ScalingPlan& plan = *pool.plan().scaling;
  const int target = pool.target();
  const int ready = pool.count_ready();
  const bool unknown = ready > 0 && load.capacity == 0;
  // Those that wait for a worker to come need it; of workers that tell nothing the last one may be
  // at work, whatever the queue says.
  const bool stay = (load.waiting > 0 && ready < target) ||
                    (unknown && (plan.by == ScaleBy::kBusy || target == 1));
  if (target <= plan.min || pool.rollout || stay) return scaling.calm.reset();
  if (!scaling.calm) scaling.calm = Calm{now_, now_, 0, 0, 0, 0};
  Calm& calm = *scaling.calm;
  calm.work += work_of(pool, load);
  calm.waiting += load.waiting;
  ++calm.answers;
  const Duration wait = plan.down_after * (1 << scaling.doublings);
  if (now_ - calm.part_since < wait / limits::kCalmParts || scaling.above_since) return;
  const std::int64_t need = needed(pool, calm);
  if (need >= target) return scaling.calm.reset();
  calm = Calm{calm.since, now_, 0, 0, 0, std::max(calm.peak, static_cast<int>(need))};
  ScaleDecision decision{ScaleReason::kCalm, target, 0, 0, now_ - calm.since, calm.peak == 0};
  if (decision.lasted < wait) return;
  scale(pool, std::max(calm.peak, plan.min), decision);
  pool.scaling.gave_up_at = now_;
}

// Whether it was right to have given workers up is known after a while, or by the next scale-up.
void Machine::judge_last_scale_down(Pool& pool) {
  Scaling& scaling = pool.scaling;
  const ScalingPlan& plan = *pool.plan().scaling;
  const Duration stands = plan.up_after + plan.down_after;
  if (!scaling.gave_up_at || now_ - *scaling.gave_up_at < stands) return;
  scaling.gave_up_at.reset();
  scaling.doublings = std::max(scaling.doublings - 1, 0);
}

void Machine::scale(Pool& pool, int target, ScaleDecision decision) {
  Scaling& scaling = pool.scaling;
  if (target > scaling.target && scaling.gave_up_at) {
    scaling.gave_up_at.reset();
    scaling.doublings = std::min(scaling.doublings + 1, limits::kCalmDoublings);
  }
  scaling.target = target;
  scaling.above_since.reset();
  scaling.calm.reset();
  note(pool, decision);
  touch(pool);
}

void Machine::note(const Pool& pool, ScaleDecision decision) {
  Note note;
  note.kind = NoteKind::kPoolScaled;
  note.pool = pool.name;
  note.generation = pool.desired;
  note.value = pool.target();
  note.decision = decision;
  act(std::move(note));
}

}  // namespace ostler::core
