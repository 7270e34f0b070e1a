// The example worker as its manager starts it, and an HTTP client that notices everything.
#pragma once

#include <cstddef>

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "process.hpp"

namespace ostler::test {

// A listening socket that the test holds open, as a manager does.
class Listener {
 public:
  enum class Family { kTcp, kTcp6, kUnix };
  explicit Listener(Family family = Family::kTcp);
  [[nodiscard]] int fd() const { return socket_.get(); }
  // A new connection, whose reads give up after kPatience.
  [[nodiscard]] Fd connect() const;

 private:
  Family family_;
  ScratchDirectory scratch_;
  Fd socket_;
};

// A running example, ostler-example-http if nothing is said, as web.3 in generation 7; ready when
// the constructor returns.
class Example {
 public:
  // `settings` are the pool's: "class=threads threads=4".
  explicit Example(const Listener& listener, std::vector<std::string> flags = {},
                   const std::string& settings = "",
                   const std::string& program = OSTLER_EXAMPLE_HTTP);
  [[nodiscard]] Process& process() { return *process_; }
  [[nodiscard]] pid_t pid() const { return process_->pid(); }
  // Sends TERM and returns when the worker says that it drains.
  void stop();
  int wait() { return process_->wait(); }
  // How often it slept until now. Waits until it does.
  [[nodiscard]] long context_switches_when_asleep() const;

 private:
  ScratchDirectory scratch_;
  std::unique_ptr<NotifyEnd> manager_;
  std::unique_ptr<Process> process_;
};

struct Reply {
  int status = 0;
  std::string version;
  std::map<std::string, std::string> fields;  // names in lower case
  std::string body;
  // Whether the connection stays open after it, as HTTP/1.0 and 1.1 define it.
  [[nodiscard]] bool keeps_alive() const;
};

// One connection.
class Client {
 public:
  explicit Client(const Listener& listener) : Client(listener.connect()) {}
  explicit Client(Fd socket) : socket_(std::move(socket)) {}
  void send(const std::string& text);
  // The next answer; nothing if the connection ended, or was reset, before its first byte. Throws
  // if it ended in the middle of one or nothing came for kPatience. `has_body` is false for HEAD.
  std::optional<Reply> receive(bool has_body = true);
  Reply ask(const std::string& text);  // send and receive, and there must be an answer
  std::string receive_line();          // of another protocol
  // True if the server ended the connection in order; false if it was reset. Throws if more data
  // comes, or nothing. This end is closed then too.
  bool closed_in_order();
  // Whether nothing came within this time.
  [[nodiscard]] bool hears_nothing_for(std::chrono::milliseconds time) const;
  void half_close();

 private:
  bool read_more();
  std::string take(std::size_t size);
  std::string take_chunks();

  Fd socket_;
  std::string buffer_;
  bool reset_ = false;
};

// "GET path HTTP/1.1" with a Host field and these lines.
std::string get(const std::string& path, const std::string& lines = "");
std::string post(const std::string& path, const std::string& body, const std::string& lines = "");

}  // namespace ostler::test
