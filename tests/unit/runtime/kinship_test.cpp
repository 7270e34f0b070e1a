#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "runtime/kinship.hpp"

#include <doctest/doctest.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <functional>

using namespace std::chrono_literals;
using ostler::core::WorkerId;
using ostler::runtime::kinship_of;

namespace {

// A child process that does one thing; its exit code is what that returns.
class Child {
 public:
  explicit Child(const std::function<int()>& run) : pid_(fork()) {
    if (pid_ == 0) _exit(run());
    REQUIRE(pid_ > 0);
  }
  ~Child() {
    if (!ended_) kill(pid_, SIGKILL);
    static_cast<void>(end());
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  [[nodiscard]] pid_t pid() const { return pid_; }
  int end() {
    int status = -1;
    if (!ended_) waitpid(pid_, &status, 0);
    ended_ = true;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  pid_t pid_;
  bool ended_ = false;
};

bool eventually(const std::function<bool()>& holds) {
  const auto deadline = std::chrono::steady_clock::now() + 20s;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    poll(nullptr, 0, 1);
  }
  return true;
}

}  // namespace

TEST_CASE("the manager and what is none of its own are no workers") {
  const auto anybody = [](pid_t) { return WorkerId{7}; };
  CHECK_FALSE(kinship_of(0, anybody).worker);
  CHECK_FALSE(kinship_of(-5, anybody).worker);
  CHECK_FALSE(kinship_of(1, anybody).worker);
  CHECK_FALSE(kinship_of(getpid(), anybody).worker);
  const auto nobody = [](pid_t) { return WorkerId{}; };
  CHECK_FALSE(kinship_of(getpid(), nobody).worker);
  CHECK_FALSE(kinship_of(getppid(), nobody).worker);
}

TEST_CASE("what a worker left behind is the manager's child, and a worker's") {
  const auto nobody = [](pid_t) { return WorkerId{}; };
  const Child child([] { return pause(); });
  CHECK(kinship_of(child.pid(), nobody).is_orphan);
  CHECK(kinship_of(child.pid(), nobody).is_there);
  CHECK_FALSE(kinship_of(getppid(), nobody).is_orphan);
}

TEST_CASE("a process that has not been waited for is there, one that has is gone") {
  const auto nobody = [](pid_t) { return WorkerId{}; };
  Child child([] { return 0; });
  CHECK(eventually([&] { return kinship_of(child.pid(), nobody).is_zombie; }));
  CHECK(kinship_of(child.pid(), nobody).is_there);
  child.end();
  CHECK_FALSE(kinship_of(child.pid(), nobody).is_there);
}
