// The control API's commands, carried out.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <memory>
#include <stdexcept>
#include <utility>

#include "control/codec.hpp"
#include "control/problems.hpp"
#include "runtime/clock.hpp"
#include "runtime/cpus.hpp"
#include "runtime/log.hpp"
#include "runtime/runtime.hpp"

namespace ostler::runtime {
namespace {

// The answer to an operation that was not carried out; nullopt if it was.
std::optional<control::Response> refusal(const core::Reply& reply, const std::string& pool,
                                         int pid) {
  switch (reply.outcome) {
    case core::Outcome::kNotFound:
      return control::respond(pool.empty() ? control::no_such_worker(pid)
                                           : control::no_such_pool(pool));
    case core::Outcome::kStopping:
      return control::respond(control::stopping());
    case core::Outcome::kBusy:
      return control::respond(control::busy("too many requests wait for their turn; try again"));
    case core::Outcome::kDone:
    case core::Outcome::kReloaded:
    case core::Outcome::kRemoved:
    case core::Outcome::kKept:
    case core::Outcome::kRolledBack:
    case core::Outcome::kRejected:
    case core::Outcome::kFailed:
      break;
  }
  return std::nullopt;
}

control::ConfigFault fault_view(const config::Fault& fault) {
  return {fault.file, fault.line, fault.column, fault.key, fault.message};
}

control::Done accepted() {
  control::Done done;
  done.outcome = "accepted";
  return done;
}

const char* word(core::WorkerRequest request) {
  switch (request) {
    case core::WorkerRequest::kRecycle:
      return "recycled";
    case core::WorkerRequest::kDrain:
      return "stopped";
    case core::WorkerRequest::kKill:
      return "killed";
  }
  return "";
}

}  // namespace

core::OperationId Runtime::begin(Operation operation) {
  const core::OperationId id{++last_operation_};
  operations_.emplace(id, std::move(operation));
  return id;
}

void Runtime::handle(const control::Command& command, const Peer& peer,
                     ControlServer::Respond respond) {
  // Whoever can connect may do all; the server logs who it was.
  struct Visitor {
    Runtime& runtime;
    const control::Command& command;
    const Peer& peer;
    ControlServer::Respond respond;
    void operator()(const control::GetStatus&) const {
      runtime.refresh_figures([&runtime = runtime, respond = respond] {
        respond(control::respond(runtime.status_view()));
      });
    }
    void operator()(const control::GetPool& get) const { runtime.answer_pool(get.name, respond); }
    void operator()(const control::GetConfig&) const {
      respond({200, "application/yaml", config::print(runtime.effective_config(), false), {}});
    }
    void operator()(const control::Events&) const {
      respond(control::respond(control::internal_error("events are the server's to answer")));
    }
    void operator()(const control::Reload& reload) const {
      runtime.request_reload(command, {{}, reload.pool, false}, reload.wait, peer, respond);
    }
    void operator()(const control::Restart& restart) const {
      runtime.request_reload(command, {{}, restart.pool, true}, restart.wait, peer, respond);
    }
    void operator()(const control::Scale& scale) const { runtime.request(scale, respond); }
    void operator()(const control::WorkerCommand& worker) const {
      runtime.request(worker, respond);
    }
    void operator()(const control::Stop& stop) const {
      control::Done done;
      done.outcome = "accepted";
      done.members.emplace_back("state", std::string("stopping"));
      respond(control::respond(done, 202));
      runtime.enqueue(core::StopRequested{{}, stop.now});
    }
    void operator()(const control::Reopen&) const { runtime.reopen(respond); }
    void operator()(const control::Livez&) const { respond(control::respond_live()); }
    void operator()(const control::Readyz&) const {
      const core::State& state = runtime.core_.state();
      const bool ready = state.was_ready && !state.stopping;
      respond(control::respond_ready(ready, core::word(core::manager_state(state))));
    }
  };
  std::visit(Visitor{*this, command, peer, std::move(respond)}, command);
}

void Runtime::answer_pool(const std::string& name, const ControlServer::Respond& respond) {
  refresh_figures([this, name, respond] {
    const core::Pool* pool = core::find_pool(core_.state(), name);
    if (pool == nullptr) return respond(control::respond(control::no_such_pool(name)));
    respond(control::respond(pool_view(*pool)));
  });
}

// A client that does not wait is answered as soon as its reload has begun, or waits for its turn;
// or with what keeps it from that.
void Runtime::request_reload(const control::Command& command, core::ReloadRequested event,
                             bool wait, const Peer& peer, const ControlServer::Respond& respond) {
  const auto answered = std::make_shared<bool>(false);
  const auto once = [respond, answered](const control::Response& response) {
    if (!std::exchange(*answered, true)) respond(response);
  };
  Operation operation;
  operation.what = control::describe(command);
  operation.peer = peer;
  if (!wait) operation.begun = [once] { once(control::respond(accepted(), 202)); };
  operation.finish = [this, once, pool = event.pool](const core::Reply& reply) {
    if (auto refused = refusal(reply, pool, 0)) return once(*refused);
    once(control::respond(reload_result(reply)));
  };
  event.op = begin(std::move(operation));
  enqueue(std::move(event));
}

// Reads the configuration again, for the reload whose turn it is.
void Runtime::perform(const core::ReadPlan&) {
  config::Loaded loaded = options_.load();
  if (loaded.ok()) mend_listeners(loaded.config, loaded.faults);
  core::PlanRead read;
  if (loaded.ok()) {
    try {
      read.plan = make_plans(loaded.config);
    } catch (const std::runtime_error& error) {
      loaded.faults.push_back({loaded.config.file, 0, 0, "pools", error.what()});
    }
  }
  for (const config::Fault& fault : loaded.faults) {
    core::Failure& failure = read.faults.emplace_back();
    failure.kind = core::FailureKind::kConfiguration;
    failure.stage = fault.text();
  }
  read_faults_ = loaded.faults;
  read_log_.reset();
  if (loaded.ok()) {
    for (const std::string& warning : loaded.warnings) spdlog::warn("{}", warning);
    if (!(loaded.config.control == config_.control)) {
      spdlog::warn("the new settings under `control` take effect when ostlerd is started again");
    }
    read_log_ = loaded.config.log;
  }
  enqueue(std::move(read));
}

void Runtime::reopen(const ControlServer::Respond& respond) {
  // Called by the log thread, perhaps when there is no runtime any more; the context is there
  // still. The client is the loop's: nothing of it stays behind in that thread.
  auto done = [this, &context = context_, respond](const Reopened& result) mutable {
    boost::asio::post(context,
                      [this, respond = std::move(respond), result] { reopened(result, respond); });
  };
  if (!reopen_logs(std::move(done))) {
    spdlog::error("log files are not opened anew: too many requests for it wait");
    respond(control::respond(control::busy("the log cannot be written; try again")));
  }
}

void Runtime::reopened(const Reopened& result, const ControlServer::Respond& respond) {
  control::ReopenResult answer;
  answer.reopened = result.files;
  last_log_failure_.reset();
  for (const LogFileFault& fault : result.faults) {
    spdlog::error("reopen: {}; its lines still go to the file that was open", fault.text());
    answer.errors.push_back({fault.path, fault.operation, fault.reason});
    if (!last_log_failure_) {
      last_log_failure_ = {"reopen: " + fault.text(), std::chrono::system_clock::now()};
    }
  }
  if (result.faults.empty()) spdlog::info("reopened {} log files", result.files);
  respond(control::respond(answer));
}

// What a reload brings for the log, once nothing can reject it any more.
void Runtime::take_log_settings() {
  const auto& reload = core_.state().reload;
  if (!read_log_ || (reload && !reload->committed)) return;
  const config::Log log = *std::exchange(read_log_, std::nullopt);
  if (log.output != config_.log.output || log.path != config_.log.path) {
    spdlog::warn("the new `log.output` takes effect when ostlerd is started again");
  }
  config_.log.level = log.level;
  config_.log.format = log.format;
  adjust_log(config_.log);
}

void Runtime::request(const control::Scale& command, const ControlServer::Respond& respond) {
  core::ScaleRequested event;
  event.pool = command.pool;
  event.value = command.value;
  switch (command.kind) {
    case control::ScaleKind::kSet:
      break;
    case control::ScaleKind::kAdd:
      event.kind = core::ScaleKind::kAdd;
      break;
    case control::ScaleKind::kAutomatic: {
      const core::Pool* pool = core::find_pool(core_.state(), command.pool);
      event.value = automatic_workers(usable_resources(),
                                      pool == nullptr ? std::nullopt : pool->plan().recycle.memory);
      break;
    }
    case control::ScaleKind::kReset:
      event.kind = core::ScaleKind::kReset;
      break;
  }
  Operation operation;
  operation.finish = [this, respond, pool = command.pool](const core::Reply& reply) {
    if (auto refused = refusal(reply, pool, 0)) return respond(*refused);
    answer_pool(pool, respond);
  };
  event.op = begin(std::move(operation));
  enqueue(std::move(event));
}

void Runtime::request(const control::WorkerCommand& command,
                      const ControlServer::Respond& respond) {
  const core::WorkerId worker = children_.worker_of(command.pid);
  const auto process = processes_.find(worker);
  if (process == processes_.end()) {
    return respond(control::respond(control::no_such_worker(command.pid)));
  }
  Operation operation;
  operation.finish = [this, respond, command, worker,
                      name = process->second.name()](const core::Reply& reply) {
    if (auto refused = refusal(reply, "", command.pid)) return respond(*refused);
    if (reply.outcome == core::Outcome::kFailed) {
      const bool there = core::find_worker(core_.state(), worker) != nullptr;
      control::Problem problem = control::conflict(
          "the successor of " + name + " failed; " +
          (there ? name + " was left as it is" : name + " is gone, and another try follows"));
      if (reply.reason) problem.members.emplace_back("reason", core::describe(*reply.reason));
      problem.members.emplace_back("output", output_of(reply.worker));
      return respond(control::respond(problem));
    }
    control::Done done;
    done.outcome = word(command.request);
    done.members.emplace_back("worker", name);
    const pid_t pid =
        command.request == core::WorkerRequest::kRecycle ? pid_of(reply.worker) : command.pid;
    if (pid > 0) done.members.emplace_back("pid", std::int64_t{pid});
    respond(control::respond(done));
  };
  enqueue(core::WorkerRequested{begin(std::move(operation)), worker, command.request});
}

control::ReloadResult Runtime::reload_result(const core::Reply& reply) const {
  control::ReloadResult result;
  result.outcome = core::word(reply.outcome);
  for (const core::Failure& failure : reply.errors) {
    if (failure.kind == core::FailureKind::kConfiguration) continue;
    result.errors.push_back({"", 0, 0, "", core::describe(failure)});
  }
  if (result.errors.size() < reply.errors.size()) {  // each with its place in the file
    for (const config::Fault& fault : read_faults_) result.errors.push_back(fault_view(fault));
  }
  for (const core::PoolOutcome& pool : reply.pools) {
    control::PoolResult& view = result.pools[pool.pool];
    view.outcome = core::word(pool.outcome);
    if (pool.generation != 0) view.generation = pool.generation;
    view.replaced = pool.replaced;
    view.took = std::chrono::duration<double>(pool.took).count();
    const auto cut = cut_.find(pool.pool);  // nobody who served was told to go: nothing was cut
    view.cut = cut == cut_.end() ? 0 : cut->second;
    if (!pool.reason) continue;
    view.reason = core::describe(*pool.reason);
    view.output = output_of(pool.failed);
  }
  return result;
}

// What is in force: after a rollback, that is not what the file says.
config::Config Runtime::effective_config() const {
  config::Config config = config_;
  config.pools.clear();
  for (const auto& [id, pool] : core_.state().pools) {
    const auto launch = launches_.find(pool.plan().launch);
    if (!pool.removed && launch != launches_.end()) {
      config.pools.emplace(pool.name, launch->second->pool);
    }
  }
  return config;
}

}  // namespace ostler::runtime
