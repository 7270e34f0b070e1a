#include "config/src/keys.hpp"

#include <algorithm>
#include <array>

#include "config/src/accept.hpp"
#include "config/src/access.hpp"
#include "config/src/care.hpp"
#include "config/src/listen.hpp"
#include "config/src/probe_request.hpp"
#include "config/src/scalars.hpp"
#include "config/src/walk.hpp"
#include "config/src/words.hpp"

namespace ostler::config {
namespace {

// --- Values with rules of their own
// ---------------------------------------------------------------

void read_command(Reader& reader, const At& at, PoolDraft& out) {
  if (std::vector<std::string> words; read_command_words(reader, at, words)) {
    out.pool.command = std::move(words);
  }
}

void read_env(Reader& reader, const At& at, PoolDraft& out) {
  if (at.node->kind != NodeKind::kMap) return reader.wrong(at, "a map such as {NAME: value}");
  for (const Entry& entry : at.node->entries) {
    const At value = child(at, entry);
    if (!is_env_name(entry.key)) {
      reader.faults().add(entry.place, value.path,
                          "is not a variable's name; it must not be empty "
                          "nor hold '=' or control characters");
    } else if (value.node->kind == NodeKind::kScalar) {
      out.pool.env[entry.key] = value.node->text;
    } else {
      reader.wrong(value, "text (\"\" for an empty variable)");
    }
  }
}

void read_env_file(Reader& reader, const At& at, PoolDraft& out) {
  std::string path;
  if (reader.path(at, path)) out.pool.env_file = std::move(path);
}

void read_directory(Reader& reader, const At& at, PoolDraft& out) {
  std::string path;
  if (reader.path(at, path)) out.pool.directory = std::move(path);
}

void read_inherit_env(Reader& reader, const At& at, PoolDraft& out) {
  if (at.node->kind == NodeKind::kList) {
    std::vector<std::string> names;
    if (!reader.texts(at, "a list of names", names)) return;
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (!is_env_name(names[i])) return reader.wrong(item(at, i), "a variable's name");
    }
    out.pool.inherit_env = InheritEnv::kListed;
    out.pool.inherit_names = std::move(names);
    return;
  }
  bool all = true;
  if (at.node->kind == NodeKind::kMap || at.node->kind == NodeKind::kNull) {
    reader.wrong(at, "true, false or a list of names");
  } else if (reader.boolean(at, all)) {
    out.pool.inherit_env = all ? InheritEnv::kAll : InheritEnv::kMinimal;
  }
}

void read_umask(Reader& reader, const At& at, PoolDraft& out) {
  unsigned mask = 0;
  if (reader.mode(at, mask)) out.pool.umask = mask;
}

void read_spawn(Reader& reader, const At& at, PoolDraft&) {
  static constexpr std::array<std::string_view, 1> kNames = {"exec"};
  const bool scalar = at.node->kind == NodeKind::kScalar;
  if (at.node->kind == NodeKind::kMap) return reader.later(at, "a map for 'spawn'");
  if (scalar && at.node->text == "template") return reader.later(at, "spawn: template");
  if (!scalar || at.node->text != kNames.front()) reader.wrong_word(at, kNames);
}

void read_socket_protocol(Reader& reader, const At& at, PoolDraft& out) {
  static constexpr std::array kChoices = {
      Choice<SocketProtocol>{"systemd", SocketProtocol::kSystemd},
      Choice<SocketProtocol>{"fastcgi", SocketProtocol::kFastcgi}};
  reader.choice(at, kChoices, out.pool.socket_protocol);
}

void read_ready_after(Reader& reader, const At& at, Ready& out) {
  if (reader.duration(at, kShortest, out.after)) out.mode = ReadyMode::kAfter;
}

void read_ready(Reader& reader, const At& at, PoolDraft& out) {
  static constexpr std::array kKeys = {
      Key<Ready>{{"after", "", "ready once it has lived that long"}, read_ready_after}};
  static constexpr std::array kChoices = {Choice<ReadyMode>{"auto", ReadyMode::kAuto},
                                          Choice<ReadyMode>{"notify", ReadyMode::kNotify},
                                          Choice<ReadyMode>{"listening", ReadyMode::kListening}};
  static constexpr std::array<std::string_view, 3> kNames = {"auto", "notify", "listening"};
  if (at.node->kind == NodeKind::kMap) {
    if (at.node->entries.empty()) return reader.wrong(at, "auto, notify, listening or {after: 2s}");
    return walk(reader, at, std::span<const Key<Ready>>(kKeys), out.pool.ready);
  }
  const bool known = at.node->kind == NodeKind::kScalar &&
                     std::find(kNames.begin(), kNames.end(), at.node->text) != kNames.end();
  if (!known) return reader.wrong_word(at, kNames, " or {after: 2s}");
  reader.choice(at, kChoices, out.pool.ready.mode);
}

void read_limit(Reader& reader, const At& at, std::optional<Duration>& out) {
  Duration limit{};
  if (is_off(*at.node)) {
    out.reset();
  } else if (reader.duration(at, kShortest, limit)) {
    out = limit;
  }
}

void read_heartbeat(Reader& reader, const At& at, PoolDraft& out) {
  read_limit(reader, at, out.pool.timeouts.heartbeat);
}

void read_request_limit(Reader& reader, const At& at, PoolDraft& out) {
  read_limit(reader, at, out.pool.timeouts.request);
}

// Of a pool whose `workers` is a map.
ScaledWorkers& scaled(PoolDraft& out) {
  return std::get<ScaledWorkers>(out.pool.workers);
}

// Into a member that is there only if it was given.
template <class T>
void set(bool good, T value, std::optional<T>& out) {
  if (good) out = value;
}

template <auto Member>
void read_worker_duration(Reader& reader, const At& at, PoolDraft& out) {
  Duration value{};
  const bool good = reader.duration(at, kShortest, value);
  set(good, value, out.pool.worker.*Member);
}

template <auto Member, int Most>
void read_worker_number(Reader& reader, const At& at, PoolDraft& out) {
  int value = 0;
  const bool good = reader.whole(at, 1, Most, value);
  set(good, value, out.pool.worker.*Member);
}

template <auto Member, std::uint64_t Least, std::uint64_t Most>
void read_worker_size(Reader& reader, const At& at, PoolDraft& out) {
  std::uint64_t value = 0;
  const bool good = reader.size(at, Least, Most, value);
  set(good, value, out.pool.worker.*Member);
}

constexpr int kMostThreads = 64;  // as many as a scoreboard can tell of
constexpr int kMostConnections = 1000000;
constexpr int kMostRequests = 1000000000;
constexpr std::uint64_t kMebibyte = std::uint64_t{1} << 20U;
constexpr std::uint64_t kTebibyte = std::uint64_t{1} << 40U;

void read_stop_signal(Reader& reader, const At& at, PoolDraft& out) {
  const auto number =
      at.node->kind == NodeKind::kScalar ? parse_stop_signal(at.node->text) : std::nullopt;
  if (!number) return reader.wrong_word(at, stop_signal_names());
  out.pool.stop_signal = *number;
}

void read_surge(Reader& reader, const At& at, PoolDraft& out) {
  const Node& node = *at.node;
  const bool scalar = node.kind == NodeKind::kScalar;
  if (const auto percent = scalar ? parse_percent(node.text) : std::nullopt) {
    out.pool.replace.surge = {*percent, true};
    return;
  }
  const auto number = scalar && node.plain ? parse_whole(node.text) : std::nullopt;
  if (!number || *number < 0 || *number > 10000) {
    return reader.wrong(at, "a whole number from 0 to 10000, or 0% to 100%");
  }
  out.pool.replace.surge = {static_cast<int>(*number), false};
}

// One of NAMES, or a path, which is told from a misspelt name by its slash.
bool names_or_path(Reader& reader, const At& at, std::span<const std::string_view> names,
                   std::string& name, std::string& path) {
  if (at.node->kind != NodeKind::kScalar) {
    reader.wrong_word(at, names, ", or a path");
    return false;
  }
  if (std::find(names.begin(), names.end(), at.node->text) != names.end()) {
    name = at.node->text;
    return true;
  }
  if (at.node->text.find('/') != std::string::npos) return reader.path(at, path);
  reader.wrong_word(at, names, ", or a path (with a slash)");
  return false;
}

void read_output(Reader& reader, const At& at, PoolDraft& out) {
  static constexpr std::array<std::string_view, 3> kNames = {"forward", "inherit", "null"};
  Output& output = out.pool.output;
  if (at.node->kind == NodeKind::kNull && !at.node->text.empty()) {
    output = {OutputMode::kNull, {}};  // YAML takes the plain word for nothing at all
    return;
  }
  std::string name;
  std::string path;
  if (!names_or_path(reader, at, kNames, name, path)) return;
  output.path = path;
  output.mode = name == "forward"   ? OutputMode::kForward
                : name == "inherit" ? OutputMode::kInherit
                : name == "null"    ? OutputMode::kNull
                                    : OutputMode::kFile;
}

// --- log, control and the document
// ----------------------------------------------------------------

void read_log_level(Reader& reader, const At& at, Log& out) {
  static constexpr std::array kChoices = {
      Choice<LogLevel>{"trace", LogLevel::kTrace}, Choice<LogLevel>{"debug", LogLevel::kDebug},
      Choice<LogLevel>{"info", LogLevel::kInfo}, Choice<LogLevel>{"warning", LogLevel::kWarning},
      Choice<LogLevel>{"error", LogLevel::kError}};
  reader.choice(at, kChoices, out.level);
}

void read_log_format(Reader& reader, const At& at, Log& out) {
  static constexpr std::array kChoices = {Choice<LogFormat>{"text", LogFormat::kText},
                                          Choice<LogFormat>{"json", LogFormat::kJson}};
  reader.choice(at, kChoices, out.format);
}

void read_log_output(Reader& reader, const At& at, Log& out) {
  static constexpr std::array<std::string_view, 3> kNames = {"stderr", "journald", "syslog"};
  std::string name;
  std::string path;
  if (!names_or_path(reader, at, kNames, name, path)) return;
  if (!path.empty() && !reader.is_running()) {
    std::string problem = log_file_problem(path, Who::manager());
    if (!problem.empty()) return reader.faults().add(at, std::move(problem));
  }
  out.path = path;
  out.output = name == "stderr"     ? LogOutput::kStderr
               : name == "journald" ? LogOutput::kJournald
               : name == "syslog"   ? LogOutput::kSyslog
                                    : LogOutput::kFile;
}

void read_control_socket(Reader& reader, const At& at, Control& out) {
  // The workers' notify sockets lie beside it, by names of the kind of ".notify/1234567/s".
  constexpr std::size_t kMax = 107 - std::string_view(".notify/1234567/s").size();
  std::string path;
  if (!reader.path(at, path)) return;
  if (path.size() > kMax) {
    return reader.faults().add(at, "must be at most " + std::to_string(kMax) +
                                       " bytes long as an absolute path, and " + quote(path) +
                                       " has " + std::to_string(path.size()));
  }
  if (!reader.is_running()) {
    std::string problem = control_socket_problem(path);
    if (!problem.empty()) return reader.faults().add(at, std::move(problem));
  }
  out.socket = std::move(path);
}

void read_control_mode(Reader& reader, const At& at, Control& out) {
  unsigned mode = 0;
  if (reader.mode(at, mode)) out.mode = mode;
}

void read_control_group(Reader& reader, const At& at, Control& out) {
  if (!reader.account(at, out.group)) return;
  const auto gid = find_group(*out.group);
  const Host& host = reader.host();
  if (!gid) {
    reader.faults().add(at, "there is no group " + quote(*out.group));
  } else if (!host.may_give_files_away() && !host.in_group(*gid)) {
    reader.faults().add(at, "the manager is not a member of the group " + quote(*out.group) +
                                " and may not give it the socket; start it as root or name a group "
                                "that " +
                                quote(user_text(host.uid)) + " is in");
  }
}

template <class T>
void walk_section(Reader& reader, const At& at, std::span<const Key<T>> keys, T& out) {
  if (at.node->kind != NodeKind::kMap) return reader.wrong(at, "a map");
  walk(reader, at, keys, out);
}

}  // namespace

std::span<const Key<Control>> control_keys() {
  static constexpr std::array kKeys = {
      Key<Control>{{"socket", "",
                    "the control socket's path (default: control.sock in the runtime "
                    "directory)"},
                   read_control_socket},
      Key<Control>{{"mode", "",
                    "the control socket's mode (default: 0660 for root, 0600 "
                    "otherwise)"},
                   read_control_mode},
      Key<Control>{{"group", "", "the control socket's group"}, read_control_group},
      Key<Control>{{"read", "", "groups and users that may only ask", Stage::kLater}},
      Key<Control>{{"operate", "", "groups and users that may also change things", Stage::kLater}},
  };
  return kKeys;
}

std::span<const Key<Log>> log_keys() {
  static constexpr std::array kKeys = {
      Key<Log>{{"level", "info", "trace, debug, info, warning or error"}, read_log_level},
      Key<Log>{{"format", "text", "text or json"}, read_log_format},
      Key<Log>{{"output", "stderr", "stderr, a path, journald or syslog"}, read_log_output},
  };
  return kKeys;
}

std::span<const Key<FileDraft>> file_keys() {
  static constexpr std::array kKeys = {
      Key<FileDraft>{{"control", "{}", "the control socket"},
                     [](Reader& reader, const At& at, FileDraft& out) {
                       walk_section(reader, at, control_keys(), out.config.control);
                     }},
      Key<FileDraft>{{"metrics", "", "metrics over HTTP and StatsD", Stage::kLater}},
      Key<FileDraft>{{"log", "{}", "the manager's log"},
                     [](Reader& reader, const At& at, FileDraft& out) {
                       walk_section(reader, at, log_keys(), out.config.log);
                     }},
      Key<FileDraft>{{"include", "[]", "files whose pools are added; relative to this file"},
                     [](Reader& reader, const At& at, FileDraft&) {  // read before (load.cpp)
                       if (at.node->kind != NodeKind::kList) {
                         reader.wrong(at, "a list such as [conf.d/*.yaml]");
                       }
                     }},
      Key<FileDraft>{{"defaults", "{}", "keys merged under every pool"},
                     [](Reader& reader, const At& at, FileDraft& out) {
                       if (at.node->kind == NodeKind::kMap) {
                         out.defaults = at;
                       } else {
                         reader.wrong(at, "a map of pool keys ({} for none)");
                       }
                     }},
      Key<FileDraft>{{"pools", "", "the applications, by name"},
                     [](Reader& reader, const At& at, FileDraft& out) {
                       if (at.node->kind == NodeKind::kMap) {
                         out.pools = at;
                       } else {
                         reader.wrong(at, "a map such as {web: {command: …}} ({} for none)");
                       }
                     }},
  };
  return kKeys;
}

std::span<const Key<PoolDraft>> pool_keys() {
  static constexpr std::array kKeys = {
      Key<PoolDraft>{{"command", "", "the worker executable and its arguments"}, read_command},
      Key<PoolDraft>{{"listen", "[]",
                      "an address: tcp://HOST:PORT, unix:///PATH, unix:@NAME or "
                      "inherit:NAME"},
                     read_listen},
      Key<PoolDraft>{
          {"workers", "auto", "how many; auto is 2 × CPUs + 1, or fewer if recycle.memory says so"},
          read_workers},
      Key<PoolDraft>{{"workers.min", "", "as many as the load asks for: at least, 1 unless given"},
                     [](Reader& r, const At& at, PoolDraft& out) {
                       r.whole(at, 0, kMostWorkers, scaled(out).min);
                     }},
      Key<PoolDraft>{{"workers.max", "", "as many as the load asks for: at most"},
                     [](Reader& r, const At& at, PoolDraft& out) {
                       r.whole(at, 1, kMostWorkers, scaled(out).max);
                     }},
      Key<PoolDraft>{{"workers.by", "",
                      "the load: busy (share of capacity in use) unless given, or backlog "
                      "(connections waiting)"},
                     read_workers_by},
      Key<PoolDraft>{{"workers.target", "",
                      "the load to keep to: 0.7, or with backlog 1 for each worker, unless given"},
                     read_workers_target},
      Key<PoolDraft>{
          {"workers.up_after", "", "more when above target for so long, 2s unless given"},
          [](Reader& r, const At& at, PoolDraft& out) {
            r.duration(at, kShortest, scaled(out).up_after);
          }},
      Key<PoolDraft>{
          {"workers.down_after", "", "fewer when below target for so long, 60s unless given"},
          [](Reader& r, const At& at, PoolDraft& out) {
            r.duration(at, kShortest, scaled(out).down_after);
          }},
      Key<PoolDraft>{{"directory", "", "working directory"}, read_directory},
      Key<PoolDraft>{{"env", "{}", "environment variables"}, read_env},
      Key<PoolDraft>{{"env_file", "", "a file of NAME=VALUE lines, merged below env"},
                     read_env_file},
      Key<PoolDraft>{{"inherit_env", "true",
                      "true, false (PATH, HOME, LANG and TZ alone) or the "
                      "names to inherit"},
                     read_inherit_env},
      Key<PoolDraft>{{"user", "", "the workers' user"},
                     [](Reader& r, const At& at, PoolDraft& out) { r.account(at, out.pool.user); }},
      Key<PoolDraft>{
          {"group", "", "the workers' group (default: the user's)"},
          [](Reader& r, const At& at, PoolDraft& out) { r.account(at, out.pool.group); }},
      Key<PoolDraft>{{"umask", "", "the workers' umask, in octal"}, read_umask},
      Key<PoolDraft>{{"accept", "shared",
                      "how workers share the listeners: shared, reuseport (tcp) or dispatch (SDK)"},
                     read_accept},
      Key<PoolDraft>{{"dispatch", "",
                      "who gets a connection with accept dispatch: least_connections unless given, "
                      "round_robin or random"},
                     read_dispatch},
      Key<PoolDraft>{{"socket_protocol", "systemd",
                      "where workers find the sockets: systemd (from "
                      "fd 3) or fastcgi (fd 0)"},
                     read_socket_protocol},
      Key<PoolDraft>{{"worker.class", "", "SDK: sync, threads or async (default: the program's)"},
                     read_worker_class},
      Key<PoolDraft>{{"worker.threads", "", "SDK, class threads: how many, up to 64"},
                     read_worker_number<&WorkerSettings::threads, kMostThreads>},
      Key<PoolDraft>{{"worker.connections", "", "SDK: with so many open, a worker accepts no more"},
                     read_worker_number<&WorkerSettings::connections, kMostConnections>},
      Key<PoolDraft>{{"worker.keepalive", "", "SDK: how long an idle connection is kept"},
                     [](Reader& r, const At& at, PoolDraft& out) {
                       Duration value{};
                       const bool good = r.duration(at, Duration(0), value);
                       set(good, value, out.pool.worker.keepalive);
                     }},
      Key<PoolDraft>{{"worker.header_limit", "", "SDK: the largest header of a request"},
                     read_worker_size<&WorkerSettings::header_limit, 256, kMebibyte>},
      Key<PoolDraft>{{"worker.body_limit", "", "SDK: the largest body of a request"},
                     read_worker_size<&WorkerSettings::body_limit, 0, kTebibyte>},
      Key<PoolDraft>{{"worker.header_timeout", "", "SDK: for a client to send a header"},
                     read_worker_duration<&WorkerSettings::header_timeout>},
      Key<PoolDraft>{{"worker.body_timeout", "", "SDK: for a client to send a body"},
                     read_worker_duration<&WorkerSettings::body_timeout>},
      Key<PoolDraft>{{"worker.write_timeout", "", "SDK: for a client to take a response in"},
                     read_worker_duration<&WorkerSettings::write_timeout>},
      Key<PoolDraft>{{"worker.access_log", "", "SDK: off, common or json"}, read_access_log},
      Key<PoolDraft>{{"worker.trusted_proxies", "",
                      "SDK: addresses and networks whose forwarded client addresses are believed"},
                     read_trusted_proxies},
      Key<PoolDraft>{{"spawn", "exec", "how a worker is started"}, read_spawn},
      Key<PoolDraft>{{"affinity", "", "the CPUs workers run on", Stage::kLater}},
      Key<PoolDraft>{{"ready", "auto",
                      "when a worker is ready: auto, notify, listening, or so long after its "
                      "start"},
                     read_ready},
      Key<PoolDraft>{{"timeouts.start", "60s", "from a worker's start until it is ready"},
                     [](Reader& r, const At& at, PoolDraft& out) {
                       r.duration(at, kShortest, out.pool.timeouts.start);
                     }},
      Key<PoolDraft>{{"timeouts.heartbeat", "30s",
                      "the longest silence of a worker that "
                      "heartbeats; or off"},
                     read_heartbeat},
      Key<PoolDraft>{{"timeouts.request", "off", "the longest one request may take, in the SDK"},
                     read_request_limit},
      Key<PoolDraft>{{"timeouts.stop", "30s", "from the stop signal to SIGKILL"},
                     [](Reader& r, const At& at, PoolDraft& out) {
                       r.duration(at, kShortest, out.pool.timeouts.stop);
                     }},
      Key<PoolDraft>{{"stop_signal", "TERM", "the signal that asks a worker to drain"},
                     read_stop_signal},
      Key<PoolDraft>{
          {"leave_behind", "false",
           "whether descendants that left the worker's session may outlive it"},
          [](Reader& r, const At& at, PoolDraft& out) { r.boolean(at, out.pool.leave_behind); }},
      Key<PoolDraft>{{"sandbox.no_new_privileges", "",
                      "no program raises a worker's privileges (default: true with a user)"},
                     [](Reader& r, const At& at, PoolDraft& out) {
                       r.boolean(at, out.pool.no_new_privileges);
                     }},
      Key<PoolDraft>{
          {"sandbox.capabilities", "", "the capabilities that workers keep", Stage::kLater}},
      Key<PoolDraft>{{"sandbox.read_only", "", "folders nobody may write", Stage::kLater}},
      Key<PoolDraft>{{"sandbox.private_tmp", "", "a /tmp of the workers' own", Stage::kLater}},
      Key<PoolDraft>{{"sandbox.system_calls", "", "the system calls allowed", Stage::kLater}},
      Key<PoolDraft>{{"replace.surge", "1",
                      "how many workers above the target, or 50%, while "
                      "workers are replaced; 0: stop first, then start"},
                     read_surge},
      Key<PoolDraft>{
          {"replace.settle", "2s", "how long the first and the last new worker must stay up"},
          [](Reader& r, const At& at, PoolDraft& out) {
            r.duration(at, Duration(0), out.pool.replace.settle);
          }},
      Key<PoolDraft>{
          {"replace.attempts", "1", "how many failures of new workers roll a reload back"},
          [](Reader& r, const At& at, PoolDraft& out) {
            r.whole(at, 1, 1000, out.pool.replace.attempts);
          }},
      Key<PoolDraft>{{"restart.backoff", "100ms",
                      "the first wait of a slot whose worker keeps "
                      "dying"},
                     [](Reader& r, const At& at, PoolDraft& out) {
                       r.duration(at, kShortest, out.pool.restart.backoff);
                     }},
      Key<PoolDraft>{{"restart.backoff_max", "30s", "the longest such wait"},
                     [](Reader& r, const At& at, PoolDraft& out) {
                       r.duration(at, kShortest, out.pool.restart.backoff_max);
                     }},
      Key<PoolDraft>{{"restart.burst", "5", "how many deaths in a row are answered at once"},
                     [](Reader& r, const At& at, PoolDraft& out) {
                       r.whole(at, 0, 10000, out.pool.restart.burst);
                     }},
      Key<PoolDraft>{{"restart.reset_after", "10s", "the life that clears the count of deaths"},
                     [](Reader& r, const At& at, PoolDraft& out) {
                       r.duration(at, kShortest, out.pool.restart.reset_after);
                     }},
      Key<PoolDraft>{{"recycle", "off", "when workers are replaced though nothing is wrong"},
                     read_recycle},
      Key<PoolDraft>{{"recycle.requests", "", "after so many requests (SDK)"},
                     [](Reader& r, const At& at, PoolDraft& out) {
                       int value = 0;
                       if (!r.whole(at, 1, kMostRequests, value)) return;
                       out.pool.recycle.requests = static_cast<std::uint64_t>(value);
                     }},
      Key<PoolDraft>{{"recycle.requests_jitter", "", "up to so many more, drawn for each worker"},
                     [](Reader& r, const At& at, PoolDraft& out) {
                       int value = 0;
                       if (!r.whole(at, 0, kMostRequests, value)) return;
                       out.pool.recycle.requests_jitter = static_cast<std::uint64_t>(value);
                     }},
      Key<PoolDraft>{{"recycle.lifetime", "", "after so much time"},
                     [](Reader& r, const At& at, PoolDraft& out) {
                       Duration value{};
                       const bool good = r.duration(at, kShortest, value);
                       set(good, value, out.pool.recycle.lifetime);
                     }},
      Key<PoolDraft>{{"recycle.lifetime_jitter", "", "up to so much more, drawn for each worker"},
                     [](Reader& r, const At& at, PoolDraft& out) {
                       r.duration(at, Duration(0), out.pool.recycle.lifetime_jitter);
                     }},
      Key<PoolDraft>{{"recycle.memory", "", "above so much memory (PSS)"},
                     [](Reader& r, const At& at, PoolDraft& out) {
                       std::uint64_t value = 0;
                       const bool good = r.size(at, 1, kTebibyte, value);
                       set(good, value, out.pool.recycle.memory);
                     }},
      Key<PoolDraft>{{"health", "off", "health checks of every worker"}, read_health},
      Key<PoolDraft>{{"health.request", "", "a request to each worker: \"GET /healthz\" (SDK)"},
                     read_health_request},
      Key<PoolDraft>{{"health.host", "", "the Host header of that request, localhost unless given"},
                     [](Reader& r, const At& at, PoolDraft& out) {
                       read_probe_host(r, at, out.health_request);
                     }},
      Key<PoolDraft>{{"health.headers", "", "other headers of that request"},
                     [](Reader& r, const At& at, PoolDraft& out) {
                       read_probe_headers(r, at, out.health_request);
                     }},
      Key<PoolDraft>{
          {"health.expect", "", "the statuses of a healthy worker's answer, 200-399 unless given"},
          [](Reader& r, const At& at, PoolDraft& out) {
            read_probe_expect(r, at, out.health_request);
          }},
      Key<PoolDraft>{{"health.exec", "", "a program that exits 0 if the worker is healthy"},
                     read_health_exec},
      Key<PoolDraft>{{"health.interval", "", "from one check to the next, 10s unless given"},
                     [](Reader& r, const At& at, PoolDraft& out) {
                       r.duration(at, kShortest, out.pool.health->interval);
                     }},
      Key<PoolDraft>{{"health.timeout", "", "how long a check may take, 2s unless given"},
                     [](Reader& r, const At& at, PoolDraft& out) {
                       r.duration(at, kShortest, out.pool.health->timeout);
                     }},
      Key<PoolDraft>{{"health.failures", "",
                      "a worker that fails so often in a row is replaced, 3 unless given"},
                     [](Reader& r, const At& at, PoolDraft& out) {
                       r.whole(at, 1, 1000, out.pool.health->failures);
                     }},
      Key<PoolDraft>{{"warmup", "[]", "a request that a worker answers before it is ready (SDK)"},
                     read_warmup},
      Key<PoolDraft>{{"limits", "", "resource limits", Stage::kLater}},
      Key<PoolDraft>{{"output", "forward",
                      "the workers' stdout and stderr: forward, inherit, null "
                      "or a path"},
                     read_output},
  };
  return kKeys;
}

bool read_command_words(Reader& reader, const At& at, std::vector<std::string>& out) {
  constexpr std::string_view kWhat = "a list such as [/usr/bin/app, --flag], or one line of text";
  std::vector<std::string> words;
  if (at.node->kind == NodeKind::kScalar) {
    Words split = split_words(at.node->text);
    if (!split.problem.empty()) {
      reader.faults().add(at, split.problem);
      return false;
    }
    words = std::move(split.words);
  } else if (!reader.texts(at, kWhat, words)) {
    return false;
  }
  if (words.empty() || words.front().empty()) {
    reader.faults().add(at, "names no executable");
    return false;
  }
  out = std::move(words);
  return true;
}

void read_file_keys(Reader& reader, const At& map, FileDraft& out) {
  walk(reader, map, file_keys(), out);
}

void read_pool_keys(Reader& reader, const At& map, PoolDraft& out) {
  walk(reader, map, pool_keys(), out);
}

}  // namespace ostler::config
