// Who gets a connection and how many workers there are: `accept`, `dispatch`, `workers`.
#include "config/src/accept.hpp"

#include <doctest/doctest.h>

#include "stable.hpp"

namespace ostler::config {
namespace {

using namespace std::chrono_literals;

const std::string kTcp = "  listen: [tcp://:0]\n";

ScaledWorkers scaled(const Stable& stable, const std::string& map) {
  return std::get<ScaledWorkers>(stable.pool(kTcp + "  workers: " + map).workers);
}

}  // namespace

TEST_CASE("ways to share a listener") {
  const Stable stable;
  CHECK(stable.pool("").accept == Accept::kShared);
  CHECK(stable.pool(kTcp + "  accept: shared").accept == Accept::kShared);
  CHECK(stable.pool(kTcp + "  accept: reuseport").accept == Accept::kReuseport);
  const Pool pool = stable.pool(kTcp + "  accept: dispatch");
  CHECK(pool.accept == Accept::kDispatch);
  CHECK(pool.dispatch == DispatchPolicy::kLeastConnections);
  const auto policy = [&](const std::string& word) {
    return stable.pool(kTcp + "  accept: dispatch\n  dispatch: " + word).dispatch;
  };
  CHECK(policy("least_connections") == DispatchPolicy::kLeastConnections);
  CHECK(policy("round_robin") == DispatchPolicy::kRoundRobin);
  CHECK(policy("random") == DispatchPolicy::kRandom);
  CHECK(has(stable.pool_faults(kTcp + "  accept: dispatch\n  dispatch: round-robin"),
            {"dispatch: must be least_connections, round_robin or random, not 'round-robin'; did "
             "you mean 'round_robin'?"}));
}

TEST_CASE("a socket for each worker there is on tcp alone") {
  const Stable stable;
  const auto faults = [&](const std::string& listen) {
    return stable.pool_faults("  accept: reuseport\n  listen: [" + listen + "]");
  };
  CHECK(faults("tcp://:0, \"tcp://[::1]:0\"").empty());
  CHECK(faults("tcp://:0, unix:///x") ==
        Lines{"t.yaml:5:22: pools.app.listen[1]: accept: reuseport needs a socket for each worker, "
              "which there is on tcp alone; use tcp://HOST:PORT, or accept: shared or dispatch"});
  CHECK(has(faults("{name: a, address: unix:@x}"),
            {"t.yaml:5:31: pools.app.listen[0].address: accept: reuseport needs"}));
  CHECK(has(faults("inherit:web"), {"listen[0]: accept: reuseport needs"}));
  CHECK(faults("inherit:web, unix:///x").size() == 2);
  CHECK(faults("web").size() == 1);  // no address at all: nothing follows from it
  CHECK(stable.pool_faults("  accept: shared\n  listen: [unix:///x, inherit:web]").empty());
  CHECK(stable.pool_faults("  accept: dispatch\n  listen: [unix:///x, inherit:web]").empty());
}

TEST_CASE("with no listener there is nothing to share") {
  const Stable stable;
  for (const char* accept : {"reuseport", "dispatch"}) {
    CAPTURE(accept);
    const std::string line = "  accept: " + std::string(accept);
    CHECK(stable.pool_faults(line) ==
          Lines{"t.yaml:4:11: pools.app.accept: says how workers share listeners, and the pool "
                "'app' has none; use accept: shared, or give it one with 'listen:'"});
    CHECK(stable.pool_faults(line + "\n  listen: [x]").size() == 1);
  }
  CHECK(stable.pool_faults("  accept: shared").empty());
}

TEST_CASE("connections are handed to workers that know how to take them") {
  const Stable stable;
  const std::string dispatch = kTcp + "  accept: dispatch\n";
  CHECK(stable.pool_faults(dispatch + "  socket_protocol: fastcgi") ==
        Lines{"t.yaml:5:11: pools.app.accept: is for workers built on the SDK, which are handed "
              "connections, and those of the pool 'app' speak fastcgi; use accept: shared, or "
              "leave 'socket_protocol' out"});
  CHECK(stable.pool_faults(kTcp + "  accept: reuseport\n  socket_protocol: fastcgi").empty());
  CHECK(stable
            .pool_faults(dispatch + "  ready: {after: 2s}\n  warmup: [GET /]\n"
                                    "  health: {request: GET /}")
            .empty());
  const std::string what =
      "holds {fd}, but with accept: dispatch workers are handed connections and no listener; leave "
      "it out, or use accept: shared";
  CHECK(stable.pool_faults(dispatch + "  env: {A: \"x {fd}\", B: \"{fd:http}\", C: \"{slot}\"}") ==
        Lines{"t.yaml:6:12: pools.app.env.A: " + what, "t.yaml:6:25: pools.app.env.B: " + what});
  CHECK(stable.faults("pools:\n app:\n  command: [app, --fd, \"{fd:none}\"]\n" + dispatch) ==
        Lines{"t.yaml:3:24: pools.app.command[2]: " + what});
  CHECK(stable
            .faults("pools:\n app:\n  command: [app, --fd, \"{fd}\"]\n" + kTcp +
                    "  accept: reuseport")
            .empty());
}

TEST_CASE("who gets a connection is asked only where connections are handed out") {
  const Stable stable;
  CHECK(stable.pool_faults(kTcp + "  dispatch: random") ==
        Lines{"t.yaml:5:13: pools.app.dispatch: goes with accept: dispatch, and accept is shared; "
              "leave it out, or set accept: dispatch"});
  CHECK(has(stable.pool_faults(kTcp + "  accept: reuseport\n  dispatch: least_connections"),
            {"and accept is reuseport"}));
  // What accept was meant to be is not known.
  CHECK(stable.pool_faults(kTcp + "  accept: dispach\n  dispatch: random").size() == 1);
  // In the defaults it is for the pools that dispatch, and of no meaning to others.
  const Loaded loaded = stable.load(
      "defaults: {accept: dispatch, dispatch: random, command: app}\n"
      "pools: {a: {listen: [tcp://:0]}, b: {accept: shared}}");
  CHECK(texts(loaded.faults) == Lines{});
  CHECK(loaded.config.pools.at("a").dispatch == DispatchPolicy::kRandom);
  CHECK(loaded.config.pools.at("b").dispatch == DispatchPolicy::kLeastConnections);
  CHECK(has(stable.faults("defaults: {accept: dispatch, command: app}\npools: {a: {}}"),
            {"t.yaml:1:20: defaults.accept: ", "the pool 'a' has none"}));
}

TEST_CASE("as many workers as the load asks for") {
  const Stable stable;
  CHECK(scaled(stable, "{max: 8}") == ScaledWorkers{1, 8, ScaleBy::kBusy, 0.7, 2s, 60s});
  CHECK(scaled(stable, "{max: 8, by: backlog}") ==
        ScaledWorkers{1, 8, ScaleBy::kBacklog, 1, 2s, 60s});
  CHECK(
      scaled(stable,
             "{target: 99999.5, by: backlog, min: 0, max: 10000, up_after: 1ms, down_after: 1d}") ==
      ScaledWorkers{0, 10000, ScaleBy::kBacklog, 99999.5, 1ms, 24h});
  CHECK(scaled(stable, "{min: 4, max: 4, by: busy, target: 1}").target == 1);
  CHECK(stable.pool_faults("  workers: {max: 8}").empty());  // busy needs no listener
}

TEST_CASE("the load to keep to is a number of thousandths") {
  const Stable stable;
  const auto faults = [&](const std::string& target) {
    return stable.pool_faults(kTcp + "  workers: {max: 8, by: backlog, target: " + target + "}");
  };
  CHECK(scaled(stable, "{max: 8, target: 0.001}").target == 0.001);
  CHECK(scaled(stable, "{max: 8, target: 0.7000}").target == 0.7);
  CHECK(scaled(stable, "{max: 8, target: 1.0}").target == 1);
  for (const char* target : {"0", "0.0", "-1", "0.0001", "0.70001", "1e1", ".5", "1.", "0x1", "01",
                             "70%", "\"1\"", "100000.001", "99999999999999999999", "", "[1]"}) {
    CAPTURE(target);
    CHECK(has(faults(target), {"t.yaml:5:",
                               "pools.app.workers.target: must be a number such as 0.7, "
                               "with at most three decimals: above 0 and up to 1 with by: busy, up "
                               "to 100000 with by: backlog, not "}));
  }
  CHECK(stable.pool_faults(kTcp + "  workers: {max: 8, target: 1.001}") ==
        Lines{"t.yaml:5:29: pools.app.workers.target: is a share of the workers' capacity with by: "
              "busy, above 0 and up to 1, not '1.001'; or use by: backlog"});
}

TEST_CASE("faulty scaling") {
  const Stable stable;
  const auto faults = [&](const std::string& map) {
    return stable.pool_faults(kTcp + "  workers: " + map);
  };
  const Lines no_max = {
      "t.yaml:5:12: pools.app.workers: needs a 'max', such as {min: 2, max: 8}; "
      "or give a number, or auto"};
  CHECK(faults("{}") == no_max);
  CHECK(faults("{min: 2}") == no_max);
  CHECK(faults("{max: 2, min: 3}") ==
        Lines{"t.yaml:5:18: pools.app.workers.max: must not be below min, which is 3"});
  CHECK(has(faults("{max: 0}"), {"workers.max: must be a whole number from 1 to 10000, not '0'"}));
  CHECK(has(faults("{max: 10001}"), {"workers.max"}));
  CHECK(has(faults("{max: 8, min: -1}"), {"workers.min: must be a whole number from 0 to 10000"}));
  CHECK(has(faults("{max: 8, by: load}"), {"workers.by: must be busy or backlog, not 'load'"}));
  CHECK(has(faults("{max: 8, up_after: 0}"), {"workers.up_after: must be from 1ms to 365d"}));
  CHECK(has(faults("{max: 8, down_after: soon}"), {"workers.down_after: must be a duration"}));
  CHECK(faults("{mx: 8}") ==
        Lines{"t.yaml:5:13: pools.app.workers.mx: unknown key 'mx'; did you mean 'max'?"});
  CHECK(faults("{max: 0, by: load, target: x}").size() == 3);
  CHECK(has(faults("[1, 8]"), {"or a map such as {min: 2, max: 8}, not a list"}));
}

TEST_CASE("without a listener no connection waits, and none wakes a pool of no workers") {
  const Stable stable;
  CHECK(stable.pool_faults("  workers: {min: 0, max: 8, by: backlog}") ==
        Lines{"t.yaml:4:18: pools.app.workers.min: with no worker only a connection can ask for "
              "one, and the pool has no listener; use at least 1, or give it one with 'listen:'",
              "t.yaml:4:33: pools.app.workers.by: backlog counts connections that wait at a "
              "listener, and the pool has none; use by: busy, or give it one with 'listen:'"});
  CHECK(stable.pool_faults(kTcp + "  workers: {min: 0, max: 8, by: backlog}").empty());
  CHECK(stable.pool_faults("  listen: [x]\n  workers: {min: 0, max: 8, by: backlog}").size() == 1);
  CHECK(stable.pool_faults("  workers: 0").empty());
}

TEST_CASE("a pool adds to the defaults' scaling, or has a number instead") {
  const Stable stable;
  const Loaded loaded = stable.load(
      "defaults: {command: app, listen: [], workers: {min: 2, target: 0.5}}\n"
      "pools: {a: {workers: {max: 4}}, b: {workers: 3}, c: {workers: {max: 9, min: 1}}}");
  CHECK(texts(loaded.faults) == Lines{});
  const auto& pools = loaded.config.pools;
  CHECK(std::get<ScaledWorkers>(pools.at("a").workers) ==
        ScaledWorkers{2, 4, ScaleBy::kBusy, 0.5, 2s, 60s});
  CHECK(std::get<int>(pools.at("b").workers) == 3);
  CHECK(std::get<ScaledWorkers>(pools.at("c").workers).min == 1);
  CHECK(has(stable.faults("defaults: {command: app, workers: {min: 2}}\npools: {a: {}}"),
            {"t.yaml:1:35: defaults.workers: needs a 'max'"}));
  CHECK(stable.faults("defaults: {workers: {min: 2}}\npools: {}").empty());
}

}  // namespace ostler::config
