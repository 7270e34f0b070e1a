// A process manager for the tests of a worker: it starts one worker as ostlerd would, hears what it
// says, sees what it does, and hands it connections.
//
//   ostler::test::fake_manager manager({.command = {"./my-worker", "--flag"}});
//   manager.wait_ready();
//   my_client client(manager.port());
//   …
//   manager.ask_to_stop();
//   assert(manager.wait() == 0);
//
// Everything that waits has a deadline, `patience`, after which it throws std::runtime_error, as it
// does when the worker ends too early. What the system refuses is a std::system_error. No test
// framework is needed. Link ostler::test_support.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace ostler::test {

struct fake_manager_options {
  // The program and its arguments; found along PATH if it has no slash. Or a function that is run
  // in a forked child, whose result is the exit code: then the test must have no other threads, and
  // of its descriptors those from 200 on are left open.
  std::vector<std::string> command{};
  std::function<int()> body{};

  // Beside those of this process; they win.
  std::map<std::string, std::string> environment{};

  std::size_t listeners = 1;     // tcp, on a port of the loopback interface each
  bool non_blocking = false;     // as another program that shares them may make them
  bool channel = true;           // false: as under systemd
  bool dispatch = false;         // the worker gets no listeners; see fake_manager::dispatch()
  std::string worker_options{};  // "class=threads threads=4": as `worker:` in the configuration
  std::uint64_t recycle_requests = 0;
  bool warmup = false;                     // it accepts nothing before let_accept()
  std::chrono::milliseconds heartbeat{0};  // the most it may be silent while it has work; 0: any

  std::chrono::milliseconds patience{20'000};
};

// What the worker shows of itself; see <ostler/protocol.h>. Times are nanoseconds of
// CLOCK_MONOTONIC.
struct worker_figures {
  std::uint32_t worker_class = 0;
  std::uint32_t capacity = 0;
  bool awake = false;
  std::uint64_t beat = 0;
  std::uint64_t requests = 0;
  std::uint64_t accepted = 0;
  std::uint64_t connections = 0;
  std::uint64_t active = 0;
  std::uint64_t busy_since = 0;
  std::uint64_t taken = 0;
  std::uint64_t not_taken = 0;
  std::uint64_t concurrency = 0;
  bool wanted = false;
};

// A connection that the worker has handed back.
struct returned_connection {
  int fd = -1;  // the test's to close
  std::uint64_t listener = 0;
  std::size_t together = 0;  // so many in one message
};

// Connections for which the worker had no descriptors.
struct not_taken_connections {
  std::size_t count = 0;
  std::uint64_t before = 0;  // so many connections were handed to it before these
};

struct shown_request {
  std::uint64_t start = 0;
  std::uint64_t progress = 0;
  std::uint64_t until = 0;
  pid_t thread = 0;
  std::string text;
};

class fake_manager {
 public:
  // Starts the worker.
  explicit fake_manager(fake_manager_options options);
  // Kills it, if it still runs.
  ~fake_manager();
  fake_manager(const fake_manager&) = delete;
  fake_manager& operator=(const fake_manager&) = delete;

  [[nodiscard]] pid_t pid() const;
  [[nodiscard]] std::uint16_t port(std::size_t listener = 0) const;
  // A new connection, blocking, whose reads give up after `patience`. The caller's to close.
  [[nodiscard]] int connect(std::size_t listener = 0) const;

  // Until it has said READY=1, or this assignment ("STOPPING=1", "STATUS=…").
  void wait_ready() { wait_for("READY=1"); }
  void wait_for(const std::string& assignment);
  // The next datagram it sent.
  std::string next_notification();

  // Until it has said that it speaks the channel, or this message (OSTLER_HELLO, OSTLER_AWAKE,
  // OSTLER_RECYCLE). Those before it are skipped.
  void wait_for_message(std::uint32_t type);
  // Whether there is any message within this time.
  [[nodiscard]] bool hears_message(std::chrono::milliseconds time) const;

  [[nodiscard]] worker_figures figures() const;
  // In the order of their entries.
  [[nodiscard]] std::vector<shown_request> requests() const;
  // Until its figures are so.
  worker_figures wait_until(const std::function<bool(const worker_figures&)>& condition) const;

  // Hands over one end of a new connection and returns the other, as connect() does.
  int hand_over(bool is_private = true);
  void let_accept();
  // Whatever it is: bytes of one packet, and descriptors to go with them.
  void send_rubbish(const std::string& bytes, const std::vector<int>& descriptors = {});
  void close_channel();

  // With `dispatch`: clients that connect() to a listener, whose connections are accepted and
  // handed to the worker in one message. Copies are kept, as a manager's may be for a while.
  std::vector<int> dispatch(std::size_t count, std::size_t listener = 0);
  int dispatch() { return dispatch(1).front(); }
  // Waits until the worker has said that it had no descriptors for some; other messages are
  // skipped.
  not_taken_connections wait_not_taken();
  // Connections that another worker has handed back, of the one listener. They are closed here.
  void dispatch_again(const std::vector<returned_connection>& connections);
  void close_copies();
  // A connection waits for room. Until the worker has found it, wait_for_message(OSTLER_ROOM).
  void want_room();
  // OSTLER_DRAIN and the stop signal.
  void drain();
  // Waits until the worker has handed so many back; other messages are skipped.
  std::vector<returned_connection> wait_returned(std::size_t count);

  void signal(int signal) const;
  void ask_to_stop() const;  // SIGTERM
  // What it has written to stderr until now, at least until there is `text`.
  std::string wait_for_error(const std::string& text);
  // Waits for its end. Its exit status; -N if signal N ended it.
  int wait();

 private:
  struct state;
  std::unique_ptr<state> state_;
};

}  // namespace ostler::test
