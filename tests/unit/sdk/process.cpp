#include "process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <system_error>

namespace ostler::test {
namespace {

constexpr int kHigh = 200;  // descriptors above survive in a child

bool readable_within(int descriptor, std::chrono::milliseconds time) {
  const auto until = std::chrono::steady_clock::now() + time;
  while (true) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
    pollfd poll{descriptor, POLLIN, 0};
    const int found = ::poll(&poll, 1, static_cast<int>(std::max<long>(0, left.count())));
    if (found > 0) return true;
    if (found == 0) return false;
    if (errno != EINTR) checked(-1, "poll");
  }
}

// The descriptors become 3, 4, …; all others up to kHigh are closed.
void arrange(const std::vector<int>& descriptors) {
  std::vector<int> copies;
  for (const int each : descriptors) {
    copies.push_back(checked(::fcntl(each, F_DUPFD_CLOEXEC, kHigh), "duplicate a descriptor"));
  }
  int next = 3;
  for (const int each : copies) checked(::dup2(each, next++), "place a descriptor");
  ::close_range(static_cast<unsigned>(next), kHigh - 1, 0);
}

}  // namespace

int checked(long result, const std::string& what) {
  if (result < 0) throw std::system_error(errno, std::generic_category(), what);
  return static_cast<int>(result);
}

void wait_readable(int descriptor, const std::string& what) {
  if (!readable_within(descriptor, kPatience)) throw std::runtime_error("waited long for " + what);
}

ScratchDirectory::ScratchDirectory() {
  std::string name = (std::filesystem::temp_directory_path() / "ostler-sdk-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) checked(-1, "make a scratch directory");
  path_ = name;
}

ScratchDirectory::~ScratchDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

Process::Process(const std::vector<int>& descriptors, const std::function<int()>& body) {
  std::fflush(nullptr);
  pid_ = checked(::fork(), "fork");
  if (pid_ == 0) {
    int status = 99;
    try {
      for (const int signal : {SIGTERM, SIGINT, SIGQUIT}) ::signal(signal, SIG_DFL);
      arrange(descriptors);
      status = body();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "in a child of the test: %s\n", error.what());
    }
    std::fflush(nullptr);
    ::_exit(status);
  }
  pidfd_ = Fd(checked(::syscall(SYS_pidfd_open, pid_, 0), "open a pidfd"));
}

Process::~Process() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

void Process::signal(int signal) const {
  checked(::kill(pid_, signal), "signal a child");
}

bool Process::ends_within(std::chrono::milliseconds time) const {
  return readable_within(pidfd_.get(), time);
}

int Process::wait() {
  wait_readable(pidfd_.get(), "the end of a child");
  int status = 0;
  checked(::waitpid(pid_, &status, 0), "wait for a child");
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

NotifyEnd::NotifyEnd(const std::string& name)
    : socket_(checked(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), "make a notify socket")) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::copy(name.begin(), name.end(), address.sun_path);
  if (name[0] == '@') address.sun_path[0] = '\0';
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
  checked(::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), size), "bind " + name);
}

std::string NotifyEnd::next() {
  wait_readable(socket_.get(), "a notify datagram");
  std::array<char, 4096> text;
  const int size =
      checked(::recv(socket_.get(), text.data(), text.size(), 0), "receive a notify datagram");
  return {text.data(), static_cast<std::size_t>(size)};
}

void NotifyEnd::expect(const std::string& message) {
  while (next() != message) {
  }
}

Reports::Reports() {
  std::array<int, 2> ends;
  checked(::pipe2(ends.data(), O_CLOEXEC), "make a pipe");
  const Fd low_read(ends[0]);
  const Fd low_write(ends[1]);
  read_ = Fd(checked(::fcntl(ends[0], F_DUPFD_CLOEXEC, kHigh), "duplicate a pipe"));
  write_ = Fd(checked(::fcntl(ends[1], F_DUPFD_CLOEXEC, kHigh), "duplicate a pipe"));
}

void Reports::say(const std::string& text) {
  const std::size_t size = text.size();
  std::string message(reinterpret_cast<const char*>(&size), sizeof size);
  message += text;
  checked(::write(write_.get(), message.data(), message.size()), "write a report");
}

std::string Reports::next() {
  std::size_t size = 0;
  wait_readable(read_.get(), "a report of a child");
  if (checked(::read(read_.get(), &size, sizeof size), "read a report") == 0) return "(nothing)";
  std::string text(size, '\0');
  if (size > 0) checked(::read(read_.get(), text.data(), size), "read a report");
  return text;
}

bool Reports::silent_for(std::chrono::milliseconds time) const {
  return !readable_within(read_.get(), time);
}

void set_environment(const std::map<std::string, std::string>& environment) {
  for (const char* name :
       {"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID", "NOTIFY_SOCKET",
        "WATCHDOG_USEC", "WATCHDOG_PID", "OSTLER_POOL", "OSTLER_SLOT", "OSTLER_GENERATION"}) {
    ::unsetenv(name);
  }
  for (const auto& [name, value] : environment) {
    const std::string text = value == "self" ? std::to_string(::getpid()) : value;
    checked(::setenv(name.c_str(), text.c_str(), 1), "set a variable");
  }
}

std::string in_child(const std::map<std::string, std::string>& environment,
                     const std::vector<int>& descriptors,
                     const std::function<std::string()>& body) {
  Reports reports;
  Process child(descriptors, [&] {
    set_environment(environment);
    try {
      reports.say(body());
    } catch (const std::system_error& error) {
      reports.say("errno " + std::to_string(error.code().value()) + ": " + error.what());
    } catch (const std::exception& error) {
      reports.say(error.what());
    }
    return 0;
  });
  const std::string report = reports.next();
  child.wait();
  return report;
}

}  // namespace ostler::test
