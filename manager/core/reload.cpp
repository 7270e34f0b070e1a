// Requests for reloads and restarts. One runs. Whoever asks meanwhile joins the one that waits; the
// file is read when its turn comes, so that the newest one counts, and everybody is answered with
// what became of the pools that they named.
#include <algorithm>
#include <string>
#include <utility>

#include "core/limits.hpp"
#include "core/machine.hpp"

namespace ostler::core {

bool Asker::covers(const Asker& other) const {
  return names(other.pool) && (!restart || other.restart);
}

bool Reload::reloads(const std::string& pool) const {
  return std::ranges::any_of(
      askers, [&](const Asker& asker) { return !asker.restart && asker.names(pool); });
}

bool Reload::names(const std::string& pool) const {
  return std::ranges::any_of(askers, [&](const Asker& asker) { return asker.names(pool); });
}

std::string Reload::only() const {
  const std::string& name = askers.front().pool;
  const bool same =
      std::ranges::all_of(askers, [&](const Asker& asker) { return asker.pool == name; });
  return same ? name : std::string();
}

void Machine::on(const PlanAccepted& event) {
  if (state_.stopping || state_.reload || state_.configured) {
    ++state_.ignored;
    for (const PoolPlan& plan : event.plan.pools) release(plan.launch);
    return reply(event.op, state_.stopping ? Outcome::kStopping : Outcome::kBusy);
  }
  state_.reload.emplace();
  state_.reload->askers.push_back({event.op, "", false});
  state_.reload->first = true;
  state_.reload->started = now_;
  plan_reload(event.plan);
}

void Machine::on(const ReloadRequested& event) {
  const Asker asker{event.op, event.pool, event.restart};
  if (state_.stopping) return refuse(asker, Outcome::kStopping);
  if (!state_.reload) return begin_reload({asker});
  // Whoever waits for no answer only has to be covered.
  const bool covered = !asker.op && std::ranges::any_of(state_.waiting, [&](const Asker& other) {
    return other.covers(asker);
  });
  if (!covered && state_.waiting.size() >= limits::kReloadAskers) {
    return refuse(asker, Outcome::kBusy);
  }
  if (!covered) state_.waiting.push_back(asker);
  act(ReloadQueued{asker.op, asker.pool, state_.reload->askers.front().op, state_.reload->first});
}

void Machine::refuse(const Asker& asker, Outcome outcome) {
  note_rejected(asker.pool, outcome, {});
  reply(asker.op, outcome);
}

void Machine::begin_reload(std::vector<Asker> askers) {
  const bool reads = std::ranges::any_of(askers, [](const Asker& asker) { return !asker.restart; });
  state_.reload.emplace();
  state_.reload->askers = std::move(askers);
  state_.reload->first = !state_.configured;
  state_.reload->started = now_;
  if (!reads) return plan_reload({});
  state_.reload->reading = true;
  act(ReadPlan{});
}

void Machine::on(const PlanRead& event) {
  if (!state_.reload || !state_.reload->reading) {
    ++state_.ignored;
    for (const PoolPlan& plan : event.plan.pools) release(plan.launch);
    return;
  }
  state_.reload->reading = false;
  if (event.faults.empty()) return plan_reload(event.plan);
  state_.reload->faults = event.faults;
  for (const PoolPlan& plan : event.plan.pools) release(plan.launch);
  reject();
}

// Where a reload was asked for, the file decides; other pools that are named keep what they have.
void Machine::plan_reload(const Plan& read) {
  Reload& reload = *state_.reload;
  for (const PoolPlan& plan : read.pools) {
    if (reload.reloads(plan.name)) reload.plan.pools.push_back(plan);
  }
  for (const PoolPlan& plan : read.pools) {
    if (!reload.reloads(plan.name)) release(plan.launch);
  }
  for (const auto& [id, pool] : state_.pools) {
    if (pool.removed || reload.reloads(pool.name) || !reload.names(pool.name)) continue;
    reload.plan.pools.push_back(pool.plan());
  }
  answer_unknown();
  if (reload.askers.empty()) return state_.reload.reset();
  find_taken_listeners();
  reload.faults.empty() ? open_listeners() : reject();
}

// Those who named a pool that neither the file has nor the manager.
void Machine::answer_unknown() {
  const auto is_there = [&](const std::string& name) {
    const Pool* pool = find_pool(state_, name);
    return (pool != nullptr && !pool->removed) ||
           std::ranges::any_of(state_.reload->plan.pools,
                               [&](const PoolPlan& plan) { return plan.name == name; });
  };
  std::erase_if(state_.reload->askers, [&](const Asker& asker) {
    if (asker.pool.empty() || is_there(asker.pool)) return false;
    reply(asker.op, Outcome::kNotFound);
    return true;
  });
}

// The file has a fault, or a new socket could not be opened: nothing has been changed yet, and
// nothing will be. A restart needs neither, and goes on.
void Machine::reject() {
  Reload& reload = *state_.reload;
  for (const std::string& key : std::exchange(reload.opened, {})) {
    state_.listeners.erase(key);
    act(CloseListener{key});
  }
  state_.listeners_touched = true;  // those that only this reload still wanted
  for (const PoolPlan& plan : std::exchange(reload.plan, {}).pools) release(plan.launch);
  const std::vector<Failure> faults = std::exchange(reload.faults, {});
  const bool first = reload.first;
  if (!first) note_rejected(reload.only(), Outcome::kRejected, faults.front());
  std::erase_if(reload.askers, [&](const Asker& asker) {
    if (asker.restart) return false;
    if (!asker.op) return true;
    Reply answer;
    answer.op = asker.op;
    answer.outcome = Outcome::kRejected;
    answer.errors = faults;
    act(std::move(answer));
    return true;
  });
  if (!reload.askers.empty() && !first) return plan_reload({});
  state_.reload.reset();
  if (!first) return;
  for (const Failure& fault : faults) state_.exit_causes.push_back({"", fault});
  state_.configured = true;
  state_.exit_reason = ExitReason::kNoListener;
  begin_stop(false);
}

// Answers a reload whose pools are all through, and starts the one that waits.
void Machine::finish_reload() {
  while (!state_.stopping) {
    if (state_.reload && (!state_.reload->committed || !state_.reload->waiting.empty())) return;
    if (state_.reload) answer_reload();
    if (state_.waiting.empty()) return;
    begin_reload(std::exchange(state_.waiting, {}));
  }
}

void Machine::answer_reload() {
  Reload reload = std::move(*state_.reload);
  state_.reload.reset();
  std::ranges::sort(reload.outcomes, {}, &PoolOutcome::pool);
  for (const Asker& asker : reload.askers) {
    if (!asker.op) continue;
    Reply answer;
    answer.op = asker.op;
    answer.outcome = Outcome::kReloaded;
    for (const PoolOutcome& outcome : reload.outcomes) {
      if (!asker.names(outcome.pool)) continue;
      const bool failed =
          outcome.outcome == Outcome::kRolledBack || outcome.outcome == Outcome::kKept;
      if (failed) answer.outcome = Outcome::kRolledBack;
      answer.pools.push_back(outcome);
    }
    act(std::move(answer));
  }
}

// The manager stops: what a reload still wanted is not done any more, nor what the next one would.
void Machine::abandon_reload() {
  if (state_.reload) {
    const Reload reload = std::move(*state_.reload);
    state_.reload.reset();
    for (const Asker& asker : reload.askers) reply(asker.op, Outcome::kStopping);
    for (const PoolPlan& plan : reload.plan.pools) release(plan.launch);
    state_.listeners_touched = true;  // those that it had opened
  }
  for (auto& [id, pool] : state_.pools) pool.rollout.reset();
  for (const Asker& asker : std::exchange(state_.waiting, {})) {
    reply(asker.op, Outcome::kStopping);
  }
}

void Machine::note_rejected(const std::string& pool, Outcome outcome,
                            std::optional<Failure> failure) {
  Note finished;
  finished.kind = NoteKind::kReloadFinished;
  finished.pool = pool;
  finished.outcome = outcome;
  finished.failure = std::move(failure);
  act(std::move(finished));
}

}  // namespace ostler::core
