#include "run.hpp"

#include <algorithm>
#include <exception>

#include "core/invariants.hpp"
#include "core/snapshot.hpp"
#include "core/trace.hpp"

namespace ostler::sim {

using namespace core;  // every word here is the core's
using namespace std::chrono_literals;

namespace {

constexpr int kTwinSteps = 60;
// In a healthy world everything has settled long before.
constexpr Duration kConverge = std::chrono::hours(6);
// A worker may have asked for an hour more, and twenty others beat twice a second meanwhile.
constexpr std::size_t kConvergeSteps = 4000000;

// A few large pools, many small ones: most faults need few workers, some need many.
int workers_for(std::uint64_t seed) {
  Random random(seed ^ 0x77U);
  if (random.chance(0.01)) return 200;
  return random.chance(0.2) ? 12 : random.between(1, 6);
}

int pools_for(std::uint64_t seed) {
  return workers_for(seed) > 100 ? 1 : 1 + static_cast<int>(seed % 4);
}

}  // namespace

Run::Run(std::uint64_t seed, RunOptions options)
    : options_(std::move(options)),
      seed_(seed),
      random_(seed),
      world_(seed ^ 0x1111U),
      planner_(seed ^ 0x2222U, pools_for(seed), workers_for(seed)),
      corruptor_(options_.mistake, seed ^ 0x3333U),
      core_(seed) {
  batches_ = random_.chance(0.3);
  tracing_ = options_.judge && random_.chance(0.05);
  late_ = random_.chance(0.4) ? (random_.chance(0.5) ? 0.005 : 0.1) : 0;
  request_gap_ = random_.spread(10ms, 30s);
  choose_faults();
}

// How often a fault occurs in this run: most of them not at all.
double Run::sometimes() {
  if (random_.chance(0.65)) return 0;
  return random_.chance(0.5) ? 0.03 : random_.chance(0.7) ? 0.15 : 0.6;
}

void Run::choose_faults() {
  if (options_.calm) {
    batches_ = false;
    late_ = 0;
    request_gap_ = 2s;
    world_.beating = 1;
    world_.faults.crashes = 0.3;
    return;
  }
  Faults& faults = world_.faults;
  for (double* fault :
       {&faults.spawn_late,     &faults.spawn_fails,   &faults.slow_start,    &faults.never_ready,
        &faults.exits_early,    &faults.crashes,       &faults.short_lived,   &faults.says_stopping,
        &faults.falls_silent,   &faults.triggers,      &faults.extends,       &faults.ignores_stop,
        &faults.drains_slowly,  &faults.ignores_abort, &faults.outlives_kill, &faults.bad_launch,
        &faults.listener_fails, &faults.listener_late, &faults.doubles,       &faults.strangers,
        &faults.mute,           &faults.fails_warmup,  &faults.unhealthy,     &faults.hangs,
        &faults.lies,           &faults.bloats,        &faults.wears,         &faults.answers_late,
        &faults.empties_late,   &faults.never_empties, &faults.strands,       &faults.file_faulty,
        &faults.file_late,      &faults.never_healthy, &faults.ends}) {
    *fault = sometimes();
  }
  faults.strangers = std::min(faults.strangers, 0.15);
  faults.doubles = std::min(faults.doubles, 0.15);
  faults.falls_silent /= 10;
  if (!random_.chance(0.04)) return;
  faults.exits_early = 1;  // no worker ever comes up, and nobody does anything about it
  request_gap_ = 300s;
}

void Run::log(const std::string& line) {
  log_.push_back(line);
}

Result Run::go() {
  try {
    first_plan();
    safety();
    if (options_.judge) liveness();
    if (fault_.empty() && tracing_) check_trace();
  } catch (const std::exception& error) {
    fault_ = std::string("exception: ") + error.what();
  }
  Result result;
  result.fault = fault_;
  result.events = events_;
  result.log = std::move(log_);
  result.recorded = std::move(recorded_);
  return result;
}

void Run::first_plan() {
  PlanAccepted first;
  first.op = next_op();
  first.plan = planner_.read();
  world_.learn(first.plan);
  next_request_ = now_ + request_gap_;
  if (tracing_) trace_ = trace_header(seed_);
  step({first});
}

void Run::safety() {
  while (!over() && events_ < options_.events) {
    if (!advance(true)) return;
  }
}

// --- The world turns
// ------------------------------------------------------------------------------

// Goes to the next moment at which something happens, and lets it happen. False: nothing ever will.
bool Run::advance(bool with_requests) {
  std::optional<Time> at = world_.next();
  if (promised_ && (!at || *promised_ < *at)) at = promised_;
  if (with_requests && (!at || next_request_ < *at)) at = next_request_;
  if (!at) return false;
  now_ = std::max(now_, *at);
  if (with_requests && late_ > 0 && random_.chance(late_)) be_late();
  std::vector<Event> events;
  if (with_requests && next_request_ <= now_) {
    events.push_back(request());
    if (random_.chance(0.02)) add_burst(events);
    next_request_ = now_ + random_.between(0ns, request_gap_ * 2);
    if (promised_ && random_.chance(0.1)) next_request_ = *promised_;  // when something is due
  }
  const std::size_t most = batches_ ? 1 + random_.below(20) : 1;
  while (events.size() < most) {
    auto event = world_.pop(now_);
    if (!event) break;
    events.push_back(std::move(*event));
  }
  if (events.empty()) events.emplace_back(Tick{});
  step(events);
  return true;
}

// The manager stands still, alone or with the whole machine; now and then for long.
void Run::be_late() {
  const Duration gap = random_.chance(0.8) ? random_.spread(1ms, 900ms) : random_.spread(1s, 3600s);
  if (random_.chance(0.5)) world_.suspend(gap);
  now_ += gap;
}

WorkerId Run::some_worker() {
  const std::vector<WorkerId> living = oracle_.living();
  if (living.empty() || random_.chance(0.05)) return WorkerId{random_.below(1000)};
  return random_.pick(living);
}

// The file may be edited before, and again while the request waits for its turn.
Event Run::reload_request() {
  if (random_.chance(0.6)) planner_.edit();
  ReloadRequested reload;
  if (!random_.chance(0.1)) reload.op = next_op();
  if (random_.chance(0.3)) {
    // One that was removed may still be there, and drain.
    const std::vector<std::string> any = {"nobody", "web", "api", "jobs", "mail", "feed"};
    reload.pool = random_.pick(random_.chance(0.2) ? any : planner_.names());
  }
  reload.restart = random_.chance(0.25);
  return reload;
}

// Many ask at once: a few, or more than may wait.
void Run::add_burst(std::vector<Event>& events) {
  const int count = random_.chance(0.3) ? random_.between(60, 90) : random_.between(2, 10);
  for (int i = 0; i < count; ++i) events.push_back(reload_request());
}

Event Run::request() {
  const OperationId op = random_.chance(0.1) ? OperationId{} : next_op();
  const std::string pool =
      random_.chance(0.02) ? std::string("nobody") : random_.pick(planner_.names());
  const int dice = random_.between(0, 99);
  if (dice < 40) return reload_request();
  if (dice < 65) {
    const auto kind = static_cast<ScaleKind>(random_.between(0, 2));
    const int value = kind == ScaleKind::kAdd ? random_.between(-3, 3) : random_.between(0, 8);
    return ScaleRequested{op, pool, kind, value};
  }
  const bool stop = !options_.calm && random_.chance(0.003);
  if (stop) return StopRequested{op, random_.chance(0.3)};
  const WorkerRequest what = dice < 85   ? WorkerRequest::kRecycle
                             : dice < 93 ? WorkerRequest::kDrain
                                         : WorkerRequest::kKill;
  return WorkerRequested{op ? op : next_op(), some_worker(), what};
}

// --- One step
// -------------------------------------------------------------------------------------

void Run::step(const std::vector<Event>& events) {
  const bool logging = options_.log_from && events_ + events.size() >= *options_.log_from;
  const bool batch = events.size() > 1;
  if (options_.judge && random_.chance(0.003)) write_and_read();
  if (options_.judge) oracle_.begin(now_);
  if (logging) log(text(now_));
  Actions actions;
  for (const Event& event : events) {
    ++events_;
    if (!options_.judge) recorded_.emplace_back(now_, event);
    if (logging) log("    < " + text(event, names_));
    if (options_.judge) oracle_.event(event);
    if (tracing_) trace_ += trace_event(now_, event);
    actions.clear();
    core_.apply(event, now_, actions);
    if (twin_) {
      Actions same;
      twin_->apply(event, now_, same);
      if (same != actions) fault_ = "a core that was written out and read back answers differently";
    }
    if (batch || tracing_) perform(actions);
  }
  if (batch || tracing_) actions.clear();
  if (tracing_) trace_ += trace_reconcile(now_);
  promised_ = core_.reconcile(now_, actions);
  if (twin_) {
    Actions same;
    const auto promised = twin_->reconcile(now_, same);
    const bool differs = promised != promised_ || same.size() > actions.size() ||
                         !std::equal(same.rbegin(), same.rend(), actions.rbegin());
    if (differs) fault_ = "a core that was written out and read back decides differently";
    if (++twin_steps_ == kTwinSteps) twin_.reset();
  }
  corruptor_.corrupt(actions, promised_, now_);
  perform(actions);
  if (logging) log("    next " + (promised_ ? text(*promised_) : std::string("never")));
  if (!options_.judge) return;
  oracle_.end(promised_);
  if (fault_.empty()) fault_ = oracle_.fault();
  if (fault_.empty()) {
    if (const std::string what = broken_invariant(core_.state()); !what.empty()) {
      fault_ = "invariant: " + what;
    }
  }
}

void Run::perform(Actions& actions) {
  const bool logging = options_.log_from && events_ >= *options_.log_from;
  for (const Action& action : actions) {
    if (tracing_) trace_ += trace_action(action);
    if (const auto* spawn = std::get_if<Spawn>(&action)) names_.learn(*spawn);
    if (logging) log("    > " + text(action, names_));
    if (const auto* reply = std::get_if<Reply>(&action)) last_reply_ = *reply;
    oracle_.action(action);
    if (options_.judge && !oracle_.fault().empty()) return;
    world_.perform(action, now_);
    if (std::holds_alternative<ReadPlan>(action)) world_.read(planner_.read(), now_);
  }
}

// The state is a value: a core that goes on from what was written is the same core.
void Run::write_and_read() {
  const std::string text = write(core_.state());
  const auto state = read_state(text);
  if (!state || *state != core_.state()) {
    fault_ = "the state that was read is not the state that was written";
    return;
  }
  twin_.emplace(*state);
  twin_steps_ = 0;
  if (random_.chance(0.3)) std::swap(core_, *twin_);  // the reader goes on
}

void Run::check_trace() {
  if (const std::string what = replay(trace_); !what.empty()) fault_ = "replayed trace: " + what;
}

// --- All's well that ends well
// --------------------------------------------------------------------

void Run::liveness() {
  if (over()) return;
  world_.heal();
  batches_ = false;
  converge("the world is healthy again");
  if (!over() && planner_.scales()) follow_load();
  if (!over() && random_.chance(0.7)) final_reload();
  if (!over()) stop();
}

void Run::converge(const char* what) {
  const Time limit = now_ + kConverge;
  const std::size_t most = events_ + kConvergeSteps;
  while (!over() && !oracle_.unfinished().empty()) {
    const bool moves = advance(false);
    if (over()) return;
    if (!moves || now_ > limit || events_ > most) {
      fault_ = std::string("never settles after ") + what + ": " + oracle_.unfinished();
    }
  }
}

// A crowd that stays must find enough workers, and when it is gone they must go, too.
void Run::follow_load() {
  for (int round = random_.between(0, 5); round > 0 && !over(); --round) {
    world_.crowd(random_.between(100, 5000), now_);
    pass(random_.spread(1s, 20s));
    world_.crowd(0, now_);
    pass(random_.spread(1s, 40s));
  }
  world_.let_tell();
  world_.crowd(random_.between(100, 20000), now_);
  pass(60s);
  if (!over()) converge("a crowd has come");
  if (over()) return;
  world_.crowd(0, now_);
  pass(1s);
  if (!over()) converge("the crowd has gone");
}

void Run::pass(Duration duration) {
  const Time end = now_ + duration;
  while (!over() && now_ < end && advance(false)) {
    if (late_ > 0 && random_.chance(late_ / 4)) be_late();
  }
}

// Nothing is wrong any more, so that a reload must work.
void Run::final_reload() {
  last_reply_.reset();
  step({ReloadRequested{next_op(), "", false}});
  converge("a reload in a healthy world");
  if (over()) return;
  if (!last_reply_ || last_reply_->outcome != Outcome::kReloaded) {
    fault_ = "a reload in a healthy world came to nothing";
  }
}

void Run::stop() {
  step({StopRequested{next_op(), random_.chance(0.2)}});
  if (over()) return;
  const auto last = oracle_.stopped_by();
  const Time limit = last.value_or(now_) + World::longest_death() + 61s;
  while (!over()) {
    const bool moves = advance(false);
    if (!over() && (!moves || now_ > limit)) fault_ = "the stop takes longer than it may";
  }
}

}  // namespace ostler::sim
