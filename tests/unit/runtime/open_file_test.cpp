// Which files the manager opens for writing, and what it says of the others.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "runtime/open_file.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "config/src/host.hpp"

namespace ostler::runtime {
namespace {

class Scratch {
 public:
  Scratch() : path_(std::filesystem::temp_directory_path() / "ostler-open-XXXXXX") {
    path_ = ::mkdtemp(path_.data());
  }
  ~Scratch() { std::filesystem::remove_all(path_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  std::string operator/(const char* name) const { return path_ + "/" + name; }
  [[nodiscard]] std::string file(const char* name) const {
    std::ofstream(*this / name) << "precious";
    return *this / name;
  }

 private:
  std::string path_;
};

std::string text_of(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// Why PATH is not opened.
std::string problem(const std::string& path) {
  const OpenedFile opened = open_own_file(path);
  CHECK(static_cast<bool>(opened.fd) == opened.problem.empty());
  return opened.problem;
}

}  // namespace

TEST_CASE("a file of its own is made and appended to, and not inherited") {
  const Scratch scratch;
  const std::string path = scratch / "log";
  for (const char* line : {"one\n", "two\n"}) {
    const OpenedFile opened = open_own_file(path);
    REQUIRE(opened.fd);
    CHECK(write_whole(opened.fd.get(), line) == 0);
    CHECK((::fcntl(opened.fd.get(), F_GETFD) & FD_CLOEXEC) != 0);
  }
  CHECK(text_of(path) == "one\ntwo\n");
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 0137) == 0);  // at most 0640
  CHECK(problem(scratch / "none/log") == "No such file or directory");
  CHECK(problem("/dev/null").empty());
}

TEST_CASE("no link is followed, whatever it leads to") {
  const Scratch scratch;
  const std::string victim = scratch.file("victim");
  for (const std::string& target : {victim, scratch / "none", std::string("/dev/null")}) {
    std::filesystem::create_symlink(target, scratch / "link");
    CHECK(problem(scratch / "link") ==
          "it is a symbolic link, and none is followed; name the file itself");
    std::filesystem::remove(scratch / "link");
  }
  CHECK_FALSE(std::filesystem::exists(scratch / "none"));
  CHECK(problem("/dev/stdout").starts_with("it is a symbolic link"));
}

TEST_CASE("a file with another name is not opened") {
  const Scratch scratch;
  const std::string victim = scratch.file("victim");
  std::filesystem::create_hard_link(victim, scratch / "log");
  CHECK(problem(scratch / "log").starts_with("it has 2 names (hard links)"));
  std::filesystem::remove(victim);
  CHECK(problem(scratch / "log").empty());
}

TEST_CASE("what is no file is not opened, and nothing waits") {
  const Scratch scratch;
  const std::string pipe = scratch / "pipe";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  CHECK(problem(pipe) == "it is a named pipe, not a file");
  const UniqueFd reader(::open(pipe.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  CHECK(problem(pipe) == "it is a named pipe, not a file");
  std::filesystem::create_directory(scratch / "folder");
  CHECK(problem(scratch / "folder") == "it is a folder, not a file");
  const UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  (scratch / "socket").copy(address.sun_path, sizeof address.sun_path - 1);
  REQUIRE(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  CHECK(problem(scratch / "socket") == "it is a socket, not a file");
  for (const char* device : {"/dev/full", "/dev/zero"}) {
    CHECK(problem(device) == "it is a device, not a file");
  }
}

TEST_CASE("files of the kernel are no logs, though regular by their mode") {
  for (const char* path : {"/proc/self/mem", "/proc/self/comm", "/proc/self/oom_score_adj"}) {
    CAPTURE(path);
    CHECK(problem(path) == "it belongs to the kernel (proc, sysfs or the like), and is no log");
  }
}

TEST_CASE("another's file is not opened, and it is said whose it is") {
  const Scratch scratch;
  const bool root = ::geteuid() == 0;
  const std::string path = root ? scratch.file("log") : "/etc/passwd";
  const auto stranger = static_cast<uid_t>(54321);
  if (root) {
    REQUIRE(::chown(path.c_str(), stranger, static_cast<gid_t>(-1)) == 0);
    REQUIRE(::chmod(path.c_str(), 0666) == 0);
  }
  const std::string self = "'" + config::user_text(::geteuid()) + "'";
  CHECK(problem(path) == "it belongs to '" + config::user_text(root ? stranger : 0) + "', not to " +
                             self + ", as whom ostlerd runs; chown it to " + self +
                             ", or remove it");
}

}  // namespace ostler::runtime
