#include "ctl/config_init.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <ostream>
#include <string_view>
#include <system_error>

#include "ctl/failed.hpp"

namespace ostler::ctl {
namespace {

// Lines that begin with '#' and no blank are settings. With all of them made settings it is valid
// too, and they say nothing but the defaults, those marked as an example apart.
constexpr std::string_view kStart =
    R"(# yaml-language-server: $schema=/usr/share/ostler/ostler.schema.json
#
# A configuration of ostlerd, the process manager. Put your program into `command`, then
# `ostlerd --check --config FILE` says every fault and starts nothing; `ostlerd --config FILE` runs it,
# in the foreground; `ostlerctl reload` reads this file again and replaces the workers one by one.
#
# All keys are in ostler.yaml(5). What stands in comments shows the default, or is marked as an
# example. Durations are 250ms, 30s, 5m, 1h, 1d, or a number of seconds; sizes 64KiB, 512MiB, 2GiB.

pools:
  # A pool is one application: a program, its addresses, and how many processes there should be.
  web:
    # A list, or one line. Looked up in PATH if it has no slash. The listening socket is descriptor
    # 3; {fd} in an argument becomes its number: [uvicorn, --fd, "{fd}", "shop:app"].
    command: [my-server]
    listen: ["tcp://127.0.0.1:8080"]
    # A number; auto (2 x CPUs + 1); or, by load: {min: 2, max: 16}.
    workers: 4

    # Who the workers are, where they run and with which variables. Examples:
#    user: www-data
#    directory: /srv/shop
#    env: {LOG_LEVEL: info}

    # A worker is ready when it is seen waiting for connections. notify: when it says READY=1;
    # {after: 2s}: when it has lived that long.
#    ready: auto

    # How long until it is ready; how long it may be silent if it sends heartbeats; from the stop
    # signal to SIGKILL.
#    timeouts: {start: 60s, heartbeat: 30s, request: off, stop: 30s}
#    stop_signal: TERM

    # A reload replaces one worker after the other: how many processes more than `workers` there may
    # be meanwhile; how long a new one must stay up before it is relied upon.
#    replace: {surge: 1, settle: 2s, attempts: 1}

    # One that dies is replaced at once; one that keeps dying waits longer and longer.
#    restart: {backoff: 100ms, backoff_max: 30s, burst: 5, reset_after: 10s}

    # A check of every worker by itself, and when to replace those that are well. Examples:
#    health: {exec: [my-check, "{slot}"], interval: 10s, timeout: 2s, failures: 3}
#    recycle: {lifetime: 1d, lifetime_jitter: 1h, memory: 512MiB}

    # What workers write: forward (into the log below), inherit, null, or a path.
#    output: forward

# The manager's own log: to stderr, journald, syslog or a path.
#log: {level: info, format: text, output: stderr}

# The control socket, for ostlerctl. It is in the runtime directory unless it is given. An example:
#control: {socket: /run/ostler/control.sock, mode: "0660"}

# Keys that every pool has unless it says otherwise. An example:
#defaults: {inherit_env: false}

# More pools, one file for each application.
#include: [conf.d/*.yaml]
)";

[[noreturn]] void fail(const std::string& file) {
  throw Failed(kNotDone,
               "cannot write " + printable(file) + ": " + std::generic_category().message(errno));
}

void write_new(const std::string& file) {
  const int fd = ::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0 && errno == EEXIST)
    throw Failed(kNotDone, printable(file) + " is there already; nothing was written");
  if (fd < 0) fail(file);
  const ssize_t written = ::write(fd, kStart.data(), kStart.size());
  const int closed = ::close(fd);
  if (written == static_cast<ssize_t>(kStart.size()) && closed == 0) return;
  if (written >= 0 && closed == 0) errno = ENOSPC;
  const int reason = errno;
  ::unlink(file.c_str());
  errno = reason;
  fail(file);
}

}  // namespace

int init_config(const std::string& file, const Terminal& terminal) {
  if (file.empty()) {
    terminal.out << kStart;
    return kDone;
  }
  write_new(file);
  terminal.out << printable(file) << ": written; put your program into it, then: ostlerd --check"
               << " --config " << printable(file) << "\n";
  return kDone;
}

}  // namespace ostler::ctl
