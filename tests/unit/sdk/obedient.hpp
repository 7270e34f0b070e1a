// A worker on raw connections that does what its clients say, line by line, and such a client.
//
//   echo TEXT     answers TEXT
//   begin TEXT    a request of that name is in flight until `end`, or the connection's end
//   progress      a sign of progress of it
//   extend MS     it may take so long
//   stop?         answers whether a stop was requested
//   private?      answers whether the connection is the manager's own
//   throw         the handler fails
//   hang          the handler says "hanging" on stderr, never returns and holds its thread
//
// Where nothing else is said the answer is "ok". When the worker drains, its connections get the
// line "draining" and are closed.
#pragma once

#include <chrono>
#include <string>

#include "ostler/serve.hpp"
#include "ostler/test/fake_manager.hpp"
#include "process.hpp"

namespace ostler::test {

// For class async, and for the others.
connection_handler obedient();
connection_handler obedient_and_blocking();

// The right one for this class, in a worker of the fake manager's, with class=NAME and these other
// settings of the pool.
fake_manager_options obedient_worker(const std::string& class_name,
                                     const std::string& settings = "",
                                     const serve_options& options = {});

class LineClient {
 public:
  explicit LineClient(int socket) : socket_(socket) {}
  void send(const std::string& line);
  // Without its end; "(end)" if there is none.
  std::string receive();
  std::string ask(const std::string& line);
  [[nodiscard]] bool hears_nothing_for(std::chrono::milliseconds time) const;

 private:
  Fd socket_;
  std::string buffer_;
};

// How often the threads of a process slept until now, and the number of its descriptors.
long context_switches(pid_t pid);
std::size_t descriptors(pid_t pid);

}  // namespace ostler::test
