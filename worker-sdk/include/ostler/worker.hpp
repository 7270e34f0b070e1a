// The worker's side of the protocol between a process manager and its workers, for programs that
// have their own loop: inherited listeners, readiness, status, heartbeats, and the request to stop.
//
//   int main() {
//     ostler::worker worker;                         // before any thread is started
//     serve_in_my_loop(worker.listener_fd("http"));  // add the descriptor and worker.stop_fd()
//     worker.ready();
//     run_until_readable(worker.stop_fd());
//     worker.stopping();
//     finish_what_is_in_flight();
//   }
//
// All of that is what systemd defined (sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3)), so
// such a program runs under ostlerd, under systemd, and by itself. Under ostlerd there is a private
// channel as well, over which requests in flight are seen, and connections come (channel_fd()). An
// object of this class starts no thread, and causes no wake-up while there is no work.
//
// Programs that want the loop, too: <ostler/http.hpp>, and <ostler/serve.hpp> for other protocols.
#pragma once

#include <csignal>
#include <cstddef>
#include <cstdint>

#include <chrono>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ostler {

class Scoreboard;
class worker;
struct worker_internals;

// One socket that the manager opened and every worker of the pool shares. What is set on it
// (O_NONBLOCK, socket options, shutdown(2)) is set for all of them: close it, never shut it down.
// A descriptor in an epoll(7) set must be removed with EPOLL_CTL_DEL before it is closed; closing
// alone does not remove it, because the manager still has the socket open.
struct listener {
  int fd = -1;       // close-on-exec; the program's to close
  std::string name;  // as in the manager's configuration; "unknown" if it gave none
};

// What the manager sent over the channel of its own (OSTLER_CHANNEL_FD).
struct channel_message {
  enum class kind {
    nothing,     // there is no message now
    connection,  // one to serve
    may_accept,  // the warm-up is over: begin to accept
    drain        // the stop signal follows: what is_dispatched and idle can be given back
  };
  kind what = kind::nothing;
  // Of the connection: a stream socket, close-on-exec; the program's to close. Whether it is
  // non-blocking is not said.
  int fd = -1;
  bool is_private = false;  // the manager's own, for a health check or a warm-up
  // A client's (`accept: dispatch`). The manager may keep it open for a while: before it is closed,
  // it must be shut down (shutdown(2), SHUT_RDWR), or the client does not see the end at once.
  bool is_dispatched = false;
  std::uint64_t listener = 0;  // then: by which of the pool's listeners it came, from 0
};

// A request being served, from the constructor to the destructor: it is counted and named on the
// worker's scoreboard, where the manager sees it, and it is what `timeouts.request` limits. Costs
// no system call. May begin and end in any thread, also in different ones. Cheap, but neither
// copied nor moved: keep it in a std::optional where that is needed. The worker must outlive it.
class in_flight {
 public:
  using nanoseconds = std::chrono::nanoseconds;

  // `what`, a method and a path or the like, is for people; it is copied. A private one (see
  // channel_message) is shown but not counted among those that were answered.
  in_flight(const worker& worker, std::string_view what, bool is_private = false) noexcept;
  in_flight(const worker& worker, std::string_view method, std::string_view target,
            bool is_private) noexcept;
  ~in_flight();
  in_flight(const in_flight&) = delete;
  in_flight& operator=(const in_flight&) = delete;

  // A sign of progress, for a handler that holds its thread for long.
  void progress() noexcept;

  // It may take that long from now on, a day at most, whatever the limits say. Say it again if more
  // is needed.
  void extend(nanoseconds time) noexcept;

  // Time that was spent waiting for the client does not count as the worker's.
  void discount(nanoseconds time) noexcept;

 private:
  friend class Scoreboard;

  Scoreboard& board_;
  bool is_private_;
  bool overflowed_ = false;   // there was no entry free at its start
  int entry_ = -1;            // on the scoreboard
  std::uint64_t number_ = 0;  // among those that overflowed
  std::uint64_t start_ = 0;
  std::uint64_t until_ = 0;
  std::uint32_t thread_ = 0;    // that it began on
  std::uint64_t progress_ = 0;  // the last sign of it; 0: it holds no thread
  std::string text_;            // while it waits for an entry
};

// Who this process is to its manager, and what the two have to tell each other.
//
// At most one object at a time in a process: the stop signals' handlers are the process's. The
// constructor and the destructor change the environment and the signal dispositions and belong to
// the main thread, before other threads start and after they ended. All else may be called from
// any thread at any time.
//
// What is told to the manager (ready() to extend_timeout()) never throws, because a worker should
// go on serving when nobody listens. Each returns true if the manager's socket took the message;
// false, with errno set, if not: ENOTCONN without a manager, EAGAIN if the manager did not read for
// `kNotifyPatience` (heartbeat() does not wait at all), else as sendto(2) says.
class worker {
 public:
  using microseconds = std::chrono::microseconds;

  // How long telling the manager something may block when its socket's queue is full.
  static constexpr std::chrono::seconds kNotifyPatience{5};
  static constexpr int kReadyAttempts = 12;
  // The same for give_back().
  static constexpr std::chrono::milliseconds kGiveBackPatience{500};
  // A longer status text is cut, in bytes.
  static constexpr std::size_t kStatusLimit = 1024;

  // Takes over what the manager handed to this process, and catches the signals that ask it to
  // stop; give the pool's `stop_signal` if it is another one. The signals are unblocked in the
  // calling thread, and system calls that they interrupt are restarted where the kernel can.
  //
  // The soft limit of open files becomes the hard one (RLIMIT_NOFILE): a worker is to hold as many
  // connections as it may. Programs that it executes inherit that. select(2) cannot handle
  // descriptors above 1023: a program that calls it, or wants fewer for another reason, sets the
  // soft limit again (setrlimit(2)) after this, before offer() or serve(), which look at it.
  //
  // LISTEN_FDS, LISTEN_PID, LISTEN_PIDFDID and LISTEN_FDNAMES are removed from the environment,
  // whether they were meant for this process or not, so that no child takes them for its own.
  //
  // Throws std::system_error, with what was being done and to what, if a variable is malformed
  // (EINVAL), a descriptor that was promised is not open (EBADF), NOTIFY_SOCKET is of an address
  // family other than unix (EAFNOSUPPORT), or a system call fails; std::logic_error if there is an
  // object of this class already.
  explicit worker(std::initializer_list<int> stop_signals = {SIGTERM, SIGINT, SIGQUIT});

  // Gives the stop signals back the dispositions they had; listeners stay open.
  ~worker();

  worker(const worker&) = delete;
  worker& operator=(const worker&) = delete;

  // True if a manager listens to what ready() and the others say (NOTIFY_SOCKET is set, or there is
  // a channel).
  [[nodiscard]] bool managed() const noexcept;

  // The inherited listeners in the order of the configuration; empty if there are none or they
  // were meant for another process (LISTEN_PID), which one line on stderr says: a script has
  // started this one without exec. See sd_listen_fds(3).
  [[nodiscard]] const std::vector<listener>& listeners() const noexcept;

  // The first listener of that name. Throws std::out_of_range, naming those there are.
  [[nodiscard]] int listener_fd(std::string_view name) const;

  // Where this worker stands, if its manager said so (OSTLER_POOL, OSTLER_SLOT, OSTLER_GENERATION):
  // the pool's name, the slot's number from 0, the pool's count of reloads from 1.
  [[nodiscard]] const std::optional<std::string>& pool() const noexcept;
  [[nodiscard]] std::optional<std::uint32_t> slot() const noexcept;
  [[nodiscard]] std::optional<std::uint64_t> generation() const noexcept;

  // This worker can serve from now on. Say it once, when everything is loaded, and accept nothing
  // before it is true: a worker that nobody has heard is given up, whatever it serves. Said over
  // the channel if there is one. Waits up to kReadyAttempts times kNotifyPatience: where a thousand
  // workers start at once, the manager's queue is short (net.unix.max_dgram_qlen).
  bool ready() const noexcept;

  // One line for people, shown in the manager's status. Control characters become spaces.
  bool status(std::string_view text) const noexcept;

  // This worker is alive and makes progress. From the first heartbeat on, the manager expects one
  // at least every heartbeat_interval(), so say it only from the loop that does the work, and not
  // at all if the program is to sleep while it is idle. Does not block; one that is lost because
  // the manager's queue is full is made good by the next.
  bool heartbeat() const noexcept;

  // Half of what the manager tolerates between two heartbeats; empty if it expects none of this
  // process (WATCHDOG_USEC, WATCHDOG_PID). See sd_watchdog_enabled(3).
  [[nodiscard]] std::optional<microseconds> heartbeat_interval() const noexcept;

  // This worker has begun to drain, whether it was asked to or decided so.
  bool stopping() const noexcept;

  // Why this worker fails, as an errno value, told before it exits.
  bool report_errno(int error) const noexcept;

  // The start or the stop under way takes longer: until that much time from now. Say it again
  // before the time is over if more is needed. Nothing is sent (EINVAL) if `time` is not positive.
  bool extend_timeout(microseconds time) const noexcept;

  // Readable when the manager has sent something or wants to see that the loop runs: then call
  // receive() until there is nothing. -1 without a manager that has a channel. It is not to be read
  // or closed. A program that asks for it says with that that it waits for it in its loop, as it
  // does for stop_fd(): while it has requests in_flight, it is held to `timeouts.heartbeat` and
  // `timeouts.request` from then on, and needs no heartbeat().
  [[nodiscard]] int channel_fd() const noexcept;

  // Does not block. Anything malformed is dropped. Clients' connections for which there is no
  // descriptor go back to the manager, which gives them to another worker. In one thread at a time.
  [[nodiscard]] channel_message receive() const noexcept;

  // False as long as this worker is to be warmed up: it says ready() all the same, serves the
  // connections that it receives, and accepts none before it received `may_accept`.
  [[nodiscard]] bool may_accept() const noexcept;

  // True if this worker has no listeners, because the manager accepts and receive() gives the
  // connections (`accept: dispatch`). How many there are at a time is decided by what offer() said
  // and connection_opened() and connection_closed() count; so say them. How many came is told by
  // receive() itself.
  [[nodiscard]] bool dispatched() const noexcept;

  // How many connections this worker will have open, and how many requests it serves at the same
  // time; 0: as many as its CPU can. To be said before ready(). If the limit of open files leaves
  // room for fewer connections, these are offered, and one line on stderr says so: some descriptors
  // stay free for what the program opens while it serves.
  void offer(std::uint32_t connections, std::uint32_t at_once) const noexcept;

  // For a connection that is_dispatched and waits for its next request, after receive() gave
  // `drain`: another worker goes on with it. `listener` as receive() said. All that was read from
  // it must have been answered. Its descriptor has been closed if this is true; if it is false, the
  // connection is to be drained as any other.
  bool give_back(int fd, std::uint64_t listener) const noexcept;

  // For the counters that the manager shows. What receive() gave as private is not counted.
  void connection_opened() const noexcept;
  void connection_closed() const noexcept;

  // Readable once this process was asked to stop. Wait for it with poll(2) or epoll(7). It is an
  // eventfd(2), non-blocking, and stays readable until read; then it becomes readable again with
  // the next stop signal. It belongs to this object.
  [[nodiscard]] int stop_fd() const noexcept;

  // True from the first stop signal on, read or not.
  [[nodiscard]] bool stop_requested() const noexcept;

  // How often this process was asked to stop. From the second time on, whoever asks is impatient,
  // and the program should leave at once. The signal that the kernel sends when the manager dies
  // does not count as a second time: a worker that drains then goes on draining.
  [[nodiscard]] int stop_requests() const noexcept;

 private:
  friend struct worker_internals;
  friend class in_flight;
  struct state;
  std::unique_ptr<state> state_;
};

}  // namespace ostler
