// Generations, sockets, launches and answers.
#include <algorithm>
#include <utility>

#include "core/core.hpp"
#include "core/limits.hpp"
#include "oracle.hpp"

namespace ostler::sim {

using namespace core;  // every word here is the core's

void Oracle::act(const OpenListener& action) {
  check(!open_.contains(action.key) && !opening_.contains(action.key),
        "opened twice: " + action.key);
  check(reload_ && reload_->opening.contains(action.key), "nobody needs it open: " + action.key);
  const auto launch = launches_.find(action.launch);
  check(launch != launches_.end() && std::ranges::find(launch->second.listeners, action.key) !=
                                         launch->second.listeners.end(),
        "opened for a launch that does not have it: " + action.key);
  opening_.insert(action.key);
}

void Oracle::act(const CloseListener& action) {
  for (const auto& pool : pools_) settle_closing(*pool);
  const bool was_open = open_.erase(action.key) > 0;
  if (!was_open) return check(stray_ == action.key, "closed, and was not open: " + action.key);
  check(!needed_listeners().contains(action.key), "closed while in use: " + action.key);
}

// Of the generations in force, of those that workers have, and of the one to roll back to.
std::set<std::string> Oracle::listeners_of(const Pool& pool) {
  std::set<std::string> needed;
  const auto need = [&](const PoolPlan& plan) {
    needed.insert(plan.listeners.begin(), plan.listeners.end());
  };
  // A new pool that failed has no generation to go back to.
  need(pool.plans.at(pool.desired() == 0 ? pool.last : pool.desired()));
  if (pool.rollout) need(pool.plans.at(pool.rollout->to));
  if (pool.rollout && pool.rollout->from != 0) need(pool.plans.at(pool.rollout->from));
  for (const Worker* worker : pool.workers) need(worker->plan);
  return needed;
}

std::set<std::string> Oracle::needed_listeners() const {
  std::set<std::string> needed;
  const auto need = [&](const PoolPlan& plan) {
    needed.insert(plan.listeners.begin(), plan.listeners.end());
  };
  for (const auto& pool : pools_) {
    if ((pool->removed || stopping_) && !pool->serves_backlog()) continue;
    needed.merge(listeners_of(*pool));
  }
  if (reload_) std::ranges::for_each(reload_->plan.pools, need);
  return needed;
}

void Oracle::act(const DropLaunch& action) {
  forget_finished_reload();
  check(launches_.contains(action.launch),
        "launch dropped twice, or never there: " + std::to_string(action.launch.value));
  check(!needs(action.launch),
        "launch dropped while in use: " + std::to_string(action.launch.value));
  launches_.erase(action.launch);
}

bool Oracle::needs(LaunchId launch) const {
  const auto uses = [&](const PoolPlan& plan) { return plan.launch == launch; };
  for (const auto& [id, worker] : workers_) {
    if (worker->launch == launch) return true;
  }
  for (const auto& pool : pools_) {
    if (pool->removed) continue;
    if (uses(pool->plans.at(pool->desired()))) return true;
    if (pool->rollout && pool->rollout->from != 0 && uses(pool->plans.at(pool->rollout->from))) {
      return true;
    }
  }
  return reload_ && std::ranges::any_of(reload_->plan.pools, uses);
}

// --- The course of a reload
// -----------------------------------------------------------------------

bool Oracle::Reload::reloads(const std::string& pool) const {
  return std::ranges::any_of(askers,
                             [&](const Asker& one) { return !one.restart && one.names(pool); });
}

bool Oracle::Reload::names(const std::string& pool) const {
  return std::ranges::any_of(askers, [&](const Asker& one) { return one.names(pool); });
}

bool Oracle::Reload::owes_answers() const {
  return std::ranges::any_of(askers, [](const Asker& one) { return bool(one.op); });
}

void Oracle::start(std::vector<Asker> askers) {
  reload_.emplace();
  reload_->askers = std::move(askers);
  reload_->first = !configured_;
  reload_->reading = reload_->owes_read =
      std::ranges::any_of(reload_->askers, [](const Asker& one) { return !one.restart; });
  if (!reload_->reading) take({});
}

// The file counts as it is when the turn of a reload has come: not before, and not without need.
void Oracle::act(const ReadPlan&) {
  forget_finished_reload();
  if (!reload_) start_next();
  check(reload_ && reload_->owes_read, "the file is read though nobody's turn has come");
  if (reload_) reload_->owes_read = false;
}

void Oracle::act(const ReloadQueued& action) {
  const auto found = std::ranges::find(queued_, action);
  check(found != queued_.end(), "told to wait for a reload, and does not");
  if (found != queued_.end()) queued_.erase(found);
}

// What becomes of which pool is known.
void Oracle::take(const Plan& read) {
  Reload& reload = *reload_;
  reload.plan = {};
  for (const PoolPlan& plan : read.pools) {
    if (reload.reloads(plan.name)) reload.plan.pools.push_back(plan);
  }
  for (const auto& pool : pools_) {
    const bool restarts = reload.names(pool->name) && !reload.reloads(pool->name);
    if (!pool->removed && restarts) reload.plan.pools.push_back(pool->plans.at(pool->desired()));
  }
  std::erase_if(reload.askers, [&](const Asker& asker) {
    const bool planned = std::ranges::any_of(
        reload.plan.pools, [&](const PoolPlan& plan) { return plan.name == asker.pool; });
    if (asker.pool.empty() || planned || find_pool(asker.pool) != nullptr) return false;
    expect(asker.op, Outcome::kNotFound);
    return true;
  });
  if (reload.askers.empty()) return reload_.reset();
  takes_from_another(reload) ? reject() : open_or_commit();
}

// Nothing changes for those who asked for a reload. Restarts need neither file nor sockets.
void Oracle::reject() {
  Reload& reload = *reload_;
  std::erase_if(reload.askers, [&](const Asker& asker) {
    if (!asker.restart) expect(asker.op, Outcome::kRejected);
    return !asker.restart;
  });
  const bool first = reload.first;
  reload.announced = reload.failing = false;
  if (!first && !reload.askers.empty()) return take({});
  reload_.reset();
  if (!first) return;
  gave_up_ = ExitReason::kNoListener;
  stopping_ = true;
  abandon();
}

// A listener that stays another pool's, or may be its again.
bool Oracle::takes_from_another(const Reload& reload) const {
  std::set<std::string> wanted;
  for (const PoolPlan& plan : reload.plan.pools) {
    if (reload.reloads(plan.name)) wanted.insert(plan.listeners.begin(), plan.listeners.end());
  }
  const auto has = [&](const PoolPlan& plan) {
    return std::ranges::any_of(plan.listeners,
                               [&](const std::string& key) { return wanted.contains(key); });
  };
  return std::ranges::any_of(pools_, [&](const auto& pool) {
    if (pool->removed || reload.reloads(pool->name)) return false;
    return has(pool->plans.at(pool->desired())) ||
           (pool->rollout && pool->rollout->from != 0 &&
            has(pool->plans.at(pool->rollout->from))) ||
           (pool->rollout && has(pool->plans.at(pool->rollout->to))) ||
           std::ranges::any_of(pool->workers, [&](const Worker* one) { return has(one->plan); });
  });
}

void Oracle::notice_removed() {
  for (const auto& pool : pools_) {
    const bool gone = std::ranges::all_of(pool->workers, [](const Worker* w) { return w->stuck; });
    if (pool->removed && gone) no_longer_awaited(*pool);
  }
}

// One that nobody waits for has no answer that tells its end.
void Oracle::forget_finished_reload() {
  if (!reload_ || !(reload_->announced || reload_->first)) return;
  notice_removed();
  const bool over = reload_->committed && reload_->waiting.empty();
  if (over && !reload_->owes_answers()) reload_.reset();
}

// The next one, for all who wait; unless they ask for what is not there (any more).
bool Oracle::start_next() {
  if (waiting_.empty()) return false;
  start(std::exchange(waiting_, {}));
  return true;
}

void Oracle::open_or_commit() {
  for (const PoolPlan& plan : reload_->plan.pools) {
    for (const std::string& key : plan.listeners) {
      if (!open_.contains(key)) reload_->opening.insert(key);
    }
  }
  if (reload_->opening.empty()) commit();
}

void Oracle::listener_answered(const std::string& key) {
  if (!reload_ || reload_->opening.erase(key) == 0 || !reload_->opening.empty()) return;
  reload_->failing ? reject() : commit();
}

void Oracle::commit() {
  for (const auto& pool : pools_) judge_scaled_down(*pool);  // by the target that was in force
  Reload& reload = *reload_;
  reload.committed = true;
  const Plan plan = std::move(reload.plan);
  reload.plan = {};
  std::vector<Pool*> leaving;
  for (const auto& pool : pools_) {
    const bool stays = std::ranges::any_of(
        plan.pools, [&](const PoolPlan& wanted) { return wanted.name == pool->name; });
    if (!pool->removed && reload.reloads(pool->name) && !stays) leaving.push_back(pool.get());
  }
  for (const PoolPlan& wanted : plan.pools) {
    Pool* pool = find_pool(wanted.name);
    if (pool == nullptr) {
      pools_.push_back(std::make_unique<Pool>());
      pool = pools_.back().get();
      pool->name = wanted.name;
    }
    roll(*pool, wanted);
  }
  for (Pool* pool : leaving) leave(*pool, plan);
  configured_ = true;
  if (!reload.first) return;
  for (const Asker& asker : reload.askers) expect(asker.op, Outcome::kDone);
  reload_.reset();
}

void Oracle::remove(Pool& pool) {
  judge_scaled_down(pool);
  pool.removed = true;
  reload_->waiting.insert(&pool);
  begin_closing(pool);
}

// It serves until all are known to hold that have a listener of its now.
void Oracle::leave(Pool& pool, const Plan& plan) {
  const std::set<std::string> own = listeners_of(pool);
  std::set<std::string> heirs;
  for (const PoolPlan& other : plan.pools) {
    for (const std::string& key : other.listeners) {
      if (own.contains(key)) heirs.insert(other.name);
    }
  }
  if (heirs.empty()) return remove(pool);
  reload_->waiting.insert(&pool);
  reload_->heirs.emplace(&pool, std::move(heirs));
}

void Oracle::inherited(const std::string& heir, bool holds) {
  std::vector<Pool*> decided;
  for (const auto& pool : pools_) {  // the older first
    const auto heirs = reload_->heirs.find(pool.get());
    if (heirs == reload_->heirs.end() || heirs->second.erase(heir) == 0) continue;
    if (!holds || heirs->second.empty()) decided.push_back(pool.get());
  }
  for (Pool* pool : decided) {
    reload_->heirs.erase(pool);
    if (holds) {
      remove(*pool);
    } else {
      pool->owes_kept = true;
      reload_->waiting.erase(pool);
      reload_->finished[pool->name].push_back({Outcome::kKept, pool->current, 0, 0, false});
    }
  }
}

void Oracle::pool_kept(const std::string& name) {
  notice_removed();
  Pool* pool = find_pool(name);
  check(pool != nullptr && pool->owes_kept, "called kept, and is not: " + name);
  if (pool != nullptr) pool->owes_kept = false;
}

void Oracle::roll(Pool& pool, const PoolPlan& plan) {
  const Generation to = ++pool.last;
  pool.plans.emplace(to, plan);
  if (pool.current == 0) pool.load.target = plan.workers;
  if (reload_->first) {
    pool.current = to;
    return;
  }
  Rollout rollout;
  rollout.from = pool.current;
  rollout.to = to;
  rollout.scaled_before = pool.scaled;
  rollout.started = now_;
  if (pool.current != 0) {
    const PoolPlan& old = pool.plans.at(pool.current);
    rollout.target_before = target(pool);
    const bool written_anew =
        plan.workers_written != old.workers_written || plan.scaling != old.scaling;
    if (written_anew && reload_->reloads(pool.name)) pool.scaled.reset();
  }
  pool.rollout = rollout;
  if (pool.current != 0) begin_load(pool, rollout.target_before);
  clear_counts(pool);
  for (auto& [number, slot] : pool.slots) {
    slot.vacated = false;
    slot.fallback = slot.proven;
  }
  reload_->waiting.insert(&pool);
}

// The manager stops: whatever a reload still wanted is not done any more.
void Oracle::abandon() {
  if (reload_) waiting_.insert(waiting_.end(), reload_->askers.begin(), reload_->askers.end());
  reload_.reset();
  for (const Asker& asker : std::exchange(waiting_, {})) expect(asker.op, Outcome::kStopping);
  for (const auto& pool : pools_) {
    if (pool->rollout) pool->current = pool->desired();
    pool->rollout.reset();
    begin_closing(*pool);
  }
  for (auto& [op, operation] : operations_) {
    const auto* request = std::get_if<WorkerRequested>(&operation.request);
    if (request != nullptr && request->request == WorkerRequest::kRecycle && !operation.due) {
      operation.due = Outcome::kStopping;
    }
  }
}

void Oracle::reload_started() {
  const bool begun = reload_ && !reload_->announced;
  if (!begun) forget_finished_reload();
  while (!reload_ && start_next()) {
  }
  check(reload_ && !reload_->announced, "a reload is announced that was not asked for");
  if (reload_) reload_->announced = true;
}

void Oracle::pool_failing(const Note& note) {
  Pool* pool = find_pool(note.pool);
  if (pool == nullptr || !pool->rolling()) return wrong("called failing: " + note.pool);
  Rollout& rollout = *pool->rollout;
  const int attempts = pool->plans.at(rollout.to).attempts;
  check(rollout.failures >= attempts, "rolled back after " + std::to_string(rollout.failures) +
                                          " failures of " + std::to_string(attempts) + ": " +
                                          note.pool);
  check(note.failure.has_value(), "rolled back without a reason: " + note.pool);
  const int held = std::max(target(*pool), rollout.target_before);
  rollout.back = true;
  rollout.earliest = rollout.latest = std::nullopt;
  if (!rollout.scaled_since) pool->scaled = rollout.scaled_before;
  clear_counts(*pool);
  for (auto& entry : pool->slots) {
    const bool served = std::ranges::any_of(pool->workers, [&](const Worker* worker) {
      return worker->slot == entry.first && worker->serves() && worker->generation == rollout.from;
    });
    if (!served) entry.second.proven = 0;
  }
  unsettle_slots(*pool);
  if (rollout.from != 0) return begin_load(*pool, held);
  pool->removed = true;
  begin_closing(*pool);
}

void Oracle::pool_finished(const Note& note) {
  if (note.outcome == Outcome::kRejected) return;  // known from the file and the sockets
  if (note.outcome == Outcome::kBusy || note.outcome == Outcome::kStopping) {
    return check(refused_-- > 0, "called refused, and is not");
  }
  Pool* pool = find_pool(note.pool);
  if (pool == nullptr || !pool->rollout || !reload_) return wrong("called finished: " + note.pool);
  const Rollout rollout = *pool->rollout;
  judge_scaled_down(*pool);  // by the rules of a reload
  check(rollout.back == (note.outcome == Outcome::kRolledBack),
        "called " + std::string(word(note.outcome)) + ", and is not: " + note.pool);
  pool->current = pool->desired();
  check(note.generation == pool->current, "finished with a wrong generation: " + note.pool);
  if (note.outcome == Outcome::kRolledBack) check_rolled_back(*pool);
  if (note.outcome == Outcome::kReloaded) {
    check_reloaded(*pool);
    for (auto& [number, slot] : pool->slots) slot.unhealthy = false;
  }
  check(reload_->waiting.erase(pool) == 1, "finished twice: " + note.pool);
  reload_->finished[pool->name].push_back(
      {note.outcome, pool->current, rollout.replaced, rollout.cut_off, true});
  pool->rollout.reset();
  unsettle_slots(*pool);
  inherited(pool->name, note.outcome == Outcome::kReloaded);
}

// Every slot has been served by the old generation since, or it cannot be had back.
void Oracle::check_rolled_back(const Pool& pool) {
  std::set<int> served;
  bool waits = false;
  for (const auto& [number, slot] : pool.slots) {
    if (slot.proven == pool.current) served.insert(number);
    waits = waits || slot.latest;
  }
  for (const Worker* worker : pool.workers) {
    if (worker->generation == pool.current && worker->serves()) served.insert(worker->slot);
  }
  check(waits || static_cast<int>(served.size()) >= least(pool),
        "called rolled back before the old ones serve again: " + pool.name);
}

// Nobody of another generation is left, and every slot is in the hands of the new one.
void Oracle::check_reloaded(const Pool& pool) {
  std::set<int> proven;
  for (const auto& [number, slot] : pool.slots) {
    if (slot.proven == pool.current) proven.insert(number);
  }
  for (const Worker* worker : pool.workers) {
    const bool current = worker->generation == pool.current;
    check(current || worker->stuck, "called reloaded while an old one lives: " + name(*worker));
    check(!current || !worker->active() || !worker->failed,
          "called reloaded while an unfit one serves: " + name(*worker));
    if (current && worker->serves() && settled(*worker)) proven.insert(worker->slot);
  }
  check(pool.rollout->failures < pool.plans.at(pool.current).attempts,
        "called reloaded, and its workers failed too often: " + pool.name);
  check(static_cast<int>(proven.size()) >= least(pool),
        "called reloaded before every slot has seen it work: " + pool.name);
}

void Oracle::pool_removed(const std::string& name) {
  const auto found = std::ranges::find_if(pools_, [&](const auto& pool) {
    return pool->removed && pool->name == name && pool->workers.empty();
  });
  if (found == pools_.end()) return wrong("called removed, and is not: " + name);
  no_longer_awaited(**found);
  removed_pools_.push_back(std::move(*found));
  pools_.erase(found);
}

// A reload that removes a pool is over there when nobody is left, or nobody that SIGKILL ends.
void Oracle::no_longer_awaited(const Pool& pool) {
  if (!reload_ || reload_->waiting.erase(&pool) == 0) return;
  const bool failed = pool.rollout.has_value();
  reload_->finished[pool.name].push_back(
      {failed ? Outcome::kRolledBack : Outcome::kRemoved, pool.last, 0, 0, false});
  if (failed) inherited(pool.name, false);
}

// --- Claims
// ---------------------------------------------------------------------------------------

void Oracle::act(const Note& note) {
  Worker* worker = find(note.worker);
  const auto owed = [&](NoteKind kind) {
    check(worker != nullptr && worker->owes_note == kind, "note out of place about a worker");
    if (worker != nullptr) worker->owes_note.reset();
  };
  switch (note.kind) {
    case NoteKind::kWorkerStarting:
      return owed(NoteKind::kWorkerStarting);
    case NoteKind::kWorkerReady:
      return worker != nullptr ? said_ready(*worker) : wrong("one that is gone is called ready");
    case NoteKind::kWorkerStopping:
      return worker != nullptr ? told(*worker, note) : wrong("one that is gone is told to go");
    case NoteKind::kWorkerExited:
    case NoteKind::kWorkerFailed:
      return said_gone(note);
    case NoteKind::kWorkerUnkillable:
      return check(worker != nullptr && worker->killed && now_ >= *worker->kill_due,
                   "called unkillable too early");
    case NoteKind::kWorkerWorn:
      return worker != nullptr ? worn(*worker, note) : wrong("one that is gone is called worn");
    case NoteKind::kHealthFailed:
      return worker != nullptr ? unhealthy(*worker, note)
                               : wrong("one that is gone is called unhealthy");
    case NoteKind::kWorkerUnfit:
      return worker != nullptr ? said_unfit(*worker, note)
                               : wrong("one that is gone is called unfit");
    case NoteKind::kReloadStarted:
      return reload_started();
    case NoteKind::kReloadFailing:
      return pool_failing(note);
    case NoteKind::kReloadFinished:
      return pool_finished(note);
    case NoteKind::kPoolRemoved:
      return pool_removed(note.pool);
    case NoteKind::kPoolKept:
      return pool_kept(note.pool);
    case NoteKind::kManagerStopping:
      if (stopping_) return;
      stopping_ = true;
      gave_up_ = ExitReason::kAllPoolsFailed;
      check(!any_ready_, "given up though a worker was ready once");
      for (const auto& pool : pools_) {
        // 0: a reload had added it, and takes it back.
        if (pool->removed || pool->desired() == 0) continue;
        check(pool->failures >= limits::kFirstStartTries || least(*pool) == 0,
              "given up before every pool had its tries: " + pool->name);
      }
      return abandon();
    case NoteKind::kPoolReady: {
      Pool* pool = find_pool(note.pool);
      const auto serving = pool == nullptr ? 0 : std::ranges::count_if(pool->workers, [](auto* w) {
        return w->serves();
      });
      if (pool == nullptr || serving < least(*pool)) return wrong("called ready: " + note.pool);
      pool->was_full = true;
      return;
    }
    case NoteKind::kPoolScaled:
      return scaled(note);
    case NoteKind::kManagerReady:
    case NoteKind::kClockJumped:
      return;
  }
}

void Oracle::act(const Reply& reply) {
  forget_finished_reload();
  const auto is_it = [&](const Asker& asker) { return asker.op == reply.op; };
  if (!reload_ && std::ranges::any_of(waiting_, is_it)) start_next();
  const auto found = operations_.find(reply.op);
  check(!answered_.contains(reply.op), "answered twice: op " + std::to_string(reply.op.value));
  if (found == operations_.end() || !reply.op) return wrong("answer to nobody");
  const Operation operation = std::move(found->second);
  operations_.erase(found);
  answered_.insert(reply.op);
  if (operation.worker) --waiting_requests_;
  if (operation.due) {
    check(reply.outcome == *operation.due, std::string("answered '") + word(reply.outcome) +
                                               "', not '" + word(*operation.due) + "'");
    if (reply.outcome == Outcome::kRejected) {
      check(!reply.errors.empty(), "rejected without a reason");
    }
    return;
  }
  if (const auto* request = std::get_if<WorkerRequested>(&operation.request)) {
    return check_worker_reply(operation, *request, reply);
  }
  check_reload_reply(reply);
}

void Oracle::check_reload_reply(const Reply& reply) {
  const bool over = reload_ && reload_->committed && reload_->waiting.empty();
  if (!over) return wrong("a reload is answered before it is over");
  const auto asker = std::ranges::find(reload_->askers, reply.op, &Asker::op);
  if (asker == reload_->askers.end()) return wrong("one is answered who asked for another reload");
  check_told_outcomes(*asker, reply);
  reload_->askers.erase(asker);
  forget_finished_reload();
}

// Everybody hears of the pools that they named, and of no other.
void Oracle::check_told_outcomes(const Asker& asker, const Reply& reply) {
  bool failed = false;
  std::size_t count = 0;
  const auto failed_there = [&](WorkerId id) {
    return dead_.contains(id) || (workers_.contains(id) && workers_.at(id)->failed);
  };
  for (const auto& [name, list] : reload_->finished) {
    if (!asker.names(name)) continue;
    for (const Finished& finished : list) {
      failed =
          failed || finished.outcome == Outcome::kRolledBack || finished.outcome == Outcome::kKept;
      ++count;
      const auto says_so = [&, &pool = name](const PoolOutcome& outcome) {
        return outcome.pool == pool && outcome.outcome == finished.outcome &&
               (!finished.whole ||
                (outcome.generation == finished.generation &&
                 outcome.replaced == finished.replaced && outcome.cut_off == finished.cut_off)) &&
               (outcome.outcome != Outcome::kRolledBack ||
                (outcome.reason.has_value() && failed_there(outcome.failed)));
      };
      const bool told = std::ranges::any_of(reply.pools, says_so);
      check(told, "wrong outcome of a reload for " + name + ": " +
                      std::to_string(finished.replaced) + " were replaced, " +
                      std::to_string(finished.cut_off) + " cut off");
    }
  }
  check(count == reply.pools.size(), "a reload is answered for too many or too few pools");
  check(reply.outcome == (failed ? Outcome::kRolledBack : Outcome::kReloaded),
        std::string("wrong outcome of a reload: ") + word(reply.outcome));
}

void Oracle::check_worker_reply(const Operation& operation, const WorkerRequested& request,
                                const Reply& reply) {
  if (reply.outcome == Outcome::kFailed) {
    check(
        request.request == WorkerRequest::kRecycle && reply.reason && dead_.contains(reply.worker),
        "called failed, and is not");
    return;
  }
  if (reply.outcome == Outcome::kStopping) {
    return check(stopping_, "called stopping, and is not");
  }
  check(reply.outcome == Outcome::kDone, std::string("wrong answer: ") + word(reply.outcome));
  check(!workers_.contains(operation.worker), "called done while the worker lives");
  if (request.request != WorkerRequest::kRecycle) return;
  const bool wanted = !stopping_ && !operation.pool->removed;
  const auto in_slot = std::ranges::any_of(operation.pool->workers, [&](const Worker* worker) {
    return worker->slot == operation.slot && worker->active();
  });
  if (!wanted || !in_slot) return;
  const Worker* successor = find(reply.worker);
  check(successor != nullptr && successor->serves() && successor->slot == operation.slot,
        "called done before the slot serves again");
}

void Oracle::act(const ExitManager& action) {
  check(stopping_, "the manager ends, though nobody asked");
  check(operations_.empty(), "the manager ends and owes answers");
  check(open_.empty(), "the manager ends with a listener open");
  check(action.reason == gave_up_.value_or(ExitReason::kStopped), "the manager ends, wrong reason");
  for (const auto& [id, worker] : workers_) {
    check(worker->stuck, "the manager ends while a worker lives: " + name(*worker));
  }
  exited_ = action.reason;
}

}  // namespace ostler::sim
