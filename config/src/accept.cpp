#include "config/src/accept.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "config/src/scalars.hpp"
#include "config/src/walk.hpp"

namespace ostler::config {

std::string_view word(Accept accept) {
  switch (accept) {
    case Accept::kShared:
      return "shared";
    case Accept::kReuseport:
      return "reuseport";
    case Accept::kDispatch:
      return "dispatch";
  }
  return {};
}

std::string_view word(DispatchPolicy policy) {
  switch (policy) {
    case DispatchPolicy::kLeastConnections:
      return "least_connections";
    case DispatchPolicy::kRoundRobin:
      return "round_robin";
    case DispatchPolicy::kRandom:
      return "random";
  }
  return {};
}

std::string_view word(ScaleBy by) {
  switch (by) {
    case ScaleBy::kBusy:
      return "busy";
    case ScaleBy::kBacklog:
      return "backlog";
  }
  return {};
}

void read_accept(Reader& reader, const At& at, PoolDraft& out) {
  static constexpr std::array kChoices = {Choice<Accept>{"shared", Accept::kShared},
                                          Choice<Accept>{"reuseport", Accept::kReuseport},
                                          Choice<Accept>{"dispatch", Accept::kDispatch}};
  reader.choice(at, kChoices, out.pool.accept);
}

void read_dispatch(Reader& reader, const At& at, PoolDraft& out) {
  static constexpr std::array kChoices = {
      Choice<DispatchPolicy>{"least_connections", DispatchPolicy::kLeastConnections},
      Choice<DispatchPolicy>{"round_robin", DispatchPolicy::kRoundRobin},
      Choice<DispatchPolicy>{"random", DispatchPolicy::kRandom}};
  reader.choice(at, kChoices, out.pool.dispatch);
}

void read_workers(Reader& reader, const At& at, PoolDraft& out) {
  const Node& node = *at.node;
  if (node.kind == NodeKind::kMap) {
    out.pool.workers = ScaledWorkers{};
    return walk(reader, at, pool_keys(), out, "workers.");
  }
  if (node.kind == NodeKind::kScalar && node.text == "auto") {
    out.pool.workers = AutoWorkers{};
    return;
  }
  const auto number =
      node.kind == NodeKind::kScalar && node.plain ? parse_whole(node.text) : std::nullopt;
  if (!number || *number > kMostWorkers) {
    return reader.wrong(at,
                        "auto, a whole number from 0 to 10000, or a map such as {min: 2, max: 8}");
  }
  out.pool.workers = static_cast<int>(*number);
}

void read_workers_by(Reader& reader, const At& at, PoolDraft& out) {
  static constexpr std::array kChoices = {Choice<ScaleBy>{"busy", ScaleBy::kBusy},
                                          Choice<ScaleBy>{"backlog", ScaleBy::kBacklog}};
  reader.choice(at, kChoices, std::get<ScaledWorkers>(out.pool.workers).by);
}

// What it may be at most depends on `by`, which may stand behind it or in the defaults.
void read_workers_target(Reader& reader, const At& at, PoolDraft& out) {
  constexpr std::int64_t kMost = 100'000'000;
  const Node& node = *at.node;
  const auto thousandths =
      node.kind == NodeKind::kScalar && node.plain ? parse_thousandths(node.text) : std::nullopt;
  if (!thousandths || *thousandths < 1 || *thousandths > kMost) {
    return reader.wrong(at,
                        "a number such as 0.7, with at most three decimals: above 0 and up to 1 "
                        "with by: busy, up to 100000 with by: backlog");
  }
  std::get<ScaledWorkers>(out.pool.workers).target = static_cast<double>(*thousandths) / 1000;
}

}  // namespace ostler::config
