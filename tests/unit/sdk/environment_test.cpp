// What the constructor takes from the environment, and what it refuses.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "ostler/worker.hpp"
#include "process.hpp"

namespace ostler::test {
namespace {

// Two descriptors that stand for listeners: the SDK does not look at what they are.
class TwoDescriptors {
 public:
  TwoDescriptors() {
    std::array<int, 2> ends;
    checked(::pipe(ends.data()), "make a pipe");
    first_ = Fd(ends[0]);
    second_ = Fd(ends[1]);
  }
  [[nodiscard]] std::vector<int> list() const { return {first_.get(), second_.get()}; }

 private:
  Fd first_, second_;
};

std::string describe_listeners() {
  const worker worker;
  std::string text;
  for (const auto& each : worker.listeners()) {
    const bool close_on_exec = (::fcntl(each.fd, F_GETFD) & FD_CLOEXEC) != 0;
    text += std::to_string(each.fd) + "=" + each.name + (close_on_exec ? " " : "(inherited) ");
  }
  return text;
}

std::string variables_left() {
  std::string left;
  for (const char* name : {"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID"}) {
    if (std::getenv(name) != nullptr) left += name;
  }
  return left;
}

std::string construct() {
  const worker worker;
  return "taken";
}

}  // namespace

TEST_CASE("listeners come in order, with their names, and are closed on exec") {
  const TwoDescriptors two;
  CHECK(in_child({{"LISTEN_PID", "self"}, {"LISTEN_FDS", "2"}, {"LISTEN_FDNAMES", "http:admin"}},
                 two.list(), describe_listeners) == "3=http 4=admin ");
  CHECK(in_child({{"LISTEN_PID", "self"}, {"LISTEN_FDS", "1"}, {"LISTEN_FDNAMES", "http"}},
                 two.list(), describe_listeners) == "3=http ");
}

TEST_CASE("listeners without names are called unknown") {
  const TwoDescriptors two;
  CHECK(in_child({{"LISTEN_PID", "self"}, {"LISTEN_FDS", "2"}}, two.list(), describe_listeners) ==
        "3=unknown 4=unknown ");
}

TEST_CASE("listeners meant for another process are left alone") {
  const TwoDescriptors two;
  CHECK(in_child({{"LISTEN_PID", "1"}, {"LISTEN_FDS", "2"}}, two.list(), describe_listeners) == "");
  CHECK(in_child({{"LISTEN_FDS", "2"}}, two.list(), describe_listeners) == "");
  CHECK(in_child({{"LISTEN_PID", "self"}}, two.list(), describe_listeners) == "");
  CHECK(in_child({{"LISTEN_PID", "self"}, {"LISTEN_FDS", "0"}}, {}, describe_listeners) == "");
  CHECK(in_child({}, {}, describe_listeners) == "");
  CHECK(in_child({{"LISTEN_PID", "1"}, {"LISTEN_FDS", "2"}}, two.list(), [] {
          construct();
          return std::to_string(::fcntl(3, F_GETFD) & FD_CLOEXEC);
        }) == "0");
}

TEST_CASE("the variables of the listeners never reach a child of the worker") {
  const TwoDescriptors two;
  for (const char* pid : {"self", "1", "rubbish"}) {
    CAPTURE(pid);
    CHECK(in_child({{"LISTEN_PID", pid},
                    {"LISTEN_FDS", "2"},
                    {"LISTEN_FDNAMES", "a:b"},
                    {"LISTEN_PIDFDID", "5"}},
                   two.list(), [] {
                     try {
                       construct();
                     } catch (const std::exception&) {
                     }
                     return variables_left();
                   }) == "");
  }
}

TEST_CASE("a listener is found by its name") {
  const TwoDescriptors two;
  const auto names = [] {
    const worker worker;
    std::string text = std::to_string(worker.listener_fd("admin"));
    try {
      text += std::to_string(worker.listener_fd("admni"));
    } catch (const std::out_of_range& error) {
      text += std::string("; ") + error.what();
    }
    return text;
  };
  CHECK(in_child({{"LISTEN_PID", "self"}, {"LISTEN_FDS", "2"}, {"LISTEN_FDNAMES", "http:admin"}},
                 two.list(),
                 names) == "4; no inherited listener is named 'admni'; there are http, admin");
}

TEST_CASE("malformed variables are refused by name") {
  struct Case {
    std::string variable;
    std::string value;
    int error;
  };
  const std::string long_path = "/" + std::string(200, 'x');
  const Case cases[] = {
      {"LISTEN_FDS", "two", EINVAL},
      {"LISTEN_FDS", "-1", EINVAL},
      {"LISTEN_FDS", "", EINVAL},
      {"LISTEN_FDS", "1 ", EINVAL},
      {"LISTEN_FDS", "2147483647", EINVAL},
      {"LISTEN_FDS", "99999999999999999999", EINVAL},
      {"LISTEN_FDS", "3", EBADF},  // there are two
      {"LISTEN_PID", "12a", EINVAL},
      {"LISTEN_FDNAMES", "only-one", EINVAL},
      {"LISTEN_FDNAMES", "a:b:c", EINVAL},
      {"WATCHDOG_USEC", "0", EINVAL},
      {"WATCHDOG_USEC", "1s", EINVAL},
      {"WATCHDOG_PID", "me", EINVAL},
      {"OSTLER_SLOT", "-1", EINVAL},
      {"OSTLER_SLOT", "4294967296", EINVAL},
      {"OSTLER_GENERATION", "first", EINVAL},
      {"NOTIFY_SOCKET", "", EAFNOSUPPORT},
      {"NOTIFY_SOCKET", "relative/path", EAFNOSUPPORT},
      {"NOTIFY_SOCKET", "vsock:2:1234", EAFNOSUPPORT},
      {"NOTIFY_SOCKET", "@", EINVAL},
      {"NOTIFY_SOCKET", long_path, EINVAL},
  };
  const TwoDescriptors two;
  for (const auto& each : cases) {
    CAPTURE(each.variable);
    CAPTURE(each.value);
    std::map<std::string, std::string> environment{{"LISTEN_PID", "self"}, {"LISTEN_FDS", "2"}};
    environment[each.variable] = each.value;
    const auto report = in_child(environment, two.list(), construct);
    CAPTURE(report);
    CHECK(report.starts_with("errno " + std::to_string(each.error) + ": "));
    CHECK(report.find(each.variable) != std::string::npos);
  }
}

TEST_CASE("the heartbeat interval is half of what the manager tolerates") {
  const auto interval = [] {
    const worker worker;
    const auto value = worker.heartbeat_interval();
    return value ? std::to_string(value->count()) : std::string("none");
  };
  CHECK(in_child({{"WATCHDOG_USEC", "30000000"}, {"WATCHDOG_PID", "self"}}, {}, interval) ==
        "15000000");
  CHECK(in_child({{"WATCHDOG_USEC", "30000000"}}, {}, interval) == "15000000");
  CHECK(in_child({{"WATCHDOG_USEC", "30000000"}, {"WATCHDOG_PID", "1"}}, {}, interval) == "none");
  CHECK(in_child({{"WATCHDOG_PID", "self"}}, {}, interval) == "none");
}

TEST_CASE("the worker knows its pool, slot and generation") {
  const auto place = [] {
    const worker worker;
    return worker.pool().value_or("-") + " " +
           (worker.slot() ? std::to_string(*worker.slot()) : "-") + " " +
           (worker.generation() ? std::to_string(*worker.generation()) : "-");
  };
  CHECK(in_child(
            {{"OSTLER_POOL", "web"}, {"OSTLER_SLOT", "9999"}, {"OSTLER_GENERATION", "12345678901"}},
            {}, place) == "web 9999 12345678901");
  CHECK(in_child({}, {}, place) == "- - -");
}

}  // namespace ostler::test
