// How a worker learns that it is to stop, with real signals.
#include <doctest/doctest.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "ostler/worker.hpp"
#include "process.hpp"

namespace ostler::test {
namespace {

bool is_readable(int descriptor) {
  pollfd poll{descriptor, POLLIN, 0};
  return ::poll(&poll, 1, 0) == 1;
}

std::string describe(const worker& worker) {
  return std::string(worker.stop_requested() ? "stop " : "go ") +
         std::to_string(worker.stop_requests()) +
         (is_readable(worker.stop_fd()) ? " readable" : "");
}

void wait_and_read(const worker& worker) {
  wait_readable(worker.stop_fd(), "a stop signal");
  std::uint64_t count = 0;
  checked(::read(worker.stop_fd(), &count, sizeof count), "read the stop descriptor");
}

// Is told once to stop before the manager dies, and once after.
void stop_worker_of_dying_manager(int other_threads) {
  Reports reports;
  Reports pids;
  // The manager of this test starts a worker that is to be told of its death, and waits.
  Process manager({}, [&] {
    const pid_t parent = ::getpid();
    const pid_t child = checked(::fork(), "fork");
    if (child == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGTERM);
      if (::getppid() != parent) ::_exit(1);
      const worker worker;
      reports.say(describe(worker));
      wait_and_read(worker);
      reports.say(describe(worker));
      while (::getppid() == parent) ::usleep(1000);  // NOLINT(sleep): between two looks
      reports.say(describe(worker));
      wait_and_read(worker);
      reports.say(describe(worker));
      ::_exit(0);
    }
    std::vector<std::thread> others;
    for (int i = 0; i < other_threads; ++i) others.emplace_back([] { ::pause(); });
    pids.say(std::to_string(child));
    ::pause();
    return 0;
  });
  const pid_t worker = std::stoi(pids.next());
  CHECK(reports.next() == "go 0");
  ::kill(worker, SIGTERM);
  CHECK(reports.next() == "stop 1");
  manager.signal(SIGKILL);
  manager.wait();
  CHECK(reports.next() == "stop 1");
  ::kill(worker, SIGTERM);
  CHECK(reports.next() == "stop 2");
}

}  // namespace

TEST_CASE("a stop signal makes the descriptor readable, each time anew") {
  for (const int signal : {SIGTERM, SIGINT, SIGQUIT}) {
    CAPTURE(signal);
    Reports reports;
    Process child({}, [&] {
      const worker worker;
      reports.say(describe(worker));
      wait_readable(worker.stop_fd(), "the first signal");
      reports.say(describe(worker));
      wait_and_read(worker);
      reports.say(describe(worker));
      wait_and_read(worker);
      reports.say(describe(worker));
      return 0;
    });
    CHECK(reports.next() == "go 0");
    child.signal(signal);
    CHECK(reports.next() == "stop 1 readable");
    CHECK(reports.next() == "stop 1");
    child.signal(signal);
    CHECK(reports.next() == "stop 2");
    CHECK(child.wait() == 0);
  }
}

TEST_CASE("a pool's own stop signal is caught, and then the usual ones are not") {
  Reports reports;
  Process child({}, [&] {
    const worker worker({SIGUSR2});
    reports.say("ready");
    wait_and_read(worker);
    reports.say(describe(worker));
    ::pause();
    return 0;
  });
  CHECK(reports.next() == "ready");
  child.signal(SIGUSR2);
  CHECK(reports.next() == "stop 1");
  child.signal(SIGTERM);
  CHECK(child.wait() == -SIGTERM);
}

TEST_CASE("a stop signal sent before the handlers were there is not lost if it was blocked") {
  CHECK(in_child({}, {}, [] {
          sigset_t stop;
          sigemptyset(&stop);
          sigaddset(&stop, SIGTERM);
          ::sigprocmask(SIG_BLOCK, &stop, nullptr);
          ::kill(::getpid(), SIGTERM);
          const worker worker;
          return describe(worker);
        }) == "stop 1 readable");
}

TEST_CASE("the death of the manager asks to stop, but is not impatience") {
  stop_worker_of_dying_manager(0);
}

TEST_CASE("so it is if the manager has threads, of which the main one may end first") {
  for (int round = 0; round < 20; ++round) stop_worker_of_dying_manager(4);
}

TEST_CASE("the death of the manager alone makes a worker stop") {
  Reports reports;
  Process manager({}, [&] {
    const pid_t parent = ::getpid();
    if (checked(::fork(), "fork") == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGTERM);
      if (::getppid() != parent) ::_exit(1);
      const worker worker;
      reports.say("ready");
      wait_and_read(worker);
      reports.say(describe(worker));
      ::_exit(0);
    }
    ::pause();
    return 0;
  });
  CHECK(reports.next() == "ready");
  manager.signal(SIGKILL);
  manager.wait();
  CHECK(reports.next() == "stop 1");
}

TEST_CASE("a forked child that is signalled ends, and does not stop its parent") {
  CHECK(in_child({}, {}, [] {
          const worker worker;
          const pid_t child = checked(::fork(), "fork");
          if (child == 0) {
            ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // so that a failure leaves nothing behind
            while (true) ::pause();
          }
          ::kill(child, SIGTERM);
          int status = 0;
          checked(::waitpid(child, &status, 0), "wait for a child");
          return (WIFSIGNALED(status) ? "ended by " + std::to_string(WTERMSIG(status)) : "?") +
                 ", " + describe(worker);
        }) == "ended by 15, go 0");
}

TEST_CASE("one object at a time, and the dispositions are given back") {
  CHECK(in_child({}, {}, [] {
          auto first = std::make_unique<worker>();
          std::string text;
          try {
            const worker second;
          } catch (const std::logic_error& error) {
            text = error.what();
          }
          ::kill(::getpid(), SIGTERM);
          text += "; " + describe(*first);
          first.reset();
          struct sigaction now {};
          ::sigaction(SIGTERM, nullptr, &now);
          text += now.sa_handler == SIG_DFL ? "; default" : "; caught";
          const worker third;
          return text + "; " + describe(third);
        }) == "a second ostler::worker in one process; stop 1 readable; default; go 0");
}

TEST_CASE("a signal named twice is given back too") {
  CHECK(in_child({}, {}, [] {
          std::make_unique<worker>(std::initializer_list<int>{SIGUSR2, SIGUSR2}).reset();
          struct sigaction now {};
          ::sigaction(SIGUSR2, nullptr, &now);
          return std::string(now.sa_handler == SIG_DFL ? "default" : "caught");
        }) == "default");
}

TEST_CASE("a signal that cannot be caught is refused, and nothing is left behind") {
  CHECK(in_child({}, {}, []() -> std::string {
          try {
            const worker refused({SIGUSR1, SIGKILL});
          } catch (const std::system_error& error) {
            struct sigaction now {};
            ::sigaction(SIGUSR1, nullptr, &now);
            const worker next;
            return std::string(error.what()) +
                   (now.sa_handler == SIG_DFL ? "; default" : "; caught");
          }
          return "accepted";
        }) == "catch the stop signal 9: Invalid argument; default");
}

}  // namespace ostler::test
