#include "player.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "core/invariants.hpp"

namespace ostler::scenario {

using namespace core;

namespace {

[[noreturn]] void fault(const std::string& what) {
  throw std::runtime_error(what);
}

// "250ms", "2s", "1.5s", "5m", "1h"
Duration duration(const std::string& text) {
  static const std::map<std::string, double> kUnits = {
      {"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"h", 3600e9}};
  std::size_t end = 0;
  const double number = std::stod(text, &end);
  const auto unit = kUnits.find(text.substr(end));
  if (unit == kUnits.end()) fault("a time is like 250ms or 2s: " + text);
  return Duration(std::llround(number * unit->second));
}

std::string spell(Duration duration) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2fs", std::chrono::duration<double>(duration).count());
  return text;
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, separator);) {
    if (!part.empty()) parts.push_back(part);
  }
  return parts;
}

std::string join(const std::vector<std::string>& words, std::size_t from) {
  std::string text;
  for (std::size_t i = from; i < words.size(); ++i) text += (i == from ? "" : " ") + words[i];
  return text;
}

Surge surge(const std::string& text) {
  return {std::stoi(text), text.ends_with('%')};
}

Accept accept(const std::string& text) {
  static const std::map<std::string, Accept> kKinds = {{"shared", Accept::kShared},
                                                       {"reuseport", Accept::kReuseport},
                                                       {"dispatch", Accept::kDispatch}};
  const auto kind = kKinds.find(text);
  if (kind == kKinds.end()) fault("accept is shared, reuseport or dispatch: " + text);
  return kind->second;
}

HealthPlan health(const std::string& text) {
  const auto parts = split(text, '/');
  return {duration(parts.at(0)), std::stoi(parts.at(1))};
}

// "1/8/busy/0.7/2s/60s"
ScalingPlan scaling(const std::string& text) {
  const auto parts = split(text, '/');
  ScalingPlan plan;
  plan.min = std::stoi(parts.at(0));
  plan.max = std::stoi(parts.at(1));
  plan.by = parts.at(2) == "busy" ? ScaleBy::kBusy : ScaleBy::kBacklog;
  plan.target = std::llround(std::stod(parts.at(3)) * 1000);
  plan.up_after = duration(parts.at(4));
  plan.down_after = duration(parts.at(5));
  return plan;
}

// Whether the key is about looking after workers that run.
bool set_care(PoolPlan& pool, const std::string& key, const std::string& value) {
  RecyclePlan& recycle = pool.recycle;
  const auto parts = split(value, '+');  // the second one is the jitter
  if (key == "health") {
    pool.health = health(value);
  } else if (key == "warmup") {
    pool.warmup = std::stoi(value);
  } else if (key == "channel") {
    pool.needs_channel = value == "yes";
  } else if (key == "request") {
    pool.request_timeout = duration(value);
  } else if (key == "recycle_requests") {
    recycle.requests = std::stoull(parts.at(0));
    recycle.requests_jitter = parts.size() > 1 ? std::stoull(parts[1]) : 0;
  } else if (key == "lifetime") {
    recycle.lifetime = duration(parts.at(0));
    recycle.lifetime_jitter = parts.size() > 1 ? duration(parts[1]) : Duration{};
  } else if (key == "memory") {
    recycle.memory = std::stoull(value);
  } else {
    return false;
  }
  return true;
}

void set_key(PoolPlan& pool, const std::string& key, const std::string& value) {
  if (key == "workers") {
    pool.workers = pool.workers_written = std::stoi(value);
    pool.scaling.reset();
  } else if (key == "scale") {
    pool.scaling = scaling(value);
    pool.workers = pool.scaling->min;
    pool.workers_written = -2;
  } else if (key == "listen") {
    pool.listeners = split(value, ',');
  } else if (key == "accept") {
    pool.accept = accept(value);
    pool.needs_channel = pool.needs_channel || pool.accept == Accept::kDispatch;
  } else if (key == "settle") {
    pool.settle = duration(value);
  } else if (key == "attempts") {
    pool.attempts = std::stoi(value);
  } else if (key == "surge") {
    pool.surge = surge(value);
  } else if (key == "stop") {
    pool.stop_timeout = duration(value);
  } else if (key == "start") {
    pool.start_timeout = duration(value);
  } else if (key == "heartbeat") {
    pool.heartbeat_timeout = duration(value);
  } else if (key == "ready") {
    static const std::map<std::string, ReadyBy> kWays = {{"word", ReadyBy::kWord},
                                                         {"sight", ReadyBy::kSight},
                                                         {"both", ReadyBy::kWordAndSight},
                                                         {"time", ReadyBy::kTime}};
    pool.ready_by = kWays.at(value);
  } else if (key == "after") {
    pool.ready_after = duration(value);
  } else if (key == "backoff") {
    pool.backoff = duration(value);
  } else if (key == "backoff_max") {
    pool.backoff_max = duration(value);
  } else if (key == "burst") {
    pool.burst = std::stoi(value);
  } else if (key == "reset") {
    pool.reset_after = duration(value);
  } else if (!set_care(pool, key, value)) {
    fault("no such key of a pool: " + key);
  }
}

}  // namespace

std::string Player::Place::name() const {
  return pool + "." + std::to_string(slot) + "/" + std::to_string(generation);
}

std::vector<std::string> Player::play(const std::string& line) {
  lines_.clear();
  command(split(line, ' '));
  return std::move(lines_);
}

void Player::command(const std::vector<std::string>& words) {
  static const std::map<std::string, WorkerSign> kSigns = {
      {"ready", WorkerSign::kReady},     {"beat", WorkerSign::kHeartbeat},
      {"trigger", WorkerSign::kTrigger}, {"leaving", WorkerSign::kStopping},
      {"speaks", WorkerSign::kSpeaks},   {"awake", WorkerSign::kAwake},
      {"worn", WorkerSign::kWorn},       {"garbled", WorkerSign::kGarbled}};
  const std::string& verb = words.at(0);
  const std::string object = words.size() > 1 ? words[1] : "";
  if (const auto sign = kSigns.find(verb); sign != kSigns.end()) {
    for (std::size_t i = 1; i < words.size(); ++i) {
      step(WorkerSigned{worker(words[i]), sign->second});
    }
    return;
  }
  if (verb == "pool") return set_pool(words);
  if (verb == "drop") {
    std::erase_if(plan_.pools, [&](const PoolPlan& pool) { return pool.name == object; });
  } else if (verb == "load" && words.size() > 2) {
    set_load(words);
  } else if (verb == "load") {
    load(object);
  } else if (verb == "demand") {
    step(Demand{pool(object)});
  } else if (verb == "restart") {
    step(ReloadRequested{begin("restart"), object, true});
  } else if (verb == "hup") {
    step(ReloadRequested{});
  } else if (verb == "faulty") {
    faulty_ = join(words, 1);
  } else if (verb == "scale") {
    scale(words);
  } else if (verb == "stop") {
    step(StopRequested{begin("stop"), object == "now"});
  } else if (verb == "recycle") {
    step(WorkerRequested{begin("recycle"), worker(object), WorkerRequest::kRecycle});
  } else if (verb == "drain") {
    step(WorkerRequested{begin("drain"), worker(object), WorkerRequest::kDrain});
  } else if (verb == "kill") {
    step(WorkerRequested{begin("kill"), worker(object), WorkerRequest::kKill});
  } else if (verb == "seen") {
    seen(words);
  } else if (verb == "probed") {
    probed(words);
  } else if (verb == "looked") {
    looked(words);
  } else if (verb == "emptied") {
    step(QueueEmptied{worker(object)});
  } else if (verb == "waiting") {
    waiting_[object] = pool(object);
  } else if (verb == "served") {
    step(BacklogServed{waiting_.at(object)});
  } else if (verb == "stranded") {
    const Pool* pool = find_pool(core_.state(), object);
    step(Stranded{pool != nullptr ? pool->id : PoolId{}});
  } else if (verb == "measured") {
    measured(words);
  } else if (verb == "extend") {
    step(TimeoutExtended{worker(object), duration(words.at(2))});
  } else if (verb == "exit") {
    exit(words);
  } else if (verb == "status") {
    status(object);
  } else if (verb == "broken") {
    broken_.insert(object);
  } else if (verb == "unstartable") {
    unstartable_ = true;
  } else if (verb == "wait") {
    pass(duration(object));
  } else if (verb == "stall") {
    now_ += duration(object);
    step(Tick{});
  } else {
    fault("no such command: " + verb);
  }
}

// seen WORKER waiting|nothing|unknown [since DURATION-AGO]
void Player::seen(const std::vector<std::string>& words) {
  static const std::map<std::string, Sight> kSights = {
      {"waiting", Sight::kWaiting}, {"nothing", Sight::kNothing}, {"unknown", Sight::kUnknown}};
  const Sight sight = kSights.at(words.at(2));
  const Time since = words.size() > 4 ? now_ - duration(words[4]) : now_;
  step(Seen{worker(words[1]), sight, since,
            sight == Sight::kUnknown ? "/proc/7/fd: Permission denied" : ""});
}

void Player::status(const std::string& name) {
  const Pool* pool = find_pool(core_.state(), name);
  if (pool == nullptr) fault("no such pool: " + name);
  lines_.push_back(name + ": " + word(pool_state(core_.state(), *pool)) + ", " +
                   std::to_string(pool->count_ready()) + " of " + std::to_string(pool->target()) +
                   " ready, " + std::to_string(pool->restarts) + " restarts");
}

void Player::set_pool(const std::vector<std::string>& words) {
  auto found = std::ranges::find(plan_.pools, words.at(1), &PoolPlan::name);
  if (found == plan_.pools.end()) {
    plan_.pools.push_back({});
    found = plan_.pools.end() - 1;
    found->name = words[1];
  }
  for (std::size_t i = 2; i < words.size(); ++i) {
    const auto equals = words[i].find('=');
    if (equals == std::string::npos) fault("expected KEY=VALUE: " + words[i]);
    set_key(*found, words[i].substr(0, equals), words[i].substr(equals + 1));
  }
}

void Player::load(const std::string& only) {
  const OperationId op = begin(only.empty() ? "load" : "load " + only);
  if (core_.state().configured || core_.state().reload) {
    step(ReloadRequested{op, only, false});
  } else {
    step(PlanAccepted{op, new_plan()});
  }
}

Plan Player::new_plan() {
  for (PoolPlan& pool : plan_.pools) pool.launch = LaunchId{++launches_};
  return plan_;
}

void Player::set_load(const std::vector<std::string>& words) {
  LoadSeen load;
  const std::map<std::string, std::int64_t*> numbers = {
      {"used", &load.used}, {"capacity", &load.capacity}, {"waiting", &load.waiting}};
  for (std::size_t i = 2; i < words.size(); ++i) {
    const auto parts = split(words[i], '=');
    const auto number = numbers.find(parts.at(0));
    load.full = load.full || words[i] == "full";
    if (words[i] == "full") continue;
    if (number == numbers.end()) fault("a load is used, capacity, waiting, full: " + words[i]);
    *number->second = std::stoll(parts.at(1));
  }
  loads_[words[1]] = load;
}

void Player::scale(const std::vector<std::string>& words) {
  const std::string& value = words.at(2);
  ScaleRequested event{begin("scale"), words[1], ScaleKind::kSet, 0};
  if (value == "reset") {
    event.kind = ScaleKind::kReset;
  } else {
    if (value[0] == '+' || value[0] == '-') event.kind = ScaleKind::kAdd;
    event.value = std::stoi(value);
  }
  step(event);
}

void Player::exit(const std::vector<std::string>& words) {
  Exited event;
  event.worker = worker(words.at(1));
  if (words.size() > 2) event.code = std::stoi(words[2]);
  event.signaled = words.size() > 3 && words[3] == "signal";
  if (words.size() > 4 && words[3] == "left") event.left_running = join(words, 4);
  event.answered = words.size() > 3 && words[3] == "answered";
  step(event);
}

void Player::probed(const std::vector<std::string>& words) {
  static const std::map<std::string, ProbeResult> kResults = {{"passed", ProbeResult::kPassed},
                                                              {"failed", ProbeResult::kFailed},
                                                              {"busy", ProbeResult::kBusy}};
  const auto result = kResults.find(words.at(2));
  if (result == kResults.end()) fault("a probe is passed, failed or busy: " + words[2]);
  const WorkerId id = worker(words[1]);
  const auto probe = probes_.find(id);
  if (probe == probes_.end()) fault("nobody probed " + words[1]);
  step(Probed{id, probe->second.warmup, result->second, join(words, 3)});
}

void Player::looked(const std::vector<std::string>& words) {
  Looked event;
  event.worker = worker(words.at(1));
  const auto look = looks_.find(event.worker);
  if (look == looks_.end()) fault("nobody looked at " + words[1]);
  std::size_t next = 2;
  const auto lasting = [&](const std::string& key, std::optional<Duration> limit) {
    std::optional<Lasting> work;
    if (next == words.size() || !words[next].starts_with(key) || !limit) return work;
    work.emplace().since = now_ - duration(words[next++].substr(key.size()));
    work->until = work->since + *limit;
    return work;
  };
  event.awake = next < words.size() && words[next] == "awake";
  if (event.awake) ++next;
  event.silent = lasting("silent=", look->second.heartbeat);
  event.request = lasting("request=", look->second.request);
  event.waiting = lasting("waiting=", look->second.heartbeat);
  for (auto* work : {&event.silent, &event.request, &event.waiting}) {
    if (*work) (*work)->what = join(words, next);
  }
  step(event);
}

void Player::measured(const std::vector<std::string>& words) {
  Measured event;
  event.worker = worker(words.at(1));
  if (words.size() > 2) event.memory = std::stoull(words[2]);
  step(event);
}

void Player::pass(Duration duration) {
  const Time end = now_ + duration;
  while (next_ && *next_ <= end) {
    if (*next_ > now_) lines_.push_back("after " + spell(*next_ - (end - duration)));
    now_ = std::max(now_, *next_);
    const std::size_t before = lines_.size();
    step(Tick{});
    if (lines_.size() == before && !lines_.empty() && lines_.back().starts_with("after ")) {
      lines_.pop_back();
    }
  }
  now_ = end;
}

void Player::step(const Event& event) {
  Actions actions;
  next_ = core_.step(event, now_, actions);
  perform(actions);
  while (!answers_.empty()) {
    const Event answer = answers_.front();
    answers_.erase(answers_.begin());
    step(answer);
  }
  const std::string broken = broken_invariant(core_.state());
  if (!broken.empty()) fault("broken invariant: " + broken);
}

void Player::perform(const Actions& actions) {
  for (const Action& action : actions) {
    std::visit([this](const auto& what) { tell(what); }, action);
  }
}

void Player::tell(const OpenListener& action) {
  lines_.push_back("open " + action.key);
  if (broken_.erase(action.key) > 0) {
    Failure failure;
    failure.kind = FailureKind::kListener;
    failure.stage = "bind " + action.key;
    failure.error = EADDRINUSE;
    answers_.emplace_back(ListenerFailed{action.key, failure});
  } else {
    answers_.emplace_back(ListenerOpened{action.key});
  }
}

void Player::tell(const CloseListener& action) {
  lines_.push_back("close " + action.key);
}

void Player::tell(const Spawn& action) {
  places_[action.worker] = {action.pool_name, action.slot, action.generation};
  const std::string most = std::to_string(action.recycle_requests);
  lines_.push_back("start " + name(action.worker) +
                   (action.recycle_requests == 0 ? "" : ", for " + most + " requests"));
  if (std::exchange(unstartable_, false)) {
    answers_.emplace_back(SpawnFailed{action.worker, "exec", ENOENT});
  } else {
    answers_.emplace_back(Spawned{action.worker});
  }
}

void Player::tell(const SignalWorker& action) {
  const char* verb = action.kind == SignalKind::kStop    ? "ask to stop "
                     : action.kind == SignalKind::kAbort ? "abort "
                                                         : "kill ";
  lines_.push_back(verb + name(action.worker));
}

void Player::tell(const Probe& action) {
  probes_[action.worker] = action;
  lines_.push_back(
      "probe " + name(action.worker) +
      (action.warmup < 0 ? "" : ", warm-up request " + std::to_string(action.warmup + 1)));
}

// Said only where it fails: all else follows from it.
void Player::tell(const ReadPlan&) {
  PlanRead read;
  if (faulty_.empty()) {
    read.plan = new_plan();
  } else {
    read.faults.push_back({FailureKind::kConfiguration, std::exchange(faulty_, {})});
  }
  answers_.emplace_back(std::move(read));
}

void Player::tell(const ReloadQueued& action) {
  const auto asked = [&](OperationId op) { return op ? operations_.at(op) : std::string("hup"); };
  lines_.push_back(asked(action.op) + " waits for " +
                   (action.start ? std::string("the start") : asked(action.behind)));
}

void Player::tell(const EmptyQueue& action) {
  lines_.push_back(
      "empty the queue of " + name(action.worker) +
      (action.listeners.empty() ? "" : ", and turn away from " + join(action.listeners, 0)));
}

void Player::tell(const TurnAway& action) {
  lines_.push_back("turn away from " + join(action.listeners, 0));
  const auto waiting = waiting_.find(action.pool_name);
  const bool some = waiting != waiting_.end() && waiting->second == action.pool;
  if (!some) answers_.emplace_back(BacklogServed{action.pool});
}

void Player::tell(const LetAccept& action) {
  lines_.push_back("let " + name(action.worker) + " accept");
}

void Player::tell(const Look& action) {
  looks_[action.worker] = action;
  lines_.push_back("look at " + name(action.worker));
}

void Player::tell(const Measure& action) {
  lines_.push_back("measure " + name(action.worker));
}

// It comes four times a second: said only where it is not answered.
void Player::tell(const Watch& action) {
  const auto load = loads_.find(action.pool_name);
  if (load == loads_.end()) return lines_.push_back("watch " + action.pool_name);
  LoadSeen seen = load->second;
  seen.pool = action.pool;
  answers_.emplace_back(seen);
}

void Player::tell(const AwaitDemand& action) {
  lines_.push_back("wait until somebody connects to " + action.pool_name);
}

void Player::tell(const DropLaunch&) {}  // the shell's bookkeeping

void Player::tell(const Note& note) {
  const std::string who = note.slot >= 0 ? name(note.worker) : note.pool;
  const std::string why = note.failure ? describe(*note.failure) : "";
  switch (note.kind) {
    case NoteKind::kWorkerStarting:
    case NoteKind::kWorkerStopping:
      break;  // the action says it
    case NoteKind::kWorkerReady:
      lines_.push_back(who + " is ready");
      break;
    case NoteKind::kWorkerExited:
      lines_.push_back(who + " is gone: " + word(note.cause));
      break;
    case NoteKind::kWorkerFailed:
      lines_.push_back(
          who + " " + why +
          (note.value <= 0 ? "" : "; next try in " + std::to_string(note.value) + "ms"));
      break;
    case NoteKind::kWorkerUnkillable:
      lines_.push_back(who + " does not end on SIGKILL");
      break;
    case NoteKind::kWorkerWorn:
      lines_.push_back(who + " is to be replaced: " + word(note.wear) +
                       (note.value == 0 ? "" : ", " + std::to_string(note.value) + " bytes"));
      break;
    case NoteKind::kHealthFailed:
      lines_.push_back(who + " " + why + " (" + std::to_string(note.value) + " in a row)");
      break;
    case NoteKind::kWorkerUnfit:
      lines_.push_back(
          who + " is unfit" +
          (note.value <= 0 ? "" : "; next try in " + std::to_string(note.value) + "ms"));
      break;
    case NoteKind::kReloadStarted:
      lines_.push_back("reload begins");
      break;
    case NoteKind::kReloadFailing:
      lines_.push_back(who + " is rolled back: a new worker " + why);
      break;
    case NoteKind::kReloadFinished:
      lines_.push_back((who.empty() ? "reload" : who) + " " + word(note.outcome) +
                       (why.empty() || note.outcome == Outcome::kRolledBack ? "" : ": " + why));
      break;
    case NoteKind::kPoolScaled:
      lines_.push_back(
          who + " wants " + std::to_string(note.value) +
          (note.decision->reason == ScaleReason::kAsked
               ? ""
               : ", not " + std::to_string(note.decision->from) + ": " + describe(*note.decision)));
      break;
    case NoteKind::kPoolReady:
      lines_.push_back(who + " has all it wants");
      break;
    case NoteKind::kPoolRemoved:
      lines_.push_back(who + " is removed");
      break;
    case NoteKind::kPoolKept:
      lines_.push_back(who + " is kept");
      break;
    case NoteKind::kManagerReady:
      lines_.emplace_back("the manager is ready");
      break;
    case NoteKind::kManagerStopping:
      lines_.emplace_back("the manager stops");
      break;
    case NoteKind::kClockJumped:
      lines_.push_back("the manager stood still for " + std::to_string(note.value) + "ms");
      break;
  }
}

void Player::tell(const Reply& reply) {
  lines_.push_back("answer to " + operations_.at(reply.op) + ": " + word(reply.outcome));
  for (const PoolOutcome& pool : reply.pools) {
    lines_.push_back("  " + pool.pool + " " + word(pool.outcome) + ", generation " +
                     std::to_string(pool.generation) + ", " + std::to_string(pool.replaced) +
                     " replaced, " + std::to_string(pool.cut_off) + " cut off" +
                     (pool.reason ? ": " + describe(*pool.reason) : ""));
  }
  for (const Failure& error : reply.errors) lines_.push_back("  " + describe(error));
  if (reply.reason) lines_.push_back("  a successor " + describe(*reply.reason));
}

void Player::tell(const ExitManager& action) {
  lines_.push_back("exit: " + describe_exit(core_.state()));
  if (action.reason != core_.state().exit_reason) lines_.emplace_back("  for another reason");
}

OperationId Player::begin(const std::string& what) {
  const OperationId id{operations_.size() + 1};
  operations_[id] = what;
  return id;
}

PoolId Player::pool(const std::string& name) const {
  const Pool* found = find_pool(core_.state(), name);
  if (found == nullptr) fault("no such pool: " + name);
  return found->id;
}

WorkerId Player::worker(const std::string& text) const {
  const bool oldest = text.ends_with("/old");
  const std::string wanted = oldest ? text.substr(0, text.size() - 4) : text;
  WorkerId found;
  for (const auto& [id, place] : places_) {
    const std::string full = place.name();
    const bool there = find_worker(core_.state(), id) != nullptr;
    if (!there || (full != wanted && !full.starts_with(wanted + "/"))) continue;
    if (!oldest || !found) found = id;
  }
  if (!found) fault("no such worker: " + text);
  return found;
}

std::string Player::name(WorkerId worker) const {
  return places_.at(worker).name();
}

}  // namespace ostler::scenario
