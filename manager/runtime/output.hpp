// What one worker writes to its stdout and stderr: read from a pipe, cut into lines, logged, and
// the last lines kept for the report if it fails.
#pragma once

#include <spdlog/logger.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "runtime/unique_fd.hpp"

namespace ostler::runtime {

class WorkerOutput : public std::enable_shared_from_this<WorkerOutput> {
 public:
  // `reading_end` is non-blocking.
  WorkerOutput(boost::asio::io_context& context, UniqueFd reading_end);

  // From now on lines go to `logger` as they come.
  void start(std::shared_ptr<spdlog::logger> logger);
  // Reads what is there now, without waiting for more. What a worker wrote before it died.
  void drain();
  // No more is read. Descendants that still write get SIGPIPE.
  void close();
  [[nodiscard]] std::vector<std::string> tail() const { return {tail_.begin(), tail_.end()}; }

 private:
  void wait();
  // False: the writing end is closed, or nothing more to be had.
  bool read_some(std::size_t& budget);
  void take(std::string_view bytes);
  void line(std::string_view text);

  boost::asio::posix::stream_descriptor pipe_;
  std::shared_ptr<spdlog::logger> logger_;
  std::string partial_;
  std::deque<std::string> tail_;
};

}  // namespace ostler::runtime
