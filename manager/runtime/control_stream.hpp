// A client's connection to the control socket, from which no descriptor is taken.
//
// A client can send descriptors along (SCM_RIGHTS). Closing them may take as long as the client
// likes (see background_closer.hpp), and the kernel would do it within recvmsg(2), or when the
// socket is closed. From Linux 6.16 on the kernel lets the client's sendmsg(2) fail
// (SO_PASSRIGHTS). Before that the stream receives the descriptors, and another thread closes them
// and the socket.
#pragma once

#include <boost/asio/buffer.hpp>
#include <boost/asio/compose.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <cstddef>
#include <utility>

#include "runtime/background_closer.hpp"

namespace ostler::runtime {

// Models Beast's AsyncStream. Outlived by the closer.
class ControlStream {
 public:
  using Socket = boost::asio::local::stream_protocol::socket;
  using executor_type = Socket::executor_type;

  ControlStream(Socket socket, BackgroundCloser& closer);
  ~ControlStream() { close(); }
  ControlStream(const ControlStream&) = delete;
  ControlStream& operator=(const ControlStream&) = delete;

  executor_type get_executor() { return socket_.get_executor(); }
  [[nodiscard]] bool is_open() const { return socket_.is_open(); }
  void close();
  void cancel();
  void shutdown(Socket::shutdown_type what);
  template <class Token>
  auto async_wait(Socket::wait_type what, Token&& token) {
    return socket_.async_wait(what, std::forward<Token>(token));
  }

  template <class Buffers, class Token>
  auto async_read_some(const Buffers& buffers, Token&& token) {
    const boost::asio::mutable_buffer into = *boost::asio::buffer_sequence_begin(buffers);
    return boost::asio::async_compose<Token, void(boost::system::error_code, std::size_t)>(
        [this, into, begun = false](auto& self, boost::system::error_code error = {}) mutable {
          std::size_t size = 0;
          if (begun && !error) size = receive(into, error);
          if (!std::exchange(begun, true) || error == boost::asio::error::would_block) {
            return socket_.async_wait(Socket::wait_read, std::move(self));
          }
          self.complete(error, size);
        },
        token, socket_);
  }
  template <class Buffers, class Token>
  auto async_write_some(const Buffers& buffers, Token&& token) {
    return socket_.async_write_some(buffers, std::forward<Token>(token));
  }

 private:
  std::size_t receive(boost::asio::mutable_buffer into, boost::system::error_code& error);

  Socket socket_;
  BackgroundCloser& closer_;
  bool refuses_ = false;  // the kernel does
};

}  // namespace ostler::runtime
