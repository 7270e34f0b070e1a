#include "runtime/output.hpp"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <tuple>
#include <utility>

#include "runtime/limits.hpp"
#include "runtime/log.hpp"

namespace ostler::runtime {

WorkerOutput::WorkerOutput(boost::asio::io_context& context, UniqueFd reading_end)
    : pipe_(context, reading_end.get()) {
  std::ignore = reading_end.release();
}

void WorkerOutput::start(std::shared_ptr<spdlog::logger> logger) {
  logger_ = std::move(logger);
  wait();
}

void WorkerOutput::wait() {
  pipe_.async_wait(boost::asio::posix::descriptor_base::wait_read,
                   [self = shared_from_this()](const boost::system::error_code& error) {
                     if (error || !self->pipe_.is_open()) return;
                     std::size_t budget = limits::kOutputPerTurn;
                     while (budget > 0 && self->read_some(budget)) {
                     }
                     if (self->pipe_.is_open()) self->wait();
                   });
}

void WorkerOutput::drain() {
  std::size_t budget = limits::kOutputPerTurn;
  while (pipe_.is_open() && budget > 0 && read_some(budget)) {
  }
  if (!partial_.empty()) line(std::exchange(partial_, {}));
}

void WorkerOutput::close() {
  boost::system::error_code ignored;
  pipe_.close(ignored);
}

bool WorkerOutput::read_some(std::size_t& budget) {
  std::array<char, 8192> buffer;
  const ssize_t size = ::read(pipe_.native_handle(), buffer.data(), buffer.size());
  if (size > 0) {
    take({buffer.data(), static_cast<std::size_t>(size)});
    budget -= std::min(budget, static_cast<std::size_t>(size));
    return true;
  }
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  if (!partial_.empty()) line(std::exchange(partial_, {}));
  close();
  return false;
}

void WorkerOutput::take(std::string_view bytes) {
  while (!bytes.empty()) {
    const auto end = bytes.find('\n');
    const auto part = bytes.substr(0, end);
    partial_ += part;
    while (partial_.size() > limits::kOutputLine) {
      line(std::string_view(partial_).substr(0, limits::kOutputLine));
      partial_.erase(0, limits::kOutputLine);
    }
    if (end == std::string_view::npos) return;
    line(std::exchange(partial_, {}));
    bytes.remove_prefix(end + 1);
  }
}

void WorkerOutput::line(std::string_view text) {
  if (text.ends_with('\r')) text.remove_suffix(1);
  const std::string clean = printable(text);
  if (logger_) logger_->info(clean);
  tail_.push_back(clean.substr(0, limits::kTailLine));
  if (tail_.size() > limits::kTailLines) tail_.pop_front();
}

}  // namespace ostler::runtime
