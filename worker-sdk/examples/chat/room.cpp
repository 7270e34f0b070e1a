#include "room.hpp"

#include <chrono>
#include <stop_token>
#include <utility>

#include <boost/asio/buffer.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/buffers_to_string.hpp>
#include <boost/beast/websocket/rfc6455.hpp>

namespace chat {
namespace asio = boost::asio;
namespace websocket = boost::beast::websocket;
namespace {

using std::chrono::seconds;

constexpr std::size_t kLongestMessage = 4096;
// A client that has so many lines to read yet does not read.
constexpr std::size_t kLongestQueue = 256;

// A client that does not answer is given up: one that closes after the first time, one that is
// silent after the second, having been pinged at half of it.
websocket::stream_base::timeout time_limits() {
  return {.handshake_timeout = seconds(5), .idle_timeout = seconds(60), .keep_alive_pings = true};
}

}  // namespace

void Room::enter(Member& member) {
  members_.insert(&member);
}

void Room::leave(Member& member) {
  members_.erase(&member);
}

void Room::say(const std::string& line) {
  const auto shared = std::make_shared<const std::string>(line);
  for (Member* member : members_) member->hear(shared);
}

Member::Member(Room& room, ostler::connection& peer, std::string name)
    : room_(room),
      peer_(peer),
      name_(std::move(name)),
      stream_(peer.socket()),
      news_(peer.socket().get_executor(), std::chrono::steady_clock::time_point::max()) {
  stream_.set_option(time_limits());
  stream_.read_message_max(kLongestMessage);
}

asio::awaitable<void> Member::stay(const ostler::http::request& request) {
  using namespace asio::experimental::awaitable_operators;
  boost::system::error_code error;
  co_await stream_.async_accept(request, asio::redirect_error(asio::use_awaitable, error));
  if (error) co_return;  // it has been answered, if it could be

  // The drain waits for this client, so it is asked to go, and may come back to another worker.
  const std::stop_callback stop(peer_.stop_token(), [this] { part(CloseCode::going_away); });
  room_.enter(*this);
  room_.say("* " + name_ + " is here");
  co_await (listen() && talk());
  room_.say("* " + name_ + " has left");
}

// Reads on after part(): the client's answer to the end comes here.
asio::awaitable<void> Member::listen() {
  boost::beast::flat_buffer buffer;
  while (true) {
    boost::system::error_code error;
    co_await stream_.async_read(buffer, asio::redirect_error(asio::use_awaitable, error));
    if (error) break;
    if (!stream_.got_text()) {
      part(CloseCode::unknown_data);
    } else if (!end_) {
      const auto work = peer_.work("message");
      room_.say(name_ + ": " + boost::beast::buffers_to_string(buffer.data()));
    }
    buffer.clear();
  }
  room_.leave(*this);
  part(CloseCode::normal);
}

asio::awaitable<void> Member::talk() {
  boost::system::error_code error;
  while (!queue_.empty() || !end_) {
    if (queue_.empty()) {
      co_await news_.async_wait(asio::redirect_error(asio::use_awaitable, error));
      continue;
    }
    const auto line = std::move(queue_.front());
    queue_.pop_front();
    co_await stream_.async_write(asio::buffer(*line),
                                 asio::redirect_error(asio::use_awaitable, error));
    if (error) co_return drop();
  }
  co_await stream_.async_close(*end_, asio::redirect_error(asio::use_awaitable, error));
}

void Member::hear(std::shared_ptr<const std::string> line) {
  if (end_) return;
  if (queue_.size() == kLongestQueue) return drop();
  queue_.push_back(std::move(line));
  news_.cancel();
}

void Member::part(CloseCode code) {
  if (!end_) end_ = code;
  news_.cancel();
}

void Member::drop() {
  boost::system::error_code ignored;
  peer_.socket().shutdown(asio::socket_base::shutdown_both, ignored);
  queue_.clear();
  part(CloseCode::normal);
}

}  // namespace chat
