// What the control API says, as plain values: no JSON, no sockets, nothing of the core.
//
// Optional members are null in the answer when they are not known. Text may come from workers and
// be anything at all; codec.hpp makes valid JSON of it.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace ostler::control {

using Lines = std::vector<std::string>;
using WallTime = std::chrono::system_clock::time_point;

// A member that only some answers have, in the order in which they are to appear.
using Value = std::variant<std::nullptr_t, bool, std::int64_t, double, std::string, Lines>;
using Members = std::vector<std::pair<std::string, Value>>;

// GET /v1/status

struct ListenerView {
  std::string name;
  std::string address;
  std::optional<std::int64_t> backlog;        // connections waiting
  std::optional<std::int64_t> backlog_limit;  // as the kernel has it
};

// A request that a worker is serving.
struct ServingView {
  std::string request;  // "GET /slow", cut
  double seconds = 0;   // since when
};

struct WorkerView {
  std::string worker;  // "web.0"
  int slot = 0;
  std::optional<int> pid;
  std::uint64_t generation = 0;
  std::string state;  // starting, ready, draining
  std::optional<double> uptime;
  // Of a worker built on the SDK.
  std::optional<std::string> worker_class;  // sync, threads, async, other
  std::optional<std::uint64_t> requests, active, connections;
  std::optional<double> busy;            // seconds since it last had nothing to do
  std::vector<ServingView> serving;      // the oldest ones
  std::optional<std::uint64_t> memory;   // bytes
  std::optional<double> cpu;             // seconds
  std::optional<double> heartbeat_age;   // seconds
  std::optional<std::string> status;     // what it said of itself
  std::optional<std::string> not_ready;  // why it is not, where more is known than that it starts
};

struct RolloutView {
  std::uint64_t generation = 0;  // the one that is rolled out
  int replaced = 0;
  bool rolling_back = false;
};

struct ErrorView {
  std::string message;
  std::optional<WallTime> time;
  std::optional<int> slot;
  std::optional<int> pid;
  std::optional<std::uint64_t> generation;  // none: it is not about a worker
  Lines output;                             // the last lines the worker wrote
};

struct ScalingView {
  int min = 0, max = 0;
  std::string by;     // busy, backlog
  double target = 0;  // a share, or connections per worker
};

struct PoolView {
  std::string state;  // starting, running, reloading, degraded, stopping, stopped
  std::uint64_t generation = 0;
  std::string accept, spawn;
  int target = 0, ready = 0, starting = 0, draining = 0;
  std::optional<int> workers_configured;  // what the file says, `auto` resolved
  bool scaled = false;                    // the target was set by hand
  std::optional<ScalingView> scaling;     // the load decides, within these bounds
  std::vector<ListenerView> listeners;
  std::optional<std::uint64_t> requests;
  std::uint64_t restarts = 0, reloads = 0;
  std::optional<RolloutView> rollout;
  std::optional<double> backing_off;  // seconds until the next try
  std::optional<ErrorView> last_error;
  std::vector<WorkerView> workers;
};

// A fault that is no pool's, and has not been mended since.
struct ManagerErrorView {
  std::string message;
  WallTime time;
};

struct StatusView {
  std::string version;
  int pid = 0;
  std::string state;  // starting, running, reloading, stopping
  double uptime = 0;
  std::optional<std::string> config;  // none: no file, all came from the command line
  std::uint64_t notify_rejected = 0;
  std::uint64_t ignored_events = 0;
  double loop_turn_max = 0;  // seconds
  std::optional<ManagerErrorView> last_error;
  std::map<std::string, PoolView> pools;
};

// POST …/reload, …/restart

struct PoolResult {
  std::string outcome;                      // reloaded, rolled_back, …
  std::optional<std::uint64_t> generation;  // none: a new pool that was taken out again
  int replaced = 0;
  double took = 0;                   // seconds
  std::optional<std::uint64_t> cut;  // requests ended by timeouts.stop
  std::optional<std::string> reason;
  Lines output;  // left out when empty
};

struct ConfigFault {
  std::string file;
  int line = 0, column = 0;  // 0: not about a place in a file; null in the answer
  std::string key;
  std::string message;
};

struct ReloadResult {
  std::string outcome;  // reloaded, rolled_back, rejected
  std::map<std::string, PoolResult> pools;
  std::vector<ConfigFault> errors;  // rejected; left out when empty
};

// Every other change that was done: {"outcome": "done", …}
struct Done {
  std::string outcome = "done";
  Members members;
};

// POST /v1/reopen
struct ReopenFault {
  std::string file;
  std::string operation;  // "open"
  std::string reason;
};

struct ReopenResult {
  int reopened = 0;  // files
  std::vector<ReopenFault> errors;
};

// GET /v1/events
struct EventView {
  WallTime time;
  std::string event;  // "worker.ready"; "": a line of the log that is no event
  std::optional<std::string> pool;
  std::optional<std::string> worker;  // "web.0"
  std::optional<int> slot;
  std::optional<int> pid;
  std::optional<std::uint64_t> generation;
  Members members;  // reason, cause, outcome, exit_code, signal, output, retry_in…
};

// RFC 9457
struct Problem {
  std::string type;  // a URI: says for programs what `title` says for people
  std::string title;
  int status = 500;
  std::string detail;
  Members members;
  std::string allow = {};  // 405: the methods that are allowed, for the header of that name
};

// Ready to be sent.
struct Response {
  int status = 200;
  std::string content_type;
  std::string body;
  std::string allow = {};  // 405: the header
};

}  // namespace ostler::control
