// What only shows when keys are held against each other, the machine or other pools.
#include "config/src/checks.hpp"

#include <doctest/doctest.h>

#include <linux/capability.h>
#include <unistd.h>
#include <filesystem>

#include "stable.hpp"

namespace ostler::config {

TEST_CASE("the executable must be there") {
  const Stable stable;
  const auto faults = [&](const std::string& pool) {
    return stable.faults("pools: {app: {" + pool + "}}");
  };
  CHECK(has(faults("command: nothing"),
            {"t.yaml:1:24: pools.app.command: 'nothing' is in no folder of PATH"}));
  CHECK(has(faults("command: /no/such"), {"'/no/such' does not exist"}));
  CHECK(has(faults("command: data"), {"bin/data' is not executable (chmod +x)"}));
  CHECK(has(faults("command: ./bin/folder"), {"is a folder, not an executable"}));
  CHECK(
      has(faults("command: [\"{slot}/app\"]"), {"the executable's own name cannot hold a token"}));
  // PATH is the pool's if it has one.
  stable.scratch.write("other/tool", "", 0755);
  CHECK(faults("command: tool, env: {PATH: " + stable.scratch / "other" + "}").empty());
  CHECK(has(faults("command: app, env: {PATH: /nowhere}"),
            {"'app' is in no folder of PATH (/nowhere)"}));
  stable.scratch.write("path.env", "PATH=" + stable.scratch / "other");
  CHECK(faults("command: tool, env_file: path.env").empty());
  // A path with a slash is relative to the pool's folder.
  CHECK(faults("command: ./tool, directory: other").empty());
  CHECK(has(faults("command: ./app, directory: other"), {"other/./app' does not exist"}));
  CHECK(faults("command: bin/app").empty());
}

TEST_CASE("the folder must be there, and is blamed alone") {
  const Stable stable;
  const Lines faults = stable.faults("pools: {app: {command: ./x, directory: none}}");
  REQUIRE(faults.size() == 1);
  CHECK(has(faults, {"pools.app.directory: the folder", "none': No such file or directory"}));
  CHECK(has(stable.pool_faults("  directory: bin/app"), {"bin/app' is not a folder"}));
}

TEST_CASE("{fd} and {fd:NAME} name listeners of the pool") {
  const Stable stable;
  const auto faults = [&](const std::string& pool) {
    return stable.faults("pools: {app: {" + pool + "}}");
  };
  CHECK(faults("command: [app, \"{fd}\", \"{fd:http}\", \"{slot}{pool}{generation}\", \"{other}\", "
               "\"{\"], listen: [tcp://:0]")
            .empty());
  CHECK(has(faults("command: [app, \"--fd={fd}\"]"),
            {"pools.app.command[1]: holds {fd}, but the pool has no listener"}));
  CHECK(has(faults("command: [app, \"{fd:htp}\"], listen: [tcp://:0]"),
            {"command[1]: {fd:htp} names no listener of this pool; did you mean 'http'?"}));
  CHECK(has(faults("command: [app, \"{fd:zzz}\"], listen: [tcp://:0, tcp://:0]"),
            {"; there is http or http1"}));
  CHECK(has(faults("command: app, env: {FD: \"a {fd:x} b\"}"),
            {"pools.app.env.FD: {fd:x} names no listener", "has none"}));
  stable.scratch.write("fd.env", "FD={fd}\n");
  CHECK(has(faults("command: app, env_file: fd.env"), {"pools.app.env_file: holds {fd}"}));
  CHECK(faults("command: [app, \"{fd:\"]").empty());  // no token
  CHECK(faults("command: [app, \"listen({fd: 3}); listen({fd:3})\"]").empty());
  CHECK(has(faults("command: [app, \"{slto}\"]"),
            {"command[1]: holds {slto}; did you mean {slot}?"}));
  CHECK(has(faults("command: app, env: {A: \"{genration}\"}"),
            {"pools.app.env.A: holds {genration}; did you mean {generation}?"}));
  CHECK(has(faults("command: app, health: {exec: [app, \"{solt}\"]}"),
            {"health.exec[1]: holds {solt}; did you mean {slot}?"}));
  // A listener that is faulty itself is not missed as well.
  CHECK(faults("command: [app, \"{fd}\"], listen: [rubbish]").size() == 1);
}

TEST_CASE("fastcgi takes one listener") {
  const Stable stable;
  const std::string fastcgi = "  socket_protocol: fastcgi\n  listen: ";
  CHECK(stable.pool_faults(fastcgi + "[tcp://:0]").empty());
  CHECK(stable.pool_faults(fastcgi + "[tcp://:0]\n  env: {FD: \"{fd}\"}").empty());
  CHECK(has(stable.pool_faults(fastcgi + "[]"),
            {"fastcgi needs exactly one listener", "the pool has 0"}));
  CHECK(has(stable.pool_faults(fastcgi + "[tcp://:0, tcp://:0]"), {"the pool has 2"}));
}

TEST_CASE("the longest wait is not below the first") {
  const Stable stable;
  CHECK(has(stable.pool_faults("  restart: {backoff: 5s, backoff_max: 1s}"),
            {"4:39: pools.app.restart.backoff_max: must not be below backoff, which is 5s"}));
  CHECK(has(stable.pool_faults("  restart: {backoff: 31s}"),
            {"pools.app.restart.backoff: must not be above backoff_max, which is 30s"}));
  CHECK(stable.pool_faults("  restart: {backoff: x, backoff_max: 1ms}").size() == 1);
}

TEST_CASE("users and groups must exist") {
  const Stable stable;
  CHECK(has(stable.pool_faults("  user: no-such-user"),
            {"t.yaml:4:9: pools.app.user: there is no user 'no-such-user'"}));
  CHECK(has(stable.pool_faults("  group: no-such-group"), {"there is no group 'no-such-group'"}));
  CHECK(has(stable.pool_faults("  user: [root]"), {"must be a name or a number, not a list"}));
  CHECK(has(stable.pool_faults("  user: -1"), {"there is no user '-1'"}));
  CHECK(has(stable.pool_faults("  user: 3999999999"),
            {"has no entry in the user database", "'group:'"}));
  CHECK(stable.pool_faults("  user: 3999999999\n  group: 3999999999").empty());
  CHECK(has(stable.pool_faults("  listen: [{address: unix:///a, user: no-such-user}]"),
            {"listen[0].user: there is no user"}));
  CHECK(has(stable.pool_faults("  listen: [{address: unix:///a, group: no-such-group}]"),
            {"listen[0].group: there is no group"}));
}

TEST_CASE("what the kernel reserves for root is refused to others") {
  Stable stable;
  stable.host = ordinary(stable.host);
  CHECK(has(stable.pool_faults("  user: root"),
            {"pools.app.user: the manager runs as '54321' and may not switch to the user 'root'; "
             "start it as root"}));
  CHECK(has(stable.pool_faults("  group: root"), {"may not switch to the group 'root'"}));
  CHECK(stable.pool_faults("  user: 54321\n  group: 54321").empty());
  // A user comes with groups: the one capability is of no use without the other.
  stable.host.capabilities = 1U << CAP_SETUID;
  CHECK(has(stable.pool_faults("  user: root"), {"may not switch to the user 'root'"}));
  stable.host.capabilities = 1U << CAP_SETUID | 1U << CAP_SETGID;
  CHECK(stable.pool_faults("  user: root").empty());
  stable.host.capabilities = 0;
  CHECK(has(stable.pool_faults("  listen: [tcp://127.0.0.1:80]"),
            {"listen[0]: ports below 1024 are for root and CAP_NET_BIND_SERVICE"}));
  CHECK(has(stable.pool_faults("  listen: [{address: tcp://127.0.0.1:80}]"),
            {"4:22: pools.app.listen[0].address: ports below"}));
  CHECK(stable.pool_faults("  listen: [tcp://127.0.0.1:1024, tcp://:0, inherit:x]").empty());
  CHECK(has(stable.pool_faults("  listen: [{address: unix:///a, user: root}]"),
            {"may not give a socket to the user 'root'"}));
  CHECK(has(stable.pool_faults("  listen: [{address: unix:///a, group: root}]"),
            {"may not give a socket to the group 'root'"}));
  CHECK(has(stable.faults("control: {group: root}\npools: {}"),
            {"control.group: the manager is not a member of the group 'root'"}));
  stable.host.groups = {0};
  CHECK(stable.pool_faults("  listen: [{address: unix:///a, group: root}]").empty());
  CHECK(stable.faults("control: {group: root}\npools: {}").empty());
  stable.host.first_free_port = 80;
  CHECK(stable.pool_faults("  listen: [tcp://127.0.0.1:80]").empty());
}

TEST_CASE("listeners that cannot be open together") {
  const Stable stable;
  CHECK(stable.faults("pools:\n a: {command: app, listen: [tcp://*:80]}\n"
                      " b: {command: app, listen: [tcp://:0, tcp://127.0.0.1:80]}\n") ==
        Lines{"t.yaml:3:39: pools.b.listen[1]: tcp://127.0.0.1:80 is taken: pool 'a' listens on "
              "tcp://*:80 (t.yaml:2:29)"});
  CHECK(has(stable.pool_faults("  listen: [unix:///a, {address: unix:////a}]"),
            {"listen[1]: unix:///a is taken: this pool itself listens on unix:///a"}));
  const std::string folder = stable.scratch.folder("sockets");
  std::filesystem::create_directory_symlink(folder, stable.scratch / "link");
  CHECK(has(stable.pool_faults("  listen: [unix://" + folder + "/a, unix://" +
                               (stable.scratch / "link") + "/a]"),
            {"/link/a is taken: this pool itself listens on unix://" + folder + "/a"}));
  CHECK(has(stable.faults("pools:\n a: {command: app, listen: [tcp://127.0.0.1:80]}\n"
                          " b: {command: app, listen: [\"tcp://[::ffff:127.0.0.1]:80\"]}\n"),
            {"pools.b.listen[0]: tcp://[::ffff:127.0.0.1]:80 is taken: pool 'a' listens on "
             "tcp://127.0.0.1:80"}));
  CHECK(has(stable.pool_faults("  listen: [tcp://localhost:80, tcp://127.0.0.1:80]"),
            {"tcp://127.0.0.1:80 is taken"}));
  CHECK(has(stable.pool_faults("  listen: [tcp://127.0.0.1:80, tcp://*:80]"),
            {"tcp://*:80 is taken"}));
  CHECK(stable
            .pool_faults(
                "  listen: [tcp://:0, tcp://:0, tcp://*:0, tcp://127.0.0.1:80, \"tcp://[::1]:80\"]")
            .empty());
  CHECK(has(stable.faults("defaults: {command: app, listen: [tcp://:80]}\npools: {a: {}, b: {}}"),
            {"t.yaml:1:35: defaults.listen[0]: tcp://*:80 is taken: pool 'a'"}));
}

TEST_CASE("workers that run as root because nothing was said get a warning") {
  Stable stable;
  const auto warnings = [&](const std::string& lines) {
    return stable.load("pools:\n app:\n  command: app\n" + lines).warnings;
  };
  CHECK(warnings("") ==
        Lines{"pool 'app': its workers run as root; set 'user:' (or 'user: root' to say so)"});
  CHECK(warnings("  user: root").empty());
  stable.host = ordinary(stable.host);
  CHECK(warnings("").empty());
}

namespace {

// `current`, a link to one of two releases, each with a program in it.
struct Releases {
  Releases() {
    for (const char* number : {"1", "2"}) {
      const std::string folder = std::string("releases/") + number;
      stable.scratch.write(folder + "/bin/run", "#!/bin/sh\n", 0755);
      stable.scratch.write(folder + "/app.env", std::string("RELEASE=") + number + "\n");
      std::filesystem::create_symlink("/bin/sh", stable.scratch / (folder + "/bin/python"));
    }
    point_to("1");
  }
  void point_to(const std::string& number) const {
    std::filesystem::remove(stable.scratch / "current");
    std::filesystem::create_directory_symlink("releases/" + number, stable.scratch / "current");
  }
  [[nodiscard]] Pool pool(const std::string& keys) const {
    const Loaded loaded = stable.load("pools: {app: {" + keys + "}}");
    REQUIRE(texts(loaded.faults) == Lines{});
    return loaded.config.pools.at("app");
  }
  Stable stable;
};

}  // namespace

TEST_CASE("folders are resolved when the file is read, and stay as they are written in it") {
  Releases releases;
  const std::string link = releases.stable.scratch / "current";
  const std::string one = releases.stable.scratch / "releases/1";
  const std::string two = releases.stable.scratch / "releases/2";

  SUBCASE("the directory, and what is relative to it") {
    const auto read = [&] { return releases.pool("command: ./bin/run, directory: current"); };
    const Pool before = read();
    CHECK(before.directory == link);
    CHECK(before.folder == one);
    CHECK(before.executable == one + "/bin/run");
    CHECK(before.argv0 == "./bin/run");
    releases.point_to("2");
    CHECK(read().directory == link);
    CHECK(read().folder == two);
  }
  SUBCASE("the manager's working directory, if none is given") {
    releases.stable.host.folder = link;
    const auto read = [&] { return releases.pool("command: bin/run"); };
    CHECK(read().folder == one);
    CHECK(!read().directory);
    releases.point_to("2");
    CHECK(read().folder == two);
    CHECK(read().executable == two + "/bin/run");
  }
  SUBCASE("the executable's, whose last component stays: it may be a link that it needs") {
    const Pool pool = releases.pool("command: [" + link + "/bin/python, x]");
    CHECK(pool.command.front() == link + "/bin/python");
    CHECK(pool.executable == one + "/bin/python");
    CHECK(pool.argv0 == one + "/bin/python");  // by which Python finds its environment
  }
  SUBCASE("that in which PATH has it") {
    const Pool pool = releases.pool("command: python, env: {PATH: " + link + "/bin}");
    CHECK(pool.executable == one + "/bin/python");
    CHECK(pool.argv0 == one + "/bin/python");
    CHECK(releases.pool("command: python, env: {PATH: " + one + "/bin}").argv0 == "python");
  }
  SUBCASE("that of a check") {
    const Pool pool = releases.pool("command: app, health: {exec: [" + link + "/bin/run]}");
    CHECK(pool.health->executable == one + "/bin/run");
    CHECK(pool.health->argv0 == one + "/bin/run");
  }
  SUBCASE("the file of variables, by having been read") {
    const auto read = [&] { return releases.pool("command: app, env_file: current/app.env"); };
    CHECK(read().env_file == link + "/app.env");
    CHECK(read().env.at("RELEASE") == "1");
    releases.point_to("2");
    CHECK(read().env.at("RELEASE") == "2");
  }
}

TEST_CASE("a manager whose working directory is gone says so, unless no pool starts there") {
  Stable stable;
  stable.host.folder = stable.scratch / "gone";
  CHECK(has(stable.pool_faults(""),
            {"t.yaml:2:2: pools.app: its workers start in the manager's working directory, '",
             "gone': No such file or directory; give the pool a 'directory:'"}));
  CHECK(stable.pool_faults("  directory: /").empty());
}

}  // namespace ostler::config
