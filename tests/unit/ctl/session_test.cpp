// What becomes of a command when the other end is absent, slow, broken or hostile.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "fake_manager.hpp"

namespace ostler::ctl {
namespace {

constexpr std::chrono::milliseconds kShort{150};

// What `status` says about such an answer; the path is left out.
std::string fault_of(const FakeManager::Handler& handler, int code) {
  FakeManager manager({{"GET /v1/status", handler}});
  Result result = run_at(manager.socket(), {"status"});
  CHECK(result.code == code);
  CHECK(result.out.empty());
  if (const auto at = result.err.find(manager.socket()); at != std::string::npos)
    result.err.replace(at, manager.socket().size(), "PATH");
  return result.err;
}

int listening(const std::string& path, int backlog) {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  REQUIRE(bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  if (backlog >= 0) REQUIRE(listen(fd, backlog) == 0);
  return fd;
}

constexpr const char* kNotTheApi = "ostlerctl: the answer from PATH is not the control API's";
constexpr const char* kClosed = "ostlerctl: the manager closed the connection before it answered\n";
constexpr const char* kTooLarge = "ostlerctl: the answer from PATH is too large\n";

}  // namespace

TEST_CASE("no manager: exit code 3") {
  const TemporaryFolder folder;
  const std::string path = folder.file("s");
  const auto check = [&path](const std::string& reason) {
    const Result result = run_at(path, {"status"});
    CHECK(result.code == 3);
    CHECK(result.err == "ostlerctl: no manager answers at " + path + ": " + reason + "\n");
  };
  check("No such file or directory");
  const int fd = listening(path, -1);
  check("Connection refused");
  close(fd);
  check("Connection refused");  // a stale socket
  unlink(path.c_str());
  std::ofstream(path) << "a file";
  check("Connection refused");
}

TEST_CASE("a path that no socket can have is wrong usage") {
  CHECK(run_at("/" + std::string(200, 'x'), {"status"}).code == 2);
}

TEST_CASE("a socket that its mode closes to us: exit code 5") {
  FakeManager manager({});
  REQUIRE(chmod(manager.socket().c_str(), 0) == 0);
  const std::string folder = manager.socket().substr(0, manager.socket().rfind('/'));
  REQUIRE(chmod(folder.c_str(), 0755) == 0);
  const bool root = geteuid() == 0;
  if (root) REQUIRE(seteuid(65534) == 0);
  const Result result = run_at(manager.socket(), {"status"});
  if (root) REQUIRE(seteuid(0) == 0);
  REQUIRE(chmod(manager.socket().c_str(), 0600) == 0);
  CHECK(result.code == 5);
  CHECK(result.err ==
        "ostlerctl: not permitted to connect to " + manager.socket() + ": Permission denied\n");
}

TEST_CASE("a manager that says no: exit code 5") {
  CHECK(fault_of(problem(403, "Not permitted", "uid 7 may only ask"), 5) ==
        "ostlerctl: Not permitted: uid 7 may only ask\n");
}

TEST_CASE("a manager that takes no connection, or never answers: exit code 3, in time") {
  const TemporaryFolder folder;
  const std::string path = folder.file("s");
  const int fd = listening(path, 0);
  const std::string err = "ostlerctl: the manager at " + path + " does not answer\n";
  for (int i = 0; i < 5; ++i) {  // the first connections fit into the backlog
    const Result result = run_at(path, {"status"}, kShort);
    CHECK(result.code == 3);
    CHECK(result.err == err);
  }
  const Result result = run_at(path, {"reload"}, kShort);
  CHECK(result.code == 3);
  CHECK(result.err == err);
  close(fd);
}

TEST_CASE("a manager that trickles is not waited for longer than one that is silent") {
  FakeManager manager(
      {{"GET /v1/status", all_of({raw("HTTP/1.1 200 OK\r\nContent-Le"), silence()})}});
  CHECK(run_at(manager.socket(), {"status"}, kShort).code == 3);
}

TEST_CASE("a wait lasts as long as the manager keeps the connection") {
  FakeManager manager(
      {{"POST /v1/workers/7/kill", [](FakeManager& self, FakeManager::Socket& socket) {
          // Longer than the patience for other requests.
          fd_set none;
          FD_ZERO(&none);
          timeval time{0, 400000};
          select(0, &none, nullptr, nullptr, &time);
          answer(200, R"({"outcome":"killed","worker":"web.0"})")(self, socket);
        }}});
  CHECK(run_at(manager.socket(), {"kill", "7"}, kShort).code == 0);
}

TEST_CASE("an answer that is not the API's: exit code 1") {
  CHECK(fault_of(raw("SSH-2.0-OpenSSH_9.2\r\n"), 1).find(kNotTheApi) == 0);
  CHECK(fault_of(raw(std::string("\0\xff\x1b[2J\n\n", 8)), 1).find(kNotTheApi) == 0);
  CHECK(fault_of(answer(200, "hello"), 1) == std::string(kNotTheApi) + " JSON\n");
  CHECK(fault_of(answer(200, ""), 1) == std::string(kNotTheApi) + " JSON\n");
  CHECK(fault_of(answer(200, "[1, 2]"), 1) == std::string(kNotTheApi) + " JSON\n");
  CHECK(fault_of(answer(200, "{\"a\": \"\xff\"}"), 1) == std::string(kNotTheApi) + " JSON\n");
  CHECK(fault_of(answer(200, R"({"pools": 3})"), 1) == std::string(kNotTheApi) + " JSON\n");
  CHECK(fault_of(answer(200, std::string(1000000, '[')), 1) == std::string(kNotTheApi) + " JSON\n");
  CHECK(fault_of(answer(301, "{}"), 1) == "ostlerctl: the manager answered with HTTP status 301\n");
  CHECK(fault_of(answer(500, "<html>"), 1) ==
        "ostlerctl: the manager answered with HTTP status 500\n");
  CHECK(fault_of(answer(404, "{\"title\": 3}"), 4) ==
        "ostlerctl: the manager answered with HTTP status 404\n");
  CHECK(fault_of(problem(500, "a\x1b[2J", "b\n"), 1) == "ostlerctl: a\\x1b[2J: b\\n\n");
}

TEST_CASE("however deep an answer is nested, nobody follows") {
  const std::string deep = std::string(300000, '[') + std::string(300000, ']');
  FakeManager manager({{"GET /v1/status",
                        answer(200, R"({"version":)" + deep + R"(,"pools":{"web":{"last_error":)" +
                                        deep + R"(,"workers":)" + deep + "}}}")},
                       {"GET /v1/events",
                        lines({R"({"event":"worker.ready","cause":)" + deep.substr(200000, 200000) +
                               R"(,"output":)" + deep.substr(200000, 200000) + "}"})}});
  CHECK(run_at(manager.socket(), {"status"}).code == 0);
  CHECK(run_at(manager.socket(), {"version"}).code == 0);
  CHECK(run_at(manager.socket(), {"events", "--follow"}).out.find("cause …") != std::string::npos);
}

TEST_CASE("an answer that ends early: exit code 1") {
  CHECK(fault_of(raw(""), 1) == kClosed);
  CHECK(fault_of(raw("HTTP/1.1 200"), 1) == kClosed);
  CHECK(fault_of(raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{"), 1) == kClosed);
}

TEST_CASE("an answer without bounds is not read to its end") {
  CHECK(fault_of(raw("HTTP/1.1 200 OK\r\nContent-Length: 70000000\r\n\r\n"), 1) == kTooLarge);
  CHECK(fault_of(raw("HTTP/1.1 200 OK\r\nX: " + std::string(100000, 'x')), 1) == kTooLarge);
}

TEST_CASE("a refusal that comes without reading the request is heard, whoever is faster") {
  const TemporaryFolder folder;
  const std::string path = folder.file("s");
  const int fd = listening(path, 5);
  constexpr int kTimes = 50;
  std::thread manager([fd] {
    const std::string text = "HTTP/1.1 503 Busy\r\nContent-Length: 16\r\n\r\n{\"title\":\"Busy\"}";
    for (int i = 0; i < kTimes; ++i) {
      const int peer = accept(fd, nullptr, nullptr);
      CHECK(write(peer, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
      close(peer);
    }
  });
  for (int i = 0; i < kTimes; ++i) {
    const Result result = run_at(path, {"status"});
    CHECK(result.code == 1);
    CHECK(result.err == "ostlerctl: Busy\n");
  }
  manager.join();
  close(fd);
}

TEST_CASE("a manager that goes away while it does what was asked: exit code 1") {
  const auto leave = [](FakeManager& manager, FakeManager::Socket&) { manager.leave(); };
  const auto said = [&leave](std::vector<std::string> words, const std::string& request) {
    FakeManager manager({{"GET /v1/events", stream()}, {request, leave}});
    const Result result = run_at(manager.socket(), std::move(words));
    CHECK(result.code == 1);
    return result.err;
  };
  CHECK(said({"reload"}, "POST /v1/reload") ==
        "ostlerctl: the manager went away while it reloaded\n");
  CHECK(said({"restart", "web"}, "POST /v1/pools/web/restart") ==
        "ostlerctl: the manager went away while it restarted\n");
  CHECK(said({"recycle", "7"}, "POST /v1/workers/7/recycle") ==
        "ostlerctl: the manager went away while it replaced the worker\n");
}

TEST_CASE("events that end early, or are none: exit code 1") {
  const auto said = [](const FakeManager::Handler& handler) {
    FakeManager manager({{"GET /v1/events", handler}});
    Result result = run_at(manager.socket(), {"events", "--follow"});
    CHECK(result.code == 1);
    return result;
  };
  const auto drop = [](FakeManager& manager, FakeManager::Socket&) { manager.end_streams(false); };
  const std::string event = R"({"time":"t","event":"manager.stopping"})";
  const Result dropped = said(all_of({stream({event}), drop}));
  CHECK(dropped.out == "t  manager stopping\n");
  CHECK(dropped.err == "ostlerctl: the manager went away\n");
  CHECK(said(lines({"hello"})).err.find("is not the control API's JSON") != std::string::npos);
  CHECK(said(lines({std::string(3000000, 'x')})).err.find("is too large") != std::string::npos);
  CHECK(said(problem(503, "Busy", "too many")).err == "ostlerctl: Busy: too many\n");
}

}  // namespace ostler::ctl
