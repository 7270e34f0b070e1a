#include "planner.hpp"

#include <algorithm>

namespace ostler::sim {

using namespace std::chrono_literals;
using core::Plan;
using core::PoolPlan;

namespace {

const std::vector<std::string> kNames = {"web", "api", "jobs", "mail", "feed"};
const std::vector<std::string> kKeys = {"a", "b", "c", "d", "e", "f"};

}  // namespace

Planner::Planner(std::uint64_t seed, int pools, int workers)
    : random_(seed),
      most_workers_(workers),
      cares_(workers <= 100 && random_.chance(0.6)),
      scales_(workers <= 100 && random_.chance(0.4)) {
  while (pools-- > 0) add_pool();
}

void Planner::set_workers(PoolPlan& pool) {
  pool.scaling.reset();
  if (scales_ && random_.chance(0.7)) return set_scaling(pool);
  pool.workers = random_.chance(0.1) ? random_.between(0, 1) : random_.between(1, most_workers_);
  pool.workers_written = random_.chance(0.2) ? -1 : pool.workers;
}

// Spans are short, so that a life has room for many of them.
void Planner::set_scaling(PoolPlan& pool) {
  core::ScalingPlan scaling;
  scaling.min = random_.chance(0.4) ? 0 : random_.between(1, most_workers_);
  scaling.max = scaling.min + random_.between(0, most_workers_ + 4);
  scaling.by = random_.chance(0.6) ? core::ScaleBy::kBusy : core::ScaleBy::kBacklog;
  const bool busy = scaling.by == core::ScaleBy::kBusy;
  scaling.target = busy ? random_.between(100, 1000) : random_.between(500, 20000);
  scaling.up_after = random_.chance(0.1) ? 0ns : random_.spread(100ms, 4s);
  const bool quick = random_.chance(0.6);
  scaling.down_after = quick ? random_.between(500ms, 2s) : random_.spread(2s, 20s);
  pool.scaling = scaling;
  pool.workers = scaling.min;
  pool.workers_written = -2;
}

// Every setting that the core knows, from one end of what is allowed to the other.
void Planner::vary(PoolPlan& pool) {
  pool.ready_after.reset();
  if (random_.chance(0.2)) pool.ready_after = random_.spread(10ms, 2s);
  pool.start_timeout = random_.spread(100ms, 60s);
  pool.ready_by = core::ReadyBy::kWord;
  if (random_.chance(0.5)) {
    pool.ready_by = random_.chance(0.7) ? core::ReadyBy::kWordAndSight : core::ReadyBy::kSight;
    const bool in_time = pool.ready_after && *pool.ready_after * 2 < pool.start_timeout;
    if (in_time && random_.chance(0.5)) pool.ready_by = core::ReadyBy::kTime;
  }
  pool.heartbeat_timeout.reset();
  if (random_.chance(0.5)) pool.heartbeat_timeout = random_.spread(500ms, 60s);
  pool.stop_timeout = random_.spread(50ms, 30s);
  pool.surge.percent = random_.chance(0.4);
  pool.surge.count = pool.surge.percent ? random_.between(1, 100) : random_.between(1, 3);
  if (random_.chance(0.2)) pool.surge.count = 0;
  pool.settle = random_.chance(0.5) ? 0ns : random_.spread(1ms, 5s);
  pool.attempts = random_.between(1, 3);
  pool.backoff = random_.spread(1ms, 1s);
  pool.backoff_max = pool.backoff * random_.between(1, 40);
  pool.burst = random_.between(0, 5);
  pool.reset_after = random_.spread(50ms, 20s);
  pool.accept = random_.chance(0.5) ? core::Accept::kReuseport
                                    : static_cast<core::Accept>(random_.between(0, 2));
  pool.needs_channel = false;
  if (cares_) vary_care(pool);
  pool.needs_channel = pool.needs_channel || pool.accept == core::Accept::kDispatch;
}

void Planner::vary_care(PoolPlan& pool) {
  pool.request_timeout.reset();
  if (random_.chance(0.4)) pool.request_timeout = random_.spread(500ms, 60s);
  pool.health.reset();
  if (random_.chance(0.4)) {
    const int failures = random_.chance(0.5) ? 1 : random_.between(2, 4);
    pool.health = core::HealthPlan{random_.spread(100ms, 60s), failures};
    // Some are found unhealthy while they are on trial.
    if (random_.chance(0.3)) pool.settle = std::min<core::Duration>(3 * pool.health->interval, 5s);
  }
  pool.warmup = random_.chance(0.4) ? random_.between(1, 3) : 0;
  pool.needs_channel = (pool.health || pool.warmup > 0) && random_.chance(0.7);
  core::RecyclePlan& recycle = pool.recycle = {};
  if (random_.chance(0.4)) recycle.requests = random_.below(1000) + 1;
  if (random_.chance(0.5)) recycle.requests_jitter = random_.below(100);
  if (random_.chance(0.3)) recycle.memory = random_.below(1000) + 1;
  if (!random_.chance(0.3)) return;
  // Long enough for all workers to be replaced in it, one after the other, even of a pool that is
  // scaled up by hand.
  recycle.lifetime = 10s * (1 + std::max(most_workers_, 12)) * random_.between(1, 5);
  if (random_.chance(0.5)) recycle.lifetime_jitter = random_.spread(1s, 100s);
}

PoolPlan Planner::make_pool(const std::string& name) {
  PoolPlan pool;
  pool.name = name;
  set_workers(pool);
  vary(pool);
  for (int count = random_.between(0, 2); count > 0; --count) add_listener(pool);
  return pool;
}

bool Planner::is_taken(const std::string& key) const {
  return std::ranges::any_of(pools_, [&](const PoolPlan& pool) {
    return std::ranges::find(pool.listeners, key) != pool.listeners.end();
  });
}

void Planner::add_listener(PoolPlan& pool) {
  const std::string& key = random_.pick(kKeys);
  const bool own = std::ranges::find(pool.listeners, key) != pool.listeners.end();
  if (!own && !is_taken(key)) pool.listeners.push_back(key);
}

void Planner::add_pool() {
  const std::string& name = random_.pick(kNames);
  const auto has_name = [&](const PoolPlan& pool) { return pool.name == name; };
  if (std::ranges::none_of(pools_, has_name)) pools_.push_back(make_pool(name));
}

void Planner::edit() {
  if (pools_.empty() || random_.chance(0.25)) return add_pool();
  const std::size_t index = static_cast<std::size_t>(random_.below(pools_.size()));
  PoolPlan& pool = pools_[index];
  switch (random_.between(0, 6)) {
    case 0:
      return set_workers(pool);
    case 1:
      return vary(pool);
    case 2:
      return add_listener(pool);
    case 3:
      if (!pool.listeners.empty()) pool.listeners.erase(pool.listeners.begin());
      return;
    case 4: {  // a socket that moves to another pool
      PoolPlan& other = pools_[static_cast<std::size_t>(random_.below(pools_.size()))];
      if (pool.listeners.empty() || &other == &pool) return;
      other.listeners.push_back(pool.listeners.back());
      pool.listeners.pop_back();
      return;
    }
    case 5: {  // another name
      const std::string& name = random_.pick(kNames);
      const auto has_name = [&](const PoolPlan& one) { return one.name == name; };
      if (std::ranges::none_of(pools_, has_name)) pool.name = name;
      return;
    }
    default:
      if (pools_.size() > 1) pools_.erase(pools_.begin() + static_cast<std::ptrdiff_t>(index));
  }
}

Plan Planner::read() {
  Plan plan;
  plan.pools = pools_;
  for (PoolPlan& pool : plan.pools) pool.launch = core::LaunchId{++launches_};
  return plan;
}

std::vector<std::string> Planner::names() const {
  return kNames;
}

}  // namespace ostler::sim
