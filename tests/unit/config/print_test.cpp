// What is printed reads back the same, whatever it is.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <random>

#include "config/src/address.hpp"
#include "stable.hpp"

namespace ostler::config {
namespace {

void check_round_trip(const Stable& stable, Config config) {
  const std::string text = print(config);
  CAPTURE(text);
  Loaded again = load_text(stable.host, text, "t.yaml", {});
  CHECK(texts(again.faults) == Lines{});
  config.file = again.config.file;
  CHECK(again.config == config);
  CHECK(print(again.config) == text);
}

// A configuration of values that are all allowed, and as odd as they may be.
class RandomConfig {
 public:
  RandomConfig(unsigned seed, const Stable& stable) : random_(seed), stable_(stable) {}

  Config make() {
    Config config;
    if (maybe()) config.control.socket = path() + ".sock";
    if (maybe()) config.control.mode = mode();
    if (maybe()) config.control.group = "root";
    config.log.level = static_cast<LogLevel>(number(0, 4));
    config.log.format = static_cast<LogFormat>(number(0, 1));
    config.log.output = static_cast<LogOutput>(number(0, 3));
    if (config.log.output == LogOutput::kFile) config.log.path = path() + ".log";
    const int pools = number(0, 3);
    for (int i = 0; i < pools; ++i) {
      Pool pool = make_pool();
      pool.name = "p" + std::to_string(i) + (maybe() ? "-x_y" : "");
      config.pools[pool.name] = pool;
    }
    return config;
  }

 private:
  int number(int least, int most) {
    return std::uniform_int_distribution<int>(least, most)(random_);
  }
  bool maybe() { return number(0, 1) == 1; }
  unsigned mode() { return static_cast<unsigned>(number(0, 0777)); }

  // Text that YAML could take for something else.
  std::string text() {
    static const Lines kOdd = {
        "",     "null", "~",    "true", "off",  "0660",   "1e3",  "- a",    "a: b",
        "#x",   " x ",  "'",    "\"",   "\\",   "{slot}", "[a",   "*a",     "&a",
        "!x",   "|",    ">",    "%",    "@",    "`",      "a\nb", "\t",     "\x7f",
        "\x01", "ü€🐎",  "<<",   "a,b",  "x}",   "---",    "...",  "? a",    "2001-01-01",
        "=",    "yes",  "NULL", "0x1F", ".inf", "a #b",   "\r\n", "\u0085", "\u2028"};
    std::string out = kOdd[static_cast<std::size_t>(number(0, static_cast<int>(kOdd.size()) - 1))];
    if (number(0, 3) == 0) out += text();
    return out;
  }

  // In a folder that is there.
  std::string path() {
    static const Lines kParts = {"a", "b c", "ü", "#", "'", ": ", "{x}", "null", "-"};
    std::string out = stable_.scratch.path() + "/";
    const int parts = number(1, 4);
    for (int i = 0; i < parts; ++i) {
      out += kParts[static_cast<std::size_t>(number(0, static_cast<int>(kParts.size()) - 1))];
    }
    return out;
  }

  Duration duration() {
    return std::chrono::milliseconds(number(1, 9) * (maybe() ? 1 : maybe() ? 60'000 : 3'600'000));
  }

  Listener make_listener(int index) {
    static const Lines kAddresses = {"tcp://:0", "tcp://127.0.0.1:0", "tcp://[::]:0",
                                     "tcp://localhost:0"};
    const std::string own = "-" + std::to_string(++listeners_);
    std::string address = kAddresses[static_cast<std::size_t>(number(0, 3))];
    const int kind = number(0, 3);
    if (kind == 1) address = "unix://" + path() + own;
    if (kind == 2) address = "unix:@ " + text() + own;
    if (kind == 3) address = "inherit:a b'" + own;
    Listener listener;
    const ParsedAddress parsed = parse_address(address);
    listener.address = parsed.address.value_or(*parse_address("tcp://:0").address);
    listener.name = "n " + std::to_string(index) + (maybe() ? "#'\"" : "");
    listener.backlog = number(1, 1'000'000);
    if (is_ipv6(listener.address) && maybe()) listener.v6only = maybe();
    if (listener.address.kind == AddressKind::kUnixPath) {
      listener.mode = mode();
      if (maybe()) listener.user = "0";
      if (maybe()) listener.group = "root";
    }
    return listener;
  }

  Pool make_pool() {
    static const std::array<int, 7> kSignals = {SIGTERM, SIGINT,  SIGQUIT, SIGHUP,
                                                SIGUSR1, SIGUSR2, SIGWINCH};
    Pool pool;
    pool.command = {"app"};
    pool.executable = stable_.scratch / "bin/app";
    pool.argv0 = "app";
    pool.folder = stable_.scratch.path();
    for (int i = number(0, 4); i > 0; --i) pool.command.push_back(text());
    if (maybe()) pool.directory = pool.folder = stable_.scratch / "bin";
    for (int i = number(0, 4); i > 0; --i)
      pool.env["N" + std::to_string(i) + (maybe() ? "" : " x#:")] = text();
    pool.inherit_env = static_cast<InheritEnv>(number(0, 2));
    if (pool.inherit_env == InheritEnv::kListed && maybe())
      pool.inherit_names = {"A", "b c", "null", "#"};
    if (maybe()) pool.user = "root";
    if (maybe()) pool.group = "0";
    if (maybe()) pool.umask = mode();
    for (int i = number(0, 3); i > 0; --i) pool.listen.push_back(make_listener(i));
    if (pool.listen.size() == 1 && maybe()) pool.socket_protocol = SocketProtocol::kFastcgi;
    add_accept(pool);
    pool.workers = make_workers(!pool.listen.empty());
    pool.ready.mode = static_cast<ReadyMode>(number(0, 3));
    const bool listens = !pool.listen.empty() && pool.accept != Accept::kDispatch;
    if (pool.ready.mode == ReadyMode::kListening && !listens) pool.ready.mode = ReadyMode::kAuto;
    if (pool.ready.mode == ReadyMode::kAfter) pool.ready.after = duration();
    pool.timeouts = {duration(), maybe() ? std::optional(duration()) : std::nullopt,
                     maybe() ? std::optional(duration()) : std::nullopt, duration()};
    pool.worker = make_worker_settings();
    add_care(pool);
    pool.stop_signal = kSignals[static_cast<std::size_t>(number(0, 6))];
    pool.leave_behind = maybe();
    pool.no_new_privileges = maybe();
    pool.replace.surge = maybe() ? Surge{number(1, 100), true} : Surge{number(1, 10000), false};
    pool.replace.settle = maybe() ? Duration(0) : duration();
    pool.replace.attempts = number(1, 1000);
    pool.restart.backoff = duration();
    pool.restart.backoff_max = pool.restart.backoff + duration();
    pool.restart.burst = number(0, 10000);
    pool.restart.reset_after = duration();
    pool.output.mode = static_cast<OutputMode>(number(0, 3));
    if (pool.output.mode == OutputMode::kFile) pool.output.path = path() + ".out";
    return pool;
  }

  void add_accept(Pool& pool) {
    const bool tcp = std::all_of(pool.listen.begin(), pool.listen.end(), [](const Listener& one) {
      return one.address.kind == AddressKind::kTcp;
    });
    if (pool.listen.empty() || maybe()) return;
    if (tcp && maybe()) {
      pool.accept = Accept::kReuseport;
    } else if (pool.socket_protocol == SocketProtocol::kSystemd) {
      pool.accept = Accept::kDispatch;
      pool.dispatch = static_cast<DispatchPolicy>(number(0, 2));
    }
  }

  Workers make_workers(bool has_listener) {
    if (maybe()) return maybe() ? Workers{AutoWorkers{}} : Workers{number(0, 10000)};
    ScaledWorkers scaled;
    scaled.min = number(has_listener ? 0 : 1, 5000);
    scaled.max = std::max(1, scaled.min + number(0, 5000));
    if (has_listener && maybe()) scaled.by = ScaleBy::kBacklog;
    const int most = scaled.by == ScaleBy::kBusy ? 1000 : 100'000'000;
    scaled.target = number(1, most) / 1000.0;
    scaled.up_after = duration();
    scaled.down_after = duration();
    return scaled;
  }

  template <class T>
  std::optional<T> maybe_some(T value) {
    return maybe() ? std::optional(std::move(value)) : std::nullopt;
  }

  std::uint64_t size() {
    return static_cast<std::uint64_t>(number(1, 1000)) << (maybe() ? 0U : maybe() ? 10U : 21U);
  }

  WorkerSettings make_worker_settings() {
    WorkerSettings worker;
    if (maybe()) return worker;
    worker.worker_class = maybe_some(static_cast<WorkerClass>(number(0, 2)));
    const bool threads = !worker.worker_class || *worker.worker_class == WorkerClass::kThreads;
    if (threads) worker.threads = maybe_some(number(1, 64));
    worker.connections = maybe_some(number(1, 1'000'000));
    worker.keepalive = maybe_some(maybe() ? Duration(0) : duration());
    worker.header_limit = maybe_some(static_cast<std::uint64_t>(number(256, 1 << 20)));
    worker.body_limit = maybe_some(size());
    worker.header_timeout = maybe_some(duration());
    worker.body_timeout = maybe_some(duration());
    worker.write_timeout = maybe_some(duration());
    worker.access_log = maybe_some(static_cast<AccessLog>(number(0, 2)));
    if (maybe()) worker.trusted_proxies = Lines{"::1", "10.0.0.0/8", "unix"};
    return worker;
  }

  void add_care(Pool& pool) {
    if (maybe()) pool.recycle.requests = static_cast<std::uint64_t>(number(1, 1000000000));
    if (pool.recycle.requests && maybe()) pool.recycle.requests_jitter = 1;
    if (maybe()) pool.recycle.lifetime = duration();
    if (pool.recycle.lifetime && maybe()) pool.recycle.lifetime_jitter = duration();
    if (maybe()) pool.recycle.memory = size();
    const bool serves_http =
        !pool.listen.empty() && pool.socket_protocol == SocketProtocol::kSystemd;
    if (serves_http && maybe()) {
      pool.warmup = {{"GET", "/"}, {"POST", "/a?b=\"c\"#{x}"}, make_request()};
    }
    if (maybe()) return;
    Health& health = pool.health.emplace();
    if (serves_http && maybe()) {
      health.request = make_request();
    } else {
      health.exec = {"app", text()};
      health.executable = stable_.scratch / "bin/app";
      health.argv0 = "app";
    }
    health.timeout = duration();
    health.interval = health.timeout + duration();
    health.failures = number(1, 1000);
  }

  ProbeRequest make_request() {
    ProbeRequest request{"GET", "/healthz"};
    if (maybe()) request.host = maybe() ? "[::1]:80" : "null";
    if (maybe()) request.headers["X-#'`"] = maybe() ? "a: \"b\", #c}" : "";
    if (maybe()) request.headers["null"] = "off";
    if (maybe()) request.expect = {{200, 200}};
    if (maybe()) request.expect.push_back({404, 499});
    return request;
  }

  std::mt19937 random_;
  const Stable& stable_;
  int listeners_ = 0;
};

}  // namespace

TEST_CASE("what is printed reads back the same, for a thousand odd configurations") {
  const Stable stable;
  for (unsigned seed = 1; seed <= 1000; ++seed) {
    CAPTURE(seed);
    check_round_trip(stable, RandomConfig(seed, stable).make());
  }
}

TEST_CASE("defaults are filled in, and files stay where they are") {
  const Stable stable;
  stable.scratch.write("app.env", "A=file\n");
  const Loaded loaded = stable.load(
      "defaults: {timeouts: {stop: 5s}, command: bin/app}\n"
      "pools: {web: {env_file: app.env, env: {B: pool}, listen: [tcp://:0]}}");
  REQUIRE(texts(loaded.faults) == Lines{});
  CHECK(print(loaded.config) ==
        "control: {}\n"
        "log:\n"
        "  level: info\n"
        "  format: text\n"
        "  output: stderr\n"
        "pools:\n"
        "  web:\n"
        "    command: [bin/app]\n"
        "    env:\n"
        "      \"A\": file\n"
        "      \"B\": pool\n"
        "    env_file: " +
            stable.scratch / "app.env" +
            "\n"
            "    inherit_env: true\n"
            "    listen:\n"
            "      - {address: \"tcp://*:0\", name: http, backlog: 2048}\n"
            "    accept: shared\n"
            "    socket_protocol: systemd\n"
            "    workers: auto\n"
            "    spawn: exec\n"
            "    ready: auto\n"
            "    timeouts:\n"
            "      start: 1m\n"
            "      heartbeat: 30s\n"
            "      request: off\n"
            "      stop: 5s\n"
            "    stop_signal: TERM\n"
            "    leave_behind: false\n"
            "    sandbox:\n"
            "      no_new_privileges: false\n"
            "    replace:\n"
            "      surge: 1\n"
            "      settle: 2s\n"
            "      attempts: 1\n"
            "    restart:\n"
            "      backoff: 100ms\n"
            "      backoff_max: 30s\n"
            "      burst: 5\n"
            "      reset_after: 10s\n"
            "    recycle: off\n"
            "    health: off\n"
            "    warmup: []\n"
            "    output: forward\n");
  check_round_trip(stable, loaded.config);
}

TEST_CASE("the values of env are left out where all may look") {
  const Stable stable;
  const Loaded loaded = stable.load("pools: {web: {command: app, env: {TOKEN: hunter2}}}");
  CHECK(print(loaded.config).find("hunter2") != std::string::npos);
  const std::string hidden = print(loaded.config, false);
  CHECK(hidden.find("hunter2") == std::string::npos);
  CHECK(hidden.find("TOKEN: \"(left out)\"") != std::string::npos);
}

TEST_CASE("no pools") {
  const Stable stable;
  CHECK(print(Config{}).find("pools: {}\n") != std::string::npos);
  check_round_trip(stable, Config{});
}

}  // namespace ostler::config
