// The shell: turns what happens into the core's events, and the core's actions into system calls.
//
// One thread, one queue, one timer. Whatever happens is put into the queue; a turn of the loop
// hands the batch to the core (messages first, exits last), performs the actions it answers with
// and arms the timer for when it wants to be asked again. Nothing here decides anything about
// workers: that is the core's.
//
// runtime.cpp is the loop and the actions, checks.cpp what is asked of running workers, sharing.cpp
// who gets which sockets and connections, opening.cpp and closing.cpp how
// listeners come about and end,
// requests.cpp the control API, report.cpp logs and events, status.cpp the figures.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "config/src/load.hpp"
#include "control/messages.hpp"
#include "core/core.hpp"
#include "runtime/backlog_watch.hpp"
#include "runtime/child_watch.hpp"
#include "runtime/control_server.hpp"
#include "runtime/control_socket.hpp"
#include "runtime/dispatcher.hpp"
#include "runtime/doorbell.hpp"
#include "runtime/launch.hpp"
#include "runtime/listeners.hpp"
#include "runtime/load.hpp"
#include "runtime/log.hpp"
#include "runtime/looks.hpp"
#include "runtime/notify_sockets.hpp"
#include "runtime/output.hpp"
#include "runtime/readiness_watch.hpp"
#include "runtime/removal_watch.hpp"
#include "runtime/signals.hpp"
#include "runtime/start_watch.hpp"
#include "runtime/steering.hpp"
#include "runtime/systemd.hpp"
#include "runtime/trace_file.hpp"
#include "runtime/usage_meter.hpp"
#include "runtime/worker_channel.hpp"

namespace ostler::runtime {

// What the manager was started with and the configuration does not say.
struct RuntimeOptions {
  std::function<config::Loaded()> load;  // reads the configuration again, for a reload
  InheritedSockets inherited;            // sockets from systemd
  std::vector<std::string> environment;  // as the manager got it, "KEY=VALUE"
  std::optional<rlimit> open_files;      // RLIMIT_NOFILE as the manager got it
  mode_t umask = 022;                    // as the manager got it
  std::string trace;                     // record the core's trace here; "": no
  std::shared_ptr<Watcher> watcher;      // never null
};

class Runtime {
 public:
  // `config` has been validated. The control socket is open and ours.
  Runtime(boost::asio::io_context& context, const config::Config& config, ControlSocket control,
          RuntimeOptions options);
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  // Starts the pools and works until the manager has stopped. Returns the exit code (SPEC 11).
  // Throws std::runtime_error if it cannot begin.
  int run();
  // Why it ended, once `run` has returned.
  [[nodiscard]] std::string exit_text() const { return core::describe_exit(core_.state()); }

 private:
  // A worker that was taken for hung, and is to be told of and aborted.
  struct Hung {
    core::Note note;
    std::string serving;
    std::string refused;
  };
  // A worker's process: what the core does not know of it.
  struct Process {
    std::string pool;
    core::PoolId pool_id;
    int slot = 0;
    core::Generation generation = 0;
    pid_t pid = 0;
    std::shared_ptr<const Launch> launch;
    std::shared_ptr<WorkerOutput> output;
    std::shared_ptr<WorkerChannel> channel;
    std::optional<std::string> status;
    Usage usage;
    std::optional<core::Time> measured;
    bool memory_asked = false;  // by the core
    bool overdue_said = false;
    double cpu_at_beat = 0;  // seconds of CPU it had used about when it last made progress
    std::optional<core::Time> beat_measured;
    std::string doing;         // when it was taken for hung
    std::optional<Hung> hung;  // until it has been seen what it does
    // Requests that ended because it was killed for draining too long; none: not known.
    std::optional<std::uint64_t> cut;
    [[nodiscard]] std::string name() const { return pool + "." + std::to_string(slot); }
  };
  // What a dead worker left for the answers that name it.
  struct Remembered {
    core::WorkerId worker;
    pid_t pid = 0;
    std::vector<std::string> output;
  };
  using Finish = std::function<void(const core::Reply&)>;
  // A request that waits for its outcome.
  struct Operation {
    Finish finish;
    std::string what;  // "reload of web"
    Peer peer;
    std::function<void()> begun;  // for a client that waits no longer than until it has begun
  };

  // runtime.cpp: the loop.
  bool run_handlers();
  void recover(const std::string& failure);
  void enqueue(core::Event event);
  void schedule();
  void turn();
  // What the core makes of the batch, and when it wants to be asked again.
  std::optional<core::Time> decide(core::Time at, core::Actions& actions);
  // Into the trace: what the core was told, and the actions from FROM on that came of it.
  void record(const std::string& cause, const core::Actions& actions, std::size_t from);
  void arm(std::optional<core::Time> next);
  void check_invariants();
  void tell_systemd(bool changed);
  core::Duration longest_stop() const;
  void bury();
  void finish_if_over();
  void watch_control_socket();
  void restore_sockets();
  void on_signal(int signal);
  void says_ready(core::WorkerId worker, const Process& process);
  void see_to_orphans();
  void await_watcher();
  void on_notification(core::WorkerId worker, const Notification& notification);
  NotifySockets::Hooks notify_hooks();
  core::Plan make_plans(const config::Config& config);

  // runtime.cpp: the actions.
  void perform(const core::Actions& actions);
  void perform(const core::OpenListener& action);   // opening.cpp
  void perform(const core::CloseListener& action);  // closing.cpp
  void perform(const core::TurnAway& action);
  void perform(const core::Spawn& action);
  void perform(const core::SignalWorker& action);
  void perform(const core::DropLaunch& action);
  void perform(const core::Note& action);          // report.cpp
  void perform(const core::ReadPlan& action);      // requests.cpp
  void perform(const core::ReloadQueued& action);  // report.cpp
  void perform(const core::Reply& action);
  void perform(const core::ExitManager& action);
  void perform(const core::Probe& action);  // checks.cpp, and what follows
  void perform(const core::LetAccept& action);
  void perform(const core::Look& action);
  void perform(const core::Measure& action);
  void perform(const core::EmptyQueue& action);
  void perform(const core::Watch& action);
  void perform(const core::AwaitDemand& action);
  void open_output(Process& process, SpawnRequest& request, UniqueFd& end);
  StartWatch::Hooks start_hooks();
  void cloned(Process process, Child child, std::unique_ptr<Newborn> newborn);
  void not_started(core::WorkerId worker, const std::string& stage, int error);
  void on_exit(const core::Exited& event);
  ReadinessWatch::Hooks readiness_hooks();
  void watch_readiness(core::WorkerId worker, const Process& process);
  void adjust_listeners(const std::string& name);

  // checks.cpp
  void start_channel(core::WorkerId worker, const Process& process);
  void note_cpu(core::WorkerId worker);
  [[nodiscard]] std::optional<Steering::Queue> waiting_for(core::WorkerId worker) const;
  void probe_by_request(const core::Probe& action, Process& process,
                        const config::ProbeRequest& request, core::Duration limit);
  UniqueFd connect_to(const core::Probe& action, Process& process, std::string& fault);
  void probe_by_program(const core::Probe& action, const Process& process);
  [[nodiscard]] bool was_busy(core::WorkerId worker, core::Time since) const;
  void report(const core::Probe& action, core::ProbeResult result, const std::string& detail);
  void look_at_hung(const core::Note& note, Process& process);
  bool report_hung(core::WorkerId worker, const std::string& seen = "");
  void note_asked_to_stop(core::WorkerId worker);
  void count_cut(core::WorkerId worker, Process& process);

  // sharing.cpp
  Steering::Hooks steering_hooks();
  [[nodiscard]] Steering::Standing standing(core::WorkerId worker) const;
  bool admit_all(const config::Pool& pool, ListenError& failure);
  bool give_sockets(const core::Spawn& action, const config::Pool& pool, ListenError& failure);
  std::vector<LoadMeter::Source> load_sources(core::PoolId id) const;
  void share_out();
  void steer_listeners();
  void dispatch_connections();
  void waits_for(core::WorkerId worker);
  void tell_to_return(const Process& process) const;
  void on_knock(const std::string& key);
  void left_behind(const Process& process);

  // opening.cpp
  void refuse(const std::string& key, const ListenError& error, const std::string& more = {});
  void say_who_has_it(const std::string& key, const config::Address& address,
                      const ListenError& error);
  void close_unused_sockets();
  void mend_listeners(const config::Config& config, std::vector<config::Fault>& faults);

  // closing.cpp
  [[nodiscard]] bool is_served(const std::string& key, const Member& member) const;
  [[nodiscard]] std::int64_t backlog_of(const std::vector<std::string>& keys) const;
  void tell_cut(bool all);

  // requests.cpp
  void handle(const control::Command& command, const Peer& peer, ControlServer::Respond respond);
  void request_reload(const control::Command& command, core::ReloadRequested event, bool wait,
                      const Peer& peer, const ControlServer::Respond& respond);
  void request(const control::Scale& command, const ControlServer::Respond& respond);
  void request(const control::WorkerCommand& command, const ControlServer::Respond& respond);
  void reopen(const ControlServer::Respond& respond);
  void reopened(const Reopened& result, const ControlServer::Respond& respond);
  void take_log_settings();
  core::OperationId begin(Operation operation);
  control::ReloadResult reload_result(const core::Reply& reply) const;
  void answer_pool(const std::string& name, const ControlServer::Respond& respond);
  config::Config effective_config() const;

  // report.cpp
  void tell(const core::Note& note);
  void log_note(const core::Note& note, const control::EventView& event) const;
  void log_finished(const core::Note& note, const control::EventView& event,
                    const std::string& why) const;
  // For lines about a worker that are no event.
  static control::EventView about(const Process& process);
  void note_reload(const core::Note& note);
  [[nodiscard]] std::string name_of(core::OperationId op) const;
  [[nodiscard]] std::string request_of(core::OperationId op) const;
  control::EventView event_of(const core::Note& note) const;
  pid_t pid_of(core::WorkerId worker) const;
  std::string doing_of(core::WorkerId worker) const;
  std::string cut_of(core::WorkerId worker) const;
  std::vector<std::string> output_of(core::WorkerId worker) const;
  std::string status_line() const;

  // status.cpp
  control::StatusView status_view();
  control::PoolView pool_view(const core::Pool& pool);
  control::WorkerView worker_view(const core::Worker& worker) const;
  [[nodiscard]] std::optional<std::string> not_ready(const core::Worker& worker) const;
  UsageMeter::Hooks usage_hooks();
  void refresh_figures(std::function<void()> then);

  boost::asio::io_context& context_;
  config::Config config_;
  RuntimeOptions options_;
  core::Core core_;
  core::Time started_;
  TraceFile trace_;

  ControlSocket control_;
  Systemd systemd_;
  Listeners listeners_;
  Doorbell doorbell_;
  Steering steering_;
  Dispatcher dispatcher_;
  LoadMeter load_;
  std::set<core::PoolId> awaiting_demand_;
  std::map<core::PoolId, std::vector<Connection>> left_behind_;  // by workers that are gone
  RemovalWatch removals_;
  std::vector<int> control_watches_;
  std::string control_complaint_;
  NotifySockets notify_;
  OutputTurns outputs_;
  ChildWatch children_;
  boost::asio::posix::stream_descriptor watcher_end_;  // told when the watcher has died
  StartWatch starts_;
  ReadinessWatch readiness_;
  UsageMeter usage_;
  Looks hung_looks_;
  Signals signals_;
  std::optional<ControlServer> server_;
  BacklogWatch backlog_watch_;
  std::vector<std::jthread> searches_;  // for whoever has an address
  boost::asio::steady_timer timer_;
  std::optional<core::Time> armed_;

  std::deque<core::Event> messages_;
  std::vector<core::Exited> exits_;
  bool scheduled_ = false;
  std::uint64_t invariant_failures_ = 0;
  core::ManagerState told_ = core::ManagerState::kStarting;
  std::string last_reload_failure_;
  std::optional<control::ManagerErrorView> last_log_failure_;
  // Of the configuration that was read last: its faults; its settings, until they are taken.
  std::vector<config::Fault> read_faults_;
  std::optional<config::Log> read_log_;

  std::map<core::WorkerId, Process> processes_;
  std::map<core::PoolId, std::uint64_t> requests_before_;  // of workers that are gone
  // Requests that a reload ended by killing their workers, by pool; none: not known, because one of
  // its workers does not count.
  std::map<std::string, std::optional<std::uint64_t>> cut_;
  std::deque<Remembered> remembered_;
  std::map<core::LaunchId, std::shared_ptr<const Launch>> launches_;
  std::uint64_t last_launch_ = 0;
  std::map<core::OperationId, Operation> operations_;
  std::uint64_t last_operation_ = 0;
  std::optional<core::ExitReason> exit_reason_;
  bool farewell_ = false;
  bool server_down_ = false;
};

}  // namespace ostler::runtime
