// Notices that files are removed, or moved away, which others find by their path.
//
// inotify(7) on each file itself: what else goes on in its folder wakes nobody.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <string>

namespace ostler::runtime {

class RemovalWatch {
 public:
  // `changed` is called a little later, once for all that happened: something may be gone. Without
  // inotify it is never called.
  RemovalWatch(boost::asio::io_context& context, std::function<void()> changed);

  // A number for forget(); -1 if it cannot be watched.
  int add(const std::string& path);
  void forget(int watch);

 private:
  void wait();
  // Whether something may be gone.
  bool read_events();
  void tell_soon();

  boost::asio::posix::stream_descriptor events_;
  boost::asio::steady_timer timer_;
  std::function<void()> changed_;
  std::shared_ptr<int> alive_ = std::make_shared<int>();  // handlers that come later find it gone
};

}  // namespace ostler::runtime
