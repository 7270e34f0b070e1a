// Starts this very program again, in a role that its first argument names, and looks at what the
// child saw.
#define DOCTEST_CONFIG_IMPLEMENT
#include "runtime/spawner.hpp"

#include <dirent.h>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>

#include "tests/unit/runtime/started.hpp"

using namespace ostler::runtime;
namespace fs = std::filesystem;

namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kPatience = std::chrono::seconds(20);

std::string self() {
  return fs::read_symlink("/proc/self/exe").string();
}

// "3" to what it is: "/memfd:a (deleted)", "pipe:[4711]".
std::map<int, std::string> open_descriptors() {
  std::map<int, std::string> result;
  DIR* const entries = opendir("/proc/self/fd");
  if (entries == nullptr) return result;
  while (const dirent* const entry = readdir(entries)) {
    std::array<char, 256> target{};
    const ssize_t size = readlinkat(dirfd(entries), entry->d_name, target.data(), target.size());
    const int fd = std::atoi(entry->d_name);
    if (size < 0 || fd == dirfd(entries)) continue;
    result[fd].assign(target.data(), static_cast<std::size_t>(size));
  }
  closedir(entries);
  return result;
}

// --- Roles ---------------------------------------------------------------------------------------

void print(const std::string& key, const std::string& value) {
  std::printf("%s=%s\n", key.c_str(), value.c_str());
}

// Says all that a process can know of how it was started.
int report(int argc, char** argv) {
  const auto descriptors = open_descriptors();  // first, before anything here opens another
  for (const auto& [fd, target] : descriptors) print("fd" + std::to_string(fd), target);
  for (int i = 0; i < argc; ++i) print("argv" + std::to_string(i), argv[i]);
  for (char** variable = environ; *variable != nullptr; ++variable) print("env", *variable);
  print("pid", std::to_string(getpid()));
  print("ppid", std::to_string(getppid()));
  print("sid", std::to_string(getsid(0)));
  print("pgid", std::to_string(getpgrp()));
  print("cwd", fs::current_path().string());
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  print("nofile", std::to_string(limit.rlim_cur) + ":" + std::to_string(limit.rlim_max));
  int signal = 0;
  prctl(PR_GET_PDEATHSIG, &signal);
  print("death_signal", std::to_string(signal));
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (!line.starts_with("Sig") && !line.starts_with("Umask")) continue;
    print(line.substr(0, line.find(':')), line.substr(line.find_last_of(" \t") + 1));
  }
  return 0;
}

// Starts a reporter whose descriptors from 3 on are those of its own that the arguments name.
int pass_on(int argc, char** argv) {
  SpawnRequest request;
  request.executable = self();
  request.argv = {"child", "--report"};
  for (int i = 2; i < argc; ++i) request.fds.push_back(std::atoi(argv[i]));
  const Started child = start(request);
  siginfo_t info{};
  return child.pid > 0 && waitid(P_PIDFD, static_cast<id_t>(child.pidfd.get()), &info, WEXITED) == 0
             ? info.si_status
             : 1;
}

volatile std::sig_atomic_t terminated = 0;

// Says that it is there, and when it gets TERM.
int sleeper() {
  struct sigaction action {};
  action.sa_handler = [](int) { terminated = 1; };
  sigaction(SIGTERM, &action, nullptr);
  sigset_t block;
  sigset_t open;
  sigemptyset(&block);
  sigaddset(&block, SIGTERM);
  sigprocmask(SIG_BLOCK, &block, &open);
  if (write(STDOUT_FILENO, "up\n", 3) != 3) return 1;
  while (terminated == 0) sigsuspend(&open);
  return write(STDOUT_FILENO, "term\n", 5) == 5 ? 0 : 1;
}

// A manager with one worker, that waits to be killed. A worker of another user is a shell, as that
// user may not be able to read this program.
int manager(const char* uid) {
  SpawnRequest request;
  request.executable = uid == nullptr ? self() : "/bin/sh";
  request.argv = {"worker", "--sleeper"};
  if (uid != nullptr) {
    request.argv = {"sh", "-c", "echo up; exec tail -f /dev/null"};
    request.env = {"PATH=/usr/bin:/bin"};
    const auto id = static_cast<uid_t>(std::atoi(uid));
    request.identity = Identity{id, id, {id}};
  }
  if (start(request).pid < 0) return 1;
  while (true) pause();
}

// A manager that is not root, but has root's capabilities: its worker must not.
int capable() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> sets{};
  if (syscall(SYS_capget, &header, sets.data()) != 0) return 1;
  prctl(PR_SET_KEEPCAPS, 1);
  if (setresuid(4700, 4700, 4700) != 0) return 1;
  for (auto& set : sets) set.effective = set.inheritable = set.permitted;
  if (syscall(SYS_capset, &header, sets.data()) != 0) return 1;
  for (const int capability : {CAP_SETUID, CAP_SETGID, CAP_KILL}) {
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0);
  }
  SpawnRequest request;
  request.executable = "/bin/cat";
  request.argv = {"cat", "/proc/self/status"};
  request.identity = Identity{4711, 4712, {4712}};
  const Started child = start(request);
  siginfo_t info{};
  if (child.pid > 0) waitid(P_PIDFD, static_cast<id_t>(child.pidfd.get()), &info, WEXITED);
  std::printf("%s\n", child.stage.c_str());
  return 0;
}

// --- What the tests need -------------------------------------------------------------------------

class Pipe {
 public:
  Pipe() {
    std::array<int, 2> ends{};
    REQUIRE(pipe2(ends.data(), O_CLOEXEC) == 0);
    reading = UniqueFd(ends[0]);
    writing = UniqueFd(ends[1]);
  }
  UniqueFd reading;
  UniqueFd writing;
};

// Reads until `stop` is in it, or to the end.
std::string read_until(int fd, const std::string& stop = {}) {
  const auto deadline = Clock::now() + kPatience;
  std::string text;
  while (stop.empty() || text.find(stop) == std::string::npos) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
    pollfd entry{fd, POLLIN, 0};
    REQUIRE(poll(&entry, 1, static_cast<int>(std::max<long>(left.count(), 0))) == 1);
    std::array<char, 4096> part{};
    const ssize_t size = read(fd, part.data(), part.size());
    if (size <= 0) break;
    text.append(part.data(), static_cast<std::size_t>(size));
  }
  return text;
}

siginfo_t wait_for(const Started& child) {
  pollfd entry{child.pidfd.get(), POLLIN, 0};
  REQUIRE(poll(&entry, 1, 20000) == 1);
  siginfo_t info{};
  REQUIRE(waitid(P_PIDFD, static_cast<id_t>(child.pidfd.get()), &info, WEXITED) == 0);
  return info;
}

SpawnRequest command(const std::string& executable, std::vector<std::string> argv = {"x"}) {
  SpawnRequest request;
  request.executable = executable;
  request.argv = std::move(argv);
  return request;
}

SpawnRequest role(const std::string& name) {
  return command(self(), {"child", name});
}

// Runs it to its end; what it wrote.
std::string output_of(SpawnRequest request, pid_t* pid = nullptr) {
  Pipe pipe;
  request.stdout_fd = pipe.writing.get();
  const Started child = start(request);
  INFO("stage: " << child.stage << ", " << std::strerror(child.error));
  REQUIRE(child.pid > 0);
  if (pid != nullptr) *pid = child.pid;
  pipe.writing.reset();
  const std::string output = read_until(pipe.reading.get());
  const siginfo_t info = wait_for(child);
  CHECK(info.si_pid == child.pid);
  CHECK(info.si_status == 0);
  return output;
}

using Report = std::multimap<std::string, std::string>;

Report report_of(const SpawnRequest& request, pid_t* pid = nullptr) {
  Report report;
  std::istringstream lines(output_of(request, pid));
  for (std::string line; std::getline(lines, line);) {
    const std::size_t equals = line.find('=');
    report.emplace(line.substr(0, equals), line.substr(equals + 1));
  }
  return report;
}

std::string one(const Report& report, const std::string& key) {
  INFO(key);
  REQUIRE(report.count(key) == 1);
  return report.find(key)->second;
}

std::set<std::string> descriptors_in(const Report& report) {
  std::set<std::string> names;
  for (const auto& [key, value] : report) {
    if (key.starts_with("fd")) names.insert(key);
  }
  return names;
}

UniqueFd memory_file(const char* name) {
  UniqueFd fd(memfd_create(name, MFD_CLOEXEC));
  REQUIRE(fd);
  return fd;
}

bool has_children() {
  siginfo_t info{};
  return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) == 0 || errno != ECHILD;
}

void check_failure(const SpawnRequest& request, const std::string& stage, int error) {
  const Started child = start(request);
  CHECK(child.pid == -1);
  CHECK(child.stage == stage);
  CHECK(child.error == error);
  CHECK_FALSE(child.pidfd);
  CHECK_FALSE(has_children());
}

class Scratch {
 public:
  Scratch() {
    std::string pattern = (fs::temp_directory_path() / "ostler-spawn-XXXXXX").string();
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

fs::path file_with(const fs::path& path, const std::string& text, mode_t mode) {
  std::ofstream(path) << text;
  REQUIRE(chmod(path.c_str(), mode) == 0);
  return path;
}

bool root() {
  return geteuid() == 0;
}

}  // namespace

// --- What a worker sees --------------------------------------------------------------------------

TEST_CASE("arguments, environment, directory, umask and limit are the request's and no others") {
  const Scratch scratch;
  SpawnRequest request = role("--report");
  request.argv.insert(request.argv.end(), {"", "two words", "-x"});
  request.env = {"A=1", "EMPTY=", "B=x=y"};
  request.directory = scratch.path.string();
  request.umask = 027;
  request.open_files = rlimit{64, 100};
  const Report report = report_of(request);
  CHECK(one(report, "argv0") == "child");
  CHECK(one(report, "argv2").empty());
  CHECK(one(report, "argv3") == "two words");
  CHECK(one(report, "argv4") == "-x");
  CHECK(report.count("argv5") == 0);
  std::multiset<std::string> env;
  for (auto [at, end] = report.equal_range("env"); at != end; ++at) env.insert(at->second);
  CHECK(env == std::multiset<std::string>{"A=1", "B=x=y", "EMPTY="});
  CHECK(fs::equivalent(one(report, "cwd"), scratch.path));
  CHECK(one(report, "Umask") == "0027");
  CHECK(one(report, "nofile") == "64:100");
}

TEST_CASE("the variables that name their process hold the worker's pid") {
  SpawnRequest request = role("--report");
  request.env = {"LISTEN_PID=", "X=1", "WATCHDOG_PID=", "NOT_LISTEN_PID="};
  pid_t pid = 0;
  const Report report = report_of(request, &pid);
  std::set<std::string> env;
  for (auto [at, end] = report.equal_range("env"); at != end; ++at) env.insert(at->second);
  const std::string digits = std::to_string(pid);
  CHECK(env == std::set<std::string>{"LISTEN_PID=" + digits, "X=1", "WATCHDOG_PID=" + digits,
                                     "NOT_LISTEN_PID="});
  CHECK(one(report, "pid") == digits);
  CHECK(one(report, "ppid") == std::to_string(getpid()));
}

TEST_CASE("a worker leads a session and a group, and has a death signal") {
  SpawnRequest request = role("--report");
  request.death_signal = SIGINT;
  pid_t pid = 0;
  const Report report = report_of(request, &pid);
  CHECK(one(report, "sid") == std::to_string(pid));
  CHECK(one(report, "pgid") == std::to_string(pid));
  CHECK(one(report, "death_signal") == std::to_string(SIGINT));
}

TEST_CASE("signals are the default's, whatever the manager ignores or blocks") {
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  std::map<int, struct sigaction> before;
  for (const int signal : {SIGPIPE, SIGUSR1, SIGHUP, SIGRTMIN, SIGRTMAX}) {
    sigaction(signal, &ignore, &before[signal]);
  }
  sigset_t mask;
  sigset_t mask_before;
  sigfillset(&mask);
  sigprocmask(SIG_SETMASK, &mask, &mask_before);
  const Report report = report_of(role("--report"));
  sigset_t mask_after;
  sigprocmask(SIG_SETMASK, &mask_before, &mask_after);
  for (const auto& [signal, action] : before) sigaction(signal, &action, nullptr);
  CHECK(one(report, "SigIgn") == "0000000000000000");
  CHECK(one(report, "SigBlk") == "0000000000000000");
  CHECK(sigismember(&mask_after, SIGUSR2) == 1);
}

TEST_CASE("the manager's signal mask is as before") {
  sigset_t before;
  sigset_t after;
  sigprocmask(SIG_SETMASK, nullptr, &before);
  output_of(role("--report"));
  check_failure(command("/nonexistent"), "exec", ENOENT);
  sigprocmask(SIG_SETMASK, nullptr, &after);
  for (int signal = 1; signal < SIGRTMAX; ++signal) {
    CHECK(sigismember(&before, signal) == sigismember(&after, signal));
  }
}

// --- Descriptors ---------------------------------------------------------------------------------

TEST_CASE("a worker has the descriptors of the request and no others") {
  const UniqueFd a = memory_file("a");
  const UniqueFd b = memory_file("b");
  const UniqueFd inheritable(memfd_create("leak", 0));  // somebody forgot close-on-exec
  REQUIRE(inheritable);
  SpawnRequest request = role("--report");
  request.fds = {a.get(), b.get(), a.get()};
  const Report report = report_of(request);
  CHECK(descriptors_in(report) == std::set<std::string>{"fd0", "fd1", "fd2", "fd3", "fd4", "fd5"});
  CHECK(one(report, "fd0") == "/dev/null");
  CHECK(one(report, "fd3") == "/memfd:a (deleted)");
  CHECK(one(report, "fd4") == "/memfd:b (deleted)");
  CHECK(one(report, "fd5") == "/memfd:a (deleted)");
}

TEST_CASE("stdin, stdout and stderr can be given") {
  const UniqueFd in = memory_file("in");
  const UniqueFd error = memory_file("error");
  SpawnRequest request = role("--report");
  request.stdin_fd = in.get();
  request.stderr_fd = error.get();
  const Report report = report_of(request);
  CHECK(one(report, "fd0") == "/memfd:in (deleted)");
  CHECK(one(report, "fd1").starts_with("pipe:"));
  CHECK(one(report, "fd2") == "/memfd:error (deleted)");
  CHECK(report.count("fd3") == 0);
}

TEST_CASE("stdout and stderr are the manager's if none are given") {
  const auto own = open_descriptors();
  SpawnRequest request = role("--report");
  const Report report = report_of(request);
  CHECK(one(report, "fd2") == own.at(2));
}

TEST_CASE("descriptors find their places in any order of numbers") {
  const UniqueFd a = memory_file("a");
  const UniqueFd b = memory_file("b");
  const UniqueFd c = memory_file("c");
  // 3, 4 and 5 of the process in between, which passes them on in another order.
  const std::map<std::vector<std::string>, std::vector<std::string>> orders = {
      {{"3", "4", "5"}, {"a", "b", "c"}},
      {{"4", "3"}, {"b", "a"}},
      {{"5"}, {"c"}},
      {{"5", "3", "4"}, {"c", "a", "b"}},
      {{"4", "5", "3"}, {"b", "c", "a"}},
      {{"5", "5", "5", "5"}, {"c", "c", "c", "c"}},
  };
  for (const auto& [numbers, names] : orders) {
    SpawnRequest request = role("--pass-on");
    request.argv.insert(request.argv.end(), numbers.begin(), numbers.end());
    request.fds = {a.get(), b.get(), c.get()};
    std::istringstream lines(output_of(request));
    std::vector<std::string> found;
    for (std::string line; std::getline(lines, line);) {
      if (line.starts_with("fd") && line[2] > '2') found.push_back(line.substr(2));
    }
    std::vector<std::string> expected;
    for (std::size_t i = 0; i < names.size(); ++i) {
      expected.push_back(std::to_string(3 + i) + "=/memfd:" + names[i] + " (deleted)");
    }
    CHECK(found == expected);
  }
}

TEST_CASE("a worker may have a lower limit of open files than the manager has files open") {
  std::vector<UniqueFd> many;
  for (int i = 0; i < 100; ++i) many.push_back(memory_file("many"));
  SpawnRequest request = role("--report");
  for (int i = 0; i < 8; ++i) request.fds.push_back(many[static_cast<std::size_t>(99 - i)].get());
  request.open_files = rlimit{32, 32};
  const Report report = report_of(request);
  CHECK(one(report, "nofile") == "32:32");
  CHECK(descriptors_in(report).size() == 11);
}

// --- Failures ------------------------------------------------------------------------------------

TEST_CASE("a command that cannot be executed says why and leaves no process behind") {
  const Scratch scratch;
  const auto text = file_with(scratch.path / "text", "no program\n", 0755);
  const auto plain = file_with(scratch.path / "plain", "#!/bin/sh\n", 0644);
  const auto orphan = file_with(scratch.path / "orphan", "#!/nonexistent/interpreter\n", 0755);
  check_failure(command("/nonexistent/x"), "exec", ENOENT);
  check_failure(command(plain), "exec", EACCES);
  check_failure(command(text), "exec", ENOEXEC);
  check_failure(command(orphan), "exec", ENOENT);
  check_failure(command(scratch.path), "exec", EACCES);
}

TEST_CASE("a failure names the object and the user it was refused to, and what to do") {
  const Scratch scratch;
  const std::string gone = (scratch.path / "releases/1").string();
  SpawnRequest request = command(gone + "/run");
  request.user = "www-data";
  request.directory = gone;
  const auto text = [&](const char* stage, int error) {
    return failure_text(request, {stage, error});
  };
  const std::string remedy =
      "; the folder that this generation was made of is gone: put it back, or reload";
  CHECK(text("chdir", ENOENT) == "chdir " + gone + ": No such file or directory" + remedy);
  CHECK(text("exec", ENOENT) == "exec " + gone + "/run: No such file or directory" + remedy);
  CHECK(text("chdir", EACCES) == "chdir " + gone + " as www-data: Permission denied");
  CHECK(text("exec", EACCES) == "exec " + gone + "/run as www-data: Permission denied");
  fs::create_directories(gone);
  CHECK(text("exec", ENOENT) == "exec " + gone + "/run: No such file or directory");
  CHECK(text("setrlimit", EINVAL) == "setrlimit: Invalid argument");
  file_with(fs::path(gone) / "run", "#!/no/such/interpreter\n", 0755);
  CHECK(text("exec", ENOENT) == "exec " + gone +
                                    "/run: No such file or directory: it names the interpreter "
                                    "'/no/such/interpreter' in its first line, which does not "
                                    "exist");
}

TEST_CASE("what fails before exec is named") {
  SpawnRequest request = role("--report");
  request.directory = "/nonexistent";
  check_failure(request, "chdir", ENOENT);
  request = role("--report");
  request.open_files = rlimit{10, 5};
  check_failure(request, "setrlimit", EINVAL);
  request = role("--report");
  request.fds = {-1};
  check_failure(request, "dup", EBADF);
  request.fds = {1 << 20};
  check_failure(request, "dup", EBADF);
  request = role("--report");
  request.death_signal = 999;
  check_failure(request, "prctl", EINVAL);
}

TEST_CASE("failed starts leak nothing") {
  check_failure(command("/nonexistent"), "exec", ENOENT);
  const auto before = open_descriptors();
  for (int i = 0; i < 1000; ++i) {
    REQUIRE(start(command("/nonexistent")).pid == -1);
  }
  CHECK(open_descriptors() == before);
  CHECK_FALSE(has_children());
}

// Whoever opens the file, to execute it, too, waits until the lease is given up: fcntl(2),
// "Leases".
class Lease {
 public:
  explicit Lease(const fs::path& path) : file_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    std::signal(SIGIO, SIG_IGN);  // says that somebody waits
    REQUIRE(fcntl(file_.get(), F_SETLEASE, F_WRLCK) == 0);
  }
  void give_up() {
    REQUIRE(fcntl(file_.get(), F_SETLEASE, F_UNLCK) == 0);
    file_.reset();
  }

 private:
  UniqueFd file_;
};

TEST_CASE("a process that is held up between clone and exec holds up nobody") {
  const Scratch scratch;
  const auto held = file_with(scratch.path / "held", "#!/bin/sh\nexit 7\n", 0755);
  Lease lease(held);
  Newborn newborn(command(held));
  REQUIRE(newborn.pid() > 0);
  const UniqueFd pidfd = newborn.take_pidfd();
  const Started other = start(command("/bin/true"));
  REQUIRE(other.pid > 0);
  wait_for(other);
  CHECK(start(command("/nonexistent")).stage == "exec");
  CHECK_FALSE(is_over(newborn, 0));
  CHECK(newborn.look() == Newborn::State::kStarting);
  CHECK(newborn.at() == "exec");
  lease.give_up();
  REQUIRE(is_over(newborn, 20000));
  CHECK(newborn.look() == Newborn::State::kExecuted);
  siginfo_t info{};
  REQUIRE(waitid(P_PIDFD, static_cast<id_t>(pidfd.get()), &info, WEXITED) == 0);
  CHECK(info.si_status == 7);
}

TEST_CASE("errno is the manager's alone while children fail") {
  std::vector<std::unique_ptr<Newborn>> failing;
  for (int i = 0; i < 50; ++i) {
    errno = 0;
    failing.push_back(std::make_unique<Newborn>(command("/nonexistent")));
    for (int k = 0; k < 2000; ++k) {
      const int now = *static_cast<volatile int*>(&errno);
      REQUIRE(now == 0);
    }
  }
  for (auto& newborn : failing) {
    const UniqueFd pidfd = newborn->take_pidfd();
    reap(pidfd);
    CHECK(newborn->look() == Newborn::State::kFailed);
    CHECK(newborn->failure().error == ENOENT);
  }
}

// --- The manager's death -------------------------------------------------------------------------

TEST_CASE("a manager that is killed takes its workers along") {
  Pipe pipe;
  SpawnRequest request = role("--manager");
  request.stdout_fd = pipe.writing.get();
  const Started child = start(request);
  REQUIRE(child.pid > 0);
  pipe.writing.reset();
  CHECK(read_until(pipe.reading.get(), "up\n") == "up\n");
  REQUIRE(kill(child.pid, SIGKILL) == 0);
  CHECK(wait_for(child).si_status == SIGKILL);
  // To the end: the worker said that it got TERM, and is gone.
  CHECK(read_until(pipe.reading.get()) == "term\n");
}

// --- Identity ------------------------------------------------------------------------------------

TEST_CASE("an ordinary user cannot set groups" * doctest::skip(root())) {
  SpawnRequest request = role("--report");
  request.identity = Identity{getuid(), getgid(), {}};
  check_failure(request, "setgroups", EPERM);
}

// What the kernel says of a process: "Uid" to "4711 4711 4711 4711".
std::map<std::string, std::string> parse_status(const std::string& text) {
  std::istringstream lines(text);
  std::map<std::string, std::string> status;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line.substr(line.find(':') + 1));
    std::string& value = status[line.substr(0, line.find(':'))];
    for (std::string word; words >> word;) value += (value.empty() ? "" : " ") + word;
  }
  return status;
}

std::map<std::string, std::string> status_as(const Identity& identity) {
  SpawnRequest request = command("/bin/cat", {"cat", "/proc/self/status"});
  request.identity = identity;
  return parse_status(output_of(request));
}

TEST_CASE("a worker is wholly the user it is to be" * doctest::skip(!root())) {
  auto status = status_as({4711, 4712, {4712, 4713}});
  CHECK(status["Uid"] == "4711 4711 4711 4711");
  CHECK(status["Gid"] == "4712 4712 4712 4712");
  CHECK(status["Groups"] == "4712 4713");
  for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapAmb"}) {
    CHECK(status[set] == "0000000000000000");
  }
}

TEST_CASE("no capability outlives the change of user" * doctest::skip(!root())) {
  auto status = parse_status(output_of(role("--capable")));
  CHECK(status["Uid"] == "4711 4711 4711 4711");
  for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapAmb"}) {
    CHECK(status[set] == "0000000000000000");
  }
}

TEST_CASE("a group alone leaves the user as it is" * doctest::skip(!root())) {
  auto status = status_as(*resolve_identity(std::nullopt, "4712"));
  CHECK(status["Uid"] == "0 0 0 0");
  CHECK(status["Gid"] == "4712 4712 4712 4712");
  CHECK(status["Groups"] == "4712");
}

TEST_CASE("the directory is entered as the worker's user" * doctest::skip(!root())) {
  const Scratch scratch;  // 0700
  SpawnRequest request = command("/bin/true", {"true"});
  request.directory = scratch.path.string();
  request.identity = Identity{4711, 4712, {4712}};
  check_failure(request, "chdir", EACCES);
}

TEST_CASE("a directory that is the manager's own is entered before the user is changed" *
          doctest::skip(!root())) {
  const Scratch scratch;  // 0700
  SpawnRequest request = command("/bin/true", {"true"});
  request.directory = scratch.path.string();
  request.directory_is_own = true;
  request.identity = Identity{4711, 4712, {4712}};
  const Started child = start(request);
  REQUIRE(child.pid > 0);
  wait_for(child);
}

TEST_CASE("the death signal outlives the change of user" * doctest::skip(!root())) {
  Pipe pipe;
  SpawnRequest request = role("--manager");
  request.argv.emplace_back("4711");
  request.stdout_fd = pipe.writing.get();
  const Started child = start(request);
  REQUIRE(child.pid > 0);
  pipe.writing.reset();
  CHECK(read_until(pipe.reading.get(), "up\n") == "up\n");
  REQUIRE(kill(child.pid, SIGKILL) == 0);
  wait_for(child);
  CHECK(read_until(pipe.reading.get()).empty());  // to the end: TERM ended the shell
}

int main(int argc, char** argv) {
  const std::string role_name = argc > 1 ? argv[1] : "";
  if (role_name == "--report") return report(argc, argv);
  if (role_name == "--pass-on") return pass_on(argc, argv);
  if (role_name == "--sleeper") return sleeper();
  if (role_name == "--capable") return capable();
  if (role_name == "--manager") return manager(argc > 2 ? argv[2] : nullptr);
  return doctest::Context(argc, argv).run();
}
