// ostler-example-echo: gives back every line it is sent. A protocol of its own on raw connections,
// for any class: as a coroutine (the usual), or blocking with `--blocking`.
#include <cstring>
#include <string>

#include <boost/asio/buffer.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include "ostler/serve.hpp"

namespace asio = boost::asio;

namespace {

constexpr std::size_t kLongestLine = 64 * 1024;

// A client that goes away ends its connection; a longer line is an error like any other.
bool is_end(const boost::system::error_code& error) {
  return error == asio::error::eof || error == asio::error::connection_reset ||
         error == asio::error::operation_aborted;
}

asio::awaitable<void> echo(ostler::connection& peer) {
  // Who drains waits for no further line: what waits in read is told to stop.
  const std::stop_callback stop(peer.stop_token(), [&] {
    boost::system::error_code ignored;
    peer.socket().shutdown(asio::socket_base::shutdown_receive, ignored);
  });
  std::string buffer;
  while (true) {
    boost::system::error_code error;
    const std::size_t size =
        co_await asio::async_read_until(peer.socket(), asio::dynamic_buffer(buffer, kLongestLine),
                                        '\n', asio::redirect_error(asio::use_awaitable, error));
    if (is_end(error)) co_return;
    if (error) throw boost::system::system_error(error, "read a line");
    const auto work = peer.work("line");
    co_await asio::async_write(peer.socket(), asio::buffer(buffer, size), asio::use_awaitable);
    buffer.erase(0, size);
  }
}

void echo_blocking(ostler::connection& peer) {
  const std::stop_callback stop(peer.stop_token(), [&] {
    boost::system::error_code ignored;
    peer.socket().shutdown(asio::socket_base::shutdown_receive, ignored);
  });
  std::string buffer;
  while (true) {
    boost::system::error_code error;
    const std::size_t size =
        asio::read_until(peer.socket(), asio::dynamic_buffer(buffer, kLongestLine), '\n', error);
    if (is_end(error)) return;
    if (error) throw boost::system::system_error(error, "read a line");
    const auto work = peer.work("line");
    asio::write(peer.socket(), asio::buffer(buffer, size));
    buffer.erase(0, size);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "--blocking") == 0) {
    argv[1] = argv[0];
    return ostler::serve(argc - 1, argv + 1, echo_blocking);
  }
  return ostler::serve(argc, argv, echo);
}
