// The manager's signals, from a signalfd: nothing runs in a handler.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <functional>

namespace ostler::runtime {

// Blocks the signals that Signals delivers. Ignores those that would end the manager without a
// drain though nothing is wrong with it: a write beyond RLIMIT_FSIZE fails with EFBIG in place of
// SIGXFSZ. To be called first of all in main, before any thread exists.
void block_signals();

class Signals {
 public:
  // `deliver(signal)` is called from the loop. Throws std::system_error.
  Signals(boost::asio::io_context& context, std::function<void(int)> deliver);

 private:
  void wait();

  boost::asio::posix::stream_descriptor descriptor_;
  std::function<void(int)> deliver_;
};

}  // namespace ostler::runtime
