// The notify socket of one worker: what comes by it, and from whom.
//
// The kernel says who sent a datagram (SCM_CREDENTIALS, and SCM_PIDFD where it knows that). The
// worker itself is heard; so is who is seen to descend from it. Whom the kernel calls a user that
// has no business here is refused before anything is read about him, and a living process that is
// another worker's, or nobody's, after that. A sender that is gone by then is believed by the
// socket and its user: nobody else's processes can reach the socket. What is refused is counted.
//
// Descriptors that come along are closed by another thread, a BARRIER's after the messages before
// it were handled.
#pragma once

#include <sys/types.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/ids.hpp"
#include "runtime/background_closer.hpp"
#include "runtime/kinship.hpp"
#include "runtime/notification.hpp"
#include "runtime/notify_folder.hpp"
#include "runtime/unique_fd.hpp"

namespace ostler::runtime {

// A sender as the kernel describes it.
struct NotifySender {
  pid_t pid = 0;
  uid_t uid = 0;
  bool is_gone = false;  // the kernel says so
  UniqueFd pidfd;        // if the kernel gives one
};

class NotifySocket : public std::enable_shared_from_this<NotifySocket> {
 public:
  // None may close the socket.
  struct Hooks {
    std::function<Kinship(pid_t)> kinship;
    std::function<std::string(core::WorkerId)> name_of;  // "web.1", for what is said of it
    std::function<void(const Notification&)> deliver;
    std::function<void(const std::shared_ptr<NotifySocket>&)> readable;  // receive() is due
    std::function<void()> refused;
  };
  enum class Left { kNothing, kMore, kHeld };  // held: until what it sent before is closed

  NotifySocket(boost::asio::io_context& context, core::WorkerId worker, const NotifyOwner& owner,
               Hooks hooks);
  // Closes. Nothing is delivered after that.
  ~NotifySocket();
  NotifySocket(const NotifySocket&) = delete;
  NotifySocket& operator=(const NotifySocket&) = delete;

  // From now on `readable` is called when something waits. Who is connected to a socket that was
  // bound before is still heard by that.
  void add(UniqueFd bound);
  // Its process, once it runs.
  void belongs_to(pid_t pid) { pid_ = pid; }
  // At most so many messages. kNothing: `readable` will say when there is more.
  Left receive(int most);
  void close();

  [[nodiscard]] core::WorkerId worker() const { return worker_; }
  [[nodiscard]] const NotifyOwner& owner() const { return owner_; }
  [[nodiscard]] std::uint64_t refused() const { return refused_; }
  // "3 notifications were refused: the last came from pid 77, which belongs to web.1", or "".
  [[nodiscard]] std::string what_was_refused() const;

 private:
  struct Bound;

  void wait(const std::shared_ptr<Bound>& bound);
  bool receive_one(Bound& bound);
  [[nodiscard]] std::string fault_of(const NotifySender& sender) const;

  boost::asio::io_context& context_;
  core::WorkerId worker_;
  NotifyOwner owner_;
  Hooks hooks_;
  pid_t pid_ = 0;
  std::vector<std::shared_ptr<Bound>> bound_;  // the one that the path leads to is the last
  BackgroundCloser closer_;
  std::uint64_t refused_ = 0;
  std::string last_fault_;
};

}  // namespace ostler::runtime
