// Real processes in every way of waiting: this program again, in a role that its first argument
// names, and programs that know nothing of ostler. Descriptor 3 is the listener, 4 is another one.
#define DOCTEST_CONFIG_IMPLEMENT
#include "runtime/readiness.hpp"

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "runtime/spawner.hpp"
#include "tests/unit/runtime/started.hpp"

using namespace ostler::runtime;
using ostler::core::Sight;
namespace fs = std::filesystem;

namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kPatience = std::chrono::seconds(30);
constexpr int kListener = 3;
constexpr int kOther = 4;

// --- Roles ---------------------------------------------------------------------------------------

void say_up() {
  if (write(STDOUT_FILENO, "up\n", 3) != 3) _exit(1);
}

int wait_in_poll(short events) {
  std::array<pollfd, 3> polled = {{{-1, POLLIN, 0}, {kOther, POLLOUT, 0}, {kListener, events, 0}}};
  say_up();
  return poll(polled.data(), polled.size(), -1);
}

int wait_in_ppoll() {
  pollfd polled{kListener, POLLIN, 0};
  say_up();
  return ppoll(&polled, 1, nullptr, nullptr);
}

// As the kernel has it: libc makes a pselect6 of select().
int wait_in_select([[maybe_unused]] bool classic, int fd) {
  fd_set set;
  FD_ZERO(&set);
  FD_SET(fd, &set);
  say_up();
#ifdef SYS_select
  if (classic) return static_cast<int>(syscall(SYS_select, 10, &set, nullptr, nullptr, nullptr));
#endif
  return select(10, &set, nullptr, nullptr, nullptr);
}

int wait_in_epoll(int fd, std::uint32_t events, const std::vector<int>& closed = {}) {
  const int set = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{};
  event.events = events;
  if (epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) != 0) return 1;
  for (const int other : closed) close(other);
  say_up();
  return epoll_wait(set, &event, 1, -1);
}

int wait_in_accept(int fd) {
  say_up();
  return accept(fd, nullptr, nullptr);
}

int wait_in_thread() {
  std::thread thread([] { wait_in_accept(kListener); });
  thread.join();
  return 0;
}

int wait_in_grandchild() {
  for (int generation = 0; generation < 2; ++generation) {
    const pid_t child = fork();
    if (child > 0) return waitpid(child, nullptr, 0);
  }
  return wait_in_accept(kListener);
}

int spin() {
  say_up();
  const volatile bool forever = true;
  while (forever) {
  }
  return 0;
}

int accept_unseen() {
  if (prctl(PR_SET_DUMPABLE, 0) != 0) return 1;
  return wait_in_accept(kListener);
}

int wait_with_ring() {
  std::array<char, 256> parameters{};  // struct io_uring_params is 120 bytes
  if (syscall(SYS_io_uring_setup, 4, parameters.data()) < 0) return 77;
  say_up();
  return pause();
}

int pause_with_listener() {
  say_up();
  return pause();
}

const std::map<std::string, std::function<int()>> kRoles = {
    {"accept", [] { return wait_in_accept(kListener); }},
    {"accept4",
     [] {
       say_up();
       return accept4(kListener, nullptr, nullptr, SOCK_CLOEXEC);
     }},
    {"poll", [] { return wait_in_poll(POLLIN); }},
    {"ppoll", wait_in_ppoll},
    {"select", [] { return wait_in_select(true, kListener); }},
    {"pselect6", [] { return wait_in_select(false, kListener); }},
    {"epoll", [] { return wait_in_epoll(kListener, EPOLLIN | EPOLLRDHUP); }},
    {"epoll, edge triggered", [] { return wait_in_epoll(kListener, EPOLLIN | EPOLLET); }},
    {"epoll, exclusive", [] { return wait_in_epoll(kListener, EPOLLIN | EPOLLEXCLUSIVE); }},
    {"epoll, a duplicate", [] { return wait_in_epoll(dup(kListener), EPOLLIN, {kListener}); }},
    {"accept in a thread", wait_in_thread},
    {"accept in a grandchild", wait_in_grandchild},
    {"hidden: accept, not dumpable", accept_unseen},
    {"hidden: an io_uring", wait_with_ring},
    {"no: pause", pause_with_listener},
    {"no: busy", spin},
    {"no: accept on another", [] { return wait_in_accept(kOther); }},
    {"no: poll for writing", [] { return wait_in_poll(POLLOUT); }},
    {"no: select on another", [] { return wait_in_select(true, kOther); }},
    {"no: pselect6 on another", [] { return wait_in_select(false, kOther); }},
    {"no: epoll on another", [] { return wait_in_epoll(kOther, EPOLLIN); }},
    {"no: epoll for writing", [] { return wait_in_epoll(kListener, EPOLLOUT); }},
    // The registration outlives the descriptor, because the manager has the socket open.
    {"no: epoll, closed", [] { return wait_in_epoll(kListener, EPOLLIN, {kListener}); }},
};

// --- What the tests need -------------------------------------------------------------------------

UniqueFd listener() {
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  REQUIRE(listen(fd.get(), 16) == 0);
  return fd;
}

ino_t inode(const UniqueFd& fd) {
  struct stat status {};
  REQUIRE(fstat(fd.get(), &status) == 0);
  return status.st_ino;
}

bool waits_for_connections(pid_t pid, const std::vector<ino_t>& listeners) {
  return look_for_waiting(pid, listeners).sight == Sight::kWaiting;
}

class Scratch {
 public:
  Scratch() {
    std::string pattern = (fs::temp_directory_path() / "ostler-ready-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    path = pattern;
  }
  ~Scratch() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  fs::path path;
};

// A worker with both listeners, which goes with all that it started.
class Worker {
 public:
  explicit Worker(std::vector<std::string> argv, bool fastcgi = false,
                  std::optional<UserIds> ids = {})
      : ids_(ids) {
    std::array<int, 2> ends{};
    REQUIRE(pipe2(ends.data(), O_CLOEXEC) == 0);
    output_ = UniqueFd(ends[0]);
    const UniqueFd writing(ends[1]);
    SpawnRequest request;
    request.executable = argv.front();
    request.argv = std::move(argv);
    request.env = {"PATH=/usr/local/bin:/usr/bin:/bin", "PHP_FCGI_CHILDREN=2",
                   "PYTHONDONTWRITEBYTECODE=1"};
    request.stdout_fd = writing.get();
    request.stderr_fd = writing.get();
    if (fastcgi) request.stdin_fd = socket_.get();
    if (!fastcgi) request.fds = {socket_.get(), other_.get()};
    if (ids) request.identity = Identity{ids->uid, ids->gid, {}};
    child_ = start(request);
    INFO(child_.stage);
    REQUIRE(child_.pid > 0);
  }
  ~Worker() { end(); }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void end() {
    if (!child_.pidfd) return;
    kill(-child_.pid, SIGKILL);
    siginfo_t info{};
    waitid(P_PIDFD, static_cast<id_t>(child_.pidfd.get()), &info, WEXITED);
    child_.pidfd.reset();
    // To the end, which comes when the last of its children is gone.
    std::array<char, 4096> text{};
    while (read(output_.get(), text.data(), text.size()) > 0) {
    }
  }

  [[nodiscard]] bool waits() const { return waits_for_connections(child_.pid, {inode(socket_)}); }
  [[nodiscard]] Sighting sighting() const {
    return look_for_waiting(child_.pid, {inode(socket_)}, ids_);
  }

  // Until it waits; false after the deadline, or when it has ended.
  [[nodiscard]] bool comes_to_wait() const {
    const auto deadline = Clock::now() + kPatience;
    while (Clock::now() < deadline) {
      if (waits()) return true;
      pollfd ended{child_.pidfd.get(), POLLIN, 0};
      if (poll(&ended, 1, 2) != 0) return waits();
    }
    return false;
  }

  void wait_until_up() const {
    pollfd entry{output_.get(), POLLIN, 0};
    REQUIRE(poll(&entry, 1, 30000) == 1);
    std::array<char, 3> text{};
    REQUIRE(read(output_.get(), text.data(), text.size()) == 3);
  }

  // False if it has ended instead.
  [[nodiscard]] bool says_up() const {
    std::array<char, 3> text{};
    return read(output_.get(), text.data(), text.size()) == 3;
  }

  // "S": it waits for something, in the call that it said "up" before.
  [[nodiscard]] bool comes_to_rest() const {
    const auto deadline = Clock::now() + kPatience;
    while (Clock::now() < deadline) {
      std::ifstream file("/proc/" + std::to_string(child_.pid) + "/stat");
      std::string text;
      std::getline(file, text);
      if (text.find(") S ") != std::string::npos) return true;
      poll(nullptr, 0, 1);
    }
    return false;
  }

  [[nodiscard]] pid_t pid() const { return child_.pid; }
  [[nodiscard]] const UniqueFd& socket() const { return socket_; }
  [[nodiscard]] const UniqueFd& other() const { return other_; }

 private:
  UniqueFd socket_ = listener();
  UniqueFd other_ = listener();
  UniqueFd output_;
  Started child_;
  std::optional<UserIds> ids_;
};

std::vector<std::string> role(const std::string& name) {
  return {fs::read_symlink("/proc/self/exe").string(), "--role", name};
}

// Of the calling thread.
bool drop_ptrace() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> data{};
  if (syscall(SYS_capget, &header, data.data()) != 0) return false;
  data[0].effective &= ~(1U << CAP_SYS_PTRACE);
  data[0].permitted &= ~(1U << CAP_SYS_PTRACE);
  return syscall(SYS_capset, &header, data.data()) == 0;
}

bool missing(const char* program) {
  return access(program, X_OK) != 0;
}

}  // namespace

TEST_CASE("every way of waiting on the listener is seen") {
  for (const auto& entry : kRoles) {
    const std::string& name = entry.first;
    if (name.find(": ") != std::string::npos) continue;
    CAPTURE(name);
    const Worker worker(role(name));
    CHECK(worker.comes_to_wait());
    CHECK_FALSE(waits_for_connections(worker.pid(), {inode(worker.other())}));
    CHECK(waits_for_connections(worker.pid(), {1, inode(worker.other()), inode(worker.socket())}));
    CHECK_FALSE(waits_for_connections(worker.pid(), {}));
  }
}

TEST_CASE("who has the listener and does not wait on it is not ready") {
  for (const auto& entry : kRoles) {
    const std::string& name = entry.first;
    if (!name.starts_with("no: ")) continue;
    CAPTURE(name);
    const Worker worker(role(name));
    worker.wait_until_up();
    if (name != "no: busy") REQUIRE(worker.comes_to_rest());
    CHECK(worker.sighting() == Sighting{});
  }
}

TEST_CASE("who is gone waits for nothing") {
  Worker worker(role("accept"));
  REQUIRE(worker.comes_to_wait());
  SUBCASE("a zombie") {
    kill(worker.pid(), SIGKILL);
    siginfo_t info{};
    REQUIRE(waitid(P_PID, static_cast<id_t>(worker.pid()), &info, WEXITED | WNOWAIT) == 0);
    CHECK_FALSE(worker.waits());
  }
  SUBCASE("reaped") {
    worker.end();
    CHECK_FALSE(worker.waits());
  }
  CHECK_FALSE(waits_for_connections(0, {inode(worker.socket())}));
  CHECK_FALSE(waits_for_connections(-1, {inode(worker.socket())}));
}

TEST_CASE("what one may not look at is not known" * doctest::skip(geteuid() == 0)) {
  const UniqueFd socket = listener();
  const Sighting sighting = look_for_waiting(1, {inode(socket)});
  CHECK(sighting.sight == Sight::kUnknown);
  CHECK(sighting.detail.starts_with("/proc/1/fd: Permission denied (CAP_SYS_PTRACE"));
}

TEST_CASE("a wait in an io_uring is not known") {
  const Worker worker(role("hidden: an io_uring"));
  if (!worker.says_up()) {
    MESSAGE("skipped: no io_uring here");
    return;
  }
  const Sighting sighting = worker.sighting();
  CHECK(sighting.sight == Sight::kUnknown);
  CHECK(sighting.detail == "it has an io_uring, whose waits are not shown");
}

// As a manager in a container is, which has all of root's capabilities but that to look.
TEST_CASE("without CAP_SYS_PTRACE a worker of another user is looked at as that user" *
          doctest::skip(geteuid() != 0)) {
  constexpr UserIds kNobody{65534, 65534};
  const Scratch scratch;  // nobody may not reach this program where it is
  fs::permissions(scratch.path, fs::perms{0755});
  fs::copy_file(fs::read_symlink("/proc/self/exe"), scratch.path / "worker");
  for (const auto& entry : kRoles) {
    const std::string& name = entry.first;
    if (name == "hidden: an io_uring") continue;
    CAPTURE(name);
    const Worker worker({scratch.path / "worker", "--role", name}, false, kNobody);
    if (name.find(": ") != std::string::npos) worker.wait_until_up();
    if (name != "no: busy" && name.find(": ") != std::string::npos) {
      REQUIRE(worker.comes_to_rest());
    }
    Sighting sighting;
    std::string fault = "not looked";
    std::thread([&] {  // capabilities are a thread's own
      fault = drop_ptrace() ? "" : "CAP_SYS_PTRACE was not dropped";
      const auto deadline = Clock::now() + kPatience;
      do {
        sighting = worker.sighting();
      } while (name.find(": ") == std::string::npos && sighting.sight != Sight::kWaiting &&
               Clock::now() < deadline);
      if (setfsuid(~uid_t{0}) != 0 || setfsgid(~gid_t{0}) != 0) fault = "ids are not given back";
    })
        .join();
    CHECK(fault.empty());
    CAPTURE(sighting.detail);
    if (name.starts_with("hidden: ")) {
      CHECK(sighting.sight == Sight::kUnknown);
      CHECK(sighting.detail == "/proc/" + std::to_string(worker.pid()) +
                                   "/fd: Permission denied (CAP_SYS_PTRACE, or its own user and "
                                   "group, is needed)");
    } else {
      CHECK(sighting.sight == (name.starts_with("no: ") ? Sight::kNothing : Sight::kWaiting));
    }
  }
}

// --- Programs that know nothing of ostler --------------------------------------------------------

TEST_CASE("python" * doctest::skip(missing("/usr/bin/python3"))) {
  const std::string server =
      "import http.server, socket\n"
      "s = http.server.HTTPServer(('', 0), None, False)\n"
      "s.socket = socket.socket(fileno=3)\n";
  SUBCASE("http.server, which polls") {
    const Worker worker({"/usr/bin/python3", "-c", server + "s.serve_forever()"});
    CHECK(worker.comes_to_wait());
  }
  SUBCASE("http.server, one request at a time") {
    const Worker worker({"/usr/bin/python3", "-c", server + "s.handle_request()"});
    CHECK(worker.comes_to_wait());
  }
  SUBCASE("an event loop") {
    const Worker worker({"/usr/bin/python3", "-c",
                         "import asyncio, socket\n"
                         "async def main():\n"
                         "  s = await asyncio.start_server(print, sock=socket.socket(fileno=3))\n"
                         "  await s.serve_forever()\n"
                         "asyncio.run(main())"});
    CHECK(worker.comes_to_wait());
  }
}

TEST_CASE("node" * doctest::skip(missing("/usr/bin/node"))) {
  const Worker worker(
      {"/usr/bin/node", "-e", "require('http').createServer(() => {}).listen({fd: 3})"});
  CHECK(worker.comes_to_wait());
}

TEST_CASE("uvicorn" * doctest::skip(missing("/usr/bin/uvicorn"))) {
  const Scratch scratch;
  std::ofstream(scratch.path / "app.py") << "async def app(scope, receive, send): pass\n";
  const Worker worker({"/usr/bin/uvicorn", "--fd", "3", "--app-dir", scratch.path, "app:app"});
  CHECK(worker.comes_to_wait());
}

TEST_CASE("gunicorn, whose workers are grandchildren" *
          doctest::skip(missing("/usr/bin/gunicorn"))) {
  const Scratch scratch;
  std::ofstream(scratch.path / "app.py") << "def app(environ, start_response): return []\n";
  const Worker worker({"/usr/bin/gunicorn", "-b", "fd://3", "--chdir", scratch.path,
                       "--worker-tmp-dir", scratch.path, "app:app"});
  CHECK(worker.comes_to_wait());
}

TEST_CASE("php-cgi, whose children accept on descriptor 0" *
          doctest::skip(missing("/usr/bin/php-cgi"))) {
  const Worker worker({"/usr/bin/php-cgi"}, true);
  CHECK(worker.comes_to_wait());
}

int main(int argc, char** argv) {
  if (argc == 3 && std::string(argv[1]) == "--role") return kRoles.at(argv[2])();
  return doctest::Context(argc, argv).run();
}
