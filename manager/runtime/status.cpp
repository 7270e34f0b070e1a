// The figures of GET /v1/status: the core's state, and what the kernel knows of the processes.
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "runtime/clock.hpp"
#include "runtime/limits.hpp"
#include "runtime/loop_clock.hpp"
#include "runtime/runtime.hpp"

namespace ostler::runtime {
namespace {

double seconds(core::Duration duration) {
  return std::chrono::duration<double>(duration).count();
}

std::optional<std::int64_t> known(std::int64_t value) {
  return value < 0 ? std::nullopt : std::optional(value);
}

const char* class_name(std::uint32_t number) {
  switch (number) {
    case OSTLER_CLASS_SYNC:
      return "sync";
    case OSTLER_CLASS_THREADS:
      return "threads";
    case OSTLER_CLASS_ASYNC:
      return "async";
    default:
      return "other";
  }
}

void add_scoreboard(const Scoreboard& scoreboard, control::WorkerView& view) {
  const core::Time at = now();
  const Figures figures = scoreboard.figures(at);
  view.worker_class = class_name(figures.worker_class);
  view.requests = figures.requests;
  view.connections = figures.connections;
  view.active = figures.active;
  if (figures.active == 0) return;
  if (figures.busy_since) view.busy = seconds(at - *figures.busy_since);
  if (figures.beat != core::Time{}) view.heartbeat_age = seconds(at - figures.beat);
  for (const InFlight& request : scoreboard.in_flight(at)) {
    if (view.serving.size() == limits::kRequestsNamed) return;
    view.serving.push_back({request.what, seconds(at - request.since)});
  }
}

}  // namespace

UsageMeter::Hooks Runtime::usage_hooks() {
  UsageMeter::Hooks hooks;
  hooks.measured = [this](core::WorkerId worker, core::Time since, const Usage& usage) {
    const auto found = processes_.find(worker);
    if (found == processes_.end()) return;
    found->second.usage = usage;
    found->second.measured = since;
    if (std::exchange(found->second.memory_asked, false)) {
      enqueue(core::Measured{worker, usage.memory});
    }
  };
  hooks.overdue = [this](core::WorkerId worker, const std::string& why) {
    const auto found = processes_.find(worker);
    if (found == processes_.end()) return;
    Process& process = found->second;
    process.usage = {};
    if (std::exchange(process.overdue_said, true)) return;
    const bool recycled = process.launch->pool.recycle.memory.has_value();
    log_event(spdlog::level::warn, about(process), "what {}[{}] uses is not known: {}{}",
              process.name(), process.pid, why,
              recycled ? "; until it is, recycle.memory does not replace it" : "");
  };
  return hooks;
}

// Those whose figures are old, the oldest first. There is time for some: in a pool of thousands one
// answer shows the others as they were a few answers ago.
void Runtime::refresh_figures(std::function<void()> then) {
  std::vector<std::pair<core::Time, UsageMeter::Subject>> by_age;
  for (const auto& [worker, process] : processes_) {
    const core::Time measured = process.measured.value_or(core::Time::min());
    if (measured > now() - limits::kSampleAge) continue;
    by_age.emplace_back(measured, UsageMeter::Subject{worker, process.pid});
  }
  std::ranges::stable_sort(by_age, {}, [](const auto& entry) { return entry.first; });
  std::vector<UsageMeter::Subject> subjects;
  for (const auto& [measured, subject] : by_age) subjects.push_back(subject);
  usage_.refresh(subjects, std::move(then));
}

control::StatusView Runtime::status_view() {
  control::StatusView view;
  view.version = OSTLER_VERSION;
  view.pid = ::getpid();
  view.state = core::word(core::manager_state(core_.state()));
  view.uptime = seconds(now() - started_);
  if (!config_.file.empty()) view.config = config_.file;
  view.notify_rejected = notify_.rejected();
  view.ignored_events = core_.state().ignored;
  view.loop_turn_max = seconds(longest_stretch());
  view.last_error = last_log_failure_;
  for (const auto& [id, pool] : core_.state().pools) {
    // A pool that was removed may share its name with the one that came after it.
    if (core::find_pool(core_.state(), pool.name) == &pool) {
      view.pools.emplace(pool.name, pool_view(pool));
    }
  }
  return view;
}

control::PoolView Runtime::pool_view(const core::Pool& pool) {
  control::PoolView view;
  view.state = core::word(core::pool_state(core_.state(), pool));
  view.generation = pool.desired;
  view.accept = core::word(pool.plan().accept);
  view.spawn = "exec";
  view.target = pool.target();
  view.ready = pool.count_ready();
  view.starting = pool.count_starting();
  view.draining = pool.count_leaving();
  view.workers_configured = pool.plan().workers;
  view.scaled = pool.scaled.has_value();
  if (const auto& scaling = pool.plan().scaling) {
    view.scaling = control::ScalingView{scaling->min, scaling->max, core::word(scaling->by),
                                        static_cast<double>(scaling->target) / 1000};
  }
  view.restarts = pool.restarts;
  view.reloads = pool.reloads;
  const auto launch = launches_.find(pool.plan().launch);
  if (launch != launches_.end()) {
    for (const config::Listener& listener : launch->second->pool.listen) {
      const ListenerFigures figures = listeners_.figures(Listeners::key(pool.name, listener));
      view.listeners.push_back(
          {listener.name, figures.address, known(figures.backlog), known(figures.backlog_limit)});
    }
  }
  if (pool.rollout) {
    view.rollout =
        control::RolloutView{pool.rollout->to, pool.rollout->replaced, pool.rollout->rolling_back};
  }
  core::Time retry = core::Time::max();
  if (pool.rollout && pool.rollout->retry_at) retry = *pool.rollout->retry_at;
  for (const auto& [number, slot] : pool.slots) {
    if (slot.retry_at) retry = std::min(retry, *slot.retry_at);
  }
  if (retry != core::Time::max()) view.backing_off = std::max(0.0, seconds(retry - now()));
  if (pool.last_error) {
    const core::LastError& error = *pool.last_error;
    control::ErrorView& last = view.last_error.emplace();
    last.message =
        pool.name + "." + std::to_string(error.slot) + " " + core::describe(error.failure);
    last.time = std::chrono::system_clock::now() -
                std::chrono::duration_cast<std::chrono::system_clock::duration>(now() - error.at);
    if (error.slot >= 0) last.slot = error.slot;
    if (const pid_t pid = pid_of(error.worker); pid > 0) last.pid = pid;
    last.generation = error.generation;
    last.output = output_of(error.worker);
  }
  for (const std::string& key : pool.plan().listeners) {
    const std::string fault = listeners_.fault(key);
    if (fault.empty()) continue;
    control::ErrorView& last = view.last_error.emplace();
    last.message = key + " " + fault;
    last.time = std::chrono::system_clock::now();
  }
  for (const auto& [id, worker] : pool.workers) view.workers.push_back(worker_view(worker));
  const auto before = requests_before_.find(pool.id);
  if (before != requests_before_.end()) view.requests = before->second;
  for (const control::WorkerView& worker : view.workers) {
    if (worker.requests) view.requests = view.requests.value_or(0) + *worker.requests;
  }
  std::ranges::stable_sort(view.workers, {}, &control::WorkerView::slot);
  for (control::WorkerView& worker : view.workers) {
    worker.worker = pool.name + "." + std::to_string(worker.slot);
  }
  return view;
}

// One that starts is not worth a word; one that has said READY=1, or cannot be seen, is.
std::optional<std::string> Runtime::not_ready(const core::Worker& worker) const {
  const bool starting = worker.state == core::WorkerState::kStarting && !worker.care.warming;
  const bool known = worker.starting.said || worker.starting.seen == core::Sight::kUnknown;
  const core::Pool* pool = nullptr;
  if (!starting || !known || core::find_worker(core_.state(), worker.id, &pool) == nullptr) {
    return std::nullopt;
  }
  const std::string why = core::why_not_ready(pool->generations.at(worker.generation), worker);
  return why.empty() ? std::nullopt : std::optional(why);
}

control::WorkerView Runtime::worker_view(const core::Worker& worker) const {
  control::WorkerView view;
  view.slot = worker.slot;
  view.generation = worker.generation;
  view.state = core::word(worker.state);
  view.uptime = seconds(now() - worker.started);
  view.not_ready = not_ready(worker);
  if (worker.last_beat) view.heartbeat_age = seconds(now() - *worker.last_beat);
  const auto process = processes_.find(worker.id);
  if (process == processes_.end()) return view;
  view.pid = process->second.pid;
  view.memory = process->second.usage.memory;
  view.cpu = process->second.usage.cpu;
  view.status = process->second.status;
  if (process->second.channel->speaks()) {
    add_scoreboard(process->second.channel->scoreboard(), view);
  }
  return view;
}

}  // namespace ostler::runtime
