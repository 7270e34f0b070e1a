// The program itself: exit codes, streams, Ctrl-C.
#include <doctest/doctest.h>

#include <csignal>
#include <fstream>
#include <future>

#include "fake_manager.hpp"

namespace ostler::ctl {

TEST_CASE("ostlerctl: wrong usage is 2, on standard error") {
  const Result result = run_program({"staus"});
  CHECK(result.code == 2);
  CHECK(result.out.empty());
  CHECK(result.err == "ostlerctl: there is no command 'staus'\nSee 'ostlerctl --help'.\n");
  CHECK(run_program({"why", "web"}).code == 2);
}

TEST_CASE("ostlerctl: no manager is 3; the socket comes from the environment") {
  const TemporaryFolder folder;
  const std::string path = folder.file("none.sock");
  const Result result = run_program({"status"}, {"OSTLER_SOCKET=" + path});
  CHECK(result.code == 3);
  CHECK(result.out.empty());
  CHECK(result.err == "ostlerctl: no manager answers at " + path + ": No such file or directory\n");
  CHECK(run_program({"status"}, {"RUNTIME_DIRECTORY=" + folder.file("run")}).err ==
        "ostlerctl: no manager answers at " + folder.file("run") +
            "/control.sock: No such file or directory\n");
}

TEST_CASE("ostlerctl: no colours in a pipe") {
  FakeManager manager({{"GET /v1/status", answer(200, R"({"state":"running","pools":{}})")}});
  const Result result = run_program({"status", "--socket", manager.socket()});
  CHECK(result.code == 0);
  CHECK(result.out.find("ostlerd - running, pid -, up -\n") == 0);
  CHECK(result.out.find('\x1b') == std::string::npos);
}

TEST_CASE("ostlerctl: Ctrl-C ends the wait for a reload, and says that the reload goes on") {
  std::promise<pid_t> started;
  const auto interrupt = [&started](FakeManager& manager, FakeManager::Socket& socket) {
    manager.keep(socket, false);
    kill(started.get_future().get(), SIGINT);
  };
  FakeManager manager({{"GET /v1/events", stream()}, {"POST /v1/reload", interrupt}});
  const Result result = run_program({"reload", "--socket", manager.socket()}, {},
                                    [&started](pid_t pid) { started.set_value(pid); });
  CHECK(result.code == 130);
  CHECK(result.out.empty());
  CHECK(result.err == "ostlerctl: interrupted; the reload goes on in the manager\n");
}

TEST_CASE("ostlerctl: config check needs no manager, and says every fault") {
  const TemporaryFolder folder;
  const std::string file = folder.file("shop.yaml");
  std::ofstream(file) << "pools:\n  web:\n    command: [/bin/true]\n";
  const Result good = run_program({"config", "check", file});
  CHECK(good.code == 0);
  CHECK(good.out == file + ": no faults\n");
  std::ofstream(file)
      << "pools:\n  web:\n    command: [/bin/true]\n    wrokers: 3\n    accept: no\n";
  const Result bad = run_program({"config", "check", file});
  CHECK(bad.code == 1);
  CHECK(bad.out.empty());
  CHECK(bad.err.find(file + ":4:5: pools.web.wrokers: ") == 0);
  CHECK(bad.err.find("\n" + file + ":5:") != std::string::npos);
  const Result json = run_program({"config", "check", file, "--json"});
  CHECK(json.code == 1);
  CHECK(json.out.find(R"("key":"pools.web.wrokers")") != std::string::npos);
  CHECK(json.err.empty());
}

}  // namespace ostler::ctl
