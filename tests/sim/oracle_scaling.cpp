// What the core may make of the load of a pool: it is asked for when it must be and not otherwise;
// no number outside the bounds, none without its span, none that the load does not ask for; and
// what the load does ask for is done.
#include <algorithm>
#include <cmath>

#include "core/core.hpp"
#include "core/limits.hpp"
#include "oracle.hpp"

namespace ostler::sim {

using namespace core;  // every word here is the core's

namespace {

// The core counts in thousandths, rounded up.
constexpr double kRounding = 0.001;

// For how long the last answers in a row have all been so; negative: the last one is not.
template <class Row, class Predicate>
Duration lasted(const Row& row, Time now, Predicate is_so) {
  Time since = Time::max();
  for (const auto& answer : row) {
    if (!is_so(answer)) since = Time::max();
    if (is_so(answer)) since = std::min(since, answer.at);
  }
  return since == Time::max() ? Duration(-1) : now - since;
}

double share_of(const ScalingPlan& plan) {
  return static_cast<double>(plan.target) / 1000;
}

}  // namespace

int Oracle::target(const Pool& pool) {
  const PoolPlan& plan = pool.plans.at(pool.desired());
  return pool.scaled.value_or(plan.scaling ? pool.load.target : plan.workers);
}

bool Oracle::follows_load(const Pool& pool) const {
  if (stopping_ || pool.removed || pool.scaled) return false;
  const auto& plan = pool.plans.at(pool.desired()).scaling;
  return plan && plan->min < plan->max;
}

// The load decides from here on, beginning with what there was.
void Oracle::begin_load(Pool& pool, int held) {
  const auto& plan = pool.plans.at(pool.desired()).scaling;
  if (!plan) return;
  Load load;
  load.target = std::max(plan->min, std::min(held, plan->max));
  load.watching = pool.load.watching;
  load.awaiting = pool.load.awaiting;
  pool.load = load;
  if (follows_load(pool)) pool.load.due = now_;
}

// --- Questions
// ------------------------------------------------------------------------------------

void Oracle::watch_by(Pool& pool, Time when) {
  if (follows_load(pool)) pool.load.due = std::min(pool.load.due.value_or(when), when);
}

void Oracle::act(const Watch& action) {
  Pool* pool = find_pool(action.pool_name);
  if (pool == nullptr || !follows_load(*pool)) return wrong("unfounded look at the load");
  Load& load = pool->load;
  check(!load.watching, "two looks at the load at once: " + pool->name);
  check(load.due && now_ >= *load.due, "a look at the load for nothing: " + pool->name);
  load.due.reset();
  load.watching = true;
  load.awaiting = false;
  if (!pool->id) pool->id = action.pool;
  check(pool->id == action.pool, "a look at the load of another pool: " + pool->name);
}

void Oracle::act(const AwaitDemand& action) {
  Pool* pool = find_pool(action.pool_name);
  if (pool == nullptr || !follows_load(*pool)) return wrong("clients awaited for nothing");
  Load& load = pool->load;
  check(!load.watching && !load.awaiting && !load.due, "awaits clients, and looks: " + pool->name);
  load.awaiting = true;
  if (!pool->id) pool->id = action.pool;
  check(pool->id == action.pool, "clients of another pool are awaited: " + pool->name);
}

void Oracle::on(const LoadSeen& event) {
  const auto found =
      std::ranges::find_if(pools_, [&](const auto& pool) { return pool->id == event.pool; });
  if (found == pools_.end() || !(*found)->load.watching) return;
  Pool& pool = **found;
  Load& load = pool.load;
  load.watching = false;
  if (!follows_load(pool)) return;
  const ScalingPlan& plan = *pool.plans.at(pool.desired()).scaling;
  Load::Answer answer;
  answer.at = now_;
  answer.ready = static_cast<int>(
      std::ranges::count_if(pool.workers, [](const Worker* worker) { return worker->serves(); }));
  answer.known = event.capacity > 0;
  const auto capacity = static_cast<double>(std::min(event.capacity, limits::kCapacity));
  const auto used = std::min(static_cast<double>(std::max<std::int64_t>(event.used, 0)), capacity);
  if (answer.known) answer.work = used / capacity * answer.ready;
  answer.waiting =
      static_cast<double>(std::clamp<std::int64_t>(event.waiting, 0, limits::kWaiting));
  answer.full = event.full;
  answer.failing = may_be_failing(pool);
  const bool nothing = !(answer.known && used > 0) && answer.waiting <= 0;
  const bool stale = load.last && now_ - *load.last > limits::kLoadGap;
  if (!load.last || stale) {
    load.row.clear();
    load.idle_since.reset();
  }
  if (load.idle_since && load.last) load.widest = std::max(load.widest, now_ - *load.last);
  load.last = now_;
  const bool untold = answer.ready > 0 && !answer.known;
  const bool stays = untold && (plan.by == ScaleBy::kBusy || load.target == 1);
  if (!nothing || stays || pool.rollout || load.target == plan.min)
    load.idle_since.reset();
  else if (!load.idle_since && !stale) {
    load.idle_since = now_;
    load.widest = {};
  }
  if (!stale) {
    load.may_decide = true;
    load.row.push_back(answer);
    if (load.row.size() > 8000) load.row.pop_front();
    judge_patience(pool);
  }
  load.resting = nothing;
  load.woken = load.due;
  if (!nothing || load.target > plan.min) return watch_by(pool, now_ + limits::kWatchEvery);
  load.last.reset();
}

void Oracle::on(const Demand& event) {
  const auto found =
      std::ranges::find_if(pools_, [&](const auto& pool) { return pool->id == event.pool; });
  if (found == pools_.end() || !(*found)->load.awaiting) return;
  Pool& pool = **found;
  pool.load.awaiting = false;
  if (!follows_load(pool)) return;
  pool.load.may_decide = pool.load.demanded = true;
  judge_patience(pool);
  watch_by(pool, now_ + limits::kWatchEvery);
}

// A scale-down that stood for its time was right.
void Oracle::judge_patience(Pool& pool) {
  Load& load = pool.load;
  const ScalingPlan& plan = *pool.plans.at(pool.desired()).scaling;
  const Duration stands = plan.up_after + plan.down_after;
  if (!load.gave_up || now_ < *load.gave_up + stands) return;
  load.gave_up.reset();
  if (load.patience == 0) return;
  --load.patience;
  load.eased = now_;
}

// --- Decisions
// ------------------------------------------------------------------------------------

void Oracle::scaled(const Note& note) {
  Pool* pool = find_pool(note.pool);
  if (pool == nullptr || !note.decision) return wrong("called scaled, and is not: " + note.pool);
  if (note.decision->reason == ScaleReason::kAsked) {
    return check(note.value == target(*pool), "called scaled to another number: " + note.pool);
  }
  Load& load = pool->load;
  check(follows_load(*pool), "scaled by load, though the load does not decide: " + note.pool);
  check(load.may_decide, "scaled by a load that nobody has seen: " + note.pool);
  if (!fault_.empty()) return;
  const ScalingPlan& plan = *pool->plans.at(pool->desired()).scaling;
  check(note.decision->from == load.target && note.value != load.target,
        "scaled from a number that was not: " + note.pool);
  check(note.value >= plan.min && note.value <= plan.max, "scaled out of bounds: " + note.pool);
  const bool more = note.value > load.target;
  more ? check_scaled_up(*pool, note) : check_calm(*pool, note);
  if (more && load.gave_up) {
    load.gave_up.reset();
    load.patience = std::min(load.patience + 1, limits::kCalmDoublings);
  }
  if (!more) load.gave_up = now_;
  load.target = static_cast<int>(note.value);
  load.row.clear();
  load.idle_since.reset();
  load.may_decide = false;
  if (!load.demanded && load.resting && load.target == plan.min) {  // nobody asks any more
    load.due = load.woken;
    load.last.reset();
  }
  unsettle_slots(*pool);
}

// There is a slot that has had to wait, or may have had.
bool Oracle::may_be_failing(const Pool& pool) {
  if (pool.rollout && pool.rollout->failures > 0) return true;
  return std::ranges::any_of(pool.slots, [](const auto& entry) {
    return entry.second.unsure || entry.second.doublings > 0;
  });
}

void Oracle::check_scaled_up(const Pool& pool, const Note& note) {
  const Load& load = pool.load;
  const ScalingPlan& plan = *pool.plans.at(pool.desired()).scaling;
  const double share = share_of(plan);
  for (const auto& [number, slot] : pool.slots) {
    const bool serves = std::ranges::any_of(pool.workers, [number = number](const Worker* worker) {
      return worker->slot == number && worker->serves();
    });
    check(serves || !slot.sure() || slot.doublings == 0,
          "scaled up though a slot fails again and again: " + pool.name);
  }
  const bool busy = plan.by == ScaleBy::kBusy;
  const auto value = static_cast<double>(note.value);
  if (load.target == 0) {
    const bool asked = load.demanded || (!load.row.empty() && load.row.back().waiting > 0);
    return check(asked && note.value == 1 && note.decision->reason == ScaleReason::kDemand,
                 "scaled up from none, though nobody waits: " + pool.name);
  }
  if (load.row.empty()) return wrong("scaled up at a client's first word: " + pool.name);
  const Load::Answer& last = load.row.back();
  const double by_work = std::ceil((last.work + kRounding * last.ready) / share);
  if (note.decision->reason == ScaleReason::kFull) {
    check(last.full, "called full, and is not: " + pool.name);
    const bool whole = last.ready >= load.target;
    return check(value <= std::max(whole ? 2.0 * load.target : 0.0, busy ? by_work : 0.0),
                 "scaled too far for a full queue: " + pool.name);
  }
  check(note.decision->reason == (busy ? ScaleReason::kBusy : ScaleReason::kBacklog),
        "scaled up for another reason: " + pool.name);
  const auto above = [&](const Load::Answer& answer) {
    if (busy) return answer.work + kRounding * answer.ready > share * load.target;
    return answer.waiting > share * load.target && answer.ready >= load.target;
  };
  check(lasted(load.row, now_, above) >= plan.up_after, "scaled up too early: " + pool.name);
  const double bound =
      busy ? by_work : std::min(2.0 * load.target, std::ceil(last.waiting / share));
  check(value <= bound, "scaled up too far: " + pool.name);
}

// For the whole span the load would have been within the number that remains.
void Oracle::check_calm(const Pool& pool, const Note& note) {
  const Load& load = pool.load;
  const ScalingPlan& plan = *pool.plans.at(pool.desired()).scaling;
  const Duration span = note.decision->lasted;
  check(note.decision->reason == ScaleReason::kCalm, "scaled down for no reason: " + pool.name);
  check(!pool.rollout, "scaled down during a reload: " + pool.name);
  check(span >= plan.down_after * (1 << load.patience), "scaled down too early: " + pool.name);
  const bool seen = !load.row.empty() && load.row.front().at <= now_ - span;
  if (!seen) return wrong("scaled down without having looked for so long: " + pool.name);
  std::vector<Load::Answer> answers;
  for (const Load::Answer& answer : load.row) {
    if (answer.at < now_ - span) continue;
    // Of several at the instant in which the span begins, the last one begins it.
    if (answer.at == now_ - span) answers.clear();
    answers.push_back(answer);
  }
  const auto mean = [&](std::size_t from, std::size_t to, auto&& of) {
    double sum = 0;
    for (std::size_t i = from; i < to; ++i) sum += of(answers[i]);
    return sum / static_cast<double>(std::max<std::size_t>(to - from, 1));
  };
  const auto work = [](const Load::Answer& answer) { return answer.work; };
  const auto waiting = [](const Load::Answer& answer) { return answer.waiting; };
  const auto all = answers.size();
  const auto value = static_cast<double>(note.value);
  const bool nothing = std::ranges::all_of(answers, [](const Load::Answer& answer) {
    return answer.work <= 0 && answer.waiting <= 0 && (answer.known || answer.ready == 0);
  });
  check(note.value > 0 || nothing, "the last worker is given up, and is not idle: " + pool.name);
  check(!note.decision->idle || nothing || plan.min > 0, "called idle, and is not: " + pool.name);
  if (plan.by == ScaleBy::kBacklog) {
    check(note.value == load.target - 1, "more than one given up for a short queue: " + pool.name);
    check(mean(0, all, waiting) <= share_of(plan) * value / 2,
          "scaled down though many wait: " + pool.name);
    return check(mean(0, all, work) <= value + 0.001, "scaled down, and all work: " + pool.name);
  }
  const double most = share_of(plan) * 0.9 * value + 0.002;
  check(mean(0, all, work) <= most, "scaled down though there is work: " + pool.name);
  // Parts are an eighth: of a half at least two thirds are whole ones.
  const bool halves = mean(0, all / 2, work) <= 2 * most && mean(all / 2, all, work) <= 2 * most;
  check(halves, "scaled down after a burst: " + pool.name);
}

// --- Duties
// ---------------------------------------------------------------------------------------

void Oracle::check_load(Pool& pool, bool continues) {
  Load& load = pool.load;
  if (!follows_load(pool)) {
    load.due.reset();
    return;
  }
  const bool heard = load.watching || load.awaiting || (load.due && *load.due > now_);
  check(continues || heard, "nobody would notice the load: " + pool.name);
  if (!load.may_decide) return;  // no answer, or a decision was made
  const ScalingPlan& plan = *pool.plans.at(pool.desired()).scaling;
  const Duration wait = plan.down_after * (1 << load.patience);
  // Eight parts, each longer by one answer at most, and the one that was under way.
  const bool overdue = load.idle_since && now_ - *load.idle_since > wait * 9 / 8 + 9 * load.widest;
  // A shorter wait counts from the end of the part that is under way.
  const bool eased = load.eased && now_ - *load.eased <= wait / 8 + 2 * load.widest;
  check(!overdue || eased, "idle, and nobody is given up: " + pool.name);
  if (load.target >= plan.max) return;
  if (load.target == 0) {
    const bool waits = !load.row.empty() && load.row.back().waiting > 0 && !load.row.back().failing;
    const bool asked = load.demanded || waits;
    return check(!asked, "somebody waits, and no worker is started: " + pool.name);
  }
  if (load.row.empty()) return;  // a client's word
  const double most = share_of(plan) * load.target;
  const auto above = [&](const Load::Answer& answer) {
    if (answer.failing) return false;
    if (plan.by == ScaleBy::kBusy) return answer.work > most + kRounding;
    return answer.ready >= load.target && answer.waiting > most;
  };
  const Load::Answer& last = load.row.back();
  const bool full = last.full && !last.failing && last.ready >= load.target;
  const Duration span = lasted(load.row, now_, above);
  check(!full && (span < Duration{0} || span < plan.up_after),
        "too much to do, and nobody comes: " + pool.name);
}

std::string Oracle::unsettled_load(const Pool& pool) const {
  if (!follows_load(pool)) return {};
  const Load& load = pool.load;
  const ScalingPlan& plan = *pool.plans.at(pool.desired()).scaling;
  if (load.idle_since) return "idle, and above its min";
  if (load.row.empty() || load.target == plan.max) return {};
  const Load::Answer& last = load.row.back();
  const double asked = plan.by == ScaleBy::kBusy ? last.work : last.waiting;
  return asked > share_of(plan) * load.target + 0.001 ? "too much to do" : std::string();
}

}  // namespace ostler::sim
