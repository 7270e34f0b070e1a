#include "runtime/launch.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <map>
#include <string_view>

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

// {fd}, {fd:NAME}, {slot}, {pool}, {generation}; any other brace is left as it is.
std::string replace_tokens(std::string_view text, const config::Pool& pool,
                           const WorkerPlace& place) {
  Environment tokens{{"{slot}", std::to_string(place.slot)},
                     {"{pool}", place.pool},
                     {"{generation}", std::to_string(place.generation)}};
  for (std::size_t i = pool.listen.size(); i-- > 0;) {
    const std::string fd = std::to_string(descriptor_of(pool, i));
    tokens["{fd:" + pool.listen[i].name + "}"] = fd;
    tokens["{fd}"] = fd;
  }
  std::string out;
  while (!text.empty()) {
    const auto open = text.find('{');
    out += text.substr(0, open);
    if (open == std::string_view::npos) break;
    text.remove_prefix(open);
    const auto token = std::ranges::find_if(
        tokens, [&](const auto& entry) { return text.starts_with(entry.first); });
    if (token == tokens.end()) {
      out += '{';
      text.remove_prefix(1);
    } else {
      out += token->second;
      text.remove_prefix(token->first.size());
    }
  }
  return out;
}

std::string joined(const std::vector<std::string>& words, char separator) {
  std::string out;
  for (const std::string& word : words) {
    if (!out.empty()) out += separator;
    out += word;
  }
  return out;
}

// The sockets in the words of systemd, Einhorn and Server::Starter.
void add_sockets(Environment& environment, const config::Pool& pool, const WorkerPlace& place,
                 const Listeners& listeners) {
  if (pool.listen.empty() || pool.socket_protocol == config::SocketProtocol::kFastcgi) return;
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

std::shared_ptr<const Launch> make_launch(const config::Pool& pool) {
  return std::make_shared<const Launch>(Launch{pool, resolve_identity(pool.user, pool.group)});
}

core::PoolPlan make_plan(const config::Pool& pool, core::LaunchId launch, int automatic_workers) {
  core::PoolPlan plan;
  plan.name = pool.name;
  plan.launch = launch;
  for (const config::Listener& listener : pool.listen) {
    plan.listeners.push_back(Listeners::key(pool.name, listener));
  }
  const int* written = std::get_if<int>(&pool.workers);
  plan.workers = written != nullptr ? *written : automatic_workers;
  plan.workers_written = written != nullptr ? *written : -1;
  if (pool.ready.mode == config::ReadyMode::kAfter) plan.ready_after = pool.ready.after;
  if (pool.ready.mode == config::ReadyMode::kAuto && pool.listen.empty()) {
    plan.ready_after = std::chrono::seconds(1);
  }
  plan.start_timeout = pool.timeouts.start;
  plan.heartbeat_timeout = pool.timeouts.heartbeat;
  plan.stop_timeout = pool.timeouts.stop;
  plan.surge = {pool.replace.surge.count, pool.replace.surge.percent};
  plan.settle = pool.replace.settle;
  plan.attempts = pool.replace.attempts;
  plan.backoff = pool.restart.backoff;
  plan.backoff_max = pool.restart.backoff_max;
  plan.burst = pool.restart.burst;
  plan.reset_after = pool.restart.reset_after;
  return plan;
}

SpawnRequest make_spawn_request(const Launch& launch, const WorkerPlace& place,
                                const Listeners& listeners) {
  const config::Pool& pool = launch.pool;
  SpawnRequest request;
  request.executable = pool.executable;
  for (const std::string& word : pool.command) {
    request.argv.push_back(replace_tokens(word, pool, place));
  }
  Environment environment = inherited(pool, place.manager_env);
  for (const auto& [name, value] : pool.env) {
    environment[name] = replace_tokens(value, pool, place);
  }
  environment["OSTLER_POOL"] = place.pool;
  environment["OSTLER_SLOT"] = std::to_string(place.slot);
  environment["OSTLER_GENERATION"] = std::to_string(place.generation);
  environment["NOTIFY_SOCKET"] = place.notify_socket;
  if (pool.timeouts.heartbeat) {
    const auto limit =
        std::chrono::duration_cast<std::chrono::microseconds>(*pool.timeouts.heartbeat);
    environment["WATCHDOG_USEC"] = std::to_string(limit.count());
    environment["WATCHDOG_PID"] = "";
  }
  add_sockets(environment, pool, place, listeners);
  for (const auto& [name, value] : environment) request.env.push_back(name + "=" + value);
  for (const config::Listener& listener : pool.listen) {
    const int fd = listeners.fd(Listeners::key(pool.name, listener));
    if (pool.socket_protocol == config::SocketProtocol::kFastcgi) {
      request.stdin_fd = fd;
    } else {
      request.fds.push_back(fd);
    }
  }
  request.directory = pool.directory;
  if (pool.umask) request.umask = static_cast<mode_t>(*pool.umask);
  request.identity = launch.identity;
  request.death_signal = death_signal(pool.stop_signal);
  return request;
}

}  // namespace ostler::runtime
