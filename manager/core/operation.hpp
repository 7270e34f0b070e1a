// Requests that wait for their outcome.
#pragma once

#include <map>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "core/action.hpp"
#include "core/event.hpp"
#include "core/ids.hpp"

namespace ostler::core {

// A reload or restart in progress; also the first start. At most one at a time.
struct Reload {
  OperationId op;
  bool first = false;    // the manager's start: nothing to roll back to
  bool restart = false;  // the settings stay
  Plan plan;
  std::string only;
  // Before anything else changes, new listeners are opened.
  std::set<std::string> opening;  // asked for, not answered yet
  std::set<std::string> opened;
  std::vector<Failure> faults;
  bool committed = false;    // the pools are rolling
  std::set<PoolId> waiting;  // pools whose outcome is not known yet
  std::vector<PoolOutcome> outcomes;
  Time started{};
  bool operator==(const Reload&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(op)(first)(
        restart)(plan)(only)(opening)(opened)(faults)(committed)(waiting)(outcomes)(started);
  }
};

// Waits until one worker is gone and, for a recycle, its slot serves again.
struct WorkerOperation {
  OperationId op;
  WorkerRequest request = WorkerRequest::kRecycle;
  PoolId pool;
  int slot = 0;
  WorkerId worker;
  bool operator==(const WorkerOperation&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(op)(request)(pool)(slot)(worker);
  }
};

// A reload that waits for its turn.
using QueuedReload = std::variant<PlanAccepted, RestartRequested>;

}  // namespace ostler::core
