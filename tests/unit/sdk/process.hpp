// Child processes for the tests, and waiting for things with a deadline. A failed call throws
// std::system_error, which fails the test that made it.
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace ostler::test {

// What any single thing may take before the test gives up; far more than it takes.
inline constexpr std::chrono::seconds kPatience{20};

// Returns `result`, or throws with errno and `what` if it is negative.
int checked(long result, const std::string& what);

// Waits for input, or for the end of it. Throws if nothing came in time.
void wait_readable(int descriptor, const std::string& what);

// Owns a descriptor.
class Fd {
 public:
  explicit Fd(int descriptor = -1) : descriptor_(descriptor) {}
  ~Fd() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  Fd(Fd&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  [[nodiscard]] int get() const { return descriptor_; }

 private:
  int descriptor_;
};

// A directory that is removed with all that is in it.
class ScratchDirectory {
 public:
  ScratchDirectory();
  ~ScratchDirectory();
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;
  [[nodiscard]] std::string file(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

// A process that is killed, if it still runs, and reaped with the object.
class Process {
 public:
  // Forks. The child has `descriptors` as 3, 4, … and no others above 2, runs `body` and exits with
  // what it returns, or with 99 and a line on stderr if it throws.
  Process(const std::vector<int>& descriptors, const std::function<int()>& body);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  [[nodiscard]] pid_t pid() const { return pid_; }
  void signal(int signal) const;
  // The exit status; -N if signal N ended it.
  int wait();
  // Whether it ends without being told to within this time.
  [[nodiscard]] bool ends_within(std::chrono::milliseconds time) const;

 private:
  pid_t pid_ = -1;
  Fd pidfd_;
};

// A manager's end of the notify socket. Datagrams wait here until they are asked for.
class NotifyEnd {
 public:
  // `name` is a path, or '@' and an abstract name.
  explicit NotifyEnd(const std::string& name);
  [[nodiscard]] int fd() const { return socket_.get(); }
  std::string next();
  void expect(const std::string& message);  // skips others

 private:
  Fd socket_;
};

// A pipe of texts, one after another, whose two ends are in the test and in all its children.
class Reports {
 public:
  Reports();
  void say(const std::string& text);
  std::string next();
  [[nodiscard]] bool silent_for(std::chrono::milliseconds time) const;

 private:
  Fd read_, write_;
};

// What `body` returns in a child with these descriptors from 3 on and these variables; LISTEN_PID
// and WATCHDOG_PID with the value "self" become the child's pid. If it throws a
// std::system_error: "errno N: what"; any other exception: its what().
std::string in_child(const std::map<std::string, std::string>& environment,
                     const std::vector<int>& descriptors, const std::function<std::string()>& body);

// Sets these variables and removes all others of the protocol; "self" as above.
void set_environment(const std::map<std::string, std::string>& environment);

}  // namespace ostler::test
