#include "runtime/launch.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <csignal>
#include <map>
#include <string_view>

#include "config/src/host.hpp"
#include "config/src/tokens.hpp"
#include "ostler/protocol.h"

namespace ostler::runtime {
namespace {

using Environment = std::map<std::string, std::string>;

// What the manager was given by its own supervisor, or sets for each worker anew.
bool is_protocol_variable(std::string_view name) {
  static constexpr auto kNames = std::to_array<std::string_view>(
      {"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID", "NOTIFY_SOCKET",
       "WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE", "MAINPID", "SERVER_STARTER_PORT",
       "SERVER_STARTER_GENERATION"});
  return std::ranges::find(kNames, name) != kNames.end() || name.starts_with("EINHORN_") ||
         name.starts_with("OSTLER_");
}

bool is_minimal(std::string_view name) {
  return name == "PATH" || name == "HOME" || name == "LANG" || name == "TZ";
}

bool inherits(const config::Pool& pool, const std::string& name) {
  switch (pool.inherit_env) {
    case config::InheritEnv::kAll:
      return true;
    case config::InheritEnv::kMinimal:
      return is_minimal(name);
    case config::InheritEnv::kListed:
      return std::ranges::find(pool.inherit_names, name) != pool.inherit_names.end();
  }
  return false;
}

Environment inherited(const config::Pool& pool, const std::vector<std::string>& manager_env) {
  Environment environment;
  for (const std::string& entry : manager_env) {
    const auto equals = entry.find('=');
    if (equals == std::string::npos || equals == 0) continue;
    const std::string name = entry.substr(0, equals);
    if (!is_protocol_variable(name) && inherits(pool, name)) {
      environment[name] = entry.substr(equals + 1);
    }
  }
  return environment;
}

// Where a listener is in the worker.
int descriptor_of(const config::Pool& pool, std::size_t index) {
  return pool.socket_protocol == config::SocketProtocol::kFastcgi ? 0 : 3 + static_cast<int>(index);
}

std::string replace_tokens(std::string_view text, const config::Pool& pool, int slot,
                           core::Generation generation) {
  std::vector<std::string_view> names;
  for (const config::Listener& listener : pool.listen) names.push_back(listener.name);
  const auto fd = [&](std::string_view name) -> std::optional<std::string> {
    const auto found = name.empty() ? names.begin() : std::ranges::find(names, name);
    if (found == names.end()) return std::nullopt;
    return std::to_string(descriptor_of(pool, static_cast<std::size_t>(found - names.begin())));
  };
  return config::replace_tokens(text, names,
                                [&](const config::Token& token) -> std::optional<std::string> {
                                  switch (token.kind) {
                                    case config::TokenKind::kFd:
                                      return fd(token.name);
                                    case config::TokenKind::kSlot:
                                      return std::to_string(slot);
                                    case config::TokenKind::kPool:
                                      return pool.name;
                                    case config::TokenKind::kGeneration:
                                      return std::to_string(generation);
                                  }
                                  return std::nullopt;
                                });
}

std::string replace_tokens(std::string_view text, const config::Pool& pool,
                           const WorkerPlace& place) {
  return replace_tokens(text, pool, place.slot, place.generation);
}

std::string joined(const std::vector<std::string>& words, char separator) {
  std::string out;
  for (const std::string& word : words) {
    if (!out.empty()) out += separator;
    out += word;
  }
  return out;
}

bool inherits_sockets(const config::Pool& pool) {
  return !pool.listen.empty() && pool.socket_protocol != config::SocketProtocol::kFastcgi &&
         pool.accept != config::Accept::kDispatch;
}

// The sockets in the words of systemd, Einhorn and Server::Starter.
void add_sockets(Environment& environment, const config::Pool& pool, const WorkerPlace& place,
                 const Listeners& listeners) {
  if (pool.accept == config::Accept::kDispatch) environment[OSTLER_ENV_ACCEPT] = "dispatch";
  if (!inherits_sockets(pool)) return;
  std::vector<std::string> names;
  std::vector<std::string> starter;
  for (std::size_t i = 0; i < pool.listen.size(); ++i) {
    const std::string fd = std::to_string(descriptor_of(pool, i));
    names.push_back(pool.listen[i].name);
    starter.push_back(listeners.server_starter_name(Listeners::key(pool.name, pool.listen[i])) +
                      "=" + fd);
    environment["EINHORN_FD_" + std::to_string(i)] = fd;
  }
  environment["EINHORN_FD_COUNT"] = std::to_string(pool.listen.size());
  environment["SERVER_STARTER_PORT"] = joined(starter, ';');
  environment["SERVER_STARTER_GENERATION"] = std::to_string(place.generation);
  environment["LISTEN_FDS"] = std::to_string(pool.listen.size());
  environment["LISTEN_FDNAMES"] = joined(names, ':');
  environment["LISTEN_PID"] = "";  // the spawner writes it, between clone and exec
}

// The kernel is to ask for a drain if the manager dies. A signal that is ignored unless it is
// caught would leave the worker behind.
int death_signal(int stop_signal) {
  return stop_signal == SIGWINCH ? SIGTERM : stop_signal;
}

}  // namespace

namespace {

core::Accept accept_of(config::Accept accept) {
  switch (accept) {
    case config::Accept::kShared:
      return core::Accept::kShared;
    case config::Accept::kReuseport:
      return core::Accept::kReuseport;
    case config::Accept::kDispatch:
      return core::Accept::kDispatch;
  }
  return core::Accept::kShared;
}

core::ScalingPlan scaling_of(const config::ScaledWorkers& workers) {
  core::ScalingPlan scaling;
  scaling.min = workers.min;
  scaling.max = workers.max;
  scaling.by =
      workers.by == config::ScaleBy::kBusy ? core::ScaleBy::kBusy : core::ScaleBy::kBacklog;
  scaling.target = std::llround(workers.target * 1000);
  scaling.up_after = workers.up_after;
  scaling.down_after = workers.down_after;
  return scaling;
}

void set_workers(const config::Workers& workers, int automatic, core::PoolPlan& plan) {
  plan.workers = automatic;
  plan.workers_written = -1;
  if (const int* number = std::get_if<int>(&workers)) {
    plan.workers = plan.workers_written = *number;
  }
  if (const auto* scaled = std::get_if<config::ScaledWorkers>(&workers)) {
    plan.workers = scaled->min;
    plan.workers_written = -2;
    plan.scaling = scaling_of(*scaled);
  }
}

}  // namespace

namespace {

// A user that the user database does not know has no home and no shell: another's would be wrong.
std::map<std::string, std::optional<std::string>> user_environment(const config::Pool& pool) {
  if (!pool.user) return {};
  const auto entry = config::find_user_entry(*pool.user);
  if (!entry) {
    return {
        {"HOME", "/"}, {"USER", std::nullopt}, {"LOGNAME", std::nullopt}, {"SHELL", std::nullopt}};
  }
  return {{"HOME", entry->home},
          {"USER", entry->name},
          {"LOGNAME", entry->name},
          {"SHELL", entry->shell}};
}

std::string user_of(const config::Pool& pool) {
  if (!pool.user) return config::user_text(::geteuid());
  const auto entry = config::find_user_entry(*pool.user);
  return entry ? entry->name : *pool.user;
}

}  // namespace

std::shared_ptr<const Launch> make_launch(const config::Pool& pool) {
  return std::make_shared<const Launch>(
      Launch{pool, resolve_identity(pool.user, pool.group), user_of(pool), user_environment(pool)});
}

NotifyOwner notify_owner(const Launch& launch) {
  NotifyOwner owner{geteuid(), getegid()};
  if (launch.identity) owner = {launch.identity->uid, launch.identity->gid};
  owner.is_open = owner.uid == 0;
  return owner;
}

namespace {

void set_ready(const config::Pool& pool, core::PoolPlan& plan) {
  switch (pool.ready.mode) {
    case config::ReadyMode::kNotify:
      return;
    case config::ReadyMode::kListening:
      plan.ready_by = core::ReadyBy::kSight;
      return;
    case config::ReadyMode::kAfter:
      plan.ready_by = core::ReadyBy::kTime;
      plan.ready_after = pool.ready.after;
      return;
    case config::ReadyMode::kAuto:
      if (pool.listen.empty()) {
        plan.ready_after = std::chrono::seconds(1);
      } else if (pool.accept != config::Accept::kDispatch) {  // which waits for the channel alone
        plan.ready_by = core::ReadyBy::kWordAndSight;
      }
      return;
  }
}

}  // namespace

core::PoolPlan make_plan(const config::Pool& pool, core::LaunchId launch, int automatic_workers) {
  core::PoolPlan plan;
  plan.name = pool.name;
  plan.launch = launch;
  for (const config::Listener& listener : pool.listen) {
    plan.listeners.push_back(Listeners::key(pool.name, listener));
  }
  plan.accept = accept_of(pool.accept);
  set_workers(pool.workers, automatic_workers, plan);
  set_ready(pool, plan);
  plan.start_timeout = pool.timeouts.start;
  plan.heartbeat_timeout = pool.timeouts.heartbeat;
  plan.request_timeout = pool.timeouts.request;
  plan.stop_timeout = pool.timeouts.stop;
  plan.surge = {pool.replace.surge.count, pool.replace.surge.percent};
  plan.settle = pool.replace.settle;
  plan.attempts = pool.replace.attempts;
  plan.backoff = pool.restart.backoff;
  plan.backoff_max = pool.restart.backoff_max;
  plan.burst = pool.restart.burst;
  plan.reset_after = pool.restart.reset_after;
  if (pool.health) plan.health = core::HealthPlan{pool.health->interval, pool.health->failures};
  plan.warmup = static_cast<int>(pool.warmup.size());
  // With a socket of its own, any worker can be sent a request.
  const bool asked = !pool.warmup.empty() || (pool.health && pool.health->request);
  plan.needs_channel =
      plan.accept == core::Accept::kDispatch || (plan.accept == core::Accept::kShared && asked);
  plan.recycle.requests = pool.recycle.requests.value_or(0);
  plan.recycle.requests_jitter = pool.recycle.requests_jitter;
  plan.recycle.lifetime = pool.recycle.lifetime;
  plan.recycle.lifetime_jitter = pool.recycle.lifetime_jitter;
  plan.recycle.memory = pool.recycle.memory;
  return plan;
}

namespace {

// `key=value`, separated by blanks: durations in milliseconds, sizes in bytes.
std::string options_text(const config::WorkerSettings& settings) {
  std::vector<std::string> words;
  const auto add = [&](const std::string& key, std::string_view value) {
    words.push_back(key + "=" + std::string(value));
  };
  const auto number = [&](const char* key, const auto& value) {
    if (value) add(key, std::to_string(*value));
  };
  const auto time = [&](const char* key, const std::optional<config::Duration>& value) {
    using std::chrono::milliseconds;
    if (value) add(key, std::to_string(std::chrono::duration_cast<milliseconds>(*value).count()));
  };
  if (settings.worker_class) add("class", word(*settings.worker_class));
  number("threads", settings.threads);
  number("connections", settings.connections);
  time("keepalive", settings.keepalive);
  number("header_limit", settings.header_limit);
  number("body_limit", settings.body_limit);
  time("header_timeout", settings.header_timeout);
  time("body_timeout", settings.body_timeout);
  time("write_timeout", settings.write_timeout);
  if (settings.access_log) add("access_log", word(*settings.access_log));
  if (settings.trusted_proxies) add("trusted_proxies", joined(*settings.trusted_proxies, ','));
  return joined(words, ' ');
}

// What all that runs for a pool gets.
SpawnRequest common_request(const Launch& launch, Environment& environment,
                            const WorkerPlace& place) {
  const config::Pool& pool = launch.pool;
  environment = inherited(pool, place.manager_env);
  for (const auto& [name, value] : launch.user_env) {
    environment.erase(name);
    if (value) environment[name] = *value;
  }
  for (const auto& [name, value] : pool.env) {
    environment[name] = replace_tokens(value, pool, place);
  }
  environment["OSTLER_POOL"] = place.pool;
  environment["OSTLER_SLOT"] = std::to_string(place.slot);
  environment["OSTLER_GENERATION"] = std::to_string(place.generation);
  SpawnRequest request;
  request.directory = pool.folder;
  request.directory_is_own = !pool.directory;
  if (pool.folder && environment.contains("PWD") && !pool.env.contains("PWD")) {
    environment["PWD"] = *pool.folder;  // the manager's own may lead through a link
  }
  if (pool.umask) request.umask = static_cast<mode_t>(*pool.umask);
  request.identity = launch.identity;
  request.no_new_privileges = pool.no_new_privileges;
  request.user = launch.user;
  return request;
}

// A program's arguments, tokens replaced.
std::vector<std::string> words_of(const std::string& argv0, const std::vector<std::string>& words,
                                  const config::Pool& pool, const WorkerPlace& place) {
  std::vector<std::string> out = {argv0};
  for (std::size_t i = 1; i < words.size(); ++i) {
    out.push_back(replace_tokens(words[i], pool, place));
  }
  return out;
}

void put_environment(const Environment& environment, SpawnRequest& request) {
  for (const auto& [name, value] : environment) request.env.push_back(name + "=" + value);
}

// What the SDK, and nobody else, looks at.
void add_channel(const config::Pool& pool, const WorkerPlace& place, Environment& environment,
                 SpawnRequest& request) {
  constexpr int kFirst = 3;
  const auto pass = [&](const char* variable, int descriptor) {
    environment[variable] = std::to_string(kFirst + static_cast<int>(request.fds.size()));
    request.fds.push_back(descriptor);
  };
  pass(OSTLER_ENV_CHANNEL_FD, place.channel);
  pass(OSTLER_ENV_SCOREBOARD_FD, place.scoreboard);
  if (const std::string options = options_text(pool.worker); !options.empty()) {
    environment[OSTLER_ENV_WORKER_OPTIONS] = options;
  }
  if (place.recycle_requests > 0) {
    environment[OSTLER_ENV_RECYCLE_REQUESTS] = std::to_string(place.recycle_requests);
  }
  if (!pool.warmup.empty()) environment[OSTLER_ENV_WARMUP] = "1";
}

}  // namespace

std::string output_path(const Launch& launch, int slot, core::Generation generation) {
  return replace_tokens(launch.pool.output.path, launch.pool, slot, generation);
}

SpawnRequest make_check_request(const Launch& launch, const WorkerPlace& place, pid_t worker) {
  Environment environment;
  SpawnRequest request = common_request(launch, environment, place);
  request.executable = launch.pool.health->executable;
  request.argv = words_of(launch.pool.health->argv0, launch.pool.health->exec, launch.pool, place);
  environment["OSTLER_WORKER_PID"] = std::to_string(worker);
  put_environment(environment, request);
  return request;
}

SpawnRequest make_spawn_request(const Launch& launch, const WorkerPlace& place,
                                const Listeners& listeners) {
  const config::Pool& pool = launch.pool;
  Environment environment;
  SpawnRequest request = common_request(launch, environment, place);
  request.executable = pool.executable;
  request.argv = words_of(pool.argv0, pool.command, pool, place);
  environment["NOTIFY_SOCKET"] = place.notify_socket;
  if (pool.timeouts.heartbeat) {
    const auto limit =
        std::chrono::duration_cast<std::chrono::microseconds>(*pool.timeouts.heartbeat);
    environment["WATCHDOG_USEC"] = std::to_string(limit.count());
    environment["WATCHDOG_PID"] = "";
  }
  add_sockets(environment, pool, place, listeners);
  for (const config::Listener& listener : pool.listen) {
    if (pool.accept == config::Accept::kDispatch) break;
    const int fd = listeners.fd(Listeners::key(pool.name, listener), place.worker);
    if (pool.socket_protocol == config::SocketProtocol::kFastcgi) {
      request.stdin_fd = fd;
    } else {
      request.fds.push_back(fd);
    }
  }
  add_channel(pool, place, environment, request);
  put_environment(environment, request);
  request.death_signal = death_signal(pool.stop_signal);
  return request;
}

}  // namespace ostler::runtime
