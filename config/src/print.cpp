// A `Config` as YAML. Text is quoted unless it is a plain word to every YAML reader, so that
// nothing can turn into a number, a truth value or nothing at all on its way back.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "config/src/load.hpp"
#include "config/src/probe_request.hpp"
#include "config/src/scalars.hpp"

namespace ostler::config {
namespace {

bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

bool is_plain_word(std::string_view text) {
  static constexpr std::array<std::string_view, 8> kMeaningful = {"null", "true", "false", "yes",
                                                                  "no",   "on",   "off",   "y"};
  if (text.size() < 2 || !(is_letter(text.front()) || text.front() == '/')) return false;
  const bool harmless = std::all_of(text.begin(), text.end(), [](char c) {
    return is_letter(c) || (c >= '0' && c <= '9') || c == '/' || c == '.' || c == '_' || c == '-';
  });
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return harmless && std::find(kMeaningful.begin(), kMeaningful.end(), lower) == kMeaningful.end();
}

std::string scalar(std::string_view text) {
  static constexpr std::string_view kHex = "0123456789ABCDEF";
  if (is_plain_word(text)) return std::string(text);
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += {'\\', c};
    } else if (byte < 0x20 || byte == 0x7F) {
      out += {'\\', 'x', kHex[byte >> 4U], kHex[byte & 15U]};
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string list(const std::vector<std::string>& values) {
  std::string out = "[";
  for (const std::string& value : values) out += (out.size() > 1 ? ", " : "") + scalar(value);
  return out + "]";
}

// Writes "KEY: VALUE" lines at one depth.
class Map {
 public:
  Map(std::string& out, std::size_t depth) : out_(out), indent_(depth * 2, ' ') {}

  void raw(std::string_view key, std::string_view value) {
    out_.append(indent_).append(key).append(": ").append(value).append("\n");
  }
  void text(std::string_view key, std::string_view value) { raw(key, scalar(value)); }
  void text_if(std::string_view key, const std::optional<std::string>& value) {
    if (value) text(key, *value);
  }
  void mode(std::string_view key, const std::optional<unsigned>& value) {
    if (value) raw(key, '"' + mode_text(*value) + '"');
  }
  void number(std::string_view key, int value) { raw(key, std::to_string(value)); }
  void duration(std::string_view key, Duration value) { raw(key, duration_text(value)); }
  void item(std::string_view value) {
    out_.append(indent_).append("- ").append(value).append("\n");
  }
  Map open(std::string_view key) {
    out_.append(indent_).append(key).append(":\n");
    return {out_, indent_.size() / 2 + 1};
  }

 private:
  std::string& out_;
  std::string indent_;
};

std::string_view word(LogLevel level) {
  switch (level) {
    case LogLevel::kTrace:
      return "trace";
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return {};
}

std::string word(const Log& log) {
  switch (log.output) {
    case LogOutput::kStderr:
      return "stderr";
    case LogOutput::kFile:
      return log.path;
    case LogOutput::kJournald:
      return "journald";
    case LogOutput::kSyslog:
      return "syslog";
  }
  return {};
}

std::string word(const Output& output) {
  switch (output.mode) {
    case OutputMode::kForward:
      return "forward";
    case OutputMode::kInherit:
      return "inherit";
    case OutputMode::kNull:
      return "null";
    case OutputMode::kFile:
      return output.path;
  }
  return {};
}

std::string inherit_env(const Pool& pool) {
  switch (pool.inherit_env) {
    case InheritEnv::kAll:
      return "true";
    case InheritEnv::kMinimal:
      return "false";
    case InheritEnv::kListed:
      return list(pool.inherit_names);
  }
  return {};
}

std::string ready(const Ready& ready) {
  switch (ready.mode) {
    case ReadyMode::kAuto:
      return "auto";
    case ReadyMode::kNotify:
      return "notify";
    case ReadyMode::kListening:
      return "listening";
    case ReadyMode::kAfter:
      return "{after: " + duration_text(ready.after) + "}";
  }
  return {};
}

void print_listeners(Map& out, const std::vector<Listener>& listeners) {
  if (listeners.empty()) return out.raw("listen", "[]");
  Map items = out.open("listen");
  for (const Listener& listener : listeners) {
    std::string map = "{address: " + scalar(listener.address.text()) +
                      ", name: " + scalar(listener.name) +
                      ", backlog: " + std::to_string(listener.backlog);
    if (listener.v6only) map += std::string(", v6only: ") + (*listener.v6only ? "true" : "false");
    if (listener.address.kind == AddressKind::kUnixPath) {
      map += ", mode: \"" + mode_text(listener.mode) + '"';
    }
    if (listener.user) map += ", user: " + scalar(*listener.user);
    if (listener.group) map += ", group: " + scalar(*listener.group);
    items.item(map + "}");
  }
}

void print_env(Map& out, const Pool& pool, bool show) {
  if (pool.env.empty()) return out.raw("env", "{}");
  Map env = out.open("env");
  for (const auto& [name, value] : pool.env) env.text(scalar(name), show ? value : "(left out)");
}

void print_workers(Map& out, const Workers& workers) {
  if (std::holds_alternative<AutoWorkers>(workers)) return out.raw("workers", "auto");
  if (const int* number = std::get_if<int>(&workers)) return out.number("workers", *number);
  const auto& scaled = std::get<ScaledWorkers>(workers);
  Map map = out.open("workers");
  map.number("min", scaled.min);
  map.number("max", scaled.max);
  map.raw("by", word(scaled.by));
  map.raw("target", thousandths_text(std::llround(scaled.target * 1000)));
  map.duration("up_after", scaled.up_after);
  map.duration("down_after", scaled.down_after);
}

// What the program decides is left out.
void print_worker(Map& out, const WorkerSettings& worker) {
  if (worker == WorkerSettings{}) return;
  Map map = out.open("worker");
  const auto duration = [&](std::string_view key, const std::optional<Duration>& value) {
    if (value) map.duration(key, *value);
  };
  const auto size = [&](std::string_view key, const std::optional<std::uint64_t>& value) {
    if (value) map.raw(key, size_text(*value));
  };
  if (worker.worker_class) map.raw("class", word(*worker.worker_class));
  if (worker.threads) map.number("threads", *worker.threads);
  if (worker.connections) map.number("connections", *worker.connections);
  duration("keepalive", worker.keepalive);
  size("header_limit", worker.header_limit);
  size("body_limit", worker.body_limit);
  duration("header_timeout", worker.header_timeout);
  duration("body_timeout", worker.body_timeout);
  duration("write_timeout", worker.write_timeout);
  if (worker.access_log) map.raw("access_log", word(*worker.access_log));
  if (worker.trusted_proxies) map.raw("trusted_proxies", list(*worker.trusted_proxies));
}

void print_recycle(Map& out, const Recycle& recycle) {
  if (recycle == Recycle{}) return out.raw("recycle", "off");
  Map map = out.open("recycle");
  if (recycle.requests) {
    map.raw("requests", std::to_string(*recycle.requests));
    map.raw("requests_jitter", std::to_string(recycle.requests_jitter));
  }
  if (recycle.lifetime) {
    map.duration("lifetime", *recycle.lifetime);
    map.duration("lifetime_jitter", recycle.lifetime_jitter);
  }
  if (recycle.memory) map.raw("memory", size_text(*recycle.memory));
}

std::string request_line(const ProbeRequest& request) {
  return scalar(request.method + " " + request.target);
}

// Like variables, headers may hold what is nobody's business.
std::string headers(const ProbeRequest& request, bool show) {
  std::string out;
  for (const auto& [name, value] : request.headers) {
    out += (out.empty() ? "" : ", ") + scalar(name) + ": " + scalar(show ? value : "(left out)");
  }
  return "{" + out + "}";
}

std::string expect(const ProbeRequest& request) {
  std::vector<std::string> ranges;
  for (const StatusRange& range : request.expect) ranges.push_back(text_of(range));
  return ranges.size() == 1 ? scalar(ranges.front()) : list(ranges);
}

void print_health(Map& out, const std::optional<Health>& health, bool show) {
  if (!health) return out.raw("health", "off");
  Map map = out.open("health");
  if (const auto& request = health->request) {
    map.raw("request", request_line(*request));
    map.text("host", request->host);
    map.raw("headers", headers(*request, show));
    map.raw("expect", expect(*request));
  }
  if (!health->exec.empty()) map.raw("exec", list(health->exec));
  map.duration("interval", health->interval);
  map.duration("timeout", health->timeout);
  map.number("failures", health->failures);
}

// One that says nothing but what it asks is a text.
std::string warmup_request(const ProbeRequest& request, bool show) {
  const ProbeRequest plain{request.method, request.target};
  if (request == plain) return request_line(request);
  return "{request: " + request_line(request) + ", host: " + scalar(request.host) +
         ", headers: " + headers(request, show) + ", expect: " + expect(request) + "}";
}

void print_warmup(Map& out, const std::vector<ProbeRequest>& warmup, bool show) {
  std::string requests;
  for (const ProbeRequest& request : warmup) {
    requests += (requests.empty() ? "" : ", ") + warmup_request(request, show);
  }
  out.raw("warmup", "[" + requests + "]");
}

void print_pool(Map& out, const Pool& pool, bool show_env) {
  out.raw("command", list(pool.command));
  out.text_if("directory", pool.directory);
  print_env(out, pool, show_env);
  out.text_if("env_file", pool.env_file);
  out.raw("inherit_env", inherit_env(pool));
  out.text_if("user", pool.user);
  out.text_if("group", pool.group);
  out.mode("umask", pool.umask);
  print_listeners(out, pool.listen);
  out.raw("accept", word(pool.accept));
  if (pool.accept == Accept::kDispatch) out.raw("dispatch", word(pool.dispatch));
  out.raw("socket_protocol",
          pool.socket_protocol == SocketProtocol::kSystemd ? "systemd" : "fastcgi");
  print_workers(out, pool.workers);
  print_worker(out, pool.worker);
  out.raw("spawn", "exec");
  out.raw("ready", ready(pool.ready));
  Map timeouts = out.open("timeouts");
  timeouts.duration("start", pool.timeouts.start);
  const auto& heartbeat = pool.timeouts.heartbeat;
  timeouts.raw("heartbeat", heartbeat ? duration_text(*heartbeat) : "off");
  const auto& request = pool.timeouts.request;
  timeouts.raw("request", request ? duration_text(*request) : "off");
  timeouts.duration("stop", pool.timeouts.stop);
  out.raw("stop_signal", stop_signal_text(pool.stop_signal));
  out.raw("leave_behind", pool.leave_behind ? "true" : "false");
  out.open("sandbox").raw("no_new_privileges", pool.no_new_privileges ? "true" : "false");
  Map replace = out.open("replace");
  replace.raw("surge",
              std::to_string(pool.replace.surge.count) + (pool.replace.surge.percent ? "%" : ""));
  replace.duration("settle", pool.replace.settle);
  replace.number("attempts", pool.replace.attempts);
  Map restart = out.open("restart");
  restart.duration("backoff", pool.restart.backoff);
  restart.duration("backoff_max", pool.restart.backoff_max);
  restart.number("burst", pool.restart.burst);
  restart.duration("reset_after", pool.restart.reset_after);
  print_recycle(out, pool.recycle);
  print_health(out, pool.health, show_env);
  print_warmup(out, pool.warmup, show_env);
  out.text("output", word(pool.output));
}

void print_control(Map& out, const Control& control) {
  if (control == Control{}) return out.raw("control", "{}");
  Map map = out.open("control");
  map.text_if("socket", control.socket);
  map.mode("mode", control.mode);
  map.text_if("group", control.group);
}

}  // namespace

std::string print(const Config& config, bool show_env) {
  std::string out;
  Map root(out, 0);
  print_control(root, config.control);
  Map log = root.open("log");
  log.raw("level", word(config.log.level));
  log.raw("format", config.log.format == LogFormat::kText ? "text" : "json");
  log.text("output", word(config.log));
  if (config.pools.empty()) {
    root.raw("pools", "{}");
    return out;
  }
  Map pools = root.open("pools");
  for (const auto& [name, pool] : config.pools) {
    Map map = pools.open(scalar(name));
    print_pool(map, pool, show_env);
  }
  return out;
}

}  // namespace ostler::config
