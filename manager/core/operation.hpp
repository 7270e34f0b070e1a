// Requests that wait for their outcome.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/action.hpp"
#include "core/ids.hpp"
#include "core/plan.hpp"

namespace ostler::core {

// Somebody who asked for a reload or a restart, and of what.
struct Asker {
  OperationId op;        // none: nobody waits for the answer
  std::string pool;      // "": all
  bool restart = false;  // the settings stay
  [[nodiscard]] bool names(const std::string& name) const { return pool.empty() || pool == name; }
  // What the other one asks for is done if this is done.
  [[nodiscard]] bool covers(const Asker& other) const;
  bool operator==(const Asker&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(op)(pool)(restart);
  }
};

// A reload or restart in progress; also the first start. At most one at a time. What is to be done
// is what its askers name: where a reload was asked for, the file decides; pools of which only a
// restart was asked for keep their settings.
struct Reload {
  std::vector<Asker> askers;  // not answered yet; never empty
  bool first = false;         // the manager's start: nothing to roll back to
  bool reading = false;       // the shell reads the file
  Plan plan;
  // Before anything else changes, new listeners are opened.
  std::set<std::string> opening;  // asked for, not answered yet
  std::set<std::string> opened;
  std::vector<Failure> faults;
  bool committed = false;    // the pools are rolling
  std::set<PoolId> waiting;  // pools whose outcome is not known yet
  // Pools that the file no longer has, each with those that got one of its listeners and whose
  // outcome is not known: until then it serves, and it stays if one of them is rolled back.
  std::map<PoolId, std::set<PoolId>> heirs;
  std::vector<PoolOutcome> outcomes;
  Time started{};
  // Whether the file decides about this pool.
  [[nodiscard]] bool reloads(const std::string& pool) const;
  [[nodiscard]] bool names(const std::string& pool) const;
  // The only pool that is named; "": several, or all.
  [[nodiscard]] std::string only() const;
  bool operator==(const Reload&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(askers)(first)(
        reading)(plan)(opening)(opened)(faults)(committed)(waiting)(heirs)(outcomes)(started);
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

}  // namespace ostler::core
