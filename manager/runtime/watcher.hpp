// What ends the workers' descendants when the manager is killed: a small process beside it.
//
// The kernel tells the workers themselves that the manager is dead (their death signal), and nobody
// below them: a shell would leave its program serving, with the port in its hands. The watcher sees
// the end of the manager as the end of a socket, and does then what the manager does for a worker
// that is gone: whoever has lost its parent gets the stop signal, and what is left when the time is
// over is killed. It knows the processes by their tags (process_tag.hpp) and signals through
// pidfds, so that no stranger is hit whose number was another's before.
//
// Until then it is blocked in one read and holds nothing but that socket and a table of the living
// workers, which it shares with the manager: no message, no wake-up, no allocation. It is no child
// of the manager, has a session of its own and ignores what a terminal or a supervisor sends to the
// manager's group. Where the manager is pid 1 there is none: its end is everybody's.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <vector>

#include "runtime/process_tag.hpp"
#include "runtime/unique_fd.hpp"

namespace ostler::runtime {

// How a process and what it leaves behind are to be ended.
struct StopTerms {
  int signal = 15;
  std::chrono::milliseconds timeout{};
  bool leave_behind = false;  // descendants outside of its session are not
};

// One for each manager. It hands out the tags, with or without a watcher.
class Watcher {
 public:
  Watcher();  // throws std::system_error
  ~Watcher();
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;

  // Forks the watcher. To be called once, early in main: before there are threads, a large heap or
  // sockets, and before the process takes orphans in. Its command line, at `argv`, is replaced.
  // Returns 0 or errno; without a watcher all else works.
  int start(int argc, char** argv);
  // Readable when the watcher has died; -1: there is none.
  [[nodiscard]] int fd() const { return socket_.get(); }
  // The manager ends in order: nobody is left to be ended.
  void over();

  // A tag for a process that is about to be started, different from that of every other one that
  // has been entered. A number below 2^32 if the kernel cannot be given one; it names the process
  // here all the same.
  Tag enter(const StopTerms& terms);
  void started(Tag tag, pid_t pid);
  // The process is gone, and so is all that it left behind.
  void leave(Tag tag);
  [[nodiscard]] bool made(Tag tag) const { return space_.contains(tag); }

 private:
  struct Entry;
  struct Table;

  [[noreturn]] void watch(int socket) const;

  TagSpace space_;
  Table* table_;  // shared with the watcher
  std::uint32_t serial_ = 0;
  std::uint32_t used_ = 0;           // entries that were ever used
  std::vector<std::uint32_t> free_;  // of those
  UniqueFd socket_;
};

}  // namespace ostler::runtime
