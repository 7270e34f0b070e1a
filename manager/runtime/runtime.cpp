#include "runtime/runtime.hpp"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/post.hpp>
#include <boost/system/system_error.hpp>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <new>
#include <random>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "core/invariants.hpp"
#include "core/trace.hpp"
#include "runtime/clock.hpp"
#include "runtime/cpus.hpp"
#include "runtime/limits.hpp"
#include "runtime/log.hpp"
#include "runtime/memory_reserve.hpp"
#include "runtime/procfs.hpp"
#include "runtime/usage.hpp"

namespace ostler::runtime {
namespace {

std::string reason(int error) {
  return std::generic_category().message(error);
}

StopTerms stop_terms(const config::Pool& pool) {
  using std::chrono::milliseconds;
  const auto timeout = std::chrono::duration_cast<milliseconds>(pool.timeouts.stop);
  return {pool.stop_signal, timeout, pool.leave_behind};
}

}  // namespace

Runtime::Runtime(boost::asio::io_context& context, const config::Config& config,
                 ControlSocket control, RuntimeOptions options)
    : context_(context),
      config_(config),
      options_(std::move(options)),
      core_(0),
      started_(now()),
      control_(std::move(control)),
      systemd_(context),
      listeners_(std::move(options_.inherited)),
      doorbell_(context, [this](const std::string& key) { on_knock(key); }),
      steering_(context, listeners_, doorbell_, steering_hooks()),
      dispatcher_(context, listeners_, doorbell_,
                  [this](core::WorkerId worker) { waits_for(worker); }),
      load_(context, [this](core::PoolId pool) { return load_sources(pool); }),
      removals_(context, [this] { restore_sockets(); }),
      notify_(context, removals_, notify_hooks()),
      outputs_(context),
      children_(
          context, *options_.watcher, [this](core::WorkerId worker) { notify_.drain(worker); },
          [this](const core::Exited& event) { on_exit(event); }),
      watcher_end_(context),
      starts_(context, start_hooks()),
      readiness_(context, readiness_hooks()),
      usage_(context, usage_hooks()),
      hung_looks_(context, limits::kHangLooks),
      signals_(context, [this](int signal) { on_signal(signal); }),
      backlog_watch_(context),
      timer_(context) {
  listeners_.on_stranded([this](const std::set<core::WorkerId>& workers) {
    for (const core::WorkerId worker : workers) {
      enqueue(core::WorkerRequested{{}, worker, core::WorkerRequest::kRecycle});
    }
  });
  listeners_.on_closing([this](int fd) {
    doorbell_.forget(fd);
    steering_.forget(fd);
    dispatcher_.forget(fd);
  });
  const std::uint64_t seed = std::random_device{}();
  core_ = core::Core(seed);
  if (!options_.trace.empty()) {
    trace_.open(options_.trace);
    trace_.record(core::trace_header(seed));
  }
  if (const std::string failed = notify_.open_folder(control_.path()); !failed.empty()) {
    throw std::runtime_error(failed);
  }
  on_log_room([this] { boost::asio::post(context_, [this] { outputs_.log_has_room(); }); });
  watch_control_socket();
  await_watcher();
  server_.emplace(
      context, control_.listener(),
      [this](const control::Command& command, const Peer& peer, ControlServer::Respond respond) {
        handle(command, peer, std::move(respond));
      });
}

Runtime::~Runtime() {
  on_log_room({});
}

int Runtime::run() {
  close_unused_sockets();
  enqueue(core::PlanAccepted{{}, make_plans(config_)});
  systemd_.start_watchdog();
  while (!run_handlers()) {
  }
  switch (exit_reason_.value_or(core::ExitReason::kStopped)) {
    case core::ExitReason::kStopped:
      return 0;
    case core::ExitReason::kNoListener:
      return 3;
    case core::ExitReason::kAllPoolsFailed:
      return 4;
  }
  return 1;
}

// False: a handler failed. What it was about is lost, and the others go on.
bool Runtime::run_handlers() try {
  context_.run();
  return true;
} catch (const std::exception& error) {
  recover(error.what());
  return false;
}

// A moment later, or what fails again and again would keep the processor.
void Runtime::recover(const std::string& failure) try {
  if (memory_was_short()) server_->give_memory_back();
  spdlog::error("unexpected failure: {}; the manager goes on", failure);
  armed_.reset();
  arm(now() + limits::kAfterFailure);
} catch (const std::exception&) {
  // Nor is there memory for that: the next thing that happens tries again.
}

core::Plan Runtime::make_plans(const config::Config& config) {
  const Resources resources = usable_resources();
  std::map<core::LaunchId, std::shared_ptr<const Launch>> launches;
  core::Plan plan;
  for (const auto& [name, pool] : config.pools) {
    const core::LaunchId id{++last_launch_};
    const config::Pool resolved = listeners_.resolve(pool);
    launches.emplace(id, make_launch(resolved));
    const int automatic = automatic_workers(resources, pool.recycle.memory);
    plan.pools.push_back(make_plan(resolved, id, automatic));
  }
  launches_.merge(launches);
  return plan;
}

void Runtime::enqueue(core::Event event) {
  messages_.push_back(std::move(event));
  schedule();
}

void Runtime::schedule() {
  if (std::exchange(scheduled_, true)) return;
  boost::asio::post(context_, [this] {
    scheduled_ = false;
    turn();
  });
}

void Runtime::turn() {
  if (memory_was_short()) {
    spdlog::error("the system refuses memory: requests that are being sent are cut off");
    server_->give_memory_back();
  } else {
    refill_memory_reserve();
  }
  if (exit_reason_) return finish_if_over();
  const core::Time begin = now();
  const auto output_end = WorkerOutput::Clock::now() + limits::kOutputTurn;
  for (core::Exited& exit : exits_) {
    const auto process = processes_.find(exit.worker);
    if (process == processes_.end()) continue;
    report_hung(exit.worker);  // it was not seen any more
    const WorkerChannel& channel = *process->second.channel;
    process->second.channel->read_to_end();
    exit.answered = channel.speaks() && channel.scoreboard().figures(begin).requests > 0;
    if (process->second.output) process->second.output->drain(output_end);
    listeners_.release(exit.worker);  // whoever takes its place may get its sockets
  }
  core::Actions actions;
  std::optional<core::Time> next = begin + limits::kAfterFailure;
  try {
    next = decide(begin, actions);
  } catch (const std::exception& error) {  // what has been decided is done all the same
    spdlog::error("unexpected failure: {}; the manager goes on", error.what());
  }
  if (!actions.empty()) check_invariants();
  perform(actions);
  take_log_settings();
  const bool changed = !actions.empty() || !exits_.empty();
  bury();
  if (changed) share_out();
  tell_systemd(changed);
  if (!farewell_) arm(next);
}

std::optional<core::Time> Runtime::decide(core::Time at, core::Actions& actions) {
  const auto apply = [&](const core::Event& event) {
    const std::size_t before = actions.size();
    core_.apply(event, at, actions);
    if (trace_.is_open()) record(core::trace_event(at, event), actions, before);
  };
  while (!messages_.empty()) {
    const core::Event event = std::move(messages_.front());
    messages_.pop_front();
    apply(event);
  }
  for (const core::Exited& event : exits_) apply(event);
  const std::size_t before = actions.size();
  const auto next = core_.reconcile(at, actions);
  if (trace_.is_open()) record(core::trace_reconcile(at), actions, before);
  return next;
}

void Runtime::record(const std::string& cause, const core::Actions& actions, std::size_t from) {
  trace_.record(cause);
  for (std::size_t i = from; i < actions.size(); ++i) trace_.record(core::trace_action(actions[i]));
}

// A decision that broke an invariant is worth a report, not the workers' lives: the next reconcile
// goes on from what is.
void Runtime::check_invariants() {
  const std::string broken = core::broken_invariant(core_.state());
  if (broken.empty()) return;
  ++invariant_failures_;
  spdlog::error("broken invariant: {}", broken);
#ifndef NDEBUG
  std::abort();
#endif
}

void Runtime::arm(std::optional<core::Time> next) {
  if (next == armed_) return;
  armed_ = next;
  if (!next) {
    timer_.cancel();
    return;
  }
  timer_.expires_at(std::chrono::steady_clock::time_point(next->time_since_epoch()));
  timer_.async_wait([this](const boost::system::error_code& error) {
    if (error) return;
    armed_.reset();
    enqueue(core::Tick{});
  });
}

// Lets go of the processes whose exits the core has heard of, and keeps what they said last. Their
// output is read on: what a worker left behind may still write while it drains.
void Runtime::bury() {
  for (const core::Exited& exit : std::exchange(exits_, {})) {
    const auto found = processes_.find(exit.worker);
    if (found == processes_.end()) continue;
    readiness_.forget(exit.worker);
    if (const WorkerChannel& channel = *found->second.channel; channel.speaks()) {
      std::uint64_t& before = requests_before_[found->second.pool_id];
      before =
          std::min(before + channel.scoreboard().figures(now()).requests, limits::kMostRequests);
    }
    left_behind(found->second);
    found->second.channel->close();
    notify_.close(exit.worker);
    remembered_.push_back({exit.worker, found->second.pid, output_of(exit.worker)});
    if (remembered_.size() > limits::kRemembered) remembered_.pop_front();
    processes_.erase(found);
  }
  tell_cut(false);
  std::erase_if(requests_before_,
                [&](const auto& entry) { return !core_.state().pools.contains(entry.first); });
}

void Runtime::tell_systemd(bool changed) {
  const core::ManagerState state = core::manager_state(core_.state());
  if (state == told_) {
    const bool up = state == core::ManagerState::kStarting || state == core::ManagerState::kRunning;
    if (up && changed) systemd_.status(status_line());
    return;
  }
  switch (state) {
    case core::ManagerState::kStarting:
      break;
    case core::ManagerState::kRunning:
      if (told_ == core::ManagerState::kStarting) break;  // said with the note of it
      systemd_.ready(status_line());
      break;
    case core::ManagerState::kReloading:
      systemd_.reloading();
      break;
    case core::ManagerState::kStopping:
      systemd_.stopping(longest_stop());
      break;
  }
  told_ = state;
}

// A worker may take its pool's stop time, and what it leaves behind as long again.
core::Duration Runtime::longest_stop() const {
  core::Duration longest = limits::kOrphanPatience;
  for (const auto& [id, pool] : core_.state().pools) {
    for (const auto& [generation, plan] : pool.generations) {
      longest = std::max(longest, plan.stop_timeout);
    }
  }
  return 2 * longest + limits::kFarewell;
}

void Runtime::on_signal(int signal) {
  const bool stopping = core_.state().stopping;
  const bool impatient = signal == SIGTERM || signal == SIGINT || signal == SIGQUIT;
  if (exit_reason_ && impatient) return children_.kill_orphans();  // only they are left
  switch (signal) {
    case SIGCHLD:
      children_.reap();
      return see_to_orphans();
    case SIGTERM:
      return enqueue(core::StopRequested{{}, stopping});
    case SIGINT:
    case SIGQUIT:
      return enqueue(core::StopRequested{{}, true});
    case SIGHUP:
      restore_sockets();
      return enqueue(core::ReloadRequested{});
    case SIGUSR1:
      restore_sockets();
      return reopen([](const control::Response&) {});
    case SIGTTIN:
    case SIGTTOU:
      for (const auto& [id, pool] : core_.state().pools) {
        enqueue(
            core::ScaleRequested{{}, pool.name, core::ScaleKind::kAdd, signal == SIGTTIN ? 1 : -1});
      }
      return;
    default:
      spdlog::warn("{}: not available in this version", core::signal_name(signal));
  }
}

void Runtime::watch_control_socket() {
  for (const int watch : control_watches_) removals_.forget(watch);
  control_watches_ = {removals_.add(control_.path()), removals_.add(control_.lock())};
}

// Cleaners of /tmp, and logind at the last logout, remove files that are in use. Where another
// manager has taken the place, the workers' sockets are not made again either.
void Runtime::restore_sockets() {
  if (exit_reason_) return;
  if (!control_.is_whole()) {
    const int before = control_.listener();
    const std::string failed = control_.restore();
    if (control_.listener() != before) server_->listen_on(control_.listener());
    if (!failed.empty()) {
      if (failed != control_complaint_) spdlog::error("removed, and not made again: {}", failed);
      control_complaint_ = failed;
      return;
    }
    control_complaint_.clear();
    spdlog::warn("the control socket {} or its lock was removed: made again", control_.path());
    watch_control_socket();
  }
  notify_.restore();
}

NotifySockets::Hooks Runtime::notify_hooks() {
  NotifySockets::Hooks hooks;
  hooks.worker_of = [this](pid_t pid) { return children_.worker_of(pid); };
  hooks.name_of = [this](core::WorkerId worker) {
    const auto found = processes_.find(worker);
    return found == processes_.end() ? "a worker that is gone" : found->second.name();
  };
  hooks.deliver = [this](core::WorkerId worker, const Notification& notification) {
    on_notification(worker, notification);
  };
  return hooks;
}

void Runtime::says_ready(core::WorkerId worker, const Process& process) {
  enqueue(core::WorkerSigned{worker, core::WorkerSign::kReady});
  if (process.launch->pool.ready.mode == config::ReadyMode::kAuto) readiness_.said(worker);
}

// All else goes on without it, so nothing is started anew: a fork of what the manager is by now
// would not be small.
void Runtime::await_watcher() {
  if (options_.watcher->fd() < 0) return;
  watcher_end_.assign(::fcntl(options_.watcher->fd(), F_DUPFD_CLOEXEC, 3));
  watcher_end_.async_wait(
      boost::asio::posix::descriptor_base::wait_read, [](const boost::system::error_code& error) {
        if (error) return;
        spdlog::error(
            "the watcher has died: if this manager is killed (SIGKILL, out of memory), what its "
            "workers have started lives on; start the manager again to have a watcher");
      });
}

// After what is due already: workers are replaced first.
void Runtime::see_to_orphans() {
  boost::asio::post(context_,
                    [this] { children_.see_to_orphans() ? finish_if_over() : see_to_orphans(); });
}

void Runtime::on_notification(core::WorkerId worker, const Notification& notification) {
  const auto found = processes_.find(worker);
  if (found == processes_.end()) return;
  starts_.settle(worker);
  Process& process = found->second;
  // A worker that speaks the channel has said so before it said this.
  process.channel->drain();
  if (notification.status) process.status = *notification.status;
  if (notification.error) {
    log_event(spdlog::level::warn, about(process), "{}[{}] reports: {}", process.name(),
              process.pid, reason(*notification.error));
  }
  const auto sign = [&](core::WorkerSign what) { enqueue(core::WorkerSigned{worker, what}); };
  if (notification.ready) says_ready(worker, process);
  if (notification.watchdog) {
    sign(core::WorkerSign::kHeartbeat);
    if (!process.beat_measured || now() - *process.beat_measured > limits::kBeatSample) {
      process.beat_measured = now();
      process.cpu_at_beat = cpu_seconds(process.pid).value_or(0);
    }
  }
  if (notification.extend) enqueue(core::TimeoutExtended{worker, *notification.extend});
  if (notification.stopping) sign(core::WorkerSign::kStopping);
  if (notification.trigger) sign(core::WorkerSign::kTrigger);
}

void Runtime::perform(const core::Actions& actions) {
  for (const core::Action& action : actions) {
    try {
      std::visit([this](const auto& what) { perform(what); }, action);
    } catch (const std::exception& error) {
      const std::string what = core::trace_action(action);
      spdlog::error("unexpected failure: {}, in: {}", error.what(), what);
    }
  }
}

// A pipe for what the worker writes, or what else its `output` asks for.
void Runtime::open_output(Process& process, SpawnRequest& request, UniqueFd& end) {
  const config::Output& output = process.launch->pool.output;
  if (output.mode == config::OutputMode::kInherit) return;
  if (output.mode == config::OutputMode::kNull) {
    end = UniqueFd(::open("/dev/null", O_WRONLY | O_CLOEXEC));
  } else {
    std::array<int, 2> pipe{};
    if (::pipe2(pipe.data(), O_CLOEXEC) != 0) {
      throw std::system_error(errno, std::generic_category(), "pipe");
    }
    UniqueFd reading(pipe[0]);
    end = UniqueFd(pipe[1]);
    ::fcntl(reading.get(), F_SETFL, O_NONBLOCK);
    // So that the worker may open /dev/stdout by its path. Where that is not allowed, it may not.
    constexpr auto kNoGroup = static_cast<gid_t>(-1);
    if (request.identity) std::ignore = ::fchown(end.get(), request.identity->uid, kNoGroup);
    process.output = std::make_shared<WorkerOutput>(context_, outputs_, std::move(reading));
  }
  request.stdout_fd = end.get();
  request.stderr_fd = end.get();
}

void Runtime::perform(const core::Spawn& action) {
  if (!control_.is_whole() || !notify_.is_there()) restore_sockets();
  Process process;
  process.pool = action.pool_name;
  process.pool_id = action.pool;
  process.slot = action.slot;
  process.generation = action.generation;
  process.launch = launches_.at(action.launch);
  const config::Output& output = process.launch->pool.output;
  std::shared_ptr<LogSource> file;  // open until the worker's own has it
  UniqueFd output_end;
  WorkerChannel::WorkerEnds channel_ends;
  std::string stage = "open the channel";
  ListenError failure;
  if (!give_sockets(action, process.launch->pool, failure)) {
    return not_started(action.worker, failure.stage, failure.error);
  }
  Child child;
  child.worker = action.worker;
  child.terms = stop_terms(process.launch->pool);
  child.tag = children_.new_tag(child.terms);
  const Tag tag = child.tag;
  int error = 0;
  try {
    process.channel = std::make_shared<WorkerChannel>(context_, channel_ends);
    stage = "pipe";
    if (output.mode == config::OutputMode::kFile) {
      file = file_log(output_path(*process.launch, action.slot, action.generation), "", nullptr);
    }
    SpawnRequest request =
        make_spawn_request(*process.launch,
                           {action.pool_name, action.slot, action.generation,
                            notify_.open(action.worker, notify_owner(*process.launch)),
                            options_.environment, action.worker, action.recycle_requests,
                            channel_ends.channel.get(), channel_ends.scoreboard.get()},
                           listeners_);
    if (!request.umask) request.umask = options_.umask;
    request.open_files = options_.open_files;
    request.tag = tag;
    open_output(process, request, output_end);
    auto newborn = std::make_unique<Newborn>(std::move(request));
    if (newborn->pid() > 0) {
      return cloned(std::move(process), std::move(child), std::move(newborn));
    }
    stage = newborn->failure_text();
  } catch (const LogFileError& thrown) {
    stage = thrown.what();
  } catch (const std::system_error& thrown) {
    error = thrown.code().value();
  } catch (const boost::system::system_error& thrown) {
    error = thrown.code().value();
  } catch (const std::bad_alloc&) {
    error = ENOMEM;
  }
  children_.never_started(tag);
  not_started(action.worker, stage, error);
}

void Runtime::not_started(core::WorkerId worker, const std::string& stage, int error) {
  listeners_.release(worker);
  notify_.close(worker);
  enqueue(core::SpawnFailed{worker, stage, error});
}

void Runtime::cloned(Process process, Child child, std::unique_ptr<Newborn> newborn) {
  const core::WorkerId worker = child.worker;
  process.pid = newborn->pid();
  notify_.started(worker, process.pid);
  child.name = process.name();
  child.about = about(process);
  child.pidfd = newborn->take_pidfd();
  children_.add(process.pid, std::move(child));
  if (process.output) {
    const std::string name = process.name() + "[" + std::to_string(process.pid) + "]";
    const auto whom = std::make_shared<const control::EventView>(about(process));
    const bool to_file = process.launch->pool.output.mode == config::OutputMode::kFile;
    const std::string path = output_path(*process.launch, process.slot, process.generation);
    process.output->start(to_file ? file_log(path, name, whom) : worker_log(name, whom));
  }
  start_channel(worker, process);
  processes_.emplace(worker, std::move(process));
  starts_.add(worker, std::move(newborn));
}

StartWatch::Hooks Runtime::start_hooks() {
  StartWatch::Hooks hooks;
  hooks.executes = [this](core::WorkerId worker) {
    const auto found = processes_.find(worker);
    if (found != processes_.end()) watch_readiness(worker, found->second);
    enqueue(core::Spawned{worker});
  };
  hooks.late = [this](core::WorkerId worker, const std::string& reason) {
    const Process& process = processes_.at(worker);
    log_event(spdlog::level::err, about(process), "{}[{}] is killed: {}", process.name(),
              process.pid, reason);
    children_.signal(process.pid, SIGKILL);
  };
  return hooks;
}

void Runtime::on_exit(const core::Exited& event) {
  const std::optional<std::string> failed = starts_.ended(event.worker);
  if (!failed) {
    exits_.push_back(event);
    return schedule();
  }
  const auto process = processes_.extract(event.worker);
  process.mapped().channel->close();
  if (const auto& output = process.mapped().output) output->close();
  not_started(event.worker, *failed, 0);
}

ReadinessWatch::Hooks Runtime::readiness_hooks() {
  ReadinessWatch::Hooks hooks;
  hooks.starting = [this](core::WorkerId worker) {
    const core::Worker* const known = core::find_worker(core_.state(), worker);
    return known != nullptr && known->active() && !known->ready() && !known->care.warming;
  };
  hooks.seen = [this](core::Seen seen) {
    // Whoever speaks the channel has said so before it waits for connections.
    const auto found = processes_.find(seen.worker);
    if (found != processes_.end()) found->second.channel->drain();
    enqueue(std::move(seen));
  };
  return hooks;
}

void Runtime::watch_readiness(core::WorkerId worker, const Process& process) {
  const config::Pool& pool = process.launch->pool;
  const bool by_sight = pool.ready.mode == config::ReadyMode::kListening ||
                        pool.ready.mode == config::ReadyMode::kAuto;
  if (!by_sight || pool.listen.empty()) return;
  if (pool.accept == config::Accept::kDispatch) return;  // it waits for nothing but the channel
  std::vector<ino_t> inodes;
  for (const config::Listener& listener : pool.listen) {
    inodes.push_back(listeners_.inode(Listeners::key(pool.name, listener), worker));
  }
  std::optional<UserIds> ids;
  if (const auto& identity = process.launch->identity) ids = {identity->uid, identity->gid};
  readiness_.watch(worker, process.pid, std::move(inodes), ids);
}

void Runtime::perform(const core::SignalWorker& action) {
  const auto found = processes_.find(action.worker);
  if (found == processes_.end()) return;
  Process& process = found->second;
  if (action.kind != core::SignalKind::kAbort) report_hung(action.worker);
  int signal = SIGKILL;
  switch (action.kind) {
    case core::SignalKind::kStop:
      tell_to_return(process);
      signal = stop_signal_for(process.pid, process.launch->pool.stop_signal);
      break;
    case core::SignalKind::kAbort:
      if (process.hung) return;  // when it has been seen what it does
      signal = SIGABRT;
      break;
    case core::SignalKind::kKill:
      count_cut(action.worker, process);
      break;
  }
  const int error = children_.signal(process.pid, signal);
  // A worker that is stopped (a debugger, a stray SIGSTOP) hears of nothing but this and SIGKILL.
  if (signal != SIGKILL) children_.signal(process.pid, SIGCONT);
  if (error != 0 && error != ESRCH) {
    log_event(spdlog::level::err, about(process), "send {} to {}[{}]: {}",
              core::signal_name(signal), process.name(), process.pid, reason(error));
  }
}

void Runtime::perform(const core::DropLaunch& action) {
  launches_.erase(action.launch);
}

void Runtime::perform(const core::Reply& action) {
  auto operation = operations_.extract(action.op);
  if (!operation.empty()) operation.mapped().finish(action);
}

void Runtime::perform(const core::ExitManager& action) {
  exit_reason_ = action.reason;
  backlog_watch_.stop();
  tell_cut(true);
  if (core_.state().stopping_now) children_.kill_orphans();
  children_.end_orphans();
  see_to_orphans();
}

// After the last worker: what workers left behind, and the answers that are still on their way.
void Runtime::finish_if_over() {
  if (!exit_reason_ || children_.has_orphans_to_end()) return;
  if (!std::exchange(farewell_, true)) {
    outputs_.on_turn([this] { schedule(); });
    server_->shut_down([this] {
      server_down_ = true;
      schedule();
    });
    arm(now() + limits::kFarewell);
    return;
  }
  if (armed_ && (!server_down_ || outputs_.has_last_words())) return;
  outputs_.give_up();
  context_.stop();
}

}  // namespace ostler::runtime
