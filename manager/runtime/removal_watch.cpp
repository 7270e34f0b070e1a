#include "runtime/removal_watch.hpp"

#include <sys/inotify.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <utility>

#include "runtime/limits.hpp"
#include "runtime/unique_fd.hpp"

namespace ostler::runtime {

RemovalWatch::RemovalWatch(boost::asio::io_context& context, std::function<void()> changed)
    : events_(context), timer_(context), changed_(std::move(changed)) {
  UniqueFd events(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  if (!events) return;
  events_.assign(events.get());
  static_cast<void>(events.release());
  wait();
}

// The number of its links is an attribute: so unlink(2) is seen though we have the file open.
int RemovalWatch::add(const std::string& path) {
  if (!events_.is_open()) return -1;
  return inotify_add_watch(events_.native_handle(), path.c_str(),
                           IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_DONT_FOLLOW);
}

void RemovalWatch::forget(int watch) {
  if (watch >= 0 && events_.is_open()) inotify_rm_watch(events_.native_handle(), watch);
}

void RemovalWatch::wait() {
  events_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                     [this, alive = std::weak_ptr(alive_)](const boost::system::error_code& error) {
                       if (error || alive.expired()) return;
                       if (read_events()) return tell_soon();
                       wait();
                     });
}

bool RemovalWatch::read_events() {
  bool may_be_gone = false;
  alignas(inotify_event) std::array<char, 4096> buffer{};
  const ssize_t size = read(events_.native_handle(), buffer.data(), buffer.size());
  const std::size_t end = size < 0 ? 0 : static_cast<std::size_t>(size);
  for (std::size_t at = 0; at + sizeof(inotify_event) <= end;) {
    inotify_event event{};
    std::memcpy(&event, buffer.data() + at, sizeof event);
    may_be_gone = may_be_gone || (event.mask & IN_IGNORED) == 0;  // ignored: a watch has ended
    at += sizeof event + event.len;
  }
  return may_be_gone;
}

// Who removes one file may be about to remove others, and their folder. Nor is more read until
// then: a worker can make events of its own socket for as long as it likes.
void RemovalWatch::tell_soon() {
  timer_.expires_after(limits::kRemovalSettles);
  timer_.async_wait([this, alive = std::weak_ptr(alive_)](const boost::system::error_code& error) {
    if (error || alive.expired()) return;
    changed_();
    wait();
  });
}

}  // namespace ostler::runtime
