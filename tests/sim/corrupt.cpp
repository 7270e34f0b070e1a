#include "corrupt.hpp"

#include <algorithm>
#include <utility>

namespace ostler::sim {

using namespace core;  // every word here is the core's

const std::vector<Mistake>& mistakes() {
  static const std::vector<Mistake> all = {
      {"lose-stop", "a stop signal is not sent"},
      {"lose-abort", "a hung worker is not aborted"},
      {"lose-kill", "a worker that ignores its stop signal is not killed"},
      {"kill-for-stop", "a worker is killed when it should drain"},
      {"stop-for-abort", "a hung worker is asked to drain"},
      {"stop-at-random", "a worker is told to go for no reason"},
      {"signal-the-dead", "a signal after the end"},
      {"lose-spawn", "a worker is not started"},
      {"double-spawn", "a slot is filled twice"},
      {"reuse-id", "a worker gets the id of an earlier one"},
      {"wrong-slot", "a worker is started in a slot that is not wanted"},
      {"old-launch", "a worker is started with an earlier launch"},
      {"lose-reply", "a request is not answered"},
      {"double-reply", "a request is answered twice"},
      {"early-reply", "a reload is answered when it begins"},
      {"call-it-done", "a failure is reported as success"},
      {"lose-reason", "a roll-back is reported without its reason"},
      {"miscount", "the number of replaced workers is wrong"},
      {"lose-read", "the file is not read for a reload"},
      {"read-at-random", "the file is read though no reload's turn has come"},
      {"lose-queued", "nobody is told that a reload waits"},
      {"answer-in-part", "a reload is answered without one of its pools"},
      {"lose-open", "a socket is not opened"},
      {"keep-open", "a socket that nobody needs stays open"},
      {"close-early", "a socket in use is closed"},
      {"keep-launch", "a launch that nobody needs is kept"},
      {"drop-launch-early", "a launch in use is dropped"},
      {"lose-watch", "the load of a pool is not asked for"},
      {"watch-at-random", "the load of a pool is asked for, though nobody has work for it"},
      {"lose-await", "nobody is told to look for clients of an idle pool"},
      {"scale-further", "a pool is scaled to one more than the load asks for"},
      {"exit-early", "the manager ends while workers live"},
      {"never-exit", "the manager does not end"},
      {"wrong-exit", "the manager ends with a wrong reason"},
      {"forget-time", "no next step is asked for"},
      {"late-time", "the next step is asked for too late"},
      {"no-rest", "the next step is always now"},
      {"lose-note", "something happens and nobody is told"},
      {"wrong-cause", "a worker is told to go for another reason than the true one"},
      {"lose-probe", "a worker is neither warmed up nor checked"},
      {"double-probe", "a worker is asked twice"},
      {"lose-accept", "a worker that is warm is not let to accept"},
      {"accept-early", "a worker is let to accept before it is warm"},
      {"lose-look", "nobody looks at a worker that has work"},
      {"look-at-random", "an idle worker is looked at"},
      {"look-for-less", "a look with a shorter limit"},
      {"lose-turning-away", "a pool ends, and connections still come in"},
      {"keep-the-door-open", "the last worker of a listener goes, and connections still come in"},
      {"lose-emptying", "a worker's queue is not emptied before it goes"},
      {"empty-at-random", "a worker's queue is emptied for no reason"},
      {"lose-measure", "a worker's memory is not measured"},
      {"measure-at-random", "a worker's memory is measured for no reason"},
      {"wrong-wear", "a worker is worn for another reason than the true one"},
      {"backoff-lie", "the wait that is reported is not the one that is kept"},
  };
  return all;
}

// `which` says whether an action of the kind is to be lost.
template <class T, class F>
void Corruptor::drop(Actions& actions, F&& which) {
  std::erase_if(actions, [&](const Action& action) {
    const T* what = std::get_if<T>(&action);
    return what != nullptr && which(*what);
  });
}

template <class T, class F>
void Corruptor::change(Actions& actions, F&& how) {
  for (Action& action : actions) {
    if (T* what = std::get_if<T>(&action)) how(*what);
  }
}

void Corruptor::corrupt(Actions& actions, std::optional<Time>& promised, Time now) {
  if (!active()) return;
  spoil_workers(actions);
  spoil_care(actions);
  spoil_scaling(actions);
  spoil_answers(actions);
  spoil_sockets(actions);
  spoil_order(actions);
  if (is("forget-time") && random_.chance(0.1)) promised.reset();
  if (is("late-time") && promised) *promised += std::chrono::milliseconds(7);
  if (is("no-rest")) promised = now;
  for (const Action& action : actions) {
    if (const auto* spawn = std::get_if<Spawn>(&action)) spawned_.push_back(*spawn);
    if (const auto* open = std::get_if<OpenListener>(&action)) key_ = open->key;
  }
}

void Corruptor::spoil_workers(Actions& actions) {
  const auto rarely = [&](const auto&) { return random_.chance(0.2); };
  const auto is_kind = [](SignalKind kind) {
    return [kind](const SignalWorker& signal) { return signal.kind == kind; };
  };
  if (is("lose-stop")) drop<SignalWorker>(actions, is_kind(SignalKind::kStop));
  if (is("lose-abort")) drop<SignalWorker>(actions, is_kind(SignalKind::kAbort));
  if (is("lose-kill")) drop<SignalWorker>(actions, is_kind(SignalKind::kKill));
  if (is("lose-spawn")) drop<Spawn>(actions, rarely);
  change<SignalWorker>(actions, [&](SignalWorker& signal) {
    const bool stop = signal.kind == SignalKind::kStop;
    if (is("kill-for-stop") && stop) signal.kind = SignalKind::kKill;
    if (is("stop-for-abort") && signal.kind == SignalKind::kAbort) signal.kind = SignalKind::kStop;
  });
  change<Spawn>(actions, [&](Spawn& spawn) {
    if (spawned_.empty()) return;
    if (is("reuse-id") && random_.chance(0.2)) spawn.worker = spawned_.front().worker;
    if (is("wrong-slot") && random_.chance(0.2)) spawn.slot += 1;
    if (is("old-launch")) spawn.launch = spawned_.front().launch;
  });
  if (spawned_.empty() || !random_.chance(0.05)) return;
  if (is("stop-at-random")) {
    actions.emplace_back(SignalWorker{spawned_.back().worker, SignalKind::kStop});
  }
  if (is("signal-the-dead")) {
    actions.emplace_back(SignalWorker{spawned_.front().worker, SignalKind::kKill});
  }
  if (!is("double-spawn")) return;
  Spawn again = spawned_.back();
  again.worker.value += 500000;
  actions.emplace_back(again);
}

void Corruptor::spoil_care(Actions& actions) {
  const auto all = [](const auto&) { return true; };
  if (is("lose-probe")) drop<Probe>(actions, all);
  if (is("lose-accept")) drop<LetAccept>(actions, all);
  if (is("lose-look")) drop<Look>(actions, all);
  if (is("lose-emptying")) drop<EmptyQueue>(actions, all);
  if (is("keep-the-door-open")) {
    change<EmptyQueue>(actions, [](EmptyQueue& queue) { queue.listeners.clear(); });
  }
  if (is("lose-turning-away")) drop<TurnAway>(actions, all);
  if (is("lose-measure")) drop<Measure>(actions, all);
  if (is("look-for-less")) {
    change<Look>(actions, [](Look& look) {
      for (auto* limit : {&look.heartbeat, &look.request}) {
        if (*limit) **limit /= 2;
      }
    });
  }
  if (is("wrong-wear")) {
    change<Note>(actions, [](Note& note) {
      if (note.wear == Wear::kLifetime) note.wear = Wear::kRequests;
    });
  }
  if (is("double-probe")) {
    const auto probe = std::ranges::find_if(
        actions, [](const Action& action) { return std::holds_alternative<Probe>(action); });
    if (probe != actions.end()) actions.insert(probe, Action(*probe));
  }
  if (spawned_.empty() || !random_.chance(0.05)) return;
  const WorkerId worker = spawned_.back().worker;
  if (is("accept-early")) actions.emplace_back(LetAccept{worker});
  if (is("look-at-random")) actions.emplace_back(Look{worker, {}, {}});
  if (is("empty-at-random")) actions.emplace_back(EmptyQueue{worker, {}});
  if (is("measure-at-random")) actions.emplace_back(Measure{worker});
}

void Corruptor::spoil_scaling(Actions& actions) {
  const auto all = [](const auto&) { return true; };
  if (is("lose-watch")) drop<Watch>(actions, all);
  if (is("lose-await")) drop<AwaitDemand>(actions, all);
  if (is("scale-further")) {
    change<Note>(actions, [](Note& note) {
      const bool by_load = note.decision && note.decision->reason != ScaleReason::kAsked;
      if (by_load && note.value > note.decision->from) ++note.value;
    });
  }
  if (!is("watch-at-random") || spawned_.empty() || !random_.chance(0.05)) return;
  actions.emplace_back(Watch{spawned_.back().pool, spawned_.back().pool_name});
}

void Corruptor::spoil_answers(Actions& actions) {
  if (is("lose-reply")) drop<Reply>(actions, [&](const Reply&) { return random_.chance(0.2); });
  if (is("lose-note")) {
    drop<Note>(actions, [&](const Note& note) { return note.worker && random_.chance(0.2); });
  }
  change<Reply>(actions, [&](Reply& reply) {
    const bool failed = reply.outcome == Outcome::kRolledBack ||
                        reply.outcome == Outcome::kFailed || reply.outcome == Outcome::kRejected;
    if (is("call-it-done") && failed) {
      reply.outcome = reply.pools.empty() ? Outcome::kDone : Outcome::kReloaded;
    }
    for (PoolOutcome& pool : reply.pools) {
      if (is("lose-reason")) pool.reason.reset();
      if (is("miscount")) ++pool.replaced;
    }
    if (is("answer-in-part") && !reply.pools.empty()) reply.pools.pop_back();
  });
  change<Note>(actions, [&](Note& note) {
    if (is("backoff-lie") && note.kind == NoteKind::kWorkerFailed) note.value += 50;
    if (is("wrong-cause") && note.cause == StopCause::kScaledDown)
      note.cause = StopCause::kReplaced;
  });
  if (is("double-reply")) {
    Actions twice;
    for (const Action& action : actions) {
      if (std::holds_alternative<Reply>(action)) twice.push_back(action);
    }
    actions.insert(actions.end(), twice.begin(), twice.end());
  }
  const bool begins = std::ranges::any_of(actions, [](const Action& action) {
    const auto* note = std::get_if<Note>(&action);
    return note != nullptr && note->kind == NoteKind::kReloadStarted;
  });
  if (!is("early-reply") || !begins) return;
  Reply reply;
  reply.op = OperationId{2};
  reply.outcome = Outcome::kReloaded;
  actions.emplace_back(reply);
}

void Corruptor::spoil_sockets(Actions& actions) {
  if (is("lose-read")) drop<ReadPlan>(actions, [](const auto&) { return true; });
  if (is("lose-queued")) drop<ReloadQueued>(actions, [](const auto&) { return true; });
  if (is("read-at-random") && random_.chance(0.02)) actions.emplace_back(ReadPlan{});
  if (is("lose-open")) drop<OpenListener>(actions, [](const auto&) { return true; });
  if (is("keep-open")) drop<CloseListener>(actions, [](const auto&) { return true; });
  if (is("keep-launch")) drop<DropLaunch>(actions, [](const auto&) { return true; });
  if (spawned_.empty() || !random_.chance(0.02)) return;
  if (is("close-early") && !key_.empty()) actions.emplace_back(CloseListener{key_});
  if (is("drop-launch-early")) actions.emplace_back(DropLaunch{spawned_.back().launch});
}

void Corruptor::spoil_order(Actions& actions) {
  if (is("never-exit")) drop<ExitManager>(actions, [](const auto&) { return true; });
  if (is("wrong-exit")) {
    change<ExitManager>(actions, [](ExitManager& exit) { exit.reason = ExitReason::kNoListener; });
  }
  if (!is("exit-early")) return;
  const bool stops = std::ranges::any_of(actions, [](const Action& action) {
    const auto* note = std::get_if<Note>(&action);
    return note != nullptr && note->kind == NoteKind::kManagerStopping;
  });
  if (stops) actions.emplace_back(ExitManager{});
}

}  // namespace ostler::sim
