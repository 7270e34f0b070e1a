// Telling the manager's own supervisor how it is: sd_notify(3), the service's side.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <string>

namespace ostler::runtime {

class Systemd {
 public:
  // Takes NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID out of the environment. Without them every
  // call does nothing.
  explicit Systemd(boost::asio::io_context& context);

  void ready(const std::string& status);
  void reloading();
  // Within `patience` all is over: the service manager is to wait that long.
  void stopping(std::chrono::nanoseconds patience);
  // Says nothing if that is what was said last.
  void status(const std::string& text);
  // Begins to say WATCHDOG=1, from the loop, at half the interval asked for.
  void start_watchdog();

 private:
  void send(const std::string& text);
  void beat();

  std::string address_;
  std::string status_;
  std::chrono::microseconds watchdog_{};
  boost::asio::steady_timer timer_;
};

}  // namespace ostler::runtime
