// What happens, told: to the log, to those who follow the events, to systemd.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>

#include "runtime/runtime.hpp"

namespace ostler::runtime {
namespace {

const char* event_name(core::NoteKind kind) {
  switch (kind) {
    case core::NoteKind::kWorkerStarting:
      return "worker.starting";
    case core::NoteKind::kWorkerReady:
      return "worker.ready";
    case core::NoteKind::kWorkerStopping:
      return "worker.stopping";
    case core::NoteKind::kWorkerExited:
      return "worker.exited";
    case core::NoteKind::kWorkerFailed:
      return "worker.failed";
    case core::NoteKind::kWorkerUnkillable:
      return "worker.unkillable";
    case core::NoteKind::kWorkerWorn:
      return "worker.recycling";
    case core::NoteKind::kHealthFailed:
      return "health.failed";
    case core::NoteKind::kReloadStarted:
      return "reload.started";
    case core::NoteKind::kReloadFailing:
      return "reload.failing";
    case core::NoteKind::kReloadFinished:
      return "reload.finished";
    case core::NoteKind::kPoolScaled:
      return "pool.scaled";
    case core::NoteKind::kPoolReady:
      return "pool.ready";
    case core::NoteKind::kPoolRemoved:
      return "pool.removed";
    case core::NoteKind::kManagerReady:
      return "manager.ready";
    case core::NoteKind::kManagerStopping:
      return "manager.stopping";
    case core::NoteKind::kClockJumped:
      return "manager.stood_still";
  }
  return "";
}

double seconds(std::int64_t milliseconds) {
  return static_cast<double>(milliseconds) / 1000.0;
}

}  // namespace

pid_t Runtime::pid_of(core::WorkerId worker) const {
  const auto process = processes_.find(worker);
  if (process != processes_.end()) return process->second.pid;
  const auto dead = std::ranges::find(remembered_, worker, &Remembered::worker);
  return dead == remembered_.end() ? 0 : dead->pid;
}

control::EventView Runtime::about(const Process& process) {
  control::EventView view;
  view.pool = process.pool;
  view.worker = process.name();
  view.slot = process.slot;
  view.pid = process.pid;
  view.generation = process.generation;
  return view;
}

std::string Runtime::doing_of(core::WorkerId worker) const {
  const auto process = processes_.find(worker);
  return process == processes_.end() ? std::string() : process->second.doing;
}

std::vector<std::string> Runtime::output_of(core::WorkerId worker) const {
  const auto process = processes_.find(worker);
  if (process != processes_.end()) {
    return process->second.output ? process->second.output->tail() : std::vector<std::string>{};
  }
  const auto dead = std::ranges::find(remembered_, worker, &Remembered::worker);
  return dead == remembered_.end() ? std::vector<std::string>{} : dead->output;
}

void Runtime::perform(const core::Note& action) {
  const auto process = processes_.find(action.worker);
  const bool hung = action.kind == core::NoteKind::kWorkerStopping && action.failure;
  if (hung && process != processes_.end()) {
    process->second.doing = describe_hang(process->second);
    const std::string refused = notify_.what_was_refused(action.worker);
    if (action.failure->kind == core::FailureKind::kStartTimeout && !refused.empty()) {
      process->second.doing += (process->second.doing.empty() ? "" : "; ") + refused;
    }
  }
  // What was measured while it started says nothing about what it uses.
  if (action.kind == core::NoteKind::kWorkerReady && process != processes_.end()) {
    process->second.measured.reset();
  }
  const control::EventView event = event_of(action);
  log_note(action, event);
  server_->publish(event);
  if (action.kind == core::NoteKind::kReloadStarted) {
    std::erase_if(
        cut_, [&](const auto& entry) { return action.pool.empty() || entry.first == action.pool; });
  }
  if (action.kind == core::NoteKind::kReloadFinished &&
      action.outcome == core::Outcome::kReloaded) {
    adjust_listeners(action.pool);
  }
  const bool failed = action.kind == core::NoteKind::kReloadFinished && action.failure;
  if (failed) {
    last_reload_failure_ =
        "reload failed: " + (action.pool.empty() ? "" : action.pool + ": a new worker ") +
        core::describe(*action.failure);
  }
  const bool decided =
      action.kind == core::NoteKind::kWorkerReady || action.kind == core::NoteKind::kWorkerStopping;
  if (decided) probes_.forget(action.worker);
  if (action.kind == core::NoteKind::kManagerReady) systemd_.ready(status_line());
}

control::EventView Runtime::event_of(const core::Note& note) const {
  control::EventView event;
  event.time = std::chrono::system_clock::now();
  event.event = event_name(note.kind);
  if (!note.pool.empty()) event.pool = note.pool;
  if (note.slot >= 0) {
    event.slot = note.slot;
    event.worker = note.pool + "." + std::to_string(note.slot);
    if (const pid_t pid = pid_of(note.worker); pid > 0) event.pid = pid;
  }
  if (note.generation != 0) event.generation = note.generation;
  const auto add = [&](const char* name, control::Value value) {
    event.members.emplace_back(name, std::move(value));
  };
  if (note.cause != core::StopCause::kNone) add("cause", std::string(core::word(note.cause)));
  if (note.failure) add("reason", core::describe(*note.failure));
  if (const std::string doing = doing_of(note.worker); !doing.empty()) add("doing", doing);
  switch (note.kind) {
    case core::NoteKind::kWorkerFailed:
      if (note.value >= 0) add("retry_in", seconds(note.value));
      add("output", output_of(note.worker));
      break;
    case core::NoteKind::kWorkerWorn:
      add("why", std::string(core::word(note.wear)));
      if (note.wear == core::Wear::kMemory) add("memory", note.value);
      break;
    case core::NoteKind::kHealthFailed:
      add("failures", note.value);
      break;
    case core::NoteKind::kReloadFinished:
      add("outcome", std::string(core::word(note.outcome)));
      add("replaced", note.value);
      break;
    case core::NoteKind::kPoolScaled:
      add("target", note.value);
      if (note.decision) {
        add("from", note.decision->from);
        add("why", core::describe(*note.decision));
      }
      break;
    case core::NoteKind::kPoolReady:
      add("target", note.value);
      break;
    case core::NoteKind::kClockJumped:
      add("lost", seconds(note.value));
      break;
    case core::NoteKind::kWorkerStarting:
    case core::NoteKind::kWorkerReady:
    case core::NoteKind::kWorkerStopping:
    case core::NoteKind::kWorkerExited:
    case core::NoteKind::kWorkerUnkillable:
    case core::NoteKind::kReloadStarted:
    case core::NoteKind::kReloadFailing:
    case core::NoteKind::kPoolRemoved:
    case core::NoteKind::kManagerReady:
      break;
    case core::NoteKind::kManagerStopping:
      if (core_.state().exit_reason == core::ExitReason::kStopped) break;
      add("reason", core::describe_exit(core_.state()));
      break;
  }
  return event;
}

void Runtime::log_note(const core::Note& note, const control::EventView& event) const {
  const std::string worker =
      note.pool + "." + std::to_string(note.slot) + "[" + std::to_string(pid_of(note.worker)) + "]";
  const std::string why = note.failure ? core::describe(*note.failure) : "";
  switch (note.kind) {
    case core::NoteKind::kWorkerStarting:
      return log_event(spdlog::level::debug, event, "{} starting, generation {}", worker,
                       note.generation);
    case core::NoteKind::kWorkerReady:
      return log_event(spdlog::level::info, event, "{} ready, generation {}", worker,
                       note.generation);
    case core::NoteKind::kWorkerStopping:
      if (note.failure) {
        const std::string doing = doing_of(note.worker);
        return log_event(spdlog::level::warn, event, "{} is aborted: it {}{}{}", worker, why,
                         doing.empty() ? "" : "; ", doing);
      }
      return log_event(spdlog::level::debug, event, "{} asked to stop ({})", worker,
                       core::word(note.cause));
    case core::NoteKind::kWorkerExited:
      return log_event(spdlog::level::info, event, "{} gone ({}): {}", worker,
                       core::word(note.cause), why);
    case core::NoteKind::kWorkerFailed:
      return log_event(spdlog::level::err, event, "{} {}; {}", worker, why,
                       note.value < 0    ? std::string("not replaced")
                       : note.value == 0 ? std::string("replaced at once")
                                         : fmt::format("next try in {:.1f}s", seconds(note.value)));
    case core::NoteKind::kWorkerUnkillable:
      return log_event(spdlog::level::err, event,
                       "{} does not end on SIGKILL: it hangs in the kernel", worker);
    case core::NoteKind::kWorkerWorn:
      return log_event(
          spdlog::level::info, event, "{} is to be replaced ({}){}", worker, core::word(note.wear),
          note.wear == core::Wear::kMemory ? fmt::format(": it uses {} MiB", note.value >> 20U)
                                           : std::string());
    case core::NoteKind::kHealthFailed:
      return log_event(spdlog::level::warn, event, "{} {} ({} in a row)", worker, why, note.value);
    case core::NoteKind::kReloadStarted:
      return log_event(spdlog::level::info, event, "reload{}{} started",
                       note.pool.empty() ? "" : " of ", note.pool);
    case core::NoteKind::kReloadFailing:
      return log_event(spdlog::level::err, event, "reload of {} is rolled back: a new worker {}",
                       note.pool, why);
    case core::NoteKind::kReloadFinished:
      if (note.outcome == core::Outcome::kReloaded) {
        return log_event(spdlog::level::info, event, "{} reloaded, generation {}", note.pool,
                         note.generation);
      }
      return log_event(spdlog::level::err, event, "reload{}{} {}: {}",
                       note.pool.empty() ? "" : " of ", note.pool, core::word(note.outcome), why);
    case core::NoteKind::kPoolScaled:
      return log_event(spdlog::level::info, event, "{} scaled from {} to {}: {}", note.pool,
                       note.decision ? note.decision->from : 0, note.value,
                       note.decision ? core::describe(*note.decision) : "asked for");
    case core::NoteKind::kPoolReady:
      return log_event(spdlog::level::info, event, "{} has all its {} workers", note.pool,
                       note.value);
    case core::NoteKind::kPoolRemoved:
      return log_event(spdlog::level::info, event, "{} removed", note.pool);
    case core::NoteKind::kManagerReady:
      return log_event(spdlog::level::info, event, "ready");
    case core::NoteKind::kManagerStopping:
      if (core_.state().exit_reason == core::ExitReason::kStopped)
        return log_event(spdlog::level::info, event, "stopping");
      return log_event(spdlog::level::err, event, "stopping: {}",
                       core::describe_exit(core_.state()));
    case core::NoteKind::kClockJumped:
      return log_event(spdlog::level::warn, event,
                       "the manager stood still for {:.1f}s; every deadline is moved by that",
                       seconds(note.value));
  }
}

std::string Runtime::status_line() const {
  int ready = 0;
  int target = 0;
  for (const auto& [id, pool] : core_.state().pools) {
    ready += pool.count_ready();
    target += pool.removed ? 0 : pool.target();
  }
  const std::size_t pools = core_.state().pools.size();
  return std::to_string(ready) + " of " + std::to_string(target) + " workers ready in " +
         std::to_string(pools) + (pools == 1 ? " pool" : " pools") +
         (last_reload_failure_.empty() ? "" : "; " + last_reload_failure_);
}

}  // namespace ostler::runtime
