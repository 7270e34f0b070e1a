// A room in which everybody hears everybody, over WebSocket (RFC 6455). All of it belongs to one
// thread, that of class async.
#pragma once

#include <cstddef>

#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/websocket/stream.hpp>

#include "ostler/http.hpp"

namespace chat {

class Member;

// The members enter and leave by themselves.
class Room {
 public:
  void enter(Member& member);
  void leave(Member& member);
  // To everybody.
  void say(const std::string& line);

 private:
  std::set<Member*> members_;
};

// One client, from its upgrade to the end of its connection.
class Member {
 public:
  // All must outlive it.
  Member(Room& room, ostler::connection& peer, std::string name);

  // Takes part until the client leaves, breaks a rule or is too slow, or the worker drains.
  boost::asio::awaitable<void> stay(const ostler::http::request& request);

  // Queues a line to be sent to the client.
  void hear(std::shared_ptr<const std::string> line);

 private:
  using CloseCode = boost::beast::websocket::close_code;

  boost::asio::awaitable<void> listen();
  boost::asio::awaitable<void> talk();
  // Ends both of them, in order: once what is queued has been sent, and the client has answered.
  void part(CloseCode code);
  // At once.
  void drop();

  Room& room_;
  ostler::connection& peer_;
  const std::string name_;
  boost::beast::websocket::stream<ostler::connection::socket_type&> stream_;
  std::deque<std::shared_ptr<const std::string>> queue_;
  std::optional<CloseCode> end_;
  // Never expires: it is cancelled when there is something to do.
  boost::asio::steady_timer news_;
};

}  // namespace chat
