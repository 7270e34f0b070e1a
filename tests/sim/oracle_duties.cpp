// What must hold when a step is over: nothing is late, nothing is missing, nothing is too much.
#include <algorithm>

#include "core/core.hpp"
#include "core/limits.hpp"
#include "oracle.hpp"

namespace ostler::sim {

using namespace core;  // every word here is the core's

// While a reload changes the target, the larger one may be held until the new generation has shown
// that it works.
int Oracle::most(const Pool& pool) {
  const int wanted = target(pool);
  if (!pool.rolling() || pool.rollout->from == 0 || pool.rollout->scaled_since) return wanted;
  return std::max(wanted, pool.rollout->target_before);
}

int Oracle::least(const Pool& pool) {
  return target(pool);
}

void Oracle::end(std::optional<Time> promised) {
  if (!fault_.empty()) return;
  for (const auto& pool : pools_) {
    settle_closing(*pool);
    check(pool->owes_turning_away.empty(), "nobody is turned away from " + pool->name);
    check(!pool->owes_kept, "nobody is told that it is kept: " + pool->name);
  }
  const bool continues = promised && *promised <= now_;  // the rest comes in the next step
  for (auto& [id, worker] : workers_) {
    if (!worker->serves()) {
      // It stays what it was.
    } else if (settled(*worker) || (worker->pool->rollout && worker->pool->rollout->back)) {
      worker->proven = settled(*worker);
      if (worker->generation == worker->pool->desired()) {
        Slot& slot = worker->pool->slots[worker->slot];
        slot.proven = worker->generation;
        slot.forgotten = false;
      }
    }
    check_worker(*worker);
    const bool serves_backlog = worker->pool->serves_backlog() && worker->serves();
    const bool goes = (stopping_ || worker->pool->removed) && !serves_backlog;
    if (goes && worker->active() && !continues) wrong("not told to go: " + name(*worker));
  }
  for (const auto& pool : pools_) {
    check_pool(*pool, continues);
    check_load(*pool, continues);
  }
  for (const auto& [id, departed] : departed_) {
    check(false, "nothing is said about the end of " + names_.of(id));
  }
  check_answers();
  check_reload();
  check_manager();
  if (!exited_) check_promise(promised);
  promised_ = promised;
}

void Oracle::check_worker(const Worker& worker) {
  if (worker.owes_note) wrong("nothing is said about " + name(worker));
  if (worker.owes_empty) wrong("nobody empties the queue of " + name(worker));
  if (worker.owes_stop) wrong("no stop signal for " + name(worker));
  if (worker.owes_abort) wrong("no abort for " + name(worker));
  if (worker.kill_due && now_ >= *worker.kill_due) wrong("not killed in time: " + name(worker));
  if (worker.stop_due && now_ >= *worker.stop_due) wrong("drains too long: " + name(worker));
  check_care(worker);
  if (!worker.active()) return;
  if (worker.drained) wrong("not drained: " + name(worker));
  if (!worker.ready) {
    if (worker.start_due && now_ >= *worker.start_due) wrong("starts too long: " + name(worker));
    if (worker.lived_until(now_)) {
      wrong("lives long enough to be ready: " + name(worker));
    }
    return;
  }
  const auto heartbeat = worker.plan.heartbeat_timeout;
  if (worker.last_beat && heartbeat && now_ >= *worker.last_beat + *heartbeat) {
    wrong("silent for too long: " + name(worker));
  }
}

// As many slots are held as are wanted, but for those that have to wait.
void Oracle::check_pool(Pool& pool, bool continues) {
  if (stopping_ || pool.removed) return;
  if (most(pool) > least(pool)) unsettle_slots(pool);
  std::set<int> held;
  for (const Worker* worker : pool.workers) {
    if (!worker->active()) continue;
    held.insert(worker->slot);
    pool.slots[worker->slot].given_up = false;
  }
  const int count = static_cast<int>(held.size());
  if (count > most(pool) && !continues) wrong("more slots in use than wanted: " + pool.name);
  int missing = least(pool) - count;
  if (missing > 0 && !continues) {
    std::set<int> waiting;
    for (const Worker* worker : pool.workers) {
      const bool in_place = !worker->stuck && (worker->failing() || pool.stops_first());
      if (in_place && !held.contains(worker->slot)) waiting.insert(worker->slot);
    }
    for (const auto& [number, slot] : pool.slots) {
      if (slot.latest && now_ < *slot.latest && !held.contains(number)) waiting.insert(number);
    }
    missing -= static_cast<int>(waiting.size());
    const bool next_try = pool.rollout && pool.rollout->latest && now_ < *pool.rollout->latest;
    if (missing > 0 && !next_try) wrong("too few workers, and nothing to wait for: " + pool.name);
  }
  if (pool.owes_socket) wrong("nobody is to take over what is stranded: " + pool.name);
  check_rollout(pool);
  if (!continues && pool.rolling()) check_reliance(pool);
  if (!continues) check_replacements(pool);
  if (!continues && pool.rolling()) check_outcome_due(pool);
  for (const Worker* worker : pool.workers) {
    const bool failed =
        pool.rollout && pool.rollout->back && worker->generation == pool.rollout->to;
    if (!failed || !worker->active() || worker->ready) continue;
    wrong("half started, of a generation that failed, and kept: " + name(*worker));
  }
  judge_scaled_down(pool);
}

void Oracle::check_rollout(const Pool& pool) {
  if (!pool.rolling()) return;
  const Rollout& rollout = *pool.rollout;
  if (rollout.failures >= pool.plans.at(rollout.to).attempts) {
    wrong("a reload failed often enough and is not rolled back: " + pool.name);
  }
}

// One that is to be relied upon is alone in its slot: its predecessors have been told to go.
void Oracle::check_replacements(const Pool& pool) {
  const bool surely_trusted =
      !pool.rolling() || std::ranges::any_of(pool.workers, [&](const Worker* worker) {
        const Slot& slot = pool.slots.at(worker->slot);
        return worker->active() && slot.proven == pool.desired() && slot.sure() && !slot.forgotten;
      });
  std::map<int, const Worker*> relied_upon;
  for (const Worker* worker : pool.workers) {
    const bool good = worker->serves() && worker->generation == pool.desired() && !worker->recycle;
    if (good && (surely_trusted || settled(*worker))) relied_upon.emplace(worker->slot, worker);
  }
  for (const Worker* other : pool.workers) {
    const auto successor = relied_upon.find(other->slot);
    if (successor == relied_upon.end() || successor->second == other || !other->active()) continue;
    wrong("kept, though its successor is to be relied upon: " + name(*other));
  }
}

// When every slot has seen the new generation work, and no worker of another is left, it is over.
void Oracle::check_outcome_due(const Pool& pool) {
  const Generation to = pool.rollout->to;
  std::set<int> seen;
  for (const Worker* worker : pool.workers) {
    if (worker->generation != to && !worker->stuck) return;
    if (!worker->active()) continue;
    if (worker->failed) return;  // until its successor serves
    const Slot& slot = pool.slots.at(worker->slot);
    const bool proven = slot.proven == to && !slot.forgotten && slot.sure() && !slot.vacated;
    if (!proven) return;
    seen.insert(worker->slot);
  }
  check(seen.empty() || static_cast<int>(seen.size()) != most(pool) || most(pool) != least(pool),
        "the outcome of a reload is not told: " + pool.name);
}

// A slot is not left to a generation that may never become ready: if its old worker dies before the
// new one has proven itself, it gets another old one.
void Oracle::check_reliance(const Pool& pool) {
  const Generation from = pool.rollout->from;
  for (const auto& [number, slot] : pool.slots) {
    const bool proven = slot.proven != 0 && slot.proven == from && !slot.forgotten;
    if (!proven || slot.vacated || !slot.sure() || slot.doublings > 0) continue;
    bool held = false, relied_upon = false;
    for (const Worker* worker : pool.workers) {
      if (worker->slot != number) continue;
      const bool old = worker->generation == from;
      held = held || worker->active();
      relied_upon =
          relied_upon || worker->serves() || (old && (worker->active() || worker->failing()));
    }
    const bool waits = slot.latest && now_ < *slot.latest;
    check(!held || relied_upon || waits, "left to a generation that has not proven itself: " +
                                             pool.name + "." + std::to_string(number));
  }
}

// Those given up so far were chosen among the workers that the pool has now.
void Oracle::judge_scaled_down(const Pool& pool) {
  check_scaled_down(pool);
  std::erase_if(given_up_, [&](const Worker* worker) { return worker->pool == &pool; });
}

// Of those that were to go: not ready ones first, then outdated ones, then those up longest.
void Oracle::check_scaled_down(const Pool& pool) {
  struct Rank {
    bool ready = false, current = false, proven = false;
    Time since = Time::max(), counted_since = Time::max();  // standing still left out, or not
    int workers = 0;
  };
  std::map<int, Rank> gone, kept;
  const auto count = [&](std::map<int, Rank>& ranks, const Worker& worker) {
    Rank& rank = ranks[worker.slot];
    ++rank.workers;
    if (!worker.ready) return;
    rank.ready = true;
    rank.current = rank.current || worker.generation == pool.desired();
    rank.proven = rank.proven || (settled(worker) && worker.generation == pool.desired());
    rank.since = std::min(rank.since, worker.ready_at);
    rank.counted_since = std::min(rank.counted_since, worker.settled_at - worker.plan.settle);
  };
  for (const Worker* worker : given_up_) {
    if (worker->pool == &pool) count(gone, *worker);
  }
  if (gone.empty()) return;
  for (const Worker* worker : pool.workers) {
    if (worker->active()) count(kept, *worker);
  }
  const bool serving_gone = std::ranges::any_of(gone, [](const auto& g) { return g.second.ready; });
  const auto serving = std::ranges::count_if(kept, [](const auto& k) { return k.second.ready; });
  check(!serving_gone || serving >= least(pool),
        "scaled down below the target of those that serve: " + pool.name);
  for (const auto& [slot, g] : gone) {
    for (const auto& [other, k] : kept) {
      check(!g.ready || k.ready, "scaled down one that serves, not one that starts: " + pool.name);
      if (!g.ready || !k.ready) continue;
      check(!g.current || k.current, "scaled down a new one, not an old one: " + pool.name);
      const bool older = g.since <= k.since || g.counted_since <= k.counted_since;
      if (g.current != k.current) continue;
      const bool unproven = (pool.rollout || pool.was_rolling) && !g.proven && k.proven;
      check(older || unproven, "scaled down one that has been up shorter: " + pool.name + "." +
                                   std::to_string(slot) + ", not " + std::to_string(other));
      check(!pool.rollout || !g.proven || k.proven || !pool.rolling(),
            "scaled down one that has proven itself: " + pool.name);
    }
  }
}

void Oracle::check_answers() {
  for (const auto& [op, operation] : operations_) {
    if (operation.due) {
      return wrong("no answer to op " + std::to_string(op.value) + ", due at once");
    }
    const auto* request = std::get_if<WorkerRequested>(&operation.request);
    if (request == nullptr || workers_.contains(operation.worker)) continue;
    const bool serves =
        std::ranges::any_of(operation.pool->workers, [slot = operation.slot](const Worker* worker) {
          return worker->slot == slot && worker->serves();
        });
    if (request->request != WorkerRequest::kRecycle || serves) {
      return wrong("no answer to op " + std::to_string(op.value) + ", though it is done");
    }
  }
}

void Oracle::check_reload() {
  check(queued_.empty(), "nobody is told that a reload waits");
  check(refused_ <= 0, "a reload is refused and nothing is said");
  forget_finished_reload();
  if (reload_ && reload_->committed && reload_->waiting.empty()) {
    return wrong("no answer to a reload that is over");
  }
  if (!reload_) start_next();  // those that ask for what is not there are passed over
  if (!reload_) return;
  if (reload_->reading) return check(!reload_->owes_read, "the file is not read for a reload");
  if (!reload_->announced && !reload_->first) return wrong("a reload waits for nothing");
  for (const std::string& key : reload_->opening) {
    if (!opening_.contains(key)) wrong("not opened: " + key);
  }
}

void Oracle::check_manager() {
  if (exited_) return;
  if (stopping_) {
    const bool over =
        std::ranges::all_of(workers_, [](const auto& entry) { return entry.second->stuck; });
    if (over) wrong("everybody is gone and the manager does not end");
    return;
  }
  if (any_ready_ || !configured_) return;
  bool hopeless = false;
  for (const auto& pool : pools_) {
    if (pool->removed || least(*pool) == 0) continue;
    hopeless = true;
    const bool given_up = std::ranges::any_of(pool->slots, [](const auto& entry) {
      return entry.second.sure() && entry.second.doublings >= limits::kFirstStartTries;
    });
    if (!given_up) return;
  }
  if (hopeless) wrong("every pool had its tries and the manager does not end");
}

// With `what`, also in words: what is due first.
std::optional<Time> Oracle::first_deadline(std::string* what) const {
  std::optional<Time> first;
  const auto consider = [&](std::optional<Time> time, const char* kind, auto&& whose) {
    if (!time || (first && *time >= *first)) return;
    first = time;
    if (what != nullptr) *what = std::string(kind) + " of " + whose();
  };
  for (const auto& [id, worker] : workers_) {
    if (!worker->spawned && !worker->active()) continue;  // the signal waits for the process
    const auto whose = [this, one = worker.get()] { return name(*one); };
    consider(worker->start_due, "start", whose);
    if (worker->spawned) consider(worker->ready_due, "readiness", whose);
    consider(worker->stop_due, "drain", whose);
    consider(worker->kill_due, "kill", whose);
    if (!worker->serves()) continue;
    if (!worker->proven && may_settle(*worker)) {
      consider(worker->settled_at, "settling", whose);
    }
    if (worker->last_beat && worker->plan.heartbeat_timeout) {
      consider(*worker->last_beat + *worker->plan.heartbeat_timeout, "heartbeat", whose);
    }
    consider(next_care(*worker), "care", whose);
  }
  for (const auto& pool : pools_) {
    if (pool->serves_backlog())
      consider(pool->closing->until, "backlog", [&] { return pool->name; });
  }
  if (stopping_) return first;
  for (const auto& pool : pools_) {
    if (pool->removed) continue;
    for (const auto& [number, slot] : pool->slots) {
      const auto holds = [number = number, first = pool->stops_first()](const Worker* worker) {
        const bool in_place = worker->active() || worker->failing() || (first && !worker->stuck);
        return worker->slot == number && in_place;
      };
      const bool held = std::ranges::any_of(pool->workers, holds);
      if (held || !slot.sure()) continue;
      const bool both = slot.latest && pool->rolling() && pool->rollout->latest;
      consider(both ? std::max(slot.latest, pool->rollout->latest) : slot.latest, "back-off",
               [&, number = number] { return pool->name + "." + std::to_string(number); });
    }
    const bool waits =
        pool->rolling() && pool->rollout->earliest && now_ < *pool->rollout->earliest;
    if (waits) consider(pool->rollout->latest, "next try", [&] { return pool->name; });
    const bool watched = follows_load(*pool) && !pool->load.watching;
    if (watched) consider(pool->load.due, "a look at the load", [&] { return pool->name; });
  }
  return first;
}

bool Oracle::idle() const {
  if (reload_ || !waiting_.empty()) return false;
  for (const auto& [id, worker] : workers_) {
    if (!worker->serves() || !worker->proven || worker->recycle) return false;
    if (worker->last_beat && worker->plan.heartbeat_timeout) return false;
    if (next_care(*worker)) return false;
  }
  return std::ranges::all_of(pools_, [this](const auto& pool) {
    if (pool->serves_backlog()) return false;
    if (follows_load(*pool) && !pool->load.watching && pool->load.due) return false;
    return std::ranges::all_of(pool->slots, [](const auto& entry) { return !entry.second.latest; });
  });
}

// When the core wants to be stepped again: not in the past, not too late, not for nothing.
void Oracle::check_promise(std::optional<Time> promised) {
  const auto deadline = first_deadline();
  check(!promised || *promised >= now_, "promised a time that has passed");
  if (deadline && !(promised && *promised <= std::max(*deadline, now_))) {
    std::string what;
    first_deadline(&what);
    wrong("stuck: " + what + " at " + text(*deadline) + ", and the next step " +
          (promised ? "at " + text(*promised) : "never"));
  }
  check(!promised || !idle() || *promised == now_, "wakes up though there is nothing to wait for");
  futile_ = promised && *promised <= now_ && actions_ == 0 ? futile_ + 1 : 0;
  check(futile_ < 3, "busy: another step at once, again and again, and nothing is done");
}

std::string Oracle::unfinished() const {
  if (reload_) return "a reload is under way";
  if (!waiting_.empty()) return "a reload waits";
  if (!operations_.empty()) {
    return "op " + std::to_string(operations_.begin()->first.value) + " is not answered";
  }
  for (const auto& pool : pools_) {
    if (std::string what = unfinished(*pool); !what.empty()) return pool->name + ": " + what;
  }
  if (!opening_.empty()) return *opening_.begin() + " is being opened";
  const std::set<std::string> needed = needed_listeners();
  for (const std::string& key : open_) {
    if (!needed.contains(key)) return "nobody needs " + key + ", and it is open";
  }
  for (const std::string& key : needed) {
    if (!open_.contains(key)) return key + " is needed, and not open";
  }
  for (const auto& [launch, plan] : launches_) {
    if (!needs(launch)) return "launch " + std::to_string(launch.value) + " is not dropped";
  }
  return {};
}

std::string Oracle::unfinished(const Pool& pool) const {
  if (pool.removed) return "not gone";
  if (pool.rollout) return "not rolled out";
  std::set<int> slots;
  for (const Worker* worker : pool.workers) {
    if (!worker->serves() || !worker->proven) return name(*worker) + " does not serve";
    if (worker->generation != pool.current) return name(*worker) + " is outdated";
    if (worker->recycle) return name(*worker) + " is not recycled";
    if (!slots.insert(worker->slot).second) return name(*worker) + " is one too many";
  }
  if (static_cast<int>(slots.size()) != least(pool)) {
    return std::to_string(slots.size()) + " workers, not " + std::to_string(least(pool));
  }
  return unsettled_load(pool);
}

// The latest moment at which a stop may take a worker's life into account.
std::optional<Time> Oracle::stopped_by() const {
  std::optional<Time> last;
  for (const auto& [id, worker] : workers_) {
    if (worker->stuck) continue;
    const Time by = worker->kill_due   ? *worker->kill_due
                    : worker->stop_due ? *worker->stop_due
                                       : now_ + worker->plan.stop_timeout;
    if (!last || by > *last) last = by;
  }
  return last;
}

std::vector<WorkerId> Oracle::living() const {
  std::vector<WorkerId> result;
  result.reserve(workers_.size());
  for (const auto& [id, worker] : workers_) result.push_back(id);
  return result;
}

}  // namespace ostler::sim
