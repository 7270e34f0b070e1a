// ostler-sim: lives of a manager by the thousand, each with its own faults, judged by the oracle.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "bench.hpp"
#include "corrupt.hpp"
#include "random.hpp"
#include "run.hpp"

namespace {

using namespace ostler::sim;

struct Arguments {
  std::uint64_t seed = 0;
  std::size_t runs = 0;  // 0: as many as the events ask for
  std::size_t events = 2000000;
  std::size_t events_per_run = 2000;
  std::size_t shown = 60;  // events before a fault
  std::string mistake;
  bool all_mistakes = false, bench = false, verbose = false;
};

[[noreturn]] void usage(int status) {
  std::fprintf(status == 0 ? stdout : stderr,
               "usage: ostler-sim [--seed N] [--runs N] [--events N] [--events-per-run N]\n"
               "                  [--show N] [--verbose] [--mistake NAME | --mistakes] [--bench]\n"
               "The seed comes from --seed, else from OSTLER_SIM_SEED, else from the clock.\n"
               "--show: how many events before a fault are shown (60).\n"
               "--mistake makes one on purpose: exit 0 if it is found. --mistakes: all of them.\n");
  for (const Mistake& mistake : mistakes()) {
    std::fprintf(status == 0 ? stdout : stderr, "  %-18s %s\n", mistake.name, mistake.what);
  }
  std::exit(status);
}

std::uint64_t number(const char* text) {
  char* end = nullptr;
  const std::uint64_t value = std::strtoull(text, &end, 0);
  if (end == text || *end != '\0') usage(2);
  return value;
}

std::uint64_t default_seed() {
  if (const char* text = std::getenv("OSTLER_SIM_SEED")) return number(text);
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(now.count()) % 1000000007U;
}

Arguments parse(int argc, char** argv) {
  Arguments arguments;
  bool seeded = false;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const auto value = [&]() -> const char* { return ++i < argc ? argv[i] : (usage(2), ""); };
    if (word == "--seed") {
      arguments.seed = number(value());
      seeded = true;
    } else if (word == "--runs") {
      arguments.runs = number(value());
    } else if (word == "--events") {
      arguments.events = number(value());
    } else if (word == "--events-per-run") {
      arguments.events_per_run = number(value());
    } else if (word == "--show") {
      arguments.shown = number(value());
    } else if (word == "--mistake") {
      arguments.mistake = value();
    } else if (word == "--mistakes") {
      arguments.all_mistakes = true;
    } else if (word == "--bench") {
      arguments.bench = true;
    } else if (word == "--verbose") {
      arguments.verbose = true;
    } else {
      usage(word == "--help" ? 0 : 2);
    }
  }
  if (!seeded) arguments.seed = default_seed();
  return arguments;
}

// The run once more, this time with its last events written down.
void explain(std::uint64_t seed, const RunOptions& options, const Result& result,
             std::size_t shown) {
  RunOptions again = options;
  again.log_from = result.events > shown ? result.events - shown : 0;
  for (const std::string& line : Run(seed, again).go().log) std::printf("  %s\n", line.c_str());
  std::printf("broken after %zu events: %s\n", result.events, result.fault.c_str());
  std::printf("again: ostler-sim --seed %llu --runs 1 --events-per-run %zu%s%s\n",
              static_cast<unsigned long long>(seed), options.events,
              options.mistake.empty() ? "" : " --mistake ", options.mistake.c_str());
}

// True if a rule was broken.
bool simulate(const Arguments& arguments, const std::string& mistake) {
  RunOptions options;
  options.events = arguments.events_per_run;
  options.mistake = mistake;
  std::size_t events = 0, runs = 0;
  const auto more = [&] {
    return arguments.runs > 0 ? runs < arguments.runs : events < arguments.events;
  };
  std::uint64_t seed = arguments.seed;
  // Seeds that lie apart like successive states of the generator would make each run repeat the one
  // before, one draw on.
  for (; more(); seed = Random(seed).next(), ++runs) {
    const Result result = Run(seed, options).go();
    events += result.events;
    if (arguments.verbose) {
      std::printf("run %zu, seed %llu: %zu events\n", runs, static_cast<unsigned long long>(seed),
                  result.events);
    }
    if (result.fault.empty()) continue;
    if (mistake.empty() || arguments.verbose) explain(seed, options, result, arguments.shown);
    if (!mistake.empty()) {
      std::printf("%-18s found after %9zu events: %s\n", mistake.c_str(), events,
                  result.fault.c_str());
    }
    return true;
  }
  std::printf("%s%zu events in %zu runs, no rule broken\n",
              mistake.empty() ? "" : (mistake + ": ").c_str(), events, runs);
  return false;
}

int find_mistakes(const Arguments& arguments) {
  int missed = 0;
  for (const Mistake& mistake : mistakes()) {
    if (!arguments.mistake.empty() && arguments.mistake != mistake.name) continue;
    if (!simulate(arguments, mistake.name)) ++missed;
  }
  std::printf("%d mistakes were not found\n", missed);
  return missed == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments = parse(argc, argv);
  std::printf("seed %llu\n", static_cast<unsigned long long>(arguments.seed));
  std::fflush(stdout);
  if (arguments.bench) return bench(arguments.seed, arguments.events);
  if (arguments.all_mistakes || !arguments.mistake.empty()) return find_mistakes(arguments);
  return simulate(arguments, "") ? 1 : 0;
}
