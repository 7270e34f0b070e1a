// Waits for somebody to knock at listening sockets, without accepting: one wake-up, then silence.
//
// All sockets are in one epoll set of their own, each armed for one event. So a busy socket wakes
// the manager once, not at each connection, until it is armed again.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "runtime/unique_fd.hpp"

namespace ostler::runtime {

class Doorbell {
 public:
  using Rung = std::function<void(const std::string& key)>;

  // Throws std::system_error.
  Doorbell(boost::asio::io_context& context, Rung rung);

  // Arms `fd`, a listening socket of the listener `key`: rings once, at once if somebody waits
  // already.
  void arm(int fd, const std::string& key);
  // To be called before `fd` is closed. One that was never armed is no error.
  void forget(int fd);

 private:
  void wait();
  void hear();

  boost::asio::posix::stream_descriptor set_;
  std::map<int, std::string> keys_;
  Rung rung_;
  bool waiting_ = false;
};

}  // namespace ostler::runtime
