#include "runtime/control_stream.hpp"

#include <cerrno>
#include <vector>

#include "runtime/descriptors.hpp"
#include "runtime/unique_fd.hpp"

namespace ostler::runtime {
ControlStream::ControlStream(Socket socket, BackgroundCloser& closer)
    : socket_(std::move(socket)),
      closer_(closer),
      refuses_(refuses_descriptors(socket_.native_handle())) {}

void ControlStream::close() {
  boost::system::error_code ignored;
  if (!socket_.is_open()) return;
  if (refuses_) {
    socket_.close(ignored);
    return;
  }
  std::vector<UniqueFd> descriptor;
  descriptor.emplace_back(socket_.release(ignored));
  closer_.close(std::move(descriptor));
}

void ControlStream::cancel() {
  boost::system::error_code ignored;
  socket_.cancel(ignored);
}

void ControlStream::shutdown(Socket::shutdown_type what) {
  boost::system::error_code ignored;
  socket_.shutdown(what, ignored);
}

std::size_t ControlStream::receive(boost::asio::mutable_buffer into,
                                   boost::system::error_code& error) {
  Received received = runtime::receive(socket_.native_handle(), into.data(), into.size());
  if (received.size < 0) {
    const bool again = errno == EAGAIN || errno == EINTR;
    error = again ? boost::system::error_code(boost::asio::error::would_block)
                  : boost::system::error_code(errno, boost::system::system_category());
    return 0;
  }
  if (!received.descriptors.empty()) closer_.close(std::move(received.descriptors));
  if (received.size == 0 && into.size() > 0) error = boost::asio::error::eof;
  return static_cast<std::size_t>(received.size);
}

}  // namespace ostler::runtime
