#include "world.hpp"

#include <algorithm>
#include <utility>

namespace ostler::sim {

using namespace core;  // every word here is the core's
using namespace std::chrono_literals;

void World::learn(const Plan& plan) {
  for (const PoolPlan& pool : plan.pools) plans_[pool.launch] = pool;
}

void World::post(Time at, Event event, bool misdeed, bool word) {
  Due due;
  due.at = at;
  due.order = ++order_;
  due.event = std::move(event);
  due.misdeed = misdeed;
  due.word = word;
  queue_.push(std::move(due));
}

void World::perform(const Action& action, Time now) {
  if (const auto* spawn = std::get_if<Spawn>(&action)) start(*spawn, now);
  if (const auto* what = std::get_if<SignalWorker>(&action)) signal(*what, now);
  if (const auto* listener = std::get_if<OpenListener>(&action)) open(*listener, now);
  if (const auto* what = std::get_if<Probe>(&action)) probe(*what, now);
  if (const auto* what = std::get_if<Look>(&action)) look(*what, now);
  if (const auto* what = std::get_if<Measure>(&action)) measure(*what, now);
  if (const auto* what = std::get_if<Watch>(&action)) watch(*what, now);
  if (const auto* what = std::get_if<AwaitDemand>(&action)) await(*what, now);
  if (const auto* what = std::get_if<EmptyQueue>(&action)) empty(*what, now);
  if (const auto* what = std::get_if<TurnAway>(&action)) serve_backlog(*what, now);
  if (const auto* launch = std::get_if<DropLaunch>(&action)) {
    flaws_.erase(launch->launch);
    plans_.erase(launch->launch);
  }
}

void World::read(Plan plan, Time now) {
  PlanRead read;
  if (happens(faults.file_faulty)) {
    read.faults.push_back({FailureKind::kConfiguration, "unknown key"});
  } else {
    learn(plan);
    read.plan = std::move(plan);
  }
  post(now + (happens(faults.file_late) ? random_.spread(1ms, 5s) : 0ns), std::move(read));
}

void World::open(const OpenListener& listener, Time now) {
  asked_.insert(listener.key);
  const Time at = now + (happens(faults.listener_late) ? random_.spread(1ms, 5s) : 0ns);
  if (!happens(faults.listener_fails)) return post(at, ListenerOpened{listener.key});
  ListenerFailed failed;
  failed.key = listener.key;
  failed.failure.kind = FailureKind::kListener;
  failed.failure.stage = "bind " + listener.key;
  failed.failure.error = 98;
  post(at, failed);
}

World::Flaw World::choose_flaw() {
  if (happens(faults.spawn_fails)) return Flaw::kCannotSpawn;
  if (happens(faults.never_ready)) return Flaw::kNeverReady;
  if (happens(faults.exits_early)) return Flaw::kExitsEarly;
  if (happens(faults.short_lived)) return Flaw::kShortLived;
  return Flaw::kNone;
}

World::Flaw World::flaw_of(LaunchId launch) {
  if (healed_) return Flaw::kNone;
  const auto found = flaws_.find(launch);
  if (found != flaws_.end()) return found->second == Flaw::kNone ? choose_flaw() : found->second;
  Flaw flaw = Flaw::kNone;
  if (happens(faults.bad_launch)) flaw = static_cast<Flaw>(random_.between(1, 5));
  return flaws_.emplace(launch, flaw).first->second;
}

void World::start(const Spawn& spawn, Time now) {
  Process process;
  process.pool = spawn.pool;
  if (std::ranges::find(pools_, spawn.pool) == pools_.end()) pools_.push_back(spawn.pool);
  process.plan = plans_.at(spawn.launch);
  process.flaw = flaw_of(spawn.launch);
  process.beats = process.plan.heartbeat_timeout && happens(beating);
  if (process.beats) process.beat = *process.plan.heartbeat_timeout / random_.between(2, 5);
  process.deaf_to_stop = happens(faults.ignores_stop);
  process.deaf_to_abort = happens(faults.ignores_abort);
  process.speaks = !happens(faults.mute);
  process.fails_warmup = happens(faults.fails_warmup);
  process.sick = happens(faults.never_healthy);
  const Time at = now + (happens(faults.spawn_late) ? random_.spread(1ms, 3s) : 0ns);
  if (process.flaw == Flaw::kCannotSpawn) {
    SpawnFailed failed;
    failed.worker = spawn.worker;
    failed.stage = "exec";
    failed.error = 2;
    post(at, failed);
  } else {
    post(at, Spawned{spawn.worker});
  }
  processes_.emplace(spawn.worker, process);
}

void World::say(WorkerId worker, Time at, WorkerSign sign, bool misdeed) {
  post(at, WorkerSigned{worker, sign}, misdeed, true);
}

// It says so, is seen, or both, in the order of an arbiter or of a program that listens first.
void World::show_ready(WorkerId worker, const PoolPlan& plan, Time now, Time ready) {
  const auto see = [&](Time at, Sight sight, Duration took) {
    post(at, Seen{worker, sight, at - took, sight == Sight::kUnknown ? "/proc" : ""}, false, true);
  };
  const bool sight = plan.ready_by != ReadyBy::kWord;
  const bool early = sight && random_.chance(0.4);
  const Time said = early ? now + random_.between(0ns, ready - now) : ready;
  if (!sight || random_.chance(0.6)) say(worker, said, WorkerSign::kReady);
  if (plan.ready_by == ReadyBy::kTime) return;
  if (!sight && random_.chance(0.9)) return;
  if (random_.chance(0.3)) see(now + random_.between(0ns, ready - now), Sight::kNothing, 1ms);
  // A look that began before it said so.
  if (random_.chance(0.3)) see(said + 1ms, Sight::kWaiting, 5ms);
  if (random_.chance(0.1)) see(said + 2ms, Sight::kUnknown, random_.chance(0.5) ? 1ms : 5ms);
  say(worker, ready + 1ms, WorkerSign::kReady);
  // It is looked at until it is ready: what it said may be heard late.
  for (Duration after = 5ms; after < plan.start_timeout; after *= 4) {
    see(ready + after, Sight::kWaiting, 1ms);
  }
}

void World::die(WorkerId worker, Time at, bool signaled, int code, bool misdeed) {
  Exited exited;
  exited.worker = worker;
  exited.signaled = signaled;
  exited.code = code;
  exited.core_dumped = signaled && random_.chance(0.1);
  exited.answered = random_.chance(0.3);
  post(at, exited, misdeed);
}

// The process runs: all that it will do by itself is planned here.
void World::live(WorkerId worker, Process& process, Time now) {
  process.spawned = true;
  const PoolPlan& plan = process.plan;
  Time ready = now + random_.between(0ns, std::min<Duration>(plan.start_timeout / 8, 500ms));
  if (happens(faults.slow_start)) ready = now + random_.between(0ns, plan.start_timeout);
  const bool mute =
      plan.ready_after && *plan.ready_after * 2 < plan.start_timeout && random_.chance(0.7);
  process.serves_at = mute ? now + *plan.ready_after : ready;
  if (process.speaks) say(worker, now, WorkerSign::kSpeaks);
  if (process.flaw != Flaw::kNeverReady && !mute) show_ready(worker, plan, now, ready);
  serve(worker, process, now, ready);
  share(worker, process, now);
  if (process.beats) say(worker, now + process.beat, WorkerSign::kHeartbeat);
  switch (process.flaw) {
    case Flaw::kExitsEarly:
      die(worker, random_.chance(0.3) ? now : now + random_.between(0ns, ready - now),
          random_.chance(0.3), random_.between(0, 9), true);
      break;
    case Flaw::kDiesSettling:
      die(worker, ready + random_.between(0ns, plan.settle), true, 11, true);
      break;
    case Flaw::kShortLived:
      die(worker, ready + random_.between(0ns, plan.reset_after), false,
          random_.chance(0.3) ? 0 : 3, true);
      break;
    case Flaw::kNone:
    case Flaw::kCannotSpawn:
    case Flaw::kNeverReady:
      break;
  }
  const auto sometime = [&] { return now + random_.spread(1ms, 120s); };
  if (happens(faults.crashes)) die(worker, sometime(), random_.chance(0.5), 9, true);
  if (happens(faults.ends)) {
    die(worker, ready + (random_.chance(0.5) ? random_.between(0ns, 2s) : random_.spread(1s, 60s)),
        false, 0, true);
  }
  if (happens(faults.triggers)) say(worker, sometime(), WorkerSign::kTrigger, true);
  if (happens(faults.triggers)) say(worker, sometime(), WorkerSign::kGarbled, true);
  if (happens(faults.extends)) {
    post(now + random_.between(0ns, plan.start_timeout),
         TimeoutExtended{worker, extension() - 10ms}, false, true);
  }
  if (!happens(faults.says_stopping)) return;
  const Time leaves = sometime();
  say(worker, leaves, WorkerSign::kStopping, true);
  if (random_.chance(0.7)) die(worker, leaves + random_.spread(1ms, 10s), false, 0, true);
}

// What it does with its work, which may begin before it is ready.
void World::serve(WorkerId worker, const Process& process, Time now, Time ready) {
  const PoolPlan& plan = process.plan;
  if (!process.speaks && random_.chance(0.3)) {
    say(worker, ready + random_.spread(1ms, 5s), WorkerSign::kSpeaks, true);
  }
  const bool limited = plan.heartbeat_timeout || plan.request_timeout;
  if (random_.chance(limited ? 0.7 : 0.1)) {
    say(worker, now + random_.spread(1ms, 10s), WorkerSign::kAwake);
  }
  if (happens(faults.wears)) {
    say(worker, now + random_.spread(10ms, 60s), WorkerSign::kWorn, true);
  }
}

// What comes of its having a socket of its own: some of it, whether it has one or not.
void World::share(WorkerId worker, const Process& process, Time now) {
  const auto sometime = [&] { return now + random_.spread(1ms, 120s); };
  if (happens(faults.lies)) post(sometime(), QueueEmptied{worker});
  const bool own = process.plan.accept == Accept::kReuseport;
  if (own && happens(faults.strands)) post(sometime(), Stranded{process.pool}, true);
}

Duration World::answer_time(const Process& process) {
  if (happens(faults.answers_late)) return random_.spread(1ms, 30s);
  return random_.between(0ns, std::min<Duration>(process.plan.start_timeout / 16, 50ms));
}

// Answered once, whatever becomes of the worker meanwhile.
void World::probe(const Probe& probe, Time now) {
  const auto found = processes_.find(probe.worker);
  if (found == processes_.end()) return;
  Process& process = found->second;
  Probed probed{probe.worker, probe.warmup, ProbeResult::kPassed, {}};
  const bool health = probe.warmup < 0;
  const bool fails = health ? happens(faults.unhealthy) : process.fails_warmup;
  if (health && fails) process.sick = random_.chance(0.5);
  if (fails || process.sick) probed.result = ProbeResult::kFailed;
  const bool busy = health ? random_.chance(0.1) : fails && random_.chance(0.2);
  if (busy || (health && process.stuck_since)) probed.result = ProbeResult::kBusy;
  if (probed.result == ProbeResult::kFailed) probed.detail = "GET / was answered with 500";
  post(now + answer_time(process), probed);
}

// Something that lasts: within its limit, unless the worker is stuck or its scoreboard lies.
std::optional<Lasting> World::lasting(std::optional<Duration> limit, const Process& process,
                                      Time now) {
  if (!limit) return std::nullopt;
  Lasting work;
  work.what = "GET /";
  work.since = process.stuck_since.value_or(now - random_.between(0ns, *limit * 9 / 10));
  work.until = work.since + *limit;
  if (!process.stuck_since && random_.chance(0.1)) work.until += random_.spread(1s, 60s);
  if (happens(faults.lies)) work.since = now + random_.between(-60s, 10s);
  if (happens(faults.lies)) work.until = now + random_.between(-10s, 10s);
  return work;
}

void World::look(const Look& look, Time now) {
  const auto found = processes_.find(look.worker);
  if (found == processes_.end()) return;
  const Process& process = found->second;
  Looked looked;
  looked.worker = look.worker;
  looked.awake = random_.chance(0.4);
  if (looked.awake || process.stuck_since) {
    if (random_.chance(0.8)) looked.silent = lasting(look.heartbeat, process, now);
    if (random_.chance(0.8)) looked.request = lasting(look.request, process, now);
  }
  const bool own = process.plan.accept == Accept::kReuseport;
  if (random_.chance(own ? 0.5 : 0.02)) looked.waiting = lasting(look.heartbeat, process, now);
  const Time at = now + (happens(faults.answers_late) ? random_.spread(1ms, 10s) : 0ns);
  post(at, looked);
  if (!looked.awake) say(look.worker, at + random_.spread(100ms, 300s), WorkerSign::kAwake);
}

void World::measure(const Measure& measure, Time now) {
  const auto found = processes_.find(measure.worker);
  if (found == processes_.end()) return;
  Process& process = found->second;
  process.bloated = process.bloated || happens(faults.bloats);
  Measured measured;
  measured.worker = measure.worker;
  const std::uint64_t limit = process.plan.recycle.memory.value_or(0);
  measured.memory = process.bloated ? limit + 1 : random_.below(limit + 1);
  if (random_.chance(0.1)) measured.memory.reset();
  post(now + answer_time(process), measured);
}

World::Clients& World::clients_of(PoolId pool) {
  const auto [found, fresh] = clients_.try_emplace(pool);
  Clients& clients = found->second;
  if (!fresh) return clients;
  clients.kind = static_cast<Clients::Kind>(random_.between(0, 3));
  clients.tells = random_.chance(0.6);
  clients.most = random_.chance(0.2) ? 0 : random_.between(10, 20000);
  clients.work = clients.most / 2;
  return clients;
}

void World::go_on(Clients& clients, Time now) {
  switch (clients.kind) {
    case Clients::Kind::kSteady:
      break;
    case Clients::Kind::kWandering:
      clients.work += random_.between(-200, 200);
      break;
    case Clients::Kind::kBursts:
      if (random_.chance(0.02)) clients.work = random_.chance(0.5) ? 0 : clients.most;
      break;
    case Clients::Kind::kWaves: {  // a day of ten minutes
      constexpr std::int64_t kDay = 600'000;
      const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch());
      const std::int64_t hour = ms.count() % kDay;
      clients.work = clients.most * std::min(hour, kDay - hour) * 2 / kDay;
      break;
    }
  }
  clients.work = crowd_.value_or(std::clamp<std::int64_t>(clients.work, 0, clients.most));
}

// What the workers cannot do waits, and is done when they can.
void World::watch(const Watch& watch, Time now) {
  awaiting_.erase(watch.pool);
  Clients& clients = clients_of(watch.pool);
  go_on(clients, now);
  const auto ready = std::ranges::count_if(processes_, [&](const auto& entry) {
    const Process& process = entry.second;
    return process.pool == watch.pool && process.serves_at && *process.serves_at <= now;
  });
  LoadSeen seen;
  seen.pool = watch.pool;
  const std::int64_t capacity = 1000 * ready;
  const std::int64_t missing = clients.work - capacity;
  clients.queue = missing > 0 ? clients.queue + missing / 50 + 1 : clients.queue / 2;
  clients.queue = std::min<std::int64_t>(clients.queue, 256);
  seen.waiting = clients.queue;
  seen.full = clients.queue == 256;
  if (clients.tells) seen.capacity = capacity;
  if (clients.tells) seen.used = std::min(clients.work, capacity);
  if (happens(faults.lies)) seen.used = random_.between(-1000, 1'000'000);
  if (happens(faults.lies)) seen.capacity = random_.between(-1000, 1'000'000);
  if (happens(faults.lies)) seen.waiting = random_.between(-1000, 1'000'000);
  post(now + (happens(faults.answers_late) ? random_.between(0ns, 3s) : 0ns), seen);
}

void World::await(const AwaitDemand& action, Time now) {
  awaiting_.insert(action.pool);
  go_on(clients_of(action.pool), now);
  const bool sometime = !crowd_ || *crowd_ > 0;
  if (sometime) post(now + random_.spread(1ms, 100s), Demand{action.pool}, true);
  const bool again = sometime && random_.chance(0.3);  // once is enough, and must be
  if (again) post(now + random_.spread(1ms, 100s), Demand{action.pool}, true);
}

// A queue alone does not settle: none can be spared, or one is missing.
void World::let_tell() {
  for (auto& [pool, clients] : clients_) clients.tells = true;
}

void World::crowd(std::int64_t work, Time now) {
  crowd_ = work;
  for (auto& [pool, clients] : clients_) clients.queue = 0;
  if (work == 0) return;
  for (const PoolId pool : awaiting_) post(now, Demand{pool});
}

// Answered once, as soon as the worker has accepted what waited for it; if it ever does.
void World::empty(const EmptyQueue& queue, Time now) {
  const auto found = processes_.find(queue.worker);
  if (found == processes_.end()) return;
  Process& process = found->second;
  if (happens(faults.extends)) {  // it does not know that it is to go
    post(now + random_.between(0ns, process.plan.stop_timeout),
         TimeoutExtended{queue.worker, extension()}, false, true);
  }
  if (happens(faults.never_empties)) {
    process.full_since = now;
    return;
  }
  const Duration longest = happens(faults.empties_late) ? process.plan.stop_timeout * 2 : 20ms;
  post(now + random_.between(0ns, longest), QueueEmptied{queue.worker});
}

// Answered once, as soon as nothing waits for the pool's workers; if they ever take it.
void World::serve_backlog(const TurnAway& action, Time now) {
  if (happens(faults.never_empties)) return;
  Duration longest = 20ms;
  for (const auto& [id, process] : processes_) {
    const bool slow = process.pool == action.pool && happens(faults.empties_late);
    if (slow) longest = process.plan.stop_timeout;
  }
  post(now + random_.between(0ns, longest), BacklogServed{action.pool});
}

// What was on its way when the world was healed.
void World::mend(Event& event) {
  if (auto* probed = std::get_if<Probed>(&event)) probed->result = ProbeResult::kPassed;
  if (auto* measured = std::get_if<Measured>(&event)) measured->memory.reset();
  if (auto* looked = std::get_if<Looked>(&event)) {
    looked->silent.reset();
    looked->request.reset();
    looked->waiting.reset();
  }
}

void World::signal(const SignalWorker& signal, Time now) {
  const auto found = processes_.find(signal.worker);
  if (found == processes_.end()) return;
  const Process& process = found->second;
  switch (signal.kind) {
    case SignalKind::kStop: {
      if (happens(faults.extends)) {
        post(now, TimeoutExtended{signal.worker, extension()}, false, true);
      }
      if (process.deaf_to_stop) return;
      const Duration longest = happens(faults.drains_slowly) ? process.plan.stop_timeout * 2 : 20ms;
      return die(signal.worker, now + random_.between(0ns, longest), false, 0, false);
    }
    case SignalKind::kAbort:
      if (!process.deaf_to_abort)
        die(signal.worker, now + random_.between(0ns, 50ms), true, 6, false);
      return;
    case SignalKind::kKill: {
      const Duration longest = happens(faults.outlives_kill) ? longest_death() : 5ms;
      return die(signal.worker, now + random_.between(0ns, longest), true, 9, false);
    }
  }
}

std::optional<Time> World::next() {
  if (queue_.empty()) return std::nullopt;
  return queue_.top().at;
}

std::optional<Event> World::pop(Time now) {
  if (happens(faults.strangers)) return stranger();
  while (!queue_.empty() && queue_.top().at <= now) {
    Due due = queue_.top();
    queue_.pop();
    if (deliver(due, now)) return std::move(due.event);
  }
  return std::nullopt;
}

// Whether the event happens after all, and what comes of it.
bool World::deliver(Due& due, Time now) {
  if (healed_ && due.misdeed) return false;
  if (healed_) mend(due.event);
  if (due.echo) {
    const auto* opened = std::get_if<ListenerOpened>(&due.event);
    return opened == nullptr || !asked_.contains(opened->key);
  }
  disturb(due, now);
  if (const auto* opened = std::get_if<ListenerOpened>(&due.event)) asked_.erase(opened->key);
  if (const auto* failed = std::get_if<ListenerFailed>(&due.event)) asked_.erase(failed->key);
  if (const auto* spawned = std::get_if<Spawned>(&due.event)) {
    live(spawned->worker, processes_.at(spawned->worker), now);
  }
  if (const auto* failed = std::get_if<SpawnFailed>(&due.event)) {
    dead_.push_back(failed->worker);
    processes_.erase(failed->worker);
  }
  if (const auto* exited = std::get_if<Exited>(&due.event)) {
    const bool first = processes_.erase(exited->worker) > 0;
    if (first) dead_.push_back(exited->worker);
    return first;
  }
  if (const auto* demand = std::get_if<Demand>(&due.event)) awaiting_.erase(demand->pool);
  if (dead_.size() > 64) dead_.erase(dead_.begin(), dead_.begin() + 32);
  if (!due.word) return true;
  const auto* sign = std::get_if<WorkerSigned>(&due.event);
  if (sign == nullptr) return true;
  const auto found = processes_.find(sign->worker);
  const bool stuck =
      sign->sign == WorkerSign::kAwake && found != processes_.end() && happens(faults.hangs);
  if (stuck) found->second.stuck_since = now;
  if (sign->sign != WorkerSign::kHeartbeat) return true;  // late words are heard
  if (found == processes_.end()) return false;
  if (!healed_ && happens(faults.falls_silent)) found->second.silent = true;
  if (found->second.silent && !healed_) return false;
  say(sign->worker, now + found->second.beat, WorkerSign::kHeartbeat);
  return true;
}

Duration World::extension() {
  const bool few = processes_.size() < 50;  // the others beat meanwhile, as often as they like
  return few && random_.chance(0.05) ? Duration(1000h) : random_.spread(1ms, 60s);
}

// The same again, later. A socket's answer has no name of its own, so only a good one is doubled,
// and only when nobody waits for another. A file is read once.
void World::disturb(const Due& due, Time now) {
  if (!happens(faults.doubles) || std::holds_alternative<ListenerFailed>(due.event)) return;
  if (std::holds_alternative<PlanRead>(due.event)) return;
  Due again = due;
  again.at = now + (random_.chance(0.5) ? 0ns : random_.spread(1ms, 10s));
  again.order = ++order_;
  again.echo = true;
  queue_.push(std::move(again));
}

Event World::stranger() {
  const WorkerId who = dead_.empty() || random_.chance(0.2) ? WorkerId{1000000 + random_.below(9)}
                                                            : random_.pick(dead_);
  const ProbeResult result = static_cast<ProbeResult>(random_.between(0, 2));
  switch (random_.between(0, 13)) {
    case 0:
      return Exited{who, false, 0, false, {}, false};
    case 1:
      return Spawned{who};
    case 2:
      return SpawnFailed{who, "fork", 11};
    case 3:
      return TimeoutExtended{who, 1s};
    case 4:
      return Probed{who, random_.between(-1, 1), result, {}};
    case 5:
      return Looked{who, true, {}, {}, {}};
    case 6:
      return Measured{who, 1};
    case 7:
      return QueueEmptied{who};
    case 8:
      return Stranded{pools_.empty() || random_.chance(0.2) ? PoolId{1000000} : pools_.front()};
    case 9:
      return LoadSeen{PoolId{random_.below(9)}, 1, 1, 1, true};
    case 10:
      return Demand{PoolId{random_.below(9)}};
    case 11:
      return BacklogServed{pools_.empty() || random_.chance(0.2) ? PoolId{1000000}
                                                                 : pools_.front()};
    case 12:
      return Seen{who, static_cast<Sight>(random_.between(0, 2)), {}, "/proc"};
    default:
      return WorkerSigned{who, static_cast<WorkerSign>(random_.between(0, 6))};
  }
}

void World::heal() {
  healed_ = true;
  faults = {};
  for (auto& [id, process] : processes_) {
    if (process.spawned && process.beats && process.silent) process.silent = false;
    process.fails_warmup = process.sick = process.bloated = false;
    process.stuck_since.reset();
    if (process.full_since) post(*process.full_since + 20ms, QueueEmptied{id});
  }
}

void World::suspend(Duration by) {
  std::vector<Due> all;
  all.reserve(queue_.size());
  while (!queue_.empty()) {
    all.push_back(queue_.top());
    queue_.pop();
  }
  for (Due& due : all) {
    due.at += by;
    queue_.push(std::move(due));
  }
}

}  // namespace ostler::sim
