// The notify sockets of all workers: where they lie, and in which order they are read.
//
// Those on which something waits are read in turn, a few messages each, for a bounded time; then
// others have the loop. So a worker that shouts drops nobody's heartbeat but its own. When nothing
// comes nothing runs.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "core/ids.hpp"
#include "runtime/notify_folder.hpp"
#include "runtime/notify_socket.hpp"
#include "runtime/removal_watch.hpp"

namespace ostler::runtime {

class NotifySockets {
 public:
  struct Hooks {
    std::function<core::WorkerId(pid_t)> worker_of;      // whose process this is, of those that run
    std::function<std::string(core::WorkerId)> name_of;  // "web.1"
    // May not close a socket.
    std::function<void(core::WorkerId, const Notification&)> deliver;
  };

  // `removals` is told of each socket's file.
  NotifySockets(boost::asio::io_context& context, RemovalWatch& removals, Hooks hooks);
  ~NotifySockets();
  NotifySockets(const NotifySockets&) = delete;
  NotifySockets& operator=(const NotifySockets&) = delete;

  // The folder for them, beside the control socket. Returns "" or what went wrong.
  [[nodiscard]] std::string open_folder(const std::string& control_socket);
  // A worker's socket. Returns its path, also if it cannot be made now: that is logged, and
  // restore() tries again.
  std::string open(core::WorkerId worker, const NotifyOwner& owner);
  void started(core::WorkerId worker, pid_t pid);
  // Handles all that waits, now: a worker that is gone said it before.
  void drain(core::WorkerId worker);
  void close(core::WorkerId worker);
  // The folder is where it was made.
  [[nodiscard]] bool is_there() const { return folder_.is_there(); }
  // Makes what is missing: its files were removed. Returns whether anything was.
  bool restore();

  // What was refused of what came to a worker, in words; or "".
  [[nodiscard]] std::string what_was_refused(core::WorkerId worker) const;
  // Datagrams that were too long, or from somebody who is not heard.
  [[nodiscard]] std::uint64_t rejected() const { return rejected_; }

 private:
  struct Entry {
    std::string name;
    std::shared_ptr<NotifySocket> socket;
    FileId file;
    int watch = -1;
  };

  bool bind(Entry& entry);
  void complain(const std::string& what);
  void schedule(std::chrono::nanoseconds after);
  void take_turn();

  boost::asio::io_context& context_;
  RemovalWatch& removals_;
  Hooks hooks_;
  std::string path_;
  NotifyFolder folder_;
  std::map<core::WorkerId, Entry> entries_;
  std::deque<std::shared_ptr<NotifySocket>> waiting_;  // to be read
  boost::asio::steady_timer timer_;
  bool is_scheduled_ = false;
  std::uint64_t rejected_ = 0;
  std::string complaint_;
  std::shared_ptr<int> alive_ = std::make_shared<int>();  // handlers that come later find it gone
};

}  // namespace ostler::runtime
