#include "daemon/process.hpp"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>
#include <system_error>

#include "runtime/descriptors.hpp"
#include "runtime/signals.hpp"

namespace ostler::daemon {
namespace {

[[noreturn]] void fail(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

// A descriptor below 3 that is closed would become somebody's socket, and a log line its data.
void open_standard_descriptors() {
  while (true) {
    const int fd = ::open("/dev/null", O_RDWR);
    if (fd < 0) fail("open /dev/null");
    if (fd <= STDERR_FILENO) continue;
    ::close(fd);
    return;
  }
}

std::optional<rlimit> raise_open_files() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return std::nullopt;
  if (runtime::SpareNumbers::set_aside() != 0) return std::nullopt;
  return limit;
}

}  // namespace

Inheritance prepare_process() {
  open_standard_descriptors();
  runtime::block_signals();
  Inheritance inheritance;
  inheritance.umask = ::umask(077);
  inheritance.open_files = raise_open_files();
  for (char** entry = ::environ; entry != nullptr && *entry != nullptr; ++entry) {
    inheritance.environment.emplace_back(*entry);
  }
  // As root, nobody of a worker's identity may look into the manager's memory or trace it.
  if (::geteuid() == 0 && ::prctl(PR_SET_DUMPABLE, 0) != 0) fail("prctl PR_SET_DUMPABLE");
  return inheritance;
}

std::string sockets_of_another() {
  const char* const pid = std::getenv("LISTEN_PID");
  const char* const count = std::getenv("LISTEN_FDS");
  const std::string own = std::to_string(::getpid());
  if (pid == nullptr || count == nullptr || pid == own) return {};
  return "sockets were handed over to process " + std::string(pid).substr(0, 20) +
         " (LISTEN_PID), but this is process " + own +
         ", so they are not used: whatever starts ostlerd has to `exec` it";
}

void take_orphans() {
  if (::prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) fail("prctl PR_SET_CHILD_SUBREAPER");
}

}  // namespace ostler::daemon
