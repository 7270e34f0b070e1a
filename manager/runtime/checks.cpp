// What the core asks to know of running workers: their channel, their scoreboard, how they answer.
#include <spdlog/spdlog.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>
#include <utility>

#include "runtime/check_program.hpp"
#include "runtime/clock.hpp"
#include "runtime/hang.hpp"
#include "runtime/limits.hpp"
#include "runtime/private_request.hpp"
#include "runtime/runtime.hpp"

namespace ostler::runtime {
namespace {

// A connection of the manager's own; `worker_end` is the other side.
UniqueFd make_connection(UniqueFd& worker_end) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) return {};
  worker_end = UniqueFd(ends[1]);
  return UniqueFd(ends[0]);
}

core::Lasting lasting(core::Time since, core::Time until, std::string what = {}) {
  return {since, until, std::move(what)};
}

void keep_earlier(std::optional<core::Lasting>& kept, core::Lasting other) {
  if (!kept || other.until < kept->until) kept = std::move(other);
}

constexpr const char* kNotSeen = "what it does could not be seen";

// "serving GET /a for 1.2 s, GET /b for 0.3 s and 7 more"
std::string describe_serving(const std::vector<InFlight>& requests) {
  std::string text;
  for (std::size_t i = 0; i < requests.size() && i < limits::kRequestsNamed; ++i) {
    const std::chrono::duration<double> lasted = now() - requests[i].since;
    text += fmt::format("{}{} for {:.1f} s", i > 0 ? ", " : "serving ", requests[i].what,
                        lasted.count());
  }
  if (requests.size() > limits::kRequestsNamed) {
    text += fmt::format(" and {} more", requests.size() - limits::kRequestsNamed);
  }
  return text;
}

}  // namespace

void Runtime::start_channel(core::WorkerId worker, const Process& process) {
  WorkerChannel::Hooks hooks;
  hooks.heard = [this, worker](core::WorkerSign sign) {
    starts_.settle(worker);
    if (sign == core::WorkerSign::kAwake) note_cpu(worker);
    if (sign == core::WorkerSign::kReady) {
      const auto found = processes_.find(worker);
      if (found != processes_.end()) says_ready(worker, found->second);
      return;
    }
    enqueue(core::WorkerSigned{worker, sign});
  };
  hooks.broken = [this, worker, whom = about(process)](const std::string& reason) {
    log_event(spdlog::level::warn, whom, "{}[{}] sent {} on its channel, which is closed now",
              *whom.worker, *whom.pid, reason);
    starts_.settle(worker);
    enqueue(core::WorkerSigned{worker, core::WorkerSign::kGarbled});
  };
  hooks.room = [this, pool = process.pool_id] { dispatcher_.has_room(pool); };
  hooks.returned = [this, pool = process.pool_id](std::vector<Connection> connections) {
    dispatcher_.give_to_others(pool, std::move(connections));
  };
  hooks.not_taken = [this, worker, pool = process.pool_id](std::vector<Connection> connections) {
    dispatcher_.not_taken(pool, worker, std::move(connections));
  };
  const config::Pool& pool = process.launch->pool;
  std::vector<std::string> listeners;
  for (const config::Listener& listener : pool.listen) {
    listeners.push_back(Listeners::key(pool.name, listener));
  }
  process.channel->start(std::move(hooks), std::move(listeners));
}

// How much CPU a worker had used when it was last known to make progress.
void Runtime::note_cpu(core::WorkerId worker) {
  const auto found = processes_.find(worker);
  if (found == processes_.end()) return;
  found->second.cpu_at_beat = cpu_seconds(found->second.pid).value_or(0);
}

void Runtime::perform(const core::LetAccept& action) {
  const auto found = processes_.find(action.worker);
  if (found == processes_.end()) return;
  if (!found->second.channel->speaks()) return;  // it accepts already, but is sent nothing
  if (const int error = found->second.channel->let_accept(); error != 0) {
    log_event(spdlog::level::err, about(found->second), "tell {}[{}] to accept: {}",
              found->second.name(), found->second.pid, std::generic_category().message(error));
  }
}

void Runtime::perform(const core::Probe& action) {
  const auto found = processes_.find(action.worker);
  if (found == processes_.end()) return;  // its end is what comes next
  const config::Pool& pool = found->second.launch->pool;
  const auto index = static_cast<std::size_t>(action.warmup);
  if (action.warmup >= 0) {
    return probe_by_request(action, found->second, pool.warmup.at(index), pool.timeouts.start);
  }
  if (pool.health->request) {
    return probe_by_request(action, found->second, *pool.health->request, pool.health->timeout);
  }
  probe_by_program(action, found->second);
}

void Runtime::probe_by_request(const core::Probe& action, Process& process,
                               const config::ProbeRequest& request, core::Duration limit) {
  const std::string what = describe(request);
  std::string fault;
  UniqueFd connection = connect_to(action, process, fault);
  if (!connection) {
    return report(action, core::ProbeResult::kFailed, what + " could not be sent: " + fault);
  }
  ask_privately(context_, std::move(connection), request, limit,
                [this, action, what, request, sent = now()](const PrivateAnswer& answer) {
                  if (answer.late && action.warmup < 0 && was_busy(action.worker, sent)) {
                    return report(action, core::ProbeResult::kBusy, "");
                  }
                  if (!answer.status) {
                    return report(action, core::ProbeResult::kFailed, what + ": " + answer.fault);
                  }
                  const std::string wrong = unexpected(request, *answer.status);
                  report(action,
                         wrong.empty() ? core::ProbeResult::kPassed : core::ProbeResult::kFailed,
                         wrong);
                });
}

// Over the channel, if it speaks that; else to a socket that nobody else accepts from.
UniqueFd Runtime::connect_to(const core::Probe& action, Process& process, std::string& fault) {
  const config::Pool& pool = process.launch->pool;
  ListenError error;
  UniqueFd connection;
  if (!process.channel->speaks() && pool.accept == config::Accept::kReuseport) {
    connection =
        steering_.connect(Listeners::key(pool.name, pool.listen.front()), action.worker, error);
  } else {
    UniqueFd worker_end;
    connection = make_connection(worker_end);
    error = {"hand it over", connection ? process.channel->hand_over(worker_end) : errno};
    if (error.error != 0) connection = {};
  }
  if (!connection) fault = error.stage + ": " + std::generic_category().message(error.error);
  return connection;
}

// A worker that does one thing at a time cannot answer while it serves a request that came before:
// that it does not take too long is for other limits to see to.
bool Runtime::was_busy(core::WorkerId worker, core::Time since) const {
  const auto found = processes_.find(worker);
  if (found == processes_.end()) return false;
  const Scoreboard& scoreboard = found->second.channel->scoreboard();
  if (scoreboard.figures(now()).worker_class != OSTLER_CLASS_SYNC) return false;
  const auto requests = scoreboard.in_flight(now());
  return !requests.empty() && requests.front().since < since;
}

void Runtime::probe_by_program(const core::Probe& action, const Process& process) {
  WorkerPlace place;
  place.pool = process.pool;
  place.slot = process.slot;
  place.generation = process.generation;
  place.manager_env = options_.environment;
  SpawnRequest request = make_check_request(*process.launch, place, process.pid);
  if (!request.umask) request.umask = options_.umask;
  request.open_files = options_.open_files;
  run_check(context_, outputs_, children_, std::move(request), process.name(),
            process.launch->pool.health->timeout, [this, action](const std::string& fault) {
              report(action,
                     fault.empty() ? core::ProbeResult::kPassed : core::ProbeResult::kFailed,
                     fault);
            });
}

void Runtime::report(const core::Probe& action, core::ProbeResult result,
                     const std::string& detail) {
  enqueue(core::Probed{action.worker, action.warmup, result, detail});
}

// On its own socket, or handed to it and not taken.
std::optional<Steering::Queue> Runtime::waiting_for(core::WorkerId worker) const {
  if (const auto handed = dispatcher_.waiting(worker)) {
    return Steering::Queue{static_cast<std::int64_t>(handed->count), handed->since};
  }
  return steering_.queue(worker);
}

void Runtime::perform(const core::Look& action) {
  const auto found = processes_.find(action.worker);
  if (found == processes_.end()) return;
  const core::Time at = now();
  const Scoreboard& scoreboard = found->second.channel->scoreboard();
  const Figures figures = scoreboard.figures(at);
  core::Looked looked;
  looked.worker = action.worker;
  looked.awake = figures.awake;
  // As long as a request has asked for more time, the loop that may be serving it has it as well.
  core::Time granted{};
  for (const InFlight& request : scoreboard.in_flight(at)) {
    const core::Time until = request.until.value_or(core::Time{});
    granted = std::max(granted, until);
    if (action.request) {
      keep_earlier(
          looked.request,
          lasting(request.since, std::max(request.since + *action.request, until), request.what));
    }
    if (action.heartbeat && request.progress) {
      keep_earlier(looked.silent,
                   lasting(*request.progress,
                           std::max(*request.progress + *action.heartbeat, until), request.what));
    }
  }
  if (action.heartbeat && figures.active > 0 && figures.beat != core::Time{}) {
    keep_earlier(looked.silent,
                 lasting(figures.beat, std::max(figures.beat + *action.heartbeat, granted)));
  }
  if (const auto waiting = waiting_for(action.worker); waiting && action.heartbeat) {
    looked.awake = true;
    looked.waiting = lasting(waiting->since, waiting->since + *action.heartbeat,
                             std::to_string(waiting->length) + " connections waiting");
  }
  const bool late = (looked.silent && looked.silent->until <= at) ||
                    (looked.waiting && looked.waiting->until <= at);
  if (!late) note_cpu(action.worker);
  enqueue(std::move(looked));
}

void Runtime::perform(const core::Measure& action) {
  const auto found = processes_.find(action.worker);
  if (found == processes_.end()) return;
  found->second.memory_asked = true;
  usage_.measure({action.worker, found->second.pid});
}

// A worker that served is to go. What its end may cut off can be known only if it counts.
void Runtime::note_asked_to_stop(core::WorkerId worker) {
  const core::Worker* const known = core::find_worker(core_.state(), worker);
  const auto process = processes_.find(worker);
  if (known == nullptr || !known->was_ready || process == processes_.end()) return;
  if (!process->second.channel->speaks()) cut_[process->second.pool].reset();
}

// A worker is about to be killed. If its drain took too long, the requests it still has are lost.
void Runtime::count_cut(core::WorkerId worker, Process& process) {
  const core::Worker* const known = core::find_worker(core_.state(), worker);
  const bool overdue =
      known != nullptr && known->fault && known->fault->kind == core::FailureKind::kStopTimeout;
  if (!overdue || process.cut) return;
  auto& cut = cut_.try_emplace(process.pool, 0).first->second;
  if (!process.channel->speaks()) return cut.reset();
  process.cut = process.channel->scoreboard().figures(now()).active;
  if (cut) *cut += *process.cut;
}

// Before a worker that hangs is told of and aborted, it is seen what it does. The look may take as
// long as the worker likes: the loop goes on, and waits no longer than its patience lasts.
void Runtime::look_at_hung(const core::Note& note, Process& process) {
  const auto requests = process.channel->scoreboard().in_flight(now());
  const pid_t thread = requests.empty() ? 0 : requests.front().thread;
  Hung& hung = process.hung.emplace(Hung{note, describe_serving(requests), {}});
  if (note.failure->kind == core::FailureKind::kStartTimeout) {
    hung.refused = notify_.what_was_refused(note.worker);
  }
  const auto seen = std::make_shared<std::string>();
  const auto end = [this, worker = note.worker](const std::string& text) {
    if (report_hung(worker, text)) perform(core::SignalWorker{worker, core::SignalKind::kAbort});
  };
  Looks::Sweep look;
  look.look = [seen, thread, pid = process.pid, cpu = process.cpu_at_beat](std::size_t) {
    *seen = what_it_does(pid, cpu, thread);
    return false;
  };
  look.done = [seen, end] { end(*seen); };
  look.given_up = [end](std::size_t) { end(kNotSeen); };
  look.patience = limits::kHangPatience;
  const std::string fault = hung_looks_.start(std::move(look));
  if (!fault.empty()) report_hung(note.worker, std::string(kNotSeen) + " (" + fault + ")");
}

// False: it has been reported.
bool Runtime::report_hung(core::WorkerId worker, const std::string& seen) {
  const auto found = processes_.find(worker);
  if (found == processes_.end() || !found->second.hung) return false;
  const Hung hung = *std::exchange(found->second.hung, std::nullopt);
  std::string& doing = found->second.doing = seen;
  if (!hung.serving.empty()) doing += (doing.empty() ? "" : ", ") + hung.serving;
  if (!hung.refused.empty()) doing += (doing.empty() ? "" : "; ") + hung.refused;
  tell(hung.note);
  return true;
}

}  // namespace ostler::runtime
