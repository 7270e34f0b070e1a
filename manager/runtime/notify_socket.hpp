// The datagram socket that NOTIFY_SOCKET names: sd_notify(3), the manager's side.
//
// One socket for all workers. The kernel says who sent a datagram (SCM_CREDENTIALS); whether that
// process belongs to a worker is for `Attribute` to say: anything else is dropped and counted.
// Descriptors that come along are closed, a BARRIER's after the messages before it were handled.
#pragma once

#include <sys/types.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/ids.hpp"
#include "runtime/socket_path.hpp"

namespace ostler::runtime {

// What one datagram says, as far as it is understood. Unknown keys are ignored.
struct Notification {
  bool ready = false;
  bool stopping = false;
  bool watchdog = false;
  bool trigger = false;
  bool barrier = false;
  // UTF-8 without control characters (\xNN stands for one), of at most kStatusBytes.
  std::optional<std::string> status;
  std::optional<int> error;                         // ERRNO
  std::optional<std::chrono::microseconds> extend;  // at most limits::kExtension of the core
};

inline constexpr std::size_t kStatusBytes = 512;

// Total: any bytes give a Notification. Malformed lines are left out.
Notification parse_notification(std::string_view datagram);

class NotifySocket {
 public:
  using Attribute = std::function<core::WorkerId(pid_t sender)>;  // none: not a worker's
  using Deliver = std::function<void(core::WorkerId, const Notification&)>;

  // `deliver` may not destroy this object.
  NotifySocket(boost::asio::io_context& context, Attribute attribute, Deliver deliver);
  ~NotifySocket();
  NotifySocket(const NotifySocket&) = delete;
  NotifySocket& operator=(const NotifySocket&) = delete;

  // Binds `path` (replacing a stale one), writable for every user: the credentials are what is
  // checked. Returns 0 or errno. After this, datagrams are delivered as they come.
  [[nodiscard]] int open(const std::string& path);
  // Handles all that is waiting, now: called before exits are, so that what a worker said before
  // it died counts.
  void drain();
  [[nodiscard]] const std::string& path() const { return path_; }
  // Datagrams that were too long, or of nobody's worker.
  [[nodiscard]] std::uint64_t rejected() const { return rejected_; }

 private:
  void wait();
  void take_turn();
  // False if nothing is waiting.
  bool receive_one();
  // Up to `most`; false if nothing more is waiting.
  bool receive(int most);

  boost::asio::posix::stream_descriptor descriptor_;
  Attribute attribute_;
  Deliver deliver_;
  std::string path_;
  SocketPath file_;
  std::uint64_t rejected_ = 0;
  std::shared_ptr<NotifySocket*> alive_;  // handlers that come after the end find it gone
};

// The worker that `sender` belongs to: the process itself or an ancestor of it is a worker, or it
// is in a worker's session, as one that was left behind by its parent still is. `worker_of` maps
// the pid of a worker that is running.
core::WorkerId attribute_sender(pid_t sender,
                                const std::function<core::WorkerId(pid_t)>& worker_of);

}  // namespace ostler::runtime
