// What happens, told: to the log, to those who follow the events, to systemd.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <utility>

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
    case core::NoteKind::kWorkerUnfit:
      return "worker.unfit";
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
    case core::NoteKind::kPoolKept:
      return "pool.kept";
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

std::string Runtime::cut_of(core::WorkerId worker) const {
  const auto process = processes_.find(worker);
  const bool known = process != processes_.end() && process->second.cut;
  return known ? std::to_string(*process->second.cut) : "not known";
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
  // What was measured while it started says nothing about what it uses.
  if (action.kind == core::NoteKind::kWorkerReady && process != processes_.end()) {
    process->second.measured.reset();
    const config::Pool& pool = process->second.launch->pool;
    for (const config::Listener& listener : pool.listen) {
      listeners_.show(Listeners::key(pool.name, listener));
    }
  }
  if (hung && process != processes_.end()) {
    look_at_hung(action, process->second);
  } else {
    tell(action);
  }
  note_reload(action);
  if (action.kind == core::NoteKind::kWorkerStopping) note_asked_to_stop(action.worker);
  const bool decided =
      action.kind == core::NoteKind::kWorkerReady || action.kind == core::NoteKind::kWorkerStopping;
  if (decided) readiness_.forget(action.worker);
  if (action.kind == core::NoteKind::kManagerReady) systemd_.ready(status_line());
}

void Runtime::tell(const core::Note& note) {
  const control::EventView event = event_of(note);
  log_note(note, event);
  server_->publish(event);
}

void Runtime::note_reload(const core::Note& note) {
  if (note.kind == core::NoteKind::kReloadStarted) {
    cut_.clear();
    last_reload_failure_.clear();
    for (auto& [id, operation] : operations_) {  // those who wait have been told before
      if (operation.begun) std::exchange(operation.begun, {})();
    }
  }
  if (note.kind != core::NoteKind::kReloadFinished) return;
  if (note.outcome == core::Outcome::kReloaded) adjust_listeners(note.pool);
  if (note.outcome == core::Outcome::kRejected) read_log_.reset();
  if (!note.failure) return;
  const std::string why = core::describe(*note.failure);
  last_reload_failure_ = note.outcome == core::Outcome::kRejected
                             ? "reload rejected: " + why
                             : "reload failed: " + note.pool + ": a new worker " + why;
}

// "uid 0 (pid 123)"
std::string Runtime::name_of(core::OperationId op) const {
  const auto operation = operations_.find(op);
  if (operation == operations_.end()) return "SIGHUP";
  const Peer& peer = operation->second.peer;
  return "uid " + std::to_string(peer.uid) +
         (peer.pid > 0 ? " (pid " + std::to_string(peer.pid) + ")" : "");
}

std::string Runtime::request_of(core::OperationId op) const {
  const auto operation = operations_.find(op);
  return operation == operations_.end() ? "reload of all pools" : operation->second.what;
}

void Runtime::perform(const core::ReloadQueued& action) {
  const std::string runs = action.start ? "the start"
                                        : "the " + request_of(action.behind) + " that " +
                                              name_of(action.behind) + " began";
  control::EventView event;
  event.time = std::chrono::system_clock::now();
  event.event = "reload.queued";
  if (!action.pool.empty()) event.pool = action.pool;
  const auto operation = operations_.find(action.op);
  if (operation != operations_.end()) {
    Operation& asked = operation->second;
    if (asked.peer.pid > 0) event.pid = asked.peer.pid;
    event.members.emplace_back("uid", std::int64_t{asked.peer.uid});
    if (asked.begun) std::exchange(asked.begun, {})();
  }
  event.members.emplace_back("waits_for", runs);
  log_event(spdlog::level::info, event, "the {} that {} asked for waits for {}",
            request_of(action.op), name_of(action.op), runs);
  server_->publish(event);
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
    case core::NoteKind::kWorkerUnfit:
      if (note.value >= 0) add("retry_in", seconds(note.value));
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
    case core::NoteKind::kPoolKept:
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
      if (note.failure && note.failure->kind == core::FailureKind::kStopTimeout) {
        return log_event(spdlog::level::warn, event, "{} killed ({}): it {}; requests cut: {}",
                         worker, core::word(note.cause), why, cut_of(note.worker));
      }
      if (note.cause == core::StopCause::kItself) {
        return log_event(spdlog::level::info, event, "{} ended by itself: {}", worker, why);
      }
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
    case core::NoteKind::kWorkerUnfit:
      return log_event(spdlog::level::err, event, "{} is unfit: it {}; {}", worker, why,
                       note.value < 0
                           ? std::string("it serves until it is replaced")
                           : fmt::format("it serves on, next try in {:.1f}s", seconds(note.value)));
    case core::NoteKind::kReloadStarted:
      return log_event(spdlog::level::info, event, "reload{}{} started",
                       note.pool.empty() ? "" : " of ", note.pool);
    case core::NoteKind::kReloadFailing:
      return log_event(spdlog::level::err, event, "reload of {} is rolled back: a new worker {}",
                       note.pool, why);
    case core::NoteKind::kReloadFinished:
      return log_finished(note, event, why);
    case core::NoteKind::kPoolScaled:
      return log_event(spdlog::level::info, event, "{} scaled from {} to {}: {}", note.pool,
                       note.decision ? note.decision->from : 0, note.value,
                       note.decision ? core::describe(*note.decision) : "asked for");
    case core::NoteKind::kPoolReady:
      return log_event(spdlog::level::info, event, "{} has all its {} workers", note.pool,
                       note.value);
    case core::NoteKind::kPoolRemoved:
      return log_event(spdlog::level::info, event, "{} removed", note.pool);
    case core::NoteKind::kPoolKept:
      return log_event(spdlog::level::warn, event,
                       "{} is kept, though the file has it no more: a pool that got one of its "
                       "listeners was rolled back",
                       note.pool);
    case core::NoteKind::kManagerReady:
      return log_event(spdlog::level::info, event, "ready");
    case core::NoteKind::kManagerStopping:
      return log_event(spdlog::level::info, event, "stopping");  // why: in the last line
    case core::NoteKind::kClockJumped:
      return log_event(spdlog::level::warn, event,
                       "the manager stood still for {:.1f}s; every deadline is moved by that",
                       seconds(note.value));
  }
}

void Runtime::log_finished(const core::Note& note, const control::EventView& event,
                           const std::string& why) const {
  const std::string reload = "reload" + (note.pool.empty() ? "" : " of " + note.pool);
  switch (note.outcome) {
    case core::Outcome::kReloaded:
      return log_event(spdlog::level::info, event, "{} reloaded, generation {}", note.pool,
                       note.generation);
    case core::Outcome::kBusy:
      return log_event(spdlog::level::err, event,
                       "{} refused: too many requests wait for their turn", reload);
    case core::Outcome::kStopping:
      return log_event(spdlog::level::err, event, "{} refused: the manager is stopping", reload);
    case core::Outcome::kRejected:
      if (note.failure && note.failure->kind != core::FailureKind::kConfiguration) break;
      for (const config::Fault& fault : read_faults_) {
        log_event(spdlog::level::err, event, "{} rejected: {}", reload, fault.text());
      }
      return;
    case core::Outcome::kDone:
    case core::Outcome::kRemoved:
    case core::Outcome::kKept:
    case core::Outcome::kRolledBack:
    case core::Outcome::kFailed:
    case core::Outcome::kNotFound:
      break;
  }
  log_event(spdlog::level::err, event, "{} {}: {}", reload, core::word(note.outcome), why);
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
