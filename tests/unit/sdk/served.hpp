// An HTTP server of the test's own, in a process of its own.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "example.hpp"
#include "ostler/http.hpp"

namespace ostler::test {

struct Pipe {
  Pipe();
  // What was written until now, at least until there is `text`.
  std::string read_until(const std::string& text);
  Fd read;
  Fd write;
  std::string seen;
};

// These options in this class, changed as `change` does.
template <class Change>
http::options options_with(worker_class kind, Change change) {
  http::options options;
  options.worker_class = kind;
  change(options);
  return options;
}

// Class async, in which functions that are quick may serve as well.
template <class Change>
http::options async_with(Change change) {
  return options_with(worker_class::async, change);
}
http::options in_class(worker_class kind);
http::options in_async();

// Where a handler, which is in another process, waits until the test lets it go on.
class Gate {
 public:
  Gate();
  // In the handler: says kWaiting on stderr, and returns when the gate is open. Throws if that does
  // not come about.
  void wait() const;
  void open() const;
  static constexpr const char* kWaiting = "waits at the gate\n";

 private:
  ScratchDirectory scratch_;
};

// A worker that serves these listeners, ready when the constructor returns.
class Served {
 public:
  Served(const std::vector<const Listener*>& listeners, const http::handler& handler,
         const http::options& options = in_async());
  Served(const Listener& listener, const http::handler& handler,
         const http::options& options = in_async())
      : Served(std::vector<const Listener*>{&listener}, handler, options) {}

  void stop();
  int wait() { return process_->wait(); }

  Pipe errors;
  Pipe output;

 private:
  ScratchDirectory scratch_;
  NotifyEnd manager_;
  std::unique_ptr<Process> process_;
};

}  // namespace ostler::test
