// Reloads and restarts: opening what is new, rolling it out, finishing or turning back.
#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "core/machine.hpp"

namespace ostler::core {

// In one file no listener is two pools'. But what a reload of some pools gives them, one that it
// leaves alone may have in force, and the two would share it from then on.
void Machine::find_taken_listeners() {
  Reload& reload = *state_.reload;
  for (const auto& [id, other] : state_.pools) {
    if (other.removed || reload.reloads(other.name)) continue;
    std::set<std::string> taken;
    for (const Generation generation : generations_in_use(other)) {
      const PoolPlan& plan = other.generations.at(generation);
      taken.insert(plan.listeners.begin(), plan.listeners.end());
    }
    for (const PoolPlan& plan : reload.plan.pools) {
      if (!reload.reloads(plan.name)) continue;
      for (const std::string& key : plan.listeners) {
        if (!taken.contains(key)) continue;
        Failure& fault = reload.faults.emplace_back();
        fault.kind = FailureKind::kListener;
        fault.stage = key + " is still the listener of the pool '" + other.name + "'; reload '" +
                      other.name + "' before, or all pools at once";
      }
    }
  }
}

void Machine::open_listeners() {
  Reload& reload = *state_.reload;
  if (!reload.first) {
    Note started;
    started.kind = NoteKind::kReloadStarted;
    started.pool = reload.only();
    act(started);
  }
  for (const PoolPlan& plan : reload.plan.pools) {
    for (const std::string& key : plan.listeners) {
      if (state_.listeners.contains(key) || !reload.opening.insert(key).second) continue;
      act(OpenListener{key, plan.launch});
    }
  }
  if (reload.opening.empty()) commit();
}

void Machine::on(const ListenerOpened& event) {
  const bool wanted = state_.reload && state_.reload->opening.erase(event.key) > 0;
  if (!wanted) {
    // Nobody waits for it any more, or it was open all along.
    ++state_.ignored;
    if (!state_.listeners.contains(event.key)) act(CloseListener{event.key});
    return;
  }
  state_.listeners.insert(event.key);
  state_.reload->opened.insert(event.key);
  listeners_answered();
}

void Machine::on(const ListenerFailed& event) {
  if (!state_.reload || state_.reload->opening.erase(event.key) == 0) {
    ++state_.ignored;
    return;
  }
  state_.reload->faults.push_back(event.failure);
  listeners_answered();
}

void Machine::listeners_answered() {
  const Reload& reload = *state_.reload;
  if (!reload.opening.empty()) return;
  if (reload.faults.empty()) {
    commit();
  } else {
    reject();
  }
}

// The sockets are open: from here on the reload takes place.
void Machine::commit() {
  Reload& reload = *state_.reload;
  reload.committed = true;
  const Plan plan = std::move(reload.plan);
  reload.plan = {};
  std::vector<PoolId> leaving;
  for (const auto& [id, pool] : state_.pools) {
    const bool stays = std::ranges::any_of(
        plan.pools, [&, &name = pool.name](const PoolPlan& one) { return one.name == name; });
    if (!pool.removed && reload.reloads(pool.name) && !stays) leaving.push_back(id);
  }
  for (const PoolPlan& wanted : plan.pools) {
    const auto found = std::ranges::find_if(state_.pools, [&](const auto& entry) {
      return entry.second.name == wanted.name && !entry.second.removed;
    });
    if (found == state_.pools.end()) {
      add_pool(wanted, reload.first);
    } else {
      begin_rollout(found->second, wanted, !reload.reloads(wanted.name));
    }
  }
  for (const PoolId id : leaving) keep_for_heirs(state_.pools.at(id));
  state_.listeners_touched = true;
  state_.configured = true;
  if (!reload.first) return;
  for (const Asker& asker : reload.askers) reply(asker.op, Outcome::kDone);
  state_.reload.reset();
}

void Machine::add_pool(const PoolPlan& plan, bool first) {
  Pool pool;
  pool.id = PoolId{++state_.last_id};
  pool.name = plan.name;
  pool.desired = pool.last_generation = 1;
  pool.generations.emplace(pool.desired, plan);
  pool.scaling.target = plan.workers;
  if (!first) {
    pool.rollout.emplace();
    pool.rollout->to = pool.desired;
    pool.rollout->started = now_;
    state_.reload->waiting.insert(pool.id);
  }
  touch(pool);
  state_.pools.emplace(pool.id, std::move(pool));
}

void Machine::remove_pool(Pool& pool) {
  pool.removed = true;
  state_.reload->waiting.insert(pool.id);
  state_.listeners_touched = true;
  begin_closing(pool);  // but for the listeners that others have now
  touch(pool);
}

// The file no longer has it. If others get its listeners, it serves until they are known to hold.
void Machine::keep_for_heirs(Pool& pool) {
  std::set<std::string> listeners;
  for (const Generation generation : generations_in_use(pool)) {
    const PoolPlan& plan = pool.generations.at(generation);
    listeners.insert(plan.listeners.begin(), plan.listeners.end());
  }
  std::set<PoolId> heirs;
  for (const auto& [id, other] : state_.pools) {
    const bool gets =
        other.rolling() && std::ranges::any_of(other.plan().listeners,
                                               [&](auto& key) { return listeners.contains(key); });
    if (gets) heirs.insert(id);
  }
  if (heirs.empty()) return remove_pool(pool);
  state_.reload->waiting.insert(pool.id);
  state_.reload->heirs.emplace(pool.id, std::move(heirs));
}

// What became of a pool that got listeners of one that is to go.
void Machine::inherited(PoolId heir, bool holds) {
  std::set<PoolId> decided;
  for (auto& [id, heirs] : state_.reload->heirs) {
    if (heirs.erase(heir) > 0 && (!holds || heirs.empty())) decided.insert(id);
  }
  for (const PoolId id : decided) {
    state_.reload->heirs.erase(id);
    Pool& pool = state_.pools.at(id);
    holds ? remove_pool(pool) : keep_pool(pool);
  }
}

void Machine::keep_pool(const Pool& pool) {
  note(pool, NoteKind::kPoolKept);
  state_.reload->waiting.erase(pool.id);
  PoolOutcome outcome;
  outcome.pool = pool.name;
  outcome.outcome = Outcome::kKept;
  outcome.generation = pool.desired;
  outcome.took = now_ - state_.reload->started;
  state_.reload->outcomes.push_back(std::move(outcome));
}

void Machine::begin_rollout(Pool& pool, const PoolPlan& plan, bool restart) {
  Rollout rollout;
  rollout.from = pool.desired;
  rollout.to = ++pool.last_generation;
  rollout.scaled_before = pool.scaled;
  rollout.target_before = pool.target();
  rollout.started = now_;
  const PoolPlan& old = pool.plan();
  const bool rewritten = plan.workers_written != old.workers_written || plan.scaling != old.scaling;
  if (!restart && rewritten) pool.scaled.reset();
  pool.generations.emplace(rollout.to, plan);
  pool.desired = rollout.to;
  begin_scaling(pool, rollout.target_before);
  pool.rollout = std::move(rollout);
  // A slot whose worker failed again and again is not worth protecting: the reload may be the cure.
  std::set<int> served;
  for (const auto& [id, worker] : pool.workers) {
    if (worker.ready()) served.insert(worker.slot);
  }
  for (auto& [id, worker] : pool.workers) {
    const auto slot = pool.slots.find(worker.slot);
    const bool failing = slot != pool.slots.end() && slot->second.doublings > 0;
    if (failing && worker.active() && !worker.ready()) retire(pool, worker, StopCause::kReplaced);
  }
  for (auto& [number, slot] : pool.slots) {
    slot.vacated = false;
    if (slot.doublings > 0 && !served.contains(number)) slot.proven = 0;
    slot.fallback = slot.proven;
    slot.forget_failures();
  }
  state_.reload->waiting.insert(pool.id);
  touch(pool);
}

void Machine::roll_back(Pool& pool, const Failure& failure, WorkerId worker) {
  Rollout& rollout = *pool.rollout;
  rollout.rolling_back = true;
  rollout.retry_at.reset();
  rollout.reason = failure;
  rollout.failed = worker;
  note(pool, NoteKind::kReloadFailing, 0, Outcome::kRolledBack, failure);
  touch(pool);
  if (rollout.from == 0) {  // a new pool: there was nothing before it
    pool.removed = true;
    begin_closing(pool);
    state_.listeners_touched = true;
    return;
  }
  const int held = std::max(pool.target(), rollout.target_before);
  pool.desired = rollout.from;
  pool.scaled = rollout.scaled_before;
  begin_scaling(pool, held);
  for (auto& [id, other] : pool.workers) {
    const bool useless = other.active() && other.generation == rollout.to && !other.ready();
    if (useless) retire(pool, other, StopCause::kRolledBack);
  }
  for (auto& [number, slot] : pool.slots) slot.forget_failures();
}

// Every slot of the target is in the hands of the desired generation, and nobody else is left, nor
// a new worker that is unfit and serves until its successor does. What is rolled back to has to
// serve again in every slot first.
bool Machine::rollout_finished(const Pool& pool) const {
  if (pool.slots.size() != static_cast<std::size_t>(pool.target())) return false;
  for (const auto& [number, slot] : pool.slots) {
    if (slot.proven != pool.desired) return false;
    const auto serves = [&, place = number](const auto& entry) {
      return entry.second.slot == place && entry.second.ready();
    };
    const bool has_to = slot.vacated || pool.rollout->rolling_back;
    if (has_to && std::ranges::none_of(pool.workers, serves)) return false;
  }
  return std::ranges::all_of(pool.workers, [&](const auto& entry) {
    const Worker& worker = entry.second;
    const bool unfit = worker.failed && worker.active() && !pool.rollout->rolling_back;
    return (worker.generation == pool.desired && !unfit) || worker.stuck;
  });
}

void Machine::finish_rollout(Pool& pool, Outcome outcome) {
  const Rollout rollout = std::move(*pool.rollout);
  pool.rollout.reset();
  if (outcome == Outcome::kReloaded) {
    ++pool.reloads;
    pool.last_error.reset();
  }
  for (auto& [number, slot] : pool.slots) {
    if (slot.proven != pool.desired) slot.proven = 0;  // not to be relied upon, whatever it proved
    if (outcome == Outcome::kReloaded) slot.unhealthy = false;  // that was an old worker
  }
  note(pool, NoteKind::kReloadFinished, rollout.replaced, outcome, rollout.reason);
  touch(pool);
  if (!state_.reload || state_.reload->waiting.erase(pool.id) == 0) return;
  PoolOutcome result;
  result.pool = pool.name;
  result.outcome = outcome;
  result.generation = pool.desired;
  result.replaced = rollout.replaced;
  result.took = now_ - rollout.started;
  result.cut_off = rollout.cut_off;
  result.reason = rollout.reason;
  result.failed = rollout.failed;
  state_.reload->outcomes.push_back(std::move(result));
  inherited(pool.id, outcome == Outcome::kReloaded);
}

}  // namespace ostler::core
