#include "config/src/files.hpp"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "stable.hpp"

namespace ostler::config {
namespace {

bool problem_is(const FileText& file, std::initializer_list<std::string_view> parts) {
  CAPTURE(file.problem);
  return has({file.problem}, parts);
}

}  // namespace

TEST_CASE("reading files") {
  const Scratch scratch;
  CHECK(read_file(scratch.write("a", "text"), false).text == "text");
  CHECK(read_file(scratch.write("full", std::string(kMaxFileBytes, 'x')), false).text.size() ==
        kMaxFileBytes);
  CHECK(problem_is(read_file(scratch.write("big", std::string(kMaxFileBytes + 1, 'x')), false),
                   {"is larger than 1 MiB"}));
  CHECK(problem_is(read_file(scratch / "none", false), {"cannot be read: No such file"}));
  CHECK(problem_is(read_file(scratch.path(), false), {"is a folder, not a file"}));
  CHECK(problem_is(read_file("/dev/zero", false), {"is not a regular file"}));
  // A FIFO that nobody writes to must not hang the manager.
  const std::string fifo = scratch / "fifo";
  REQUIRE(mkfifo(fifo.c_str(), 0600) == 0);
  CHECK(problem_is(read_file(fifo, false), {"is not a regular file"}));
}

TEST_CASE("an unreadable file") {
  if (running_as_root()) return skip("root can read everything");
  const Scratch scratch;
  CHECK(problem_is(read_file(scratch.write("a", "", 0), false), {"cannot be read: Permission"}));
}

TEST_CASE("an ordinary user's file is not root's to trust") {
  if (running_as_root()) return skip("needs an ordinary user");
  const Scratch scratch;
  const std::string file = scratch.write("a", "");
  CHECK(problem_is(read_file(file, true), {"may be written by", "chown root '" + file + "'"}));
}

TEST_CASE("root trusts a file that nobody else may write, nor put another in its place") {
  if (!running_as_root()) return skip("needs root");
  const Scratch scratch;
  if (!only_root_writes(scratch.path())) return skip("others may write the temporary folder");
  const std::string file = scratch.write("etc/a.yaml", "text");
  const std::string folder = scratch / "etc";
  CHECK(read_file(file, true).text == "text");

  SUBCASE("others may write it") {
    REQUIRE(chmod(file.c_str(), 0666) == 0);
    CHECK(problem_is(read_file(file, true),
                     {"may be written by others", "runs as root: chmod go-w '" + file + "'"}));
  }
  SUBCASE("a group may write it") {
    REQUIRE(chmod(file.c_str(), 0664) == 0);
    CHECK(read_file(file, true).text == "text");  // root's own
    REQUIRE(chown(file.c_str(), 0, 54321) == 0);
    CHECK(problem_is(read_file(file, true), {"may be written by others", "chmod go-w"}));
  }
  SUBCASE("it belongs to another") {
    REQUIRE(chown(file.c_str(), 54321, 0) == 0);
    CHECK(problem_is(read_file(file, true),
                     {"may be written by user 54321", "chown root '" + file + "'"}));
    REQUIRE(chmod(file.c_str(), 0666) == 0);
    CHECK(problem_is(read_file(file, true),
                     {"chown root '" + file + "' && chmod go-w '" + file + "'"}));
  }
  SUBCASE("its folder can be written") {
    REQUIRE(chmod(folder.c_str(), 0777) == 0);
    CHECK(problem_is(read_file(file, true),
                     {"may be replaced by others, who may write the folder '" + folder + "'",
                      "/etc/ostler", "chmod go-w '" + folder + "'"}));
    REQUIRE(chmod(folder.c_str(), 01777) == 0);
    CHECK(read_file(file, true).text == "text");
  }
  SUBCASE("its folder belongs to another") {
    REQUIRE(chown(folder.c_str(), 54321, 0) == 0);
    CHECK(problem_is(read_file(file, true),
                     {"may be replaced by user 54321", "chown root '" + folder + "'"}));
  }
  SUBCASE("a link leads to where others may write") {
    scratch.folder("open", 0777);
    const std::string real = scratch.write("open/b.yaml", "");
    const std::string link = scratch / "etc/link.yaml";
    std::filesystem::create_symlink(real, link);
    CHECK(problem_is(read_file(link, true), {"who may write the folder '" + scratch / "open"}));
  }
  SUBCASE("the link itself lies where others may write") {
    scratch.folder("open", 0777);
    const std::string link = scratch / "open/link.yaml";
    std::filesystem::create_symlink(file, link);
    CHECK(problem_is(read_file(link, true), {"who may write the folder '" + scratch / "open"}));
  }
}

TEST_CASE("patterns") {
  const Scratch scratch;
  scratch.write("conf.d/b.yaml", "");
  scratch.write("conf.d/a.yaml", "");
  scratch.write("conf.d/.hidden.yaml", "");
  scratch.write("conf.d/c.txt", "");
  scratch.write("odd[1]*/x.yaml", "");
  CHECK(match_files("conf.d/*.yaml", scratch.path()).files ==
        Lines{scratch / "conf.d/a.yaml", scratch / "conf.d/b.yaml"});
  CHECK(match_files("*/[ab].yaml", scratch.path()).files.size() == 2);
  CHECK(match_files(scratch / "conf.d/?.txt", "/nowhere").files == Lines{scratch / "conf.d/c.txt"});
  CHECK(match_files("*.yaml", scratch / "odd[1]*").files == Lines{scratch / "odd[1]*/x.yaml"});
  CHECK(match_files("none/*.yaml", scratch.path()).files.empty());
  CHECK(match_files("none/*.yaml", scratch.path()).problem.empty());
  CHECK(has_wildcard("a/*.b"));
  CHECK(!has_wildcard("a/b.c"));
}

TEST_CASE("paths") {
  CHECK(absolute_path("a", "/x") == "/x/a");
  CHECK(absolute_path("../a/./b//c/", "/x/y") == "/x/a/b/c");
  CHECK(absolute_path("/a", "/x") == "/a");
  CHECK(absolute_path("/", "/x") == "/");
  CHECK(absolute_path("../../..", "/x/y") == "/");
}

TEST_CASE("what `..` stands for behind a link is the kernel's business") {
  const Scratch scratch;
  const std::string link = scratch / "current";
  std::filesystem::create_directory_symlink(scratch.folder("releases/1"), link);
  CHECK(absolute_path("../shared/a", link) == link + "/../shared/a");
  CHECK(absolute_path("../../a", link) == link + "/../../a");
  CHECK(absolute_path("x/../a", link) == link + "/a");
  CHECK(real_path(absolute_path("..", link)) == scratch / "releases");
}

TEST_CASE("the links in a path's folder are resolved, its last component stays") {
  const Scratch scratch;
  const std::string link = scratch / "current";
  std::filesystem::create_directory_symlink(scratch.folder("releases/1"), link);
  std::filesystem::create_symlink("/bin/sh", scratch / "releases/1/python");
  CHECK(real_path(link) == scratch / "releases/1");
  CHECK(real_path(scratch / "none").empty());
  CHECK(in_real_folder(link + "/python") == scratch / "releases/1/python");
  CHECK(in_real_folder(scratch / "none/python") == scratch / "none/python");
}

}  // namespace ostler::config
