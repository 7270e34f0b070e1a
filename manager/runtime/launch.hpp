// From a configured pool to what a worker of it is started with: the plan for the core, the
// command line and the environment for the spawner.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "config/src/model.hpp"
#include "core/action.hpp"
#include "core/plan.hpp"
#include "runtime/listeners.hpp"
#include "runtime/notify_folder.hpp"
#include "runtime/spawner.hpp"

namespace ostler::runtime {

// The settings that workers of one generation share. What is behind a core::LaunchId.
struct Launch {
  config::Pool pool;
  std::optional<Identity> identity;
  std::string user;  // whom workers run as: the name, or the number if there is none
  // What a login as the pool's `user` would set; a variable without a value is taken away.
  std::map<std::string, std::optional<std::string>> user_env;
};

// Throws std::runtime_error if the pool's user or group cannot be resolved.
std::shared_ptr<const Launch> make_launch(const config::Pool& pool);

// Who may send to the notify socket of its workers.
NotifyOwner notify_owner(const Launch& launch);

core::PoolPlan make_plan(const config::Pool& pool, core::LaunchId launch, int automatic_workers);

// What of a worker's start the launch does not know.
struct WorkerPlace {
  std::string pool;
  int slot = 0;
  core::Generation generation = 0;
  std::string notify_socket;
  std::vector<std::string> manager_env;  // the manager's own, "KEY=VALUE"
  core::WorkerId worker;                 // whose sockets it gets
  std::uint64_t recycle_requests = 0;    // 0: never
  int channel = -1;                      // the worker's ends of its channel
  int scoreboard = -1;
};

// The worker's argv, environment and descriptors; output and limits are the caller's.
SpawnRequest make_spawn_request(const Launch& launch, const WorkerPlace& place,
                                const Listeners& listeners);

// The file of `output`, tokens replaced.
std::string output_path(const Launch& launch, int slot, core::Generation generation);

// A health check's: as the worker's, but with no descriptors, and with OSTLER_WORKER_PID.
SpawnRequest make_check_request(const Launch& launch, const WorkerPlace& place, pid_t worker);

}  // namespace ostler::runtime
