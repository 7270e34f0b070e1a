// ostler-bench-load: an open-loop HTTP load generator.
//
// A closed-loop client waits for an answer before it asks again, so it asks least while the server
// is slow, and hides what it should show (coordinated omission). Here every request has a planned
// time, from which its latency counts, whatever became of the others. See options.cpp for the
// usage.
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdio>
#include <ctime>
#include <exception>
#include <memory>
#include <thread>
#include <vector>

#include "engine.hpp"
#include "options.hpp"
#include "tally.hpp"

namespace ostler::bench {
namespace {

constexpr std::chrono::milliseconds kHeadStart{20};  // until every thread runs
constexpr std::chrono::milliseconds kTurn{5};

void raise_descriptor_limit() {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

sigset_t block_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

// True if a signal came.
bool signal_within(const sigset_t& signals, std::chrono::nanoseconds time) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(time);
  const timespec wait{seconds.count(), (time - seconds).count()};
  return ::sigtimedwait(&signals, nullptr, &wait) > 0;
}

// Until every held connection was answered or lost, and then for the time of the holding.
void hold(const Options& options, const sigset_t& signals, Shared& shared) {
  while (shared.outcomes < options.count && !shared.stop) {
    shared.stop = signal_within(signals, kTurn);
  }
  if (!shared.stop) {
    std::puts("holding");
    std::fflush(stdout);
    signal_within(signals, std::chrono::nanoseconds(static_cast<long>(options.seconds * 1e9)));
  }
  shared.hold_is_over = true;
}

void run(Engine& engine, std::atomic<unsigned>& running) {
  ::prctl(PR_SET_TIMERSLACK, 1UL);  // 50 us late is late
  try {
    engine.run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "ostler-bench-load: %s\n", error.what());
  }
  --running;
}

int load(const Options& options) {
  raise_descriptor_limit();
  const sigset_t signals = block_signals();
  const auto start = Clock::now() + kHeadStart;
  Shared shared;
  std::atomic<unsigned> running{options.threads};
  std::vector<std::unique_ptr<Engine>> engines;
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < options.threads; ++i) {
    engines.push_back(std::make_unique<Engine>(options, i, start, shared));
    threads.emplace_back([engine = engines.back().get(), &running] { run(*engine, running); });
  }
  if (options.connections == Connections::kHeld) hold(options, signals, shared);
  while (running > 0) {
    if (signal_within(signals, kTurn)) shared.stop = true;
  }
  Tally all(options, start);
  for (std::size_t i = 0; i < threads.size(); ++i) {
    threads[i].join();
    all.add(engines[i]->tally());
  }
  all.print();
  return 0;
}

}  // namespace
}  // namespace ostler::bench

int main(int argc, char** argv) {
  try {
    return ostler::bench::load(ostler::bench::parse_options(argc, argv));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "ostler-bench-load: %s\n", error.what());
    return 1;
  }
}
