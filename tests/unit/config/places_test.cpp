// Folders, programs and sockets that cannot be used by those who need them.
#include "config/src/places.hpp"

#include <doctest/doctest.h>
#include <elf.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <filesystem>

#include "config/src/access.hpp"
#include "config/src/program.hpp"
#include "stable.hpp"

namespace ostler::config {
namespace {

constexpr uid_t kStranger = 54321;

Who stranger(std::vector<gid_t> groups = {}) {
  return Who(Account{kStranger, std::move(groups)});
}

// An ELF file of this machine that names LOADER.
std::string elf(const std::string& loader) {
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_phoff = sizeof header;
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = 1;
  Elf64_Phdr segment{};
  segment.p_type = PT_INTERP;
  segment.p_offset = sizeof header + sizeof segment;
  segment.p_filesz = loader.size() + 1;
  std::string out(sizeof header + sizeof segment, '\0');
  std::memcpy(out.data(), &header, sizeof header);
  std::memcpy(out.data() + sizeof header, &segment, sizeof segment);
  return out + loader + '\0';
}

}  // namespace

TEST_CASE("what another user may do is read off the mode bits") {
  const Scratch scratch;
  const std::string file = scratch.write("open/file", "", 0640);
  struct stat status {};
  REQUIRE(stat(file.c_str(), &status) == 0);
  REQUIRE(chmod(scratch.path().c_str(), 0755) == 0);
  CHECK(!stranger().may(R_OK, file));
  CHECK(stranger({status.st_gid}).may(R_OK, file));
  CHECK(!stranger({status.st_gid}).may(W_OK, file));
  CHECK(Who(Account{0, {}}).may(R_OK | W_OK, file));
  CHECK(!Who(Account{0, {}}).may(X_OK, file));  // nobody may execute it
  CHECK(Who(Account{status.st_uid, {}}).may(W_OK, file));
  CHECK(stranger().may(R_OK, scratch / "none"));  // not known
  CHECK(stranger().barred_by(file).empty());
  const std::string folder = scratch.folder("open", 0700);
  CHECK(stranger().barred_by(file) == folder);
  CHECK(Who(Account{status.st_uid, {}}).barred_by(file).empty());
  const std::string link = scratch / "link";
  std::filesystem::create_directory_symlink("open", link);
  CHECK(stranger().barred_by(link + "/file") == link);
}

TEST_CASE("a program whose interpreter is not there") {
  const Scratch scratch;
  const auto problem = [&](const std::string& text) {
    return program_fault(scratch.write("program", text, 0755), Who::manager(), "/bin").problem;
  };
  CHECK(problem("#!/bin/sh\n").empty());
  CHECK(problem("#! /bin/sh -e\n").empty());
  CHECK(problem("#!/no/such -x\nrest") ==
        "names the interpreter '/no/such' in its first line, which does not exist");
  CHECK(has({problem("#!/bin/sh\r\n")}, {"'/bin/sh\\x0d'", "carriage return", "remove it"}));
  CHECK(has({problem("#!" + scratch.write("plain", "", 0644))}, {"may not execute"}));
  CHECK(has({problem("#!/etc\n")}, {"which is no file that can be executed"}));
  CHECK(has({problem("#!\n")}, {"names no interpreter"}));
  CHECK(problem("#!relative\n").empty());  // to wherever it is started in
  const std::string inner = scratch.write("inner", "#!/no/such\n", 0755);
  CHECK(has({problem("#!" + inner + "\n")}, {inner, "which names the interpreter '/no/such'"}));
  CHECK(problem("#!" + scratch / "program" + "\n").empty());  // for ever; the kernel says so
  CHECK(problem(elf("/lib/no-such-loader.so.1")) ==
        "needs the loader '/lib/no-such-loader.so.1', which does not exist; it was made for "
        "another system");
  CHECK(problem(elf("/bin/sh")).empty());
  CHECK(problem(ELFMAG).empty());
  CHECK(problem("#!/usr/bin/env sh\n").empty());
  CHECK(problem("#!/usr/bin/env -S A=1 sh -e\n").empty());
  CHECK(problem("#!/usr/bin/env -i no-such\n").empty());  // not looked into
  for (const char* line : {"'a b'", "\"no-such\"", "no\\_such", "${HOME}/x", "PATH=/opt no-such"}) {
    CAPTURE(line);
    CHECK(problem(std::string("#!/usr/bin/env -S ") + line + "\n").empty());  // nor these
  }
  CHECK(problem("#!/usr/bin/env no-such\n") ==
        "names 'no-such' to 'env' in its first line, but 'no-such' is in no folder of PATH (/bin)");
  CHECK(has({problem("#!/usr/bin/env -S A=1 no-such -x\n")}, {"names 'no-such' to 'env'"}));
  CHECK(has({problem("#!/usr/bin/env sh -e\n")}, {"names 'sh -e' to 'env'", "begins with -S"}));
  CHECK(has({problem("#!/usr/bin/env sh\r\n")}, {"'sh\\x0d'", "carriage return"}));

  REQUIRE(chmod(scratch.path().c_str(), 0755) == 0);
  scratch.write("closed/tool", "", 0755);
  const std::string closed = scratch.folder("closed", 0700);
  const std::string script = scratch.write("script", "#!/usr/bin/env tool\n", 0755);
  CHECK(program_fault(script, Who::manager(), closed).problem.empty());
  CHECK(has({program_fault(script, stranger(), closed).problem},
            {"names 'tool' to 'env' in its first line: '" + closed + "/tool', which",
             "may not come to"}));

  const ProgramFault text =
      program_fault(scratch.write("text", "echo\n", 0755), Who::manager(), "/bin");
  CHECK(has({text.problem}, {"neither an ELF file nor a script"}));
  CHECK(!text.certain);
}

TEST_CASE("commands that cannot be executed") {
  const Stable stable;
  const auto& scratch = stable.scratch;
  scratch.write("bin/orphan", "#!/no/such\n", 0755);
  scratch.write("bin/text", "echo\n", 0755);
  CHECK(stable.faults("pools: {app: {command: orphan}}") ==
        Lines{"t.yaml:1:24: pools.app.command: '" + scratch / "bin/orphan" +
              "' names the interpreter '/no/such' in its first line, which does not exist"});
  CHECK(has(stable.pool_faults("  health: {exec: [orphan]}"),
            {"pools.app.health.exec: ", "'/no/such'"}));
  const Loaded warned = stable.load("pools: {app: {command: text, user: root}}");
  CHECK(texts(warned.faults) == Lines{});
  CHECK(has(warned.warnings, {"t.yaml:1:24: pools.app.command: ", "neither an ELF file"}));
}

TEST_CASE("what the worker's user may not enter or execute") {
  const Stable stable;
  const auto& scratch = stable.scratch;
  const std::string user = "  user: 54321\n  group: 54321\n";
  const std::string folder = scratch.folder("srv/app", 0700);
  REQUIRE(chmod(scratch.path().c_str(), 0700) == 0);
  CHECK(
      has(stable.pool_faults(user + "  directory: /"),
          {"pools.app.command: '" + scratch / "bin/app" + "': '54321' may not enter the folder '" +
           scratch.path() + "' (chmod o+x '" + scratch.path() + "', or take another user)"}));
  REQUIRE(chmod(scratch.path().c_str(), 0755) == 0);
  CHECK(stable.pool_faults(user).empty());
  CHECK(has(stable.pool_faults(user + "  directory: srv/app"),
            {"t.yaml:6:14: pools.app.directory: '54321' may not enter the folder '" + folder}));
  CHECK(stable.pool_faults("  directory: srv/app").empty());  // as the manager's own user
  CHECK(stable.pool_faults("  directory: srv/app\n  user: root").empty());
  scratch.write("bin/app", "#!/bin/sh\n", 0700);
  CHECK(has(stable.pool_faults(user), {"pools.app.command: '54321' may not execute '"}));
  scratch.write("bin/app", "#!/bin/sh\n", 0711);
  CHECK(has(stable.pool_faults(user), {"is a script, and '54321' may not read it"}));
}

TEST_CASE("a folder that one with an access list may enter is no fault: it is not known") {
  const Stable stable;
  const std::string folder = stable.scratch.folder("srv", 0700);
  // As acl(5) has it: version 2; the owner, user 54321, the group, the mask, all others.
  struct Permission {
    std::uint16_t tag, permissions;
    std::uint32_t id;
  };
  constexpr std::uint32_t kNobody = 0xFFFFFFFF;
  const struct {
    std::uint32_t version = 2;
    std::array<Permission, 5> entries = {{{0x01, 7, kNobody},
                                          {0x02, 1, kStranger},
                                          {0x04, 0, kNobody},
                                          {0x10, 1, kNobody},
                                          {0x20, 0, kNobody}}};
  } list;
  if (setxattr(folder.c_str(), "system.posix_acl_access", &list, sizeof list, 0) != 0) {
    return skip("needs a file system with access lists");
  }
  CHECK(stable.pool_faults("  user: 54321\n  group: 54321\n  directory: srv").empty());
}

TEST_CASE("outputs that cannot be opened") {
  const Stable stable;
  const auto& scratch = stable.scratch;
  scratch.folder("log");
  std::filesystem::create_symlink("real.log", scratch / "log/link.log");
  const auto output = [&](const std::string& path, const std::string& more = "") {
    return stable.pool_faults("  user: root\n  output: '" + path + "'\n" + more);
  };
  CHECK(output("log/web.log").empty());
  CHECK(output("none/web.log") ==
        Lines{"t.yaml:5:11: pools.app.output: the folder '" + scratch / "none" +
              "' does not exist (mkdir -p '" + scratch / "none" + "')"});
  CHECK(has(output("log/link.log"), {"is a symbolic link, and none is followed"}));
  CHECK(has(output("./log"), {"is a folder, not a file"}));
  scratch.write("log/there.log", "");
  CHECK(output("log/there.log").empty());
  std::filesystem::create_hard_link(scratch / "log/there.log", scratch / "log/hard.log");
  CHECK(has(output("log/hard.log"), {"/log/hard.log' has 2 names (hard links)"}));
  CHECK(has(output("/proc/self/comm"), {"'/proc/self/comm' belongs to the kernel"}));
  CHECK(has(output("/dev/full"), {"'/dev/full' is a device, not a file"}));
  CHECK(output("/dev/null").empty());
  CHECK(has(output("/dev/stdout"), {"is a symbolic link", "a pool says 'inherit'"}));
  CHECK(has(output("bin/app/x.log"), {"bin/app' is not a folder"}));
  CHECK(output("log/{pool}-{slot}-{generation}.log").empty());
  CHECK(has(output("{pool}/x.log"), {"the folder '" + scratch / "app" + "' does not exist"}));
  CHECK(output("{generation}/x.log").empty());  // not known
  scratch.folder("s0");
  CHECK(output("s{slot}/x.log", "  workers: 1").empty());
  CHECK(has(output("s{slot}/x.log", "  workers: 2"), {"the folder '" + scratch / "s1"}));
  CHECK(has(output("log/{slto}.log"), {"holds {slto}; did you mean {slot}?"}));
}

TEST_CASE("logs and outputs that belong to another") {
  const Stable stable;
  std::string file = "/etc/passwd";
  if (running_as_root()) {
    file = stable.scratch.write("web.log", "");
    REQUIRE(chown(file.c_str(), kStranger, kStranger) == 0);
  }
  const std::string owner = running_as_root() ? "54321" : "root";
  const std::string self = user_text(geteuid());
  const std::string why = "'" + file + "' belongs to '" + owner + "', not to '" + self +
                          "', as whom ostlerd runs; chown it to '" + self + "', or remove it";
  CHECK(stable.pool_faults("  output: " + file) == Lines{"t.yaml:4:11: pools.app.output: " + why});
  CHECK(stable.faults("log: {output: " + file + "}\npools: {}") ==
        Lines{"t.yaml:1:15: log.output: " + why});
}

TEST_CASE("unix listeners that cannot be bound") {
  const Stable stable;
  const auto& scratch = stable.scratch;
  const auto listen = [&](const std::string& path) {
    return stable.pool_faults("  listen: ['unix://" + path + "']");
  };
  CHECK(listen(scratch / "web.sock").empty());
  CHECK(
      has(listen(scratch / "none/web.sock"), {"t.yaml:4:12: pools.app.listen[0]: the folder '" +
                                              scratch / "none" + "' does not exist (mkdir -p '"}));
  CHECK(has(listen(scratch / "bin/app"), {"there is something else at '", "no socket; remove it"}));

  LoadOptions options;
  options.runtime_folder = scratch / "run";  // which the manager makes
  const std::string pool =
      "pools: {app: {command: app, listen: ['unix://" + scratch / "run/a.sock" + "']}}";
  CHECK(texts(stable.load(pool, options).faults) == Lines{});
  const std::string control = "control: {socket: " + scratch / "c.sock" + "}\n";
  CHECK(stable.load(control + pool, options).faults.size() == 1);
}

TEST_CASE("one path for two things") {
  const Stable stable;
  const auto& scratch = stable.scratch;
  scratch.folder("log");
  std::filesystem::create_directory_symlink(scratch / "log", scratch / "also");
  const std::string control = "control: {socket: " + scratch / "log/c.sock" + "}\n";
  const auto faults = [&](const std::string& keys, const std::string& log = "") {
    return texts(stable.load(control + log + "pools: {app: {command: app, " + keys + "}}").faults);
  };
  const auto listen = [&](const std::string& path) {
    return faults("listen: ['unix://" + scratch / path + "']");
  };
  const auto output = [&](const std::string& path) { return faults("output: " + scratch / path); };
  CHECK(listen("log/a.sock").empty());
  CHECK(has(listen("log/c.sock"), {"pools.app.listen[0]: '", "is taken by the control socket"}));
  CHECK(has(listen("also/c.sock"), {"is taken by the control socket"}));
  CHECK(has(listen("log/c.sock.lock"), {"is taken by the lock of the control socket"}));
  CHECK(has(listen("log/c.sock.notify"), {"is taken by the folder of the notify sockets"}));
  CHECK(output("log/c.log").empty());
  CHECK(has(output("log/c.sock"), {"pools.app.output: '", "is taken by the control socket"}));
  const std::string log = "log: {output: " + scratch / "log/m.log" + "}\n";
  CHECK(faults("output: " + scratch / "also/m.log", log).empty());  // lines of both go there
  CHECK(has(faults("listen: ['unix://" + scratch / "log/m.log" + "']", log),
            {"is taken by log.output"}));
  CHECK(has(faults("output: " + scratch / "log/a.sock" + ", listen: ['unix://" +
                   scratch / "log/a.sock" + "']"),
            {"is taken by a socket of pool 'app'"}));
  CHECK(has(faults("workers: 1", "log: {output: " + scratch / "log/c.sock" + "}\n"),
            {"log.output: '", "is taken by the control socket"}));
}

TEST_CASE("something else where the control socket has its lock or its folder") {
  const Stable stable;
  const auto& scratch = stable.scratch;
  const std::string text = "control: {socket: " + scratch / "c.sock" + "}\npools: {}\n";
  CHECK(stable.load(text).faults.empty());
  scratch.write("c.sock.notify", "");
  CHECK(has(texts(stable.load(text).faults), {"control.socket: there is something else at '",
                                              "notify sockets is to be; remove it"}));
}

TEST_CASE("logs and control sockets that cannot be opened, unless they are open already") {
  const Stable stable;
  const auto& scratch = stable.scratch;
  const std::string log = "log: {output: " + scratch / "none/m.log" + "}\npools: {}\n";
  const std::string control = "control: {socket: " + scratch / "none/c.sock" + "}\npools: {}\n";
  CHECK(stable.faults(log) == Lines{"t.yaml:1:15: log.output: the folder '" + scratch / "none" +
                                    "' does not exist (mkdir -p '" + scratch / "none" + "')"});
  CHECK(has(stable.faults(control),
            {"t.yaml:1:19: control.socket: the folder '" + scratch / "none" + "' does not exist"}));
  scratch.folder("open", 0777);
  CHECK(has(stable.faults("control: {socket: open/c.sock}\npools: {}"),
            {"control.socket: the folder '" + scratch / "open" + "' is writable by other users"}));
  LoadOptions running;
  running.running = true;
  CHECK(stable.load(log + "control: {socket: none/c.sock}\n", running).ok());
}

TEST_CASE("a '$' in env is a warning, and the value is not shown") {
  const Stable stable;
  const auto warnings = [&](const std::string& value) {
    return stable.load("pools: {app: {command: app, user: root, env: {A: '" + value + "'}}}")
        .warnings;
  };
  for (const char* value : {"/opt:$PATH", "${HOME}/x", "s3cr$et"}) {
    CHECK(warnings(value) == Lines{"t.yaml:1:50: pools.app.env.A: holds a '$' before a name, and "
                                   "workers get it as it is: no variable is expanded here"});
  }
  for (const char* value : {"a$", "$5", "$ x", "$(x)", "${", "x"}) CHECK(warnings(value).empty());
  const Loaded twice = stable.load(
      "defaults: {user: root, env: {A: $B}}\npools: {a: {command: app}, b: {command: app}}");
  CHECK(twice.warnings.size() == 1);
}

}  // namespace ostler::config
