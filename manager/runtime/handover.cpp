#include "runtime/handover.hpp"

#include <algorithm>
#include <tuple>
#include <utility>

#include "runtime/limits.hpp"

namespace ostler::runtime {

void Handover::configure(HandoverPolicy policy, std::vector<std::string> listeners,
                         std::set<std::string> closing) {
  policy_ = policy;
  listeners_ = std::move(listeners);
  closing_ = std::move(closing);
}

bool Handover::Candidate::serves(const std::string& listener) const {
  return listener.empty() || std::ranges::count(*load.listeners, listener) > 0;
}

// Where a request takes no longer than a hand-over, the next connection is given in advance: else
// the worker would wait for each. Idle time counts: only a worker that is busy all the time is
// quick.
bool Handover::is_quick(Pace& pace, const WorkerLoad& load, core::Time now) {
  const std::uint64_t done = load.requests - pace.requests;
  if (done < limits::kPaceRequests && now - pace.at < limits::kPaceSpan) return pace.quick;
  const bool quick =
      done >= limits::kPaceRequests && (now - pace.at) / limits::kPaceRequests < limits::kQuick;
  pace = {load.requests, now, quick};
  return quick;
}

bool Handover::stands_still(const WorkerLoad& load, core::Time now) {
  return load.untaken > 0 && now - load.untaken_since >= limits::kStandsStill;
}

void Handover::table_full(HandoverPort& port, core::WorkerId worker) {
  full_tables_[worker] = {0, port.now() + limits::kTableFull};
}

// What it took with the message that was cut it may not have counted yet: hence the most it had.
bool Handover::has_full_table(const WorkerLoad& load, core::Time now) {
  const auto found = full_tables_.find(load.worker);
  if (found == full_tables_.end()) return false;
  FullTable& table = found->second;
  if (load.connections < table.connections || now >= table.until) {
    full_tables_.erase(found);
    return false;
  }
  table.connections = load.connections;
  return true;
}

Handover::Candidate Handover::assess(const WorkerLoad& load, core::Time now) {
  Candidate candidate;
  candidate.load = load;
  const bool ahead = load.concurrency == 1 && is_quick(paces_[load.worker], load, now);
  const std::uint64_t most = load.capacity + (ahead ? 1 : 0);
  const std::uint64_t has = load.connections + load.untaken;
  const std::uint64_t free = most > has ? most - has : 0;
  const std::uint64_t on_their_way =
      limits::kUntaken > load.untaken ? limits::kUntaken - load.untaken : 0;
  candidate.capacity = std::min(free, on_their_way);
  if (const auto refusal = refusals_.find(load.worker); refusal != refusals_.end()) {
    const bool holds = refusal->second.untaken == load.untaken && now < refusal->second.until;
    if (holds) candidate.capacity = 0;
    if (!holds) refusals_.erase(refusal);
  }
  if (has_full_table(load, now)) candidate.capacity = 0;
  candidate.stands_still = stands_still(load, now);
  return candidate;
}

// Reads what workers say once a call: what is handed over meanwhile is added to it.
std::vector<Handover::Candidate> Handover::candidates(HandoverPort& port) {
  std::vector<Candidate> good;
  std::vector<Candidate> late;
  const core::Time now = port.now();
  const std::vector<WorkerLoad> loads = port.loads();
  for (const WorkerLoad& load : loads) {
    const Candidate one = assess(load, now);
    (one.stands_still ? late : good).push_back(one);
  }
  const auto is_gone = [&](const auto& entry) {
    return std::ranges::find(loads, entry.first, &WorkerLoad::worker) == loads.end();
  };
  std::erase_if(paces_, is_gone);
  std::erase_if(refusals_, is_gone);
  std::erase_if(full_tables_, is_gone);
  // A worker that stands still gets something only if no other is there.
  passed_over_ = !good.empty() && !late.empty();
  return good.empty() ? std::move(late) : std::move(good);
}

Handover::Candidate* Handover::choose(std::vector<Candidate>& all, const std::string& listener) {
  const auto rank = [](const Candidate& one) {
    const std::uint64_t coming = one.load.untaken + one.handed;
    const std::uint64_t busy = one.load.active + coming;
    const bool waits = one.load.concurrency > 0 && busy >= one.load.concurrency;
    return std::tuple(one.capacity == 0, waits, one.load.connections + coming, busy);
  };
  const auto less = [&](const Candidate& a, const Candidate& b) { return rank(a) < rank(b); };
  if (policy_ == HandoverPolicy::kRandom && !all.empty()) {
    Candidate& one = all[random_() % all.size()];
    Candidate& other = all[random_() % all.size()];
    Candidate& better = less(other, one) ? other : one;
    if (better.capacity > 0 && better.serves(listener)) return &better;
  }
  // Round robin takes the first that has capacity after the one it took last; the others take the
  // best of all, and of equals the first after that one.
  const bool in_turn = policy_ == HandoverPolicy::kRoundRobin;
  Candidate* chosen = nullptr;
  for (std::size_t i = 0; i < all.size(); ++i) {
    Candidate& one = all[(turn_ + i) % all.size()];
    if (one.capacity == 0 || !one.serves(listener)) continue;
    if (chosen == nullptr || (!in_turn && less(one, *chosen))) chosen = &one;
  }
  return chosen;
}

// If no worker serves its listener any more, any worker will do: the client need not know.
Handover::Candidate* Handover::choose_for_pending(std::vector<Candidate>& all,
                                                  const std::string& listener) {
  const auto serves = [&](const Candidate& one) { return one.serves(listener); };
  return choose(all, std::ranges::any_of(all, serves) ? listener : "");
}

Handover::Candidate* Handover::choose_for_new(std::vector<Candidate>& all,
                                              const std::string& listener) {
  return closing_.contains(listener) ? choose_for_pending(all, listener) : choose(all, listener);
}

void Handover::note(Candidate& chosen, const std::vector<Candidate>& all) {
  turn_ = static_cast<std::uint64_t>(&chosen - all.data()) + 1;
  --chosen.capacity;
  ++chosen.handed;
}

// Those of one listener keep their order; those of another do not wait for them.
bool Handover::hand_pending(HandoverPort& port, std::vector<Candidate>& all,
                            bool& none_has_capacity) {
  const std::string* blocked = nullptr;
  for (std::size_t i = 0; i < port.pending(); ++i) {
    const std::string& listener = port.pending_listener(i);
    if (blocked != nullptr && listener == *blocked) continue;
    Candidate* const chosen = choose_for_pending(all, listener);
    if (chosen == nullptr) {
      blocked = &listener;
      continue;
    }
    port.take_pending(i, chosen->load.worker);
    note(*chosen, all);
    return true;
  }
  none_has_capacity = none_has_capacity || blocked != nullptr;
  return false;
}

// The listener that had its turn longest ago comes first. One that no worker has capacity for, or
// that could not be accepted from, keeps its place: else others could take its turn time and again.
Handover::Step Handover::hand_one(HandoverPort& port, std::vector<Candidate>& all) {
  bool none_has_capacity = false;
  if (hand_pending(port, all, none_has_capacity)) return Step::kHanded;
  auto next = listeners_.begin();
  for (std::size_t left = listeners_.size(); left > 0; --left) {
    if (failed_.contains(*next)) {
      ++next;
      continue;
    }
    Candidate* const chosen = choose_for_new(all, *next);
    if (chosen == nullptr) {
      none_has_capacity = true;
      ++next;
      continue;
    }
    const HandoverPort::Accepted accepted = port.accept(*next, chosen->load.worker);
    if (accepted == HandoverPort::Accepted::kFailed) {
      failed_.insert(*next);
      ++next;
      continue;
    }
    std::rotate(next, next + 1, listeners_.end());
    if (accepted == HandoverPort::Accepted::kNone) continue;
    note(*chosen, all);
    return Step::kHanded;
  }
  return none_has_capacity ? Step::kNoCapacity : Step::kNothingWaits;
}

// False: at least one worker refused.
bool Handover::deliver(HandoverPort& port, const std::vector<Candidate>& all) {
  bool all_delivered = true;
  for (const Candidate& one : all) {
    if (one.handed == 0) continue;
    port.look_after(limits::kLookAtTaken);
    if (port.deliver(one.load.worker)) continue;
    all_delivered = false;
    refusals_[one.load.worker] = {one.load.untaken, port.now() + limits::kRefused};
  }
  return all_delivered;
}

void Handover::hand_over(HandoverPort& port) {
  waits_ = false;
  failed_.clear();
  std::vector<Candidate> all = candidates(port);
  if (all.empty()) return;  // a worker that becomes ready will serve
  Step step = Step::kHanded;
  for (int left = limits::kDispatchPerTurn; left > 0 && step == Step::kHanded; --left) {
    step = hand_one(port, all);
  }
  const bool refused = !deliver(port, all);
  waits_ = !failed_.empty();
  if (refused || step == Step::kHanded) return port.continue_soon();
  // What waits where accept failed would wake the manager at once, again and again.
  if (!failed_.empty()) port.look_after(limits::kAcceptAgain);
  for (const std::string& listener : listeners_) {
    if (!failed_.contains(listener) && choose_for_new(all, listener) != nullptr) {
      port.await_connection(listener);
    }
  }
  if (step == Step::kNoCapacity) wait_for_capacity(port, all);
}

// How many listeners, and pending connections of different listeners, no worker has capacity for.
std::size_t Handover::blocked(const HandoverPort& port, std::vector<Candidate>& all) {
  const auto count = static_cast<std::size_t>(std::ranges::count_if(
      listeners_, [&](const std::string& one) { return choose_for_new(all, one) == nullptr; }));
  std::set<std::string> pending;
  for (std::size_t i = 0; i < port.pending(); ++i) pending.insert(port.pending_listener(i));
  return count + static_cast<std::size_t>(std::ranges::count_if(pending, [&](const auto& one) {
           return choose_for_pending(all, one) == nullptr;
         }));
}

// Connections may wait. Each worker is asked to say when it has capacity. One that got it before it
// could know that it was asked does not say so: hence the second look. None says that it has taken
// what was on its way: the looks, which go on while anything is on its way, try again.
void Handover::wait_for_capacity(HandoverPort& port, std::vector<Candidate>& all) {
  const bool taking = std::ranges::any_of(all, [](const Candidate& one) {
    return !one.stands_still && one.load.untaken + one.handed > 0;
  });
  const bool late = passed_over_ || all.front().stands_still;
  waits_ = waits_ || taking || late || !full_tables_.empty();
  for (const auto& [worker, table] : full_tables_) port.look_after(table.until - port.now());
  const std::size_t before = blocked(port, all);
  port.await_capacity();
  std::vector<Candidate> again = candidates(port);
  if (blocked(port, again) < before) port.continue_soon();
}

std::vector<core::WorkerId> Handover::look(HandoverPort& port) {
  if (waits_) hand_over(port);
  std::vector<core::WorkerId> late;
  const core::Time now = port.now();
  for (const WorkerLoad& load : port.loads()) {
    if (load.untaken == 0) continue;
    const bool stands = stands_still(load, now);
    if (stands) late.push_back(load.worker);
    port.look_after(stands ? limits::kStandsStill : limits::kLookAtTaken);
  }
  return late;
}

}  // namespace ostler::runtime
