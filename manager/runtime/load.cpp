#include "runtime/load.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>
#include <utility>

#include "runtime/clock.hpp"
#include "runtime/limits.hpp"
#include "runtime/usage.hpp"

namespace ostler::runtime {

namespace {

// How much of its capacity a worker uses at the moment; none: its CPU time has to tell.
std::optional<double> share_of(const LoadMeter::Source& source) {
  if (source.board == nullptr) return std::nullopt;
  const Figures figures = source.board->figures(now());
  if (figures.concurrency == 0) return std::nullopt;
  const auto most = static_cast<double>(figures.concurrency);
  return std::min(1., static_cast<double>(figures.active) / most);
}

}  // namespace

LoadMeter::LoadMeter(boost::asio::io_context& context, Sources sources)
    : timer_(context), sources_(std::move(sources)) {}

LoadMeter::Load LoadMeter::measure(core::PoolId pool) {
  Meter& meter = meters_[pool];
  sample(pool, meter);
  std::map<core::WorkerId, Cpu> seen;
  double used = 0;
  double workers = 0;
  for (const Source& source : sources_(pool)) {
    if (share_of(source)) continue;
    used += cpu_share(source, seen, meter.cpu);
    ++workers;
  }
  const Load load{std::llround(1000 * (used + meter.used)),
                  std::llround(1000 * (workers + meter.capacity))};
  meter = Meter{};
  meter.asked = now();
  meter.cpu = std::move(seen);
  arm();
  return load;
}

double LoadMeter::cpu_share(const Source& source, std::map<core::WorkerId, Cpu>& seen,
                            const std::map<core::WorkerId, Cpu>& before) {
  const Cpu cpu{cpu_seconds_of_all(source.pid), now()};
  seen[source.worker] = cpu;
  const auto last = before.find(source.worker);
  if (last == before.end()) return 0;
  const std::chrono::duration<double> time = cpu.at - last->second.at;
  const double share = (cpu.used - last->second.used) / std::max(time.count(), 0.001);
  // Requests that wait for something else need no CPU, but their worker.
  const bool serves = source.board != nullptr && source.board->figures(cpu.at).active > 0;
  return share < limits::kNoShare ? (serves ? 0.001 : 0) : std::min(share, 1.);
}

void LoadMeter::sample(core::PoolId pool, Meter& meter) {
  double used = 0;
  double capacity = 0;
  for (const Source& source : sources_(pool)) {
    const auto share = share_of(source);
    if (!share) continue;
    used += *share;
    ++capacity;
  }
  ++meter.samples;
  meter.used += (used - meter.used) / meter.samples;
  meter.capacity += (capacity - meter.capacity) / meter.samples;
}

void LoadMeter::arm() {
  if (std::exchange(armed_, true)) return;
  timer_.expires_after(limits::kSampleLoad);
  timer_.async_wait([this](const boost::system::error_code& error) {
    armed_ = false;
    if (error) return;
    std::erase_if(meters_, [](const auto& entry) {
      return now() - entry.second.asked > limits::kLoadForgotten;
    });
    for (auto& [pool, meter] : meters_) sample(pool, meter);
    if (!meters_.empty()) arm();
  });
}

}  // namespace ostler::runtime
