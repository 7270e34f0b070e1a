// What the configuration asks for, in the core's words.
//
// The shell makes a Plan from a validated configuration; the core compares it with what is.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/ids.hpp"

namespace ostler::core {

// `surge`: a number of workers, or a share of the target.
struct Surge {
  int count = 1;
  bool percent = false;
  // Workers above `target` that may run at once; 0: a worker stops before its successor starts.
  [[nodiscard]] int of(int target) const;
  bool operator==(const Surge&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(count)(percent);
  }
};

// Health checks of a pool's workers.
struct HealthPlan {
  Duration interval = std::chrono::seconds(10);
  int failures = 3;  // in a row
  bool operator==(const HealthPlan&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(interval)(failures);
  }
};

// When workers are replaced though nothing is wrong with them.
struct RecyclePlan {
  std::uint64_t requests = 0;  // 0: never
  std::uint64_t requests_jitter = 0;
  std::optional<Duration> lifetime;
  Duration lifetime_jitter{};
  std::optional<std::uint64_t> memory;  // bytes
  bool operator==(const RecyclePlan&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(requests)(requests_jitter)(lifetime)(lifetime_jitter)(memory);
  }
};

// Who accepts connections.
enum class Accept {
  kShared,     // all workers, from one socket
  kReuseport,  // each worker from a socket of its own
  kDispatch,   // the manager
};

// When a worker can serve.
enum class ReadyBy {
  kWord,          // when it says READY=1
  kSight,         // when it is seen waiting for connections, whatever it says
  kWordAndSight,  // when it is seen waiting; if it says READY=1, after that
  kTime,          // after `ready_after`, whatever it says
};

// The number of workers follows the load, between `min` and `max`.
enum class ScaleBy {
  kBusy,     // target: the share of the ready workers' capacity in use
  kBacklog,  // target: connections that wait, per ready worker
};
const char* word(Accept accept);
const char* word(ScaleBy by);

struct ScalingPlan {
  int min = 1;
  int max = 1;
  ScaleBy by = ScaleBy::kBusy;
  std::int64_t target = 700;  // thousandths
  Duration up_after = std::chrono::seconds(2);
  Duration down_after = std::chrono::seconds(60);
  bool operator==(const ScalingPlan&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(min)(max)(by)(target)(up_after)(down_after);
  }
};

struct PoolPlan {
  std::string name;
  LaunchId launch;
  std::vector<std::string> listeners;  // keys: equal key, same socket
  Accept accept = Accept::kShared;
  int workers = 1;          // the target, `auto` resolved; with `scaling`: its min
  int workers_written = 1;  // as the file says; -1: auto; -2: by load
  std::optional<ScalingPlan> scaling;
  ReadyBy ready_by = ReadyBy::kWord;
  std::optional<Duration> ready_after;  // ready once alive for so long, if nothing said so before
  Duration start_timeout = std::chrono::seconds(60);
  std::optional<Duration> heartbeat_timeout;  // none: off
  std::optional<Duration> request_timeout;    // none: off
  Duration stop_timeout = std::chrono::seconds(30);
  Surge surge;
  Duration settle{};
  int attempts = 1;
  Duration backoff = std::chrono::milliseconds(100);
  Duration backoff_max = std::chrono::seconds(30);
  int burst = 5;
  Duration reset_after = std::chrono::seconds(10);
  std::optional<HealthPlan> health;
  int warmup = 0;              // requests a worker answers before it is ready
  bool needs_channel = false;  // to be warmed up or checked, a worker must speak the channel
  RecyclePlan recycle;
  bool operator==(const PoolPlan&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(name)(launch)(
        listeners)(accept)(workers)(workers_written)(scaling)(ready_by)(ready_after)(start_timeout)(heartbeat_timeout)(request_timeout)(stop_timeout)(surge)(settle)(attempts)(backoff)(backoff_max)(burst)(reset_after)(health)(warmup)(needs_channel)(recycle);
  }
};

struct Plan {
  std::vector<PoolPlan> pools;  // names are unique
  bool operator==(const Plan&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(pools);
  }
};

}  // namespace ostler::core
