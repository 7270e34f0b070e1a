// What each key takes, and what is said if it gets something else.
#include "config/src/keys.hpp"

#include <doctest/doctest.h>

#include <csignal>

#include "stable.hpp"

namespace ostler::config {

using namespace std::chrono_literals;

TEST_CASE("a pool of which nothing is said but its command has the defaults of the contract") {
  const Stable stable;
  const Pool pool = stable.pool("");
  CHECK(pool.name == "app");
  CHECK(pool.command == Lines{"app"});
  CHECK(pool.executable == stable.scratch / "bin/app");
  CHECK(!pool.directory);
  CHECK(pool.env.empty());
  CHECK(pool.inherit_env == InheritEnv::kAll);
  CHECK(!pool.user);
  CHECK(!pool.umask);
  CHECK(pool.listen.empty());
  CHECK(pool.socket_protocol == SocketProtocol::kSystemd);
  CHECK(std::holds_alternative<AutoWorkers>(pool.workers));
  CHECK(pool.ready == Ready{});
  CHECK(pool.timeouts.start == 60s);
  CHECK(pool.timeouts.heartbeat == Duration(30s));
  CHECK(pool.timeouts.stop == 30s);
  CHECK(pool.stop_signal == SIGTERM);
  CHECK(!pool.leave_behind);
  CHECK(!pool.no_new_privileges);
  CHECK(pool.replace.surge == Surge{1, false});
  CHECK(pool.replace.settle == 2s);
  CHECK(pool.replace.attempts == 1);
  CHECK(pool.restart.backoff == 100ms);
  CHECK(pool.restart.backoff_max == 30s);
  CHECK(pool.restart.burst == 5);
  CHECK(pool.restart.reset_after == 10s);
  CHECK(pool.output == Output{});
}

TEST_CASE("every default, written out, changes nothing") {
  const Stable stable;
  std::string written;
  std::string open;
  for (const Key<PoolDraft>& key : pool_keys()) {
    if (key.info.fallback.empty()) continue;
    const std::string name(key.info.name);
    const std::size_t dot = name.find('.');
    if (dot == std::string::npos) {
      written += "  " + name + ": " + std::string(key.info.fallback) + "\n";
      continue;
    }
    if (open != name.substr(0, dot)) written += "  " + (open = name.substr(0, dot)) + ":\n";
    written += "    " + name.substr(dot + 1) + ": " + std::string(key.info.fallback) + "\n";
  }
  CAPTURE(written);
  CHECK(stable.pool(written) == stable.pool(""));
  CHECK(stable
            .load("control: {}\nlog: {level: info, format: text, output: stderr}\ninclude: []\n"
                  "defaults: {}\npools: {}")
            .config == stable.load("pools: {}").config);
  CHECK(stable.pool(
            "  listen: [{address: tcp://:0, backlog: 2048}, {address: unix:///x, mode: 0666}]") ==
        stable.pool("  listen: [tcp://:0, unix:///x]"));
}

TEST_CASE("every key, set to something else") {
  const Stable stable;
  stable.scratch.write("app.env", "A=file\nB=file\n");
  const Pool pool = stable.pool(R"(
  directory: bin
  env: {B: 1, C: true, D: "null", E: ""}
  env_file: app.env
  inherit_env: [LANG, TZ]
  user: root
  group: "0"
  umask: 027
  listen:
    - tcp://127.0.0.1:8080
    - {address: "tcp://[::1]:0", name: admin, backlog: 16, v6only: true}
    - {address: unix:///run/a.sock, mode: "0600", user: root, group: 0}
  accept: shared
  socket_protocol: systemd
  workers: 0
  spawn: exec
  ready: {after: 2s}
  timeouts: {start: 1.5, heartbeat: off, request: off, stop: 1d}
  stop_signal: SIGQUIT
  leave_behind: true
  sandbox: {no_new_privileges: false}
  replace: {surge: 50%, settle: 250ms, attempts: 3}
  restart: {backoff: 1s, backoff_max: 1s, burst: 0, reset_after: 1m}
  recycle: off
  health: off
  output: logs/app.log)");
  CHECK(pool.directory == stable.scratch / "bin");
  CHECK(pool.env == std::map<std::string, std::string>{
                        {"A", "file"}, {"B", "1"}, {"C", "true"}, {"D", "null"}, {"E", ""}});
  CHECK(pool.env_file == stable.scratch / "app.env");
  CHECK(pool.inherit_env == InheritEnv::kListed);
  CHECK(pool.inherit_names == Lines{"LANG", "TZ"});
  CHECK(pool.user == "root");
  CHECK(pool.group == "0");
  CHECK(pool.umask == 027U);
  REQUIRE(pool.listen.size() == 3);
  CHECK(pool.listen[0].name == "http");
  CHECK(pool.listen[1].name == "admin");
  CHECK(pool.listen[1].backlog == 16);
  CHECK(pool.listen[1].v6only == true);
  CHECK(pool.listen[2].name == "http1");
  CHECK(pool.listen[2].mode == 0600U);
  CHECK(pool.listen[2].group == "0");
  CHECK(std::get<int>(pool.workers) == 0);
  CHECK(pool.ready == Ready{ReadyMode::kAfter, 2s});
  CHECK(pool.timeouts == Timeouts{1500ms, std::nullopt, std::nullopt, 24h});
  CHECK(pool.stop_signal == SIGQUIT);
  CHECK(pool.leave_behind);
  CHECK(!pool.no_new_privileges);  // though it has a user
  CHECK(pool.replace == Replace{{50, true}, 250ms, 3});
  CHECK(pool.restart == Restart{1s, 1s, 0, 1min});
  CHECK(pool.output == Output{OutputMode::kFile, stable.scratch / "logs/app.log"});
}

TEST_CASE("the manager's own keys") {
  const Stable stable;
  stable.scratch.folder("run");
  const Loaded loaded = stable.load(
      "control: {socket: run/c.sock, mode: 0600, group: root}\n"
      "log: {level: trace, format: json, output: ./log}\npools: {}");
  CHECK(texts(loaded.faults) == Lines{});
  CHECK(loaded.config.control == Control{stable.scratch / "run/c.sock", 0600U, "root"});
  CHECK(loaded.config.log ==
        Log{LogLevel::kTrace, LogFormat::kJson, LogOutput::kFile, stable.scratch / "log"});
  CHECK(loaded.config.file == stable.scratch / "t.yaml");
  CHECK(stable.load("log: {output: syslog}\npools: {}").config.log.output == LogOutput::kSyslog);
  CHECK(stable.load("log: {output: journald}\npools: {}").config.log.output ==
        LogOutput::kJournald);
}

TEST_CASE("output: null is nothing, left empty is a fault") {
  const Stable stable;
  CHECK(stable.pool("  output: null").output.mode == OutputMode::kNull);
  CHECK(stable.pool("  output: \"null\"").output.mode == OutputMode::kNull);
  CHECK(stable.pool("  output: inherit").output.mode == OutputMode::kInherit);
  CHECK(stable.pool_faults("  output:") == Lines{"t.yaml:4:3: pools.app.output: must be forward, "
                                                 "inherit or null, or a path, not left empty"});
}

TEST_CASE("off turns a limit off, however it is written; on is no value") {
  const Stable stable;
  for (const char* off : {"off", "\"off\"", "Off", "OFF", "false"}) {
    CAPTURE(off);
    const std::string lines = std::string("  timeouts: {heartbeat: ") + off + ", request: " + off +
                              "}\n  recycle: " + off + "\n  health: " + off;
    CHECK(!stable.pool(lines).timeouts.heartbeat);
  }
  CHECK(has(stable.pool_faults("  timeouts: {heartbeat: on}"), {"must be a duration", "not 'on'"}));
  CHECK(has(stable.pool_faults("  timeouts: {stop: off}"), {"must be a duration", "not 'off'"}));
}

TEST_CASE("a pool with a user has no new privileges, unless it says otherwise") {
  const Stable stable;
  CHECK(stable.pool("  user: root").no_new_privileges);
  CHECK(!stable.pool("  group: \"0\"").no_new_privileges);
  CHECK(stable.pool("  sandbox: {no_new_privileges: true}").no_new_privileges);
  CHECK(!stable.pool("  user: root\n  sandbox: {no_new_privileges: false}").no_new_privileges);
}

TEST_CASE("what this version does not have is said so, and is no unknown key") {
  const Stable stable;
  for (const char* lines : {"spawn: template", "spawn: {mode: template}", "affinity: auto",
                            "affinity: [0]", "limits: {memory: 1G}", "limits: off",
                            "sandbox: {private_tmp: true}", "sandbox: {capabilities: []}"}) {
    CAPTURE(lines);
    const Lines faults = stable.pool_faults("  " + std::string(lines));
    REQUIRE(faults.size() == 1);
    CHECK(faults.front().ends_with("not available in this version"));
    CHECK(faults.front().starts_with("t.yaml:4:"));
  }
  for (const char* text : {"metrics: off", "metrics: {listen: tcp://:1}", "control: {read: [a]}",
                           "control: {operate: [a]}"}) {
    CAPTURE(text);
    const Lines faults = stable.faults(std::string(text) + "\npools: {}");
    REQUIRE(faults.size() == 1);
    CHECK(faults.front().ends_with("not available in this version"));
  }
}

TEST_CASE("unknown keys, with what was meant") {
  const Stable stable;
  CHECK(stable.pool_faults("  wrokers: 5") ==
        Lines{"t.yaml:4:3: pools.app.wrokers: unknown key 'wrokers'; did you mean 'workers'?"});
  CHECK(has(stable.pool_faults("  stop-signal: TERM"), {"did you mean 'stop_signal'?"}));
  CHECK(has(stable.pool_faults("  timeouts: {strat: 1s}"),
            {"4:14: pools.app.timeouts.strat: unknown key 'strat'; did you mean 'start'?"}));
  CHECK(has(stable.pool_faults("  timeouts.start: 1s"), {"unknown key 'timeouts.start'"}));
  CHECK(has(stable.pool_faults("  zzz: 1"), {"unknown key 'zzz'; known here: command, listen"}));
  CHECK(!has(stable.pool_faults("  zzz: 1"), {"affinity"}));  // not to be advertised
  CHECK(has(stable.pool_faults("  listen: [{address: tcp://:0, backlg: 5}]"),
            {"did you mean 'backlog'?"}));
  CHECK(has(stable.pool_faults("  ready: {afer: 5}"),
            {"pools.app.ready.afer", "did you mean 'after'?"}));
  CHECK(has(stable.faults("pool: {}\npools: {}"),
            {"t.yaml:1:1: pool: unknown key 'pool'; did you mean 'pools'?"}));
  CHECK(has(stable.faults("log: {levl: info}\npools: {}"), {"did you mean 'level'?"}));
  CHECK(has(stable.pool_faults("  \"a\\eb\\n\": 1"), {"unknown key 'a\\x1bb\\x0a'"}));
}

TEST_CASE("numbers") {
  const Stable stable;
  for (const char* value :
       {"-1", "1.5", "1_000", "0x10", "010", "1e3", "10001", "99999999999999999999", "\"4\"",
        "four", "[4]", "true", "", "null", "Auto"}) {
    CAPTURE(value);
    const Lines faults = stable.pool_faults("  workers: " + std::string(value));
    REQUIRE(faults.size() == 1);
    CHECK(has(
        faults,
        {"pools.app.workers: must be auto, a whole number from 0 to 10000, or a map such as "}));
  }
  CHECK(std::get<int>(stable.pool("  workers: 10000").workers) == 10000);
  CHECK(has(stable.pool_faults("  replace: {attempts: 0}"),
            {"must be a whole number from 1 to 1000, not '0'"}));
  CHECK(has(stable.pool_faults("  restart: {burst: -1}"), {"from 0 to 10000, not '-1'"}));
  CHECK(has(stable.pool_faults("  listen: [{address: tcp://:0, backlog: 0}]"),
            {"listen[0].backlog: must be a whole number from 1 to 1000000"}));
  for (const char* value : {"101%", "-1", "-1%", "50.5%", "1.5", "\"1\"", "half"}) {
    CAPTURE(value);
    CHECK(has(stable.pool_faults("  replace: {surge: " + std::string(value) + "}"),
              {"replace.surge: must be a whole number from 0 to 10000, or 0% to 100%, not"}));
  }
  CHECK(stable.pool("  replace: {surge: 0}").replace.surge == Surge{0, false});
  CHECK(stable.pool("  replace: {surge: 0%}").replace.surge == Surge{0, true});
}

TEST_CASE("durations") {
  const Stable stable;
  CHECK(has(stable.pool_faults("  timeouts: {start: 5 s}"),
            {"must be a duration such as 250ms", "not '5 s'"}));
  CHECK(has(stable.pool_faults("  timeouts: {start: -5s}"), {"must be a duration"}));
  CHECK(has(stable.pool_faults("  timeouts: {start: 0}"), {"must be from 1ms to 365d, not '0'"}));
  CHECK(has(stable.pool_faults("  timeouts: {start: 366d}"), {"must be from 1ms to 365d"}));
  CHECK(has(stable.pool_faults("  timeouts: {start: [5]}"), {"must be a duration", "not a list"}));
  CHECK(has(stable.pool_faults("  timeouts: 5s"),
            {"must be a map with start, heartbeat, request or stop, not '5s'"}));
  CHECK(has(stable.pool_faults("  timeouts:"), {"must be a map with", "not left empty"}));
  CHECK(stable.pool("  timeouts: {start: 365d}").timeouts.start == 24h * 365);
  CHECK(stable.pool("  replace: {settle: 0}").replace.settle == 0s);
}

TEST_CASE("words") {
  const Stable stable;
  CHECK(has(stable.pool_faults("  accept: sharred"),
            {"must be shared, reuseport or dispatch, not 'sharred'; did you mean 'shared'?"}));
  CHECK(has(stable.pool_faults("  socket_protocol: fcgi"),
            {"must be systemd or fastcgi, not 'fcgi'"}));
  CHECK(has(stable.pool_faults("  spawn: fork"), {"must be exec, not 'fork'"}));
  CHECK(has(stable.pool_faults("  ready: 2s"),
            {"must be auto, notify or listening or {after: 2s}, not '2s'"}));
  CHECK(stable.pool("  listen: [tcp://:0]\n  ready: listening").ready.mode ==
        ReadyMode::kListening);
  CHECK(has(stable.pool_faults("  ready: listening"), {"ready: needs a listener"}));
  CHECK(has(stable.pool_faults("  listen: [tcp://:0]\n  accept: dispatch\n  ready: listening"),
            {"ready: is not for accept: dispatch"}));
  CHECK(has(stable.pool_faults("  ready: {}"),
            {"must be auto, notify, listening or {after: 2s}, not a map"}));
  CHECK(has(stable.pool_faults("  stop_signal: KILL"),
            {"must be TERM, INT, QUIT, HUP, USR1, USR2 or WINCH"}));
  CHECK(has(stable.pool_faults("  stop_signal: TREM"), {"did you mean 'TERM'?"}));
  CHECK(has(stable.pool_faults("  output: froward"), {"did you mean 'forward'?"}));
  CHECK(has(stable.pool_faults("  inherit_env: yes"), {"must be true or false, not 'yes'"}));
  CHECK(has(stable.pool_faults("  inherit_env: \"true\""),
            {"must be true or false, not the text 'true'"}));
  CHECK(has(stable.pool_faults("  inherit_env: [A, \"B=C\"]"),
            {"inherit_env[1]: must be a variable's name"}));
  CHECK(has(stable.pool_faults("  umask: 888"), {"must be an octal mode from 0000 to 0777"}));
  CHECK(has(stable.faults("log: {level: loud}\npools: {}"),
            {"must be trace, debug, info, warning or error"}));
  CHECK(has(stable.faults("control: {mode: rw}\npools: {}"), {"must be an octal mode"}));
  CHECK(has(stable.faults("control: 5\npools: {}"), {"must be a map, not '5'"}));
  CHECK(has(stable.faults("control: {group: no-such-group}\npools: {}"),
            {"there is no group 'no-such-group'"}));
}

TEST_CASE("commands") {
  const Stable stable;
  const auto faults = [&](const std::string& command) {
    return stable.faults("pools: {app: {command: " + command + "}}");
  };
  const auto command = [&](const std::string& text) {
    return stable.load("pools: {app: {command: " + text + "}}").config.pools.at("app").command;
  };
  CHECK(command("[app, 1, true, \"a b\", \"\"]") == Lines{"app", "1", "true", "a b", ""});
  CHECK(command("app --x 'a b'") == Lines{"app", "--x", "a b"});
  CHECK(has(faults("[]"), {"t.yaml:1:24: pools.app.command: names no executable"}));
  CHECK(has(faults("\"\""), {"names no executable"}));
  CHECK(has(faults("[\"\", a]"), {"names no executable"}));
  CHECK(has(faults("[app, [x]]"), {"command[1]: must be text, not a list"}));
  CHECK(has(faults("[app, null]"), {"command[1]: must be text, not null"}));
  CHECK(has(faults("{a: b}"), {"must be a list such as", "not a map"}));
  CHECK(has(faults("app | app"), {"no shell is run"}));
  CHECK(has(faults("app 'x"), {"never closed"}));
  CHECK(faults("\"\"").size() == 1);
  CHECK(has(stable.faults("pools: {app: {}}"), {"t.yaml:1:9: pools.app: needs a 'command'"}));
}

TEST_CASE("a token without quotes is a map to YAML, and a riddle to people") {
  const Stable stable;
  CHECK(has(stable.faults("pools: {app: {command: [app, {fd}]}}"),
            {"command[1]: must be text, not a map (as text, {fd} needs quotes)"}));
}

TEST_CASE("environments") {
  const Stable stable;
  CHECK(
      has(stable.pool_faults("  env: [A=B]"), {"must be a map such as {NAME: value}, not a list"}));
  CHECK(
      has(stable.pool_faults("  env: {A: [1]}"), {"pools.app.env.A: must be text", "not a list"}));
  CHECK(has(stable.pool_faults("  env: {A: }"), {"not left empty"}));
  CHECK(has(stable.pool_faults("  env: {\"A=B\": 1}"), {"is not a variable's name"}));
  CHECK(has(stable.pool_faults("  env: {\"\": 1}"), {"is not a variable's name"}));
  CHECK(has(stable.pool_faults("  env: {A: \"x\\0y\"}"), {"holds a NUL character"}));
  CHECK(has(stable.pool_faults("  env_file: none.env"),
            {"pools.app.env_file: '", "none.env' cannot be read: No such file"}));
  stable.scratch.write("bad.env", "A=1\nB\n");
  CHECK(has(stable.pool_faults("  env_file: bad.env"),
            {"bad.env:2:1: pools.app.env_file: must be KEY=VALUE, not 'B'"}));
}

TEST_CASE("listeners") {
  const Stable stable;
  const auto faults = [&](const std::string& listen) {
    return stable.pool_faults("  listen: " + listen);
  };
  CHECK(has(faults("tcp://:0"),
            {"must be a list of addresses, such as [tcp://127.0.0.1:8080], not 'tcp://:0'"}));
  CHECK(has(faults("[8080]"), {"t.yaml:4:12: pools.app.listen[0]: must be tcp://HOST:PORT"}));
  CHECK(has(faults("[[]]"),
            {"listen[0]: must be an address such as tcp://127.0.0.1:8080, not a list"}));
  CHECK(has(faults("[{name: a}]"), {"needs an address"}));
  CHECK(has(faults("[{address: tcp://:0, name: \"a:b\"}]"),
            {"listen[0].name: must be 1 to 255 printable"}));
  CHECK(has(faults("[{address: tcp://:0, mode: 0600}]"),
            {"listen[0].mode: is only for sockets with a path"}));
  CHECK(has(faults("[{address: unix:@a, user: root}]"), {"listen[0].user: is only for"}));
  CHECK(has(faults("[{address: inherit:a, group: root}]"), {"listen[0].group: is only for"}));
  CHECK(has(faults("[{address: tcp://:0, v6only: true}]"), {"v6only: is only for IPv6 addresses"}));
  CHECK(has(faults("[{address: \"tcp://[::]:0\", v6only: yes}]"),
            {"must be true or false, not 'yes'"}));
  CHECK(has(faults("[{address: tcp://:0, name: a}, {address: tcp://:0, name: a}]"),
            {"listen[1].name: the name 'a' is already that of another listener"}));
  const Pool pool = stable.pool("  listen: [tcp://:0, {address: tcp://:0, name: http}, tcp://:0]");
  CHECK(pool.listen[0].name == "http1");
  CHECK(pool.listen[1].name == "http");
  CHECK(pool.listen[2].name == "http2");
  std::string many;
  for (int i = 0; i < 257; ++i) many += "tcp://:0,";
  CHECK(has(faults("[" + many + "]"), {"more than 256 listeners"}));
}

}  // namespace ostler::config
