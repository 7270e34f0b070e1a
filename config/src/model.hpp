// The configuration as the rest of ostler sees it: plain values, validated, defaults filled in.
//
// `load()` (load.hpp) is the only producer: whoever holds a `Config` may rely on every range and
// cross-reference that SPEC section 4 demands. Keys whose function is not built yet have no member
// here; the loader refuses them. Nothing in this file knows YAML, the kernel or the manager.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace ostler::config {

using Duration = std::chrono::nanoseconds;

// How a listener's address was given. `kInherit` names a socket that systemd handed to the manager.
enum class AddressKind { kTcp, kUnixPath, kUnixAbstract, kInherit };

struct Address {
  AddressKind kind = AddressKind::kTcp;
  std::string host;        // kTcp: numeric or a name, no brackets; empty or "*" is any address
  std::uint16_t port = 0;  // kTcp: 0 lets the kernel choose
  std::string path;        // kUnixPath: absolute path; kUnixAbstract: without '@'; kInherit: NAME

  // The canonical spelling, e.g. "tcp://[::1]:80"; two listeners collide if theirs are equal.
  [[nodiscard]] std::string text() const;
  bool operator==(const Address&) const = default;
};

struct Listener {
  Address address;
  std::string name;            // "http", "http1", … unless given; unique within the pool
  int backlog = 2048;          // as for listen(2)
  std::optional<bool> v6only;  // tcp on an IPv6 address: IPV6_V6ONLY; none: the system's default
  unsigned mode = 0666;        // unix path: permission bits, whatever the umask
  std::optional<std::string> user, group;  // unix path: owner
  // As the manager has found it; nothing that a file says.
  std::string key;            // of its socket; "": not looked yet
  std::size_t inherited = 0;  // kInherit: which of the sockets of that name
  bool operator==(const Listener&) const = default;
};

enum class SocketProtocol { kSystemd, kFastcgi };

// `workers: auto` is resolved by the manager, who knows its CPUs.
struct AutoWorkers {
  bool operator==(const AutoWorkers&) const = default;
};
// By load, between `min` and `max`.
constexpr int kMostWorkers = 10000;
enum class ScaleBy { kBusy, kBacklog };
std::string_view word(ScaleBy by);
struct ScaledWorkers {
  int min = 1;
  int max = 1;
  ScaleBy by = ScaleBy::kBusy;
  // kBusy: the share of the workers' capacity in use, above 0 and up to 1; kBacklog: connections
  // that wait, per worker, 1 unless given. Whole thousandths.
  double target = 0.7;
  Duration up_after = std::chrono::seconds(2);
  Duration down_after = std::chrono::seconds(60);
  bool operator==(const ScaledWorkers&) const = default;
};
using Workers = std::variant<AutoWorkers, int, ScaledWorkers>;

// How workers share the listeners, and, with kDispatch, who gets a connection.
enum class Accept { kShared, kReuseport, kDispatch };
enum class DispatchPolicy { kLeastConnections, kRoundRobin, kRandom };
std::string_view word(Accept accept);
std::string_view word(DispatchPolicy policy);

enum class ReadyMode { kAuto, kNotify, kListening, kAfter };
struct Ready {
  ReadyMode mode = ReadyMode::kAuto;
  Duration after{};  // kAfter
  bool operator==(const Ready&) const = default;
};

struct Timeouts {
  Duration start = std::chrono::seconds(60);
  std::optional<Duration> heartbeat = std::chrono::seconds(30);  // none: off
  std::optional<Duration> request;                               // none: off
  Duration stop = std::chrono::seconds(30);
  bool operator==(const Timeouts&) const = default;
};

// A number of workers, or a share of the target, rounded up and at least 1.
struct Surge {
  int count = 1;
  bool percent = false;
  bool operator==(const Surge&) const = default;
};

struct Replace {
  Surge surge;
  Duration settle = std::chrono::seconds(2);
  int attempts = 1;
  bool operator==(const Replace&) const = default;
};

struct Restart {
  Duration backoff = std::chrono::milliseconds(100);
  Duration backoff_max = std::chrono::seconds(30);
  int burst = 5;
  Duration reset_after = std::chrono::seconds(10);
  bool operator==(const Restart&) const = default;
};

// `worker:`, for programs built on the SDK. What is not set here is the program's own to decide.
enum class WorkerClass { kSync, kThreads, kAsync };
enum class AccessLog { kOff, kCommon, kJson };
// As they are written in the configuration, and handed to workers.
std::string_view word(WorkerClass worker_class);
std::string_view word(AccessLog log);
struct WorkerSettings {
  std::optional<WorkerClass> worker_class;
  std::optional<int> threads;      // 1 to 64
  std::optional<int> connections;  // 1 to 1000000
  std::optional<Duration> keepalive;
  std::optional<std::uint64_t> header_limit, body_limit;  // bytes
  std::optional<Duration> header_timeout, body_timeout, write_timeout;
  std::optional<AccessLog> access_log;
  std::optional<std::vector<std::string>> trusted_proxies;  // IP addresses and CIDR networks
  bool operator==(const WorkerSettings&) const = default;
};

// When a worker is replaced though nothing is wrong with it. None: never.
struct Recycle {
  std::optional<std::uint64_t> requests;
  std::uint64_t requests_jitter = 0;  // up to so many more, drawn for each worker
  std::optional<Duration> lifetime;
  Duration lifetime_jitter{0};
  std::optional<std::uint64_t> memory;  // bytes of PSS
  bool operator==(const Recycle&) const = default;
};

// Statuses of HTTP answers, both ends included.
struct StatusRange {
  int from = 0;
  int to = 0;
  bool operator==(const StatusRange&) const = default;
};

// "GET /healthz", and what the answer is to be.
struct ProbeRequest {
  std::string method;
  std::string target;
  std::string host = "localhost";
  std::map<std::string, std::string> headers = {};
  std::vector<StatusRange> expect = {{200, 399}};  // at least one
  bool operator==(const ProbeRequest&) const = default;
};

struct Health {
  std::optional<ProbeRequest> request;  // this
  std::vector<std::string> exec;        // or that; argv, tokens not yet replaced
  std::string executable, argv0;        // as those of the pool
  Duration interval = std::chrono::seconds(10);
  Duration timeout = std::chrono::seconds(2);
  int failures = 3;
  bool operator==(const Health&) const = default;
};

enum class InheritEnv { kAll, kMinimal, kListed };

enum class OutputMode { kForward, kInherit, kNull, kFile };
struct Output {
  OutputMode mode = OutputMode::kForward;
  std::string path;  // kFile
  bool operator==(const Output&) const = default;
};

struct Pool {
  std::string name;
  std::vector<std::string> command;  // argv, at least one; tokens not yet replaced
  // command[0] as found when the file was read: absolute, the links in its folder resolved, so that
  // a generation keeps the release that it was made of. The last component stays as written: it may
  // be a link that the program knows itself by.
  std::string executable;
  // What it is told to be: command[0], or `executable` if the way there led through a link, which
  // a program that looks for its own files would follow.
  std::string argv0;
  std::optional<std::string> directory;  // absolute, as written
  // Where workers start: `directory`, or else the manager's, links resolved when the file was read.
  // None: the manager's, where it cannot be entered by its path.
  std::optional<std::string> folder;
  std::map<std::string, std::string> env;  // env_file merged below env; tokens not yet replaced
  std::optional<std::string> env_file;     // absolute; where env's first half came from
  InheritEnv inherit_env = InheritEnv::kAll;
  std::vector<std::string> inherit_names;  // kListed
  std::optional<std::string> user, group;  // names or numbers, as written; seen to exist
  std::optional<unsigned> umask;
  std::vector<Listener> listen;
  SocketProtocol socket_protocol = SocketProtocol::kSystemd;
  Accept accept = Accept::kShared;
  DispatchPolicy dispatch = DispatchPolicy::kLeastConnections;
  Workers workers;
  WorkerSettings worker;
  Ready ready;
  Timeouts timeouts;
  int stop_signal = 15;  // SIGTERM
  bool leave_behind = false;
  bool no_new_privileges = false;  // sandbox; true with a `user` unless it says otherwise
  Replace replace;
  Restart restart;
  Recycle recycle;
  std::optional<Health> health;
  std::vector<ProbeRequest> warmup;
  Output output;
  bool operator==(const Pool&) const = default;
};

struct Control {
  std::optional<std::string> socket;  // absolute; none: control.sock in the runtime directory
  std::optional<unsigned> mode;       // none: 0660 for root, 0600 otherwise
  std::optional<std::string> group;
  bool operator==(const Control&) const = default;
};

enum class LogLevel { kTrace, kDebug, kInfo, kWarning, kError };
enum class LogFormat { kText, kJson };
enum class LogOutput { kStderr, kFile, kJournald, kSyslog };
struct Log {
  LogLevel level = LogLevel::kInfo;
  LogFormat format = LogFormat::kText;
  LogOutput output = LogOutput::kStderr;
  std::string path;  // kFile: absolute
  bool operator==(const Log&) const = default;
};

struct Config {
  std::string file;  // absolute path, or empty for the ad-hoc form
  Control control;
  Log log;
  std::map<std::string, Pool> pools;
  bool operator==(const Config&) const = default;
};

}  // namespace ostler::config
