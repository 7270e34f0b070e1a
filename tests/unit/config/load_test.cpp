// Whole documents: what a file must hold, includes, defaults, overrides, and all faults at once.
#include "config/src/load.hpp"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <filesystem>

#include "stable.hpp"

namespace ostler::config {

TEST_CASE("faults say where, what and what would be right") {
  CHECK(Fault{"f.yaml", 3, 5, "pools.web", "wrong"}.text() == "f.yaml:3:5: pools.web: wrong");
  CHECK(Fault{"f.yaml", 0, 0, "", "wrong"}.text() == "f.yaml: wrong");
  CHECK(Fault{"", 0, 0, "--set a", "wrong"}.text() == "--set a: wrong");
  CHECK(Fault{"", 0, 0, "", "wrong"}.text() == "wrong");
}

TEST_CASE("what a file must hold") {
  const Stable stable;
  CHECK(
      stable.faults("") ==
      Lines{"t.yaml:1:1: the file is empty; the least it needs is: pools: {app: {command: […]}}"});
  CHECK(has(stable.faults("# nothing\n"), {"the file is empty"}));
  CHECK(has(stable.faults("- a"), {"t.yaml:1:1: must be a map with 'pools:', not a list"}));
  CHECK(has(stable.faults("log: {level: info}"), {"t.yaml:1:1: no pools; write 'pools:'"}));
  CHECK(has(stable.faults("pools:"), {"t.yaml:1:1: pools: must be a map", "not left empty"}));
  CHECK(has(stable.faults("pools: [a]"), {"must be a map"}));
  CHECK(has(stable.faults("pools: {a: app}"),
            {"pools.a: must be a map such as {command: [/usr/bin/app]}, not 'app'"}));
  CHECK(has(stable.faults("pools: {Web: {command: app}}"),
            {"1:9: pools.Web: a pool's name must be 1 to 63"}));
  CHECK(stable.faults("pools: {}").empty());
  std::string many = "defaults: {command: app}\npools:\n";
  for (int i = 0; i < 1001; ++i) many += "  p" + std::to_string(i) + ": {}\n";
  CHECK(has(stable.faults(many), {"holds more than 1000 pools"}));
}

TEST_CASE("files that cannot be read") {
  const Stable stable;
  const auto faults = [&](const std::string& name) { return texts(stable.load_file(name).faults); };
  CHECK(faults("none.yaml") ==
        Lines{stable.scratch / "none.yaml" + ": cannot be read: No such file or directory"});
  CHECK(has(faults("bin"), {"is a folder"}));
  stable.scratch.write("big.yaml", "pools: {}\n" + std::string(1024 * 1024, '#'));
  CHECK(has(faults("big.yaml"), {"is larger than 1 MiB"}));
  stable.scratch.write("b\xFF.yaml", "pools: {}");
  CHECK(has(faults("b\xFF.yaml"), {"the file's path is not valid UTF-8"}));
}

TEST_CASE("load() looks at the machine it runs on") {
  const Scratch scratch;
  const Loaded loaded = load(scratch.write("a.yaml", "pools: {app: {command: sh -c 'exit 0'}}"));
  CHECK(texts(loaded.faults) == Lines{});
  CHECK(loaded.config.file == scratch / "a.yaml");
  CHECK(loaded.config.pools.at("app").executable.ends_with("/sh"));
  CHECK(loaded.warnings.empty() != running_as_root());
}

TEST_CASE("all faults of all files at once, in order") {
  const Stable stable;
  stable.scratch.write("conf.d/b.yaml", "pools: {x: {command: app, workers: -1}}\nlog: {}\n");
  stable.scratch.write("conf.d/a.yaml", "pools: {y: {comand: app}\n");
  const std::string file =
      stable.scratch.write("t.yaml",
                           "log: {level: x}\ninclude: [conf.d/*.yaml]\npools:\n  web: {command: "
                           "none, workers: x}\n  web: {}\n");
  Lines places;
  for (const Fault& fault : stable.load_file("t.yaml").faults) {
    places.push_back(std::filesystem::path(fault.file).filename().string() + ":" +
                     std::to_string(fault.line) + ":" + std::to_string(fault.column) + " " +
                     fault.key);
  }
  CHECK(places == Lines{"a.yaml:2:1 ", "b.yaml:1:36 pools.x.workers", "b.yaml:2:1 log",
                        "t.yaml:1:14 log.level", "t.yaml:4:18 pools.web.command",
                        "t.yaml:4:33 pools.web.workers", "t.yaml:5:3 pools.web"});
}

TEST_CASE("a file of rubbish does not become a report of gigabytes") {
  const Stable stable;
  std::string text = "pools: {}\n";
  for (int i = 0; i < 5000; ++i) text += "k" + std::to_string(i) + ": 1\n";
  const Loaded loaded = stable.load(text);
  CHECK(loaded.faults.size() == 1001);
  CHECK(loaded.faults.back().message == "and 4000 more faults, not shown");
}

TEST_CASE("included files") {
  const Stable stable;
  const auto& scratch = stable.scratch;
  const auto faults = [&](const std::string& text) {
    scratch.write("t.yaml", text);
    return texts(stable.load_file("t.yaml").faults);
  };
  scratch.write("conf.d/a.yaml", "pools: {a: {command: app, directory: .}}");
  scratch.write("conf.d/b.yaml", "pools: {b: {command: app}}");

  SUBCASE("by pattern and by name; relative paths in them are relative to them") {
    CHECK(faults("include: [conf.d/*.yaml]").empty());
    const Loaded loaded = stable.load_file("t.yaml");
    CHECK(loaded.config.pools.size() == 2);
    CHECK(loaded.config.pools.at("a").directory == scratch / "conf.d");
    CHECK(faults("include: [conf.d/a.yaml]\npools: {c: {command: app}}").empty());
    CHECK(stable.load_file("t.yaml").config.pools.size() == 2);
  }
  SUBCASE("a pattern may match nothing, a name may not") {
    CHECK(faults("include: [none/*.yaml]\npools: {}").empty());
    CHECK(has(faults("include: [none/*.yaml]"), {"no pools"}));
    CHECK(faults("include: [none.yaml]\npools: {}") ==
          Lines{scratch / "t.yaml" + ":1:11: include[0]: '" + scratch / "none.yaml" +
                "' cannot be read: No such file or directory"});
    CHECK(faults("include: [none.yaml]").size() == 1);
    scratch.folder("conf.d/folder.yaml");
    CHECK(has(faults("include: [conf.d/*.yaml]"), {"include[0]", "folder.yaml' is a folder"}));
  }
  SUBCASE("a pool in two files names both places") {
    scratch.write("conf.d/c.yaml", "pools:\n  a: {}\n");
    CHECK(faults("include: [conf.d/*.yaml]") ==
          Lines{scratch / "conf.d/c.yaml" + ":2:3: pools.a: the pool 'a' is already defined at " +
                scratch / "conf.d/a.yaml" + ":1:9"});
    CHECK(has(faults("include: [conf.d/a.yaml]\npools: {a: {command: app}}"),
              {"conf.d/a.yaml:1:9: pools.a: the pool 'a' is already defined at", "t.yaml:2:9"}));
  }
  SUBCASE("they hold pools alone") {
    scratch.write("x.yaml", "pools: {}\nlog: {}\ndefaults: {}\ninclude: []\npolls: {}\n");
    const Lines lines = faults("include: [x.yaml]\npools: {}");
    CHECK(lines.size() == 4);
    CHECK(has(
        lines,
        {"x.yaml:2:1: log: an included file holds only 'pools:'; 'log' belongs in the main file"}));
    CHECK(has(lines, {"x.yaml:5:1: polls: unknown key 'polls'; did you mean 'pools'?"}));
    scratch.write("empty.yaml", "");
    CHECK(has(faults("include: [empty.yaml]\npools: {}"), {"empty.yaml:1:1: the file is empty"}));
    scratch.write("list.yaml", "[]");
    CHECK(has(faults("include: [list.yaml]\npools: {}"),
              {"list.yaml:1:1: must be a map with 'pools:'"}));
    scratch.write("none.yaml", "{}");
    CHECK(has(faults("include: [none.yaml]\npools: {}"),
              {"none.yaml:1:1: an included file holds 'pools:'"}));
    scratch.write("text.yaml", "pools: x");
    CHECK(has(faults("include: [text.yaml]\npools: {}"),
              {"text.yaml:1:8: pools: must be a map of pools"}));
  }
  SUBCASE("each is read once, and none by itself") {
    CHECK(faults("include: [conf.d/*.yaml, conf.d/a*]").empty());
    CHECK(faults("include: [\"*.yaml\"]\npools: {}").empty());
    CHECK(has(faults("include: [t.yaml]\npools: {}"), {"include[0]: is read already"}));
    CHECK(
        has(faults("include: [conf.d/a.yaml, ./conf.d/a.yaml]"), {"include[1]: is read already"}));
  }
  SUBCASE("include is a list of text") {
    CHECK(has(faults("include: conf.d/a.yaml\npools: {}"),
              {"must be a list such as [conf.d/*.yaml]"}));
    scratch.write("conf.d/c.yaml", "x: 1");
    CHECK(has(faults("include: [conf.d/c.yaml]\npools: x"), {"c.yaml:1:1: x: unknown key"}));
    CHECK(has(faults("include: [[a]]\npools: {}"),
              {"include[0]: must be a file's path or a pattern"}));
  }
}

TEST_CASE("as root, a file that others may write is refused, included ones as well") {
  if (!running_as_root()) return skip("needs root");
  const Stable stable;
  const auto& scratch = stable.scratch;
  LoadOptions options;
  options.trusted_file_only = true;
  scratch.write("t.yaml", "include: [conf.d/*.yaml]");
  scratch.write("conf.d/a.yaml", "pools: {a: {command: app}}");
  if (!only_root_writes(scratch.path())) {
    return skip("others may write the temporary folder");
  }
  CHECK(texts(stable.load_file("t.yaml", options).faults) == Lines{});
  REQUIRE(chmod((scratch / "conf.d/a.yaml").c_str(), 0666) == 0);
  CHECK(stable.load_file("t.yaml").ok());
  CHECK(has(texts(stable.load_file("t.yaml", options).faults),
            {"t.yaml:1:11: include[0]: '", "a.yaml' may be written by others", "chmod go-w"}));
  REQUIRE(chmod((scratch / "t.yaml").c_str(), 0666) == 0);
  CHECK(
      has(texts(stable.load_file("t.yaml", options).faults), {"t.yaml: may be written by others"}));
}

TEST_CASE("as root, so is the environment file of workers that run as root") {
  if (!running_as_root()) return skip("needs root");
  const Stable stable;
  LoadOptions options;
  options.trusted_file_only = true;
  const std::string file = stable.scratch.write("app.env", "A=1\n");
  const auto faults = [&](const std::string& user) {
    const std::string pool = "{command: app, env_file: app.env" + user + "}";
    return texts(stable.load("pools: {app: " + pool + "}", options).faults);
  };
  if (!only_root_writes(stable.scratch.path()))
    return skip("others may write the temporary folder");
  CHECK(faults("") == Lines{});
  REQUIRE(chmod(file.c_str(), 0666) == 0);
  CHECK(has(faults(""), {"pools.app.env_file: '", "app.env' may be written by others"}));
  CHECK(has(faults(", user: root"), {"may be written by others"}));
  CHECK(faults(", user: 54321, group: 54321").empty());
}

TEST_CASE("as root, no log file where the worker could put another in its place") {
  if (!running_as_root()) return skip("needs root");
  const Stable stable;
  LoadOptions options;
  options.trusted_file_only = true;
  const std::string folder = stable.scratch.folder("log/web");
  const auto faults = [&](const std::string& file, const std::string& account) {
    const std::string keys = "command: app, output: " + file + ", user: " + account;
    return texts(stable.load("pools: {app: {" + keys + "}}", options).faults);
  };
  const std::string shop = "54321, group: 54321";
  const std::string file = folder + "/app.log";
  CHECK(faults(file, shop) == Lines{});
  SUBCASE("its own folder") {
    REQUIRE(chown((stable.scratch / "log").c_str(), 54321, 0) == 0);
    CHECK(has(faults(file, shop),
              {"pools.app.output: '" + file + "' may be led elsewhere by '54321'",
               "write the folder '" + (stable.scratch / "log") + "'", "such as /var/log/app"}));
    CHECK(faults(file, "root") == Lines{});
    CHECK(faults(file, "54322, group: 54322") == Lines{});
    REQUIRE(symlink(folder.c_str(), (stable.scratch / "link").c_str()) == 0);
    CHECK(has(faults((stable.scratch / "link") + "/app.log", shop), {"may be led elsewhere"}));
  }
  SUBCASE("its group's") {
    REQUIRE(chown(folder.c_str(), 0, 54321) == 0);
    CHECK(faults(file, shop) == Lines{});
    REQUIRE(chmod(folder.c_str(), 0775) == 0);
    CHECK(has(faults(file, shop), {"write the folder '" + folder + "'"}));
  }
  SUBCASE("everybody's") {
    REQUIRE(chmod(folder.c_str(), 0777) == 0);
    CHECK(has(faults(file, shop), {"write the folder '" + folder + "'"}));
    REQUIRE(chmod(folder.c_str(), 01777) == 0);
    CHECK(faults(file, shop) == Lines{});
  }
}

TEST_CASE("defaults are merged under every pool") {
  const Stable stable;
  const Loaded loaded = stable.load(R"(
defaults:
  command: app
  env: {A: default, B: default}
  timeouts: {start: 5s, stop: 6s}
  listen: [tcp://:0]
  ready: {after: 2s}
  workers: 3
pools:
  a: {}
  b:
    env: {B: pool, C: pool}
    timeouts: {stop: 7s}
    listen: [tcp://:0, tcp://:0]
    ready: notify
    workers: auto
)");
  REQUIRE(texts(loaded.faults) == Lines{});
  const Pool& a = loaded.config.pools.at("a");
  const Pool& b = loaded.config.pools.at("b");
  CHECK(a.env == std::map<std::string, std::string>{{"A", "default"}, {"B", "default"}});
  CHECK(b.env ==
        std::map<std::string, std::string>{{"A", "default"}, {"B", "pool"}, {"C", "pool"}});
  CHECK(b.timeouts.start == std::chrono::seconds(5));
  CHECK(b.timeouts.stop == std::chrono::seconds(7));
  CHECK(a.listen.size() == 1);
  CHECK(b.listen.size() == 2);
  CHECK(b.ready.mode == ReadyMode::kNotify);
  CHECK(std::holds_alternative<AutoWorkers>(b.workers));
}

TEST_CASE("a fault in the defaults is reported once, where it is") {
  const Stable stable;
  CHECK(stable
            .faults("defaults: {command: none, workers: x, timeouts: {start: y}, zzz: 1}\n"
                    "pools:\n  a: {}\n  b: {timeouts: {stop: 1s}}\n  c: {workers: 1, timeouts: "
                    "{start: 1s}}\n")
            .size() == 4);
  CHECK(has(stable.faults("defaults: {command: none}\npools: {a: {}, b: {}}"),
            {"t.yaml:1:21: defaults.command: 'none' is in no folder"}));
  CHECK(has(stable.faults("defaults: {workers: x}\npools: {}"),
            {"t.yaml:1:21: defaults.workers: must be"}));
  CHECK(
      has(stable.faults(
              "defaults: {timeouts: {start: x}}\npools: {a: {command: app, timeouts: {stop: y}}}"),
          {"1:30: defaults.timeouts.start"}));
  CHECK(has(stable.faults("defaults: [a]\npools: {}"), {"must be a map of pool keys"}));
  CHECK(has(stable.faults("defaults:\npools: {}"),
            {"must be a map of pool keys ({} for none), not left empty"}));
}

TEST_CASE("--set changes single values before they are looked at") {
  const Stable stable;
  const std::string text =
      "log: {level: x}\ndefaults: {command: app}\npools: {web: {workers: 1, ready: auto, listen: "
      "[tcp://:0]}}";
  LoadOptions options;
  options.overrides = {{"pools.web.workers", "8"},        {"log.level", "debug"},
                       {"pools.web.timeouts.stop", "5s"}, {"pools.web.ready.after", "1"},
                       {"pools.web.env", "{A: b}"},       {"defaults.umask", "022"},
                       {"pools.web.listen", "[unix:@x]"}, {"pools.web.workers", "9"},
                       {"control.socket", "c.sock"}};
  const Loaded loaded = stable.load(text, options);
  REQUIRE(texts(loaded.faults) == Lines{});
  const Pool& web = loaded.config.pools.at("web");
  CHECK(std::get<int>(web.workers) == 9);
  CHECK(loaded.config.log.level == LogLevel::kDebug);
  CHECK(web.timeouts.stop == std::chrono::seconds(5));
  CHECK(web.ready.mode == ReadyMode::kAfter);
  CHECK(web.env.at("A") == "b");
  CHECK(web.umask == 022U);
  CHECK(web.listen.front().address.text() == "unix:@x");
  CHECK(loaded.config.control.socket == stable.scratch / "c.sock");
}

TEST_CASE("faults in --set name the option") {
  const Stable stable;
  const auto faults = [&](const std::string& key, const std::string& value) {
    return stable.faults("pools: {web: {command: app, listen: [tcp://:0]}}", {{key, value}});
  };
  CHECK(faults("pools.web.workers", "x") ==
        Lines{"--set pools.web.workers: must be auto, a whole number from 0 to 10000, or a map "
              "such as {min: 2, max: 8}, not 'x'"});
  CHECK(faults("pools.web.timeouts", "{strat: 5s}") ==
        Lines{"--set pools.web.timeouts.strat: unknown key 'strat'; did you mean 'start'?"});
  CHECK(faults("pools.web.wrokers", "5") ==
        Lines{"--set pools.web.wrokers: unknown key 'wrokers'; did you mean 'workers'?"});
  CHECK(faults("pools.wbe.workers", "5") ==
        Lines{"--set pools.wbe.workers: there is no pool 'wbe'; did you mean 'web'?"});
  CHECK(faults("pools", "{}") == Lines{"--set pools: must name a pool, as pools.web.workers"});
  CHECK(has(faults("pools.web.workers", "[1"),
            {"--set pools.web.workers: ", "is its bracket closed?"}));
  CHECK(has(faults("pools.web.workers", ""), {"not left empty"}));
  CHECK(has(faults("pools.web.workers", "a\xFF"), {"is not valid UTF-8"}));
  CHECK(has(faults("pools.web.listen.0", "x"), {"leads into a list"}));
  CHECK(has(faults("", "x"), {"must be KEY=VALUE with a key such as pools.web.workers"}));
  CHECK(has(faults("pools..web", "x"), {"must be KEY=VALUE"}));
  CHECK(has(faults("include", "[x]"), {"--set include: can only be set in the file"}));
  CHECK(has(faults("metrics.listen", "x"),
            {"--set metrics.listen: 'metrics' is not available in this version"}));
  CHECK(has(faults("pools.web.spawn", "template"),
            {"--set pools.web.spawn: 'spawn: template' is not available in this version"}));
  CHECK(has(faults("pools.web.accept", "reuse"),
            {"--set pools.web.accept: must be shared, reuseport"}));
  CHECK(has(faults("pools.web.workers.min", "2"), {"--set pools.web.workers.min: needs a 'max'"}));
  CHECK(has(faults("pools.web", "x"), {"--set pools.web: must be a map"}));
  // What it replaces is not looked at any more.
  CHECK(stable.faults("pools: {web: {command: app, workers: x}}", {{"pools.web.workers", "1"}})
            .empty());
}

TEST_CASE("bombs that only go off when defaults are merged") {
  const Stable stable;
  std::string text = "defaults: {command: app, env: {";
  for (int i = 0; i < 20000; ++i) text += "k" + std::to_string(i) + ": x, ";
  text += "}}\npools:\n";
  for (int i = 0; i < 900; ++i) text += " p" + std::to_string(i) + ": {}\n";
  CHECK(has(stable.faults(text), {"holds more than 1000000 values, the defaults merged in"}));
}

}  // namespace ostler::config
