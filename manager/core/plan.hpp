// What the configuration asks for, in the core's words.
//
// The shell makes a Plan from a validated configuration; the core compares it with what is.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/ids.hpp"

namespace ostler::core {

// `surge`: a number of workers, or a share of the target.
struct Surge {
  int count = 1;
  bool percent = false;
  // Workers above `target` that may run at once; at least 1.
  [[nodiscard]] int of(int target) const;
  bool operator==(const Surge&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(count)(percent);
  }
};

struct PoolPlan {
  std::string name;
  LaunchId launch;
  std::vector<std::string> listeners;   // keys: equal key, same socket
  int workers = 1;                      // the target, `auto` resolved
  int workers_written = 1;              // as the file says; -1: auto
  std::optional<Duration> ready_after;  // ready once alive for so long, if nothing said so before
  Duration start_timeout = std::chrono::seconds(60);
  std::optional<Duration> heartbeat_timeout;  // none: off
  Duration stop_timeout = std::chrono::seconds(30);
  Surge surge;
  Duration settle{};
  int attempts = 1;
  Duration backoff = std::chrono::milliseconds(100);
  Duration backoff_max = std::chrono::seconds(30);
  int burst = 5;
  Duration reset_after = std::chrono::seconds(10);
  bool operator==(const PoolPlan&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(name)(launch)(
        listeners)(workers)(workers_written)(ready_after)(start_timeout)(heartbeat_timeout)(stop_timeout)(surge)(settle)(attempts)(backoff)(backoff_max)(burst)(reset_after);
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
