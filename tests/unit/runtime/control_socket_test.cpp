#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "runtime/control_socket.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

using namespace ostler::runtime;
namespace fs = std::filesystem;

namespace {

// A scratch directory of this user alone.
class Scratch {
 public:
  Scratch() {
    std::string pattern = (fs::temp_directory_path() / "ostler-socket-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~Scratch() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

ControlSocketOptions at(const std::string& path, mode_t mode = 0600) {
  ControlSocketOptions options;
  options.path = path;
  options.mode = mode;
  return options;
}

mode_t mode_of(const std::string& path) {
  struct stat status {};
  REQUIRE(lstat(path.c_str(), &status) == 0);
  return status.st_mode & 07777;
}

bool exists(const std::string& path) {
  return fs::exists(fs::symlink_status(path));
}

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(static_cast<char*>(address.sun_path), sizeof address.sun_path - 1);
  return address;
}

UniqueFd unix_socket() {
  return UniqueFd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
}

bool can_connect(const std::string& path) {
  const UniqueFd fd = unix_socket();
  const sockaddr_un address = address_of(path);
  return connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

// Bound, and listening if asked for; closing it leaves the file behind, as a killed process does.
UniqueFd foreign_socket(const std::string& path, bool listening) {
  UniqueFd fd = unix_socket();
  const sockaddr_un address = address_of(path);
  REQUIRE(bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  if (listening) REQUIRE(listen(fd.get(), 1) == 0);
  return fd;
}

void check_refused(const ControlSocketOptions& options, const std::string& why) {
  const auto result = open_control_socket(options);
  CHECK_FALSE(result.socket);
  CHECK_MESSAGE(result.error.find(why) != std::string::npos, result.error);
  CHECK_MESSAGE(result.error.find(options.path) != std::string::npos, result.error);
}

}  // namespace

TEST_CASE("a control socket listens, non-blocking and close-on-exec, and removes itself") {
  const Scratch scratch;
  const std::string path = scratch / "control.sock";
  {
    const auto result = open_control_socket(at(path));
    REQUIRE_MESSAGE(result.socket, result.error);
    CHECK(result.socket->path() == path);
    CHECK(can_connect(path));
    CHECK((fcntl(result.socket->listener(), F_GETFL) & O_NONBLOCK) != 0);
    CHECK((fcntl(result.socket->listener(), F_GETFD) & FD_CLOEXEC) != 0);
    CHECK(exists(path + ".lock"));
  }
  CHECK_FALSE(exists(path));
  CHECK_FALSE(exists(path + ".lock"));
}

TEST_CASE("the mode is what was asked for, whatever the umask") {
  const Scratch scratch;
  for (const mode_t mask : {mode_t{0}, mode_t{022}, mode_t{0777}})
    for (const mode_t mode : {mode_t{0600}, mode_t{0660}, mode_t{0666}}) {
      const mode_t before = umask(mask);
      const auto result = open_control_socket(at(scratch / "s", mode));
      const mode_t after = umask(before);
      REQUIRE_MESSAGE(result.socket, result.error);
      CHECK(mode_of(scratch / "s") == mode);
      CHECK(after == mask);
    }
}

TEST_CASE("the group is set") {
  const Scratch scratch;
  ControlSocketOptions options = at(scratch / "s", 0660);
  options.group = geteuid() == 0 ? gid_t{12345} : getegid();
  const auto result = open_control_socket(options);
  REQUIRE_MESSAGE(result.socket, result.error);
  struct stat status {};
  REQUIRE(stat((scratch / "s").c_str(), &status) == 0);
  CHECK(status.st_gid == *options.group);
  CHECK((status.st_mode & 0777) == 0660);
}

TEST_CASE("the socket of a living manager is never taken, and its pid is named") {
  const Scratch scratch;
  const std::string path = scratch / "s";
  auto first = open_control_socket(at(path));
  REQUIRE_MESSAGE(first.socket, first.error);
  const auto second = open_control_socket(at(path));
  CHECK_FALSE(second.socket);
  CHECK(second.holder == getpid());
  CHECK(second.error.find("in use by a living manager (pid " + std::to_string(getpid()) + ")") !=
        std::string::npos);
  CHECK(can_connect(path));

  SUBCASE("even if its lock file was deleted") {
    REQUIRE(unlink((path + ".lock").c_str()) == 0);
    const auto third = open_control_socket(at(path));
    CHECK_FALSE(third.socket);
    CHECK(third.holder == getpid());
    CHECK(can_connect(path));
  }
  SUBCASE("and it is free when the manager has ended") {
    first.socket.reset();
    CHECK(open_control_socket(at(path)).socket);
  }
}

TEST_CASE("the socket of a manager that was killed is replaced at once") {
  const Scratch scratch;
  const std::string path = scratch / "s";
  int ready[2];
  REQUIRE(pipe(ready) == 0);
  const pid_t child = fork();
  if (child == 0) {
    const auto result = open_control_socket(at(path));
    const char byte = result.socket ? 'y' : 'n';
    if (write(ready[1], &byte, 1) == 1) pause();
    _exit(0);
  }
  char byte = 0;
  REQUIRE(read(ready[0], &byte, 1) == 1);
  REQUIRE(byte == 'y');
  CHECK(open_control_socket(at(path)).holder == child);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  CHECK(exists(path));
  const auto result = open_control_socket(at(path));
  CHECK_MESSAGE(result.socket, result.error);
  CHECK(can_connect(path));
  close(ready[0]);
  close(ready[1]);
}

TEST_CASE("a socket that another program listens on is left alone; a dead one is replaced") {
  const Scratch scratch;
  const std::string path = scratch / "s";
  auto foreign = foreign_socket(path, true);
  check_refused(at(path), "in use by a living manager (pid " + std::to_string(getpid()));
  CHECK(can_connect(path));
  foreign.reset();
  CHECK(open_control_socket(at(path)).socket);
  foreign = foreign_socket(path, false);  // bound and not listening: nobody can talk to it
  CHECK(open_control_socket(at(path)).socket);
}

TEST_CASE("what is no socket is not removed") {
  const Scratch scratch;
  std::ofstream(scratch / "file") << "precious";
  check_refused(at(scratch / "file"), "no socket");
  CHECK(fs::file_size(scratch / "file") == 8);
  REQUIRE(mkdir((scratch / "dir").c_str(), 0700) == 0);
  check_refused(at(scratch / "dir"), "no socket");
  REQUIRE(symlink((scratch / "file").c_str(), (scratch / "link").c_str()) == 0);
  check_refused(at(scratch / "link"), "no socket");
  CHECK(exists(scratch / "link"));
}

TEST_CASE("a lock file that is somebody's trap is not written to") {
  const Scratch scratch;
  std::ofstream(scratch / "victim") << "precious";
  SUBCASE("a symbolic link") {
    REQUIRE(symlink((scratch / "victim").c_str(), (scratch / "s.lock").c_str()) == 0);
    check_refused(at(scratch / "s"), "s.lock");
  }
  SUBCASE("a hard link") {
    REQUIRE(link((scratch / "victim").c_str(), (scratch / "s.lock").c_str()) == 0);
    check_refused(at(scratch / "s"), "not a plain file of this user alone");
  }
  SUBCASE("a pipe") {
    REQUIRE(mkfifo((scratch / "s.lock").c_str(), 0600) == 0);
    check_refused(at(scratch / "s"), "not a plain file");
  }
  CHECK(fs::file_size(scratch / "victim") == 8);
  CHECK_FALSE(exists(scratch / "s"));
}

TEST_CASE("paths that cannot be") {
  const Scratch scratch;
  check_refused(at(scratch / std::string(108 - scratch.path().size(), 'x')), "107 are the most");
  const std::string longest = scratch / std::string(106 - scratch.path().size(), 'x');
  REQUIRE(longest.size() == 107);
  CHECK(open_control_socket(at(longest)).socket);
  check_refused(at(scratch.path() + "/"), "names no file");
  check_refused(at(""), "names no file");
}

TEST_CASE("a configured directory must exist and keep strangers out") {
  const Scratch scratch;
  check_refused(at(scratch / "missing/s"), "missing does not exist");
  std::ofstream(scratch / "file") << "";
  check_refused(at(scratch / "file/s"), "not a directory");
  REQUIRE(mkdir((scratch / "open").c_str(), 0700) == 0);
  REQUIRE(chmod((scratch / "open").c_str(), 0777) == 0);
  check_refused(at(scratch / "open/s"), "writable by other users");
  REQUIRE(chmod((scratch / "open").c_str(), 01777) == 0);
  CHECK(open_control_socket(at(scratch / "open/s")).socket);
  // A link of the administrator's is followed.
  REQUIRE(mkdir((scratch / "real").c_str(), 0700) == 0);
  REQUIRE(symlink("real", (scratch / "link").c_str()) == 0);
  CHECK(open_control_socket(at(scratch / "link/s")).socket);
}

TEST_CASE("the default directory is created, for this user alone") {
  const Scratch scratch;
  ControlSocketOptions options = at(scratch / "run/control.sock");
  options.default_directory = true;
  const mode_t before = umask(0);
  const auto result = open_control_socket(options);
  umask(before);
  REQUIRE_MESSAGE(result.socket, result.error);
  CHECK(mode_of(scratch / "run") == (geteuid() == 0 ? 0755 : 0700));

  SUBCASE("one that others may write is refused") {
    REQUIRE(chmod((scratch / "run").c_str(), 0770) == 0);
    options.path = scratch / "run/other.sock";
    check_refused(options, "writable by other users");
  }
  SUBCASE("a link in its place is refused") {
    REQUIRE(symlink("run", (scratch / "link").c_str()) == 0);
    options.path = scratch / "link/control.sock";
    check_refused(options, "symbolic link");
  }
  SUBCASE("only its last part is created") {
    options.path = scratch / "a/b/control.sock";
    check_refused(options, "cannot create the directory");
  }
}

TEST_CASE("a directory of another user is refused" * doctest::skip(geteuid() != 0)) {
  const Scratch scratch;
  REQUIRE(mkdir((scratch / "theirs").c_str(), 0755) == 0);
  REQUIRE(chown((scratch / "theirs").c_str(), 12345, 12345) == 0);
  ControlSocketOptions options = at(scratch / "theirs/s");
  check_refused(options, "belongs to user 12345");
  options.default_directory = true;
  check_refused(options, "belongs to user 12345");
  CHECK_FALSE(exists(scratch / "theirs/s.lock"));
}

TEST_CASE("files that are not its own any more are left alone at the end") {
  const Scratch scratch;
  const std::string path = scratch / "s";
  {
    const auto result = open_control_socket(at(path));
    REQUIRE(result.socket);
    REQUIRE(unlink(path.c_str()) == 0);
    REQUIRE(unlink((path + ".lock").c_str()) == 0);
    std::ofstream(path) << "another";
    std::ofstream(path + ".lock") << "another";
  }
  CHECK(fs::file_size(path) == 7);
  CHECK(fs::file_size(path + ".lock") == 7);
}

TEST_CASE("files that were removed are made again, as they were") {
  const Scratch scratch;
  const std::string folder = scratch / "run";
  const std::string path = folder + "/s";
  auto options = at(path, 0620);
  options.default_directory = true;
  auto result = open_control_socket(options);
  REQUIRE(result.socket);
  ControlSocket& socket = *result.socket;
  CHECK(socket.is_whole());
  SUBCASE("the socket") {
    REQUIRE(unlink(path.c_str()) == 0);
  }
  SUBCASE("the lock") {
    REQUIRE(unlink((path + ".lock").c_str()) == 0);
  }
  SUBCASE("both") {
    REQUIRE(unlink(path.c_str()) == 0);
    REQUIRE(unlink((path + ".lock").c_str()) == 0);
  }
  SUBCASE("their folder") {
    fs::remove_all(folder);
  }
  CHECK_FALSE(socket.is_whole());
  CHECK(socket.restore() == "");
  CHECK(socket.is_whole());
  CHECK(mode_of(path) == 0620);
  CHECK(mode_of(folder) == (geteuid() == 0 ? 0755 : 0700));
  const auto second = open_control_socket(options);
  CHECK_FALSE(second.socket);
  CHECK(second.holder == getpid());
}

TEST_CASE("a manager that took the place of removed files keeps it") {
  const Scratch scratch;
  const std::string path = scratch / "s";
  auto first = open_control_socket(at(path));
  REQUIRE(first.socket);
  REQUIRE(unlink(path.c_str()) == 0);
  REQUIRE(unlink((path + ".lock").c_str()) == 0);
  {
    const auto second = open_control_socket(at(path));
    REQUIRE(second.socket);
    CHECK(first.socket->restore() == "control socket " + path +
                                         ": in use by a living manager (pid " +
                                         std::to_string(getpid()) + ")");
    CHECK(second.socket->is_whole());
  }
  CHECK(first.socket->restore() == "");
  CHECK(first.socket->is_whole());
}

TEST_CASE("where the folder above is gone nothing is made again") {
  const Scratch scratch;
  fs::create_directories(scratch / "up/run");
  const std::string path = scratch / "up/run/s";
  auto result = open_control_socket(at(path));
  REQUIRE(result.socket);
  fs::remove_all(scratch / "up");
  CHECK(result.socket->restore() == "control socket " + path + ": cannot create the directory " +
                                        (scratch / "up/run") + ": No such file or directory");
  fs::create_directories(scratch / "up");
  CHECK(result.socket->restore() == "");
}

TEST_CASE("the owner moves") {
  const Scratch scratch;
  auto first = open_control_socket(at(scratch / "a"));
  auto second = open_control_socket(at(scratch / "b"));
  REQUIRE(first.socket);
  REQUIRE(second.socket);
  *first.socket = std::move(*second.socket);
  CHECK_FALSE(exists(scratch / "a"));
  CHECK(can_connect(scratch / "b"));
  CHECK(first.socket->path() == scratch / "b");
  second.socket.reset();
  CHECK(can_connect(scratch / "b"));
}
