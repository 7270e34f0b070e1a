#include "control/socket_path.hpp"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <optional>
#include <string>

namespace ostler::control {
namespace {

// Sets the variables that the rule looks at, and restores them.
class Environment {
 public:
  explicit Environment(const std::map<std::string, std::string>& values) {
    for (const char* name : {"RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", "TMPDIR"}) {
      const char* old = std::getenv(name);
      if (old != nullptr) old_[name] = old;
      unsetenv(name);
    }
    for (const auto& [name, value] : values) setenv(name.c_str(), value.c_str(), 1);
  }
  ~Environment() {
    for (const char* name : {"RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", "TMPDIR"}) unsetenv(name);
    for (const auto& [name, value] : old_) setenv(name.c_str(), value.c_str(), 1);
  }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  std::map<std::string, std::string> old_;
};

std::string path(const std::map<std::string, std::string>& values) {
  const Environment environment(values);
  return default_control_socket();
}

// Runs as a user other than root, if it is root that runs the tests.
class Unprivileged {
 public:
  Unprivileged() : root_(geteuid() == 0) {
    if (root_) REQUIRE(seteuid(65534) == 0);
  }
  ~Unprivileged() {
    if (root_ && seteuid(0) != 0) std::abort();
  }
  Unprivileged(const Unprivileged&) = delete;
  Unprivileged& operator=(const Unprivileged&) = delete;

 private:
  bool root_;
};

}  // namespace

TEST_CASE("systemd's runtime directory comes first, for everyone") {
  CHECK(path({{"RUNTIME_DIRECTORY", "/run/shop"}, {"XDG_RUNTIME_DIR", "/run/user/7"}}) ==
        "/run/shop/control.sock");
  CHECK(path({{"RUNTIME_DIRECTORY", "/run/a:/run/b"}}) == "/run/a/control.sock");
  const Unprivileged user;
  CHECK(path({{"RUNTIME_DIRECTORY", "/run/shop"}, {"XDG_RUNTIME_DIR", "/run/user/7"}}) ==
        "/run/shop/control.sock");
}

TEST_CASE("root has /run/ostler" * doctest::skip(geteuid() != 0)) {
  CHECK(path({{"XDG_RUNTIME_DIR", "/run/user/0"}, {"TMPDIR", "/t"}}) == "/run/ostler/control.sock");
}

TEST_CASE("others have their own runtime directory, or one under the temporary directory") {
  const Unprivileged user;
  const std::string own = "/ostler-" + std::to_string(geteuid()) + "/control.sock";
  CHECK(path({{"XDG_RUNTIME_DIR", "/run/user/7"}, {"TMPDIR", "/t"}}) ==
        "/run/user/7/ostler/control.sock");
  CHECK(path({{"TMPDIR", "/t"}}) == "/t" + own);
  CHECK(path({}) == "/tmp" + own);
}

TEST_CASE("what is no absolute path counts as unset") {
  const Unprivileged user;
  CHECK(path({{"RUNTIME_DIRECTORY", ""}, {"XDG_RUNTIME_DIR", "user/7"}, {"TMPDIR", "t"}}) ==
        "/tmp/ostler-" + std::to_string(geteuid()) + "/control.sock");
}

}  // namespace ostler::control
