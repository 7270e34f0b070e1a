// One client of the control socket: reads requests one after another, has them answered, or sends
// it events. Internal to the control server.
//
// A session is kept alive by its own coroutine; the server may forget it at any time (`cut_off`).
// At each moment it does one of four things (`Activity`), which decides what its deadline means and
// how easily it makes way for a newcomer. While it waits for the manager or for events, the only
// thing it looks for on the socket is the peer's hang-up: what a client sends meanwhile stays in
// the kernel, and one that has only finished sending still gets its answer.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <chrono>
#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "control/messages.hpp"
#include "control/problems.hpp"
#include "control/routes.hpp"
#include "runtime/control_server.hpp"
#include "runtime/control_stream.hpp"

namespace ostler::runtime {

// An event as it is sent: shared by all who follow.
struct EventLine {
  std::string pool;  // "": of the manager, for everybody
  std::string text;  // with its line break
  [[nodiscard]] bool concerns(const std::string& wanted) const {
    return wanted.empty() || pool.empty() || pool == wanted;
  }
};
using SharedLine = std::shared_ptr<const EventLine>;

class ControlSession;

// What a session needs of its server. Outlives all sessions (each holds a share).
class ControlHost {
 public:
  ControlHost() = default;
  virtual ~ControlHost() = default;
  ControlHost(const ControlHost&) = delete;
  ControlHost& operator=(const ControlHost&) = delete;

  virtual const ControlLimits& limits() const = 0;
  virtual void handle(const control::Command& command, const Peer& peer,
                      ControlServer::Respond respond) = 0;
  virtual std::string recent_events(const std::string& pool) const = 0;
  virtual void ended(const ControlSession& session) = 0;
  virtual BackgroundCloser& closer() = 0;
  // Room for the bytes of a body among those of all. False: there is none.
  virtual bool take_room(std::size_t bytes) = 0;
  virtual void give_room_back(std::size_t bytes) = 0;
};

class ControlSession : public std::enable_shared_from_this<ControlSession> {
 public:
  using Socket = ControlStream::Socket;
  using Clock = std::chrono::steady_clock;

  // In the order in which they make way when there is no room.
  enum class Activity { kReading, kWriting, kFollowing, kWaiting };

  ControlSession(std::shared_ptr<ControlHost> host, Socket socket, Peer peer);

  void start();
  [[nodiscard]] Activity activity() const { return activity_; }
  [[nodiscard]] Clock::time_point since() const { return since_; }

  // A new event; ignored by a session that does not follow.
  void offer(const SharedLine& line);
  // Ends it: an answer on its way gets `farewell`, everything else ends now.
  void shut_down();
  void cut_off();

 private:
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;
  struct Ticket;
  class Leave;
  class Room;

  boost::asio::awaitable<void> run();
  boost::asio::awaitable<bool> serve_one();
  boost::asio::awaitable<bool> read_request(Parser& parser, Room& room);
  boost::asio::awaitable<void> send_continue(const Parser& parser);
  boost::asio::awaitable<std::string> read_head(boost::system::error_code& error);
  boost::asio::awaitable<bool> refuse(boost::system::error_code error);
  boost::asio::awaitable<bool> refuse(const control::Problem& problem);
  boost::asio::awaitable<bool> run_command(const control::Command& command);
  boost::asio::awaitable<bool> ask(const control::Command& command);
  boost::asio::awaitable<bool> send(control::Response response);
  boost::asio::awaitable<void> follow(const control::Events& events);
  boost::asio::awaitable<void> stream_queue(bool chunked);
  boost::asio::awaitable<void> linger();
  boost::asio::awaitable<void> wait_signal();

  void answered(control::Response response);
  void enter(Activity activity);
  void arm(std::chrono::milliseconds time);
  void disarm();
  void deadline_passed();
  void watch_hang_up();
  void overflow();
  std::string next_batch();

  std::shared_ptr<ControlHost> host_;
  ControlStream socket_;
  Peer peer_;
  boost::asio::steady_timer deadline_;
  boost::asio::steady_timer signal_;  // never expires; cancelled to wake who waits
  boost::beast::flat_buffer buffer_;
  Activity activity_ = Activity::kReading;
  Clock::time_point since_ = Clock::now();
  bool served_ = false;  // it has had an answer: quiet time counts as idle
  bool timed_out_ = false;
  bool hung_up_ = false;
  bool closing_ = false;  // no further request

  // Of the request that is being served.
  unsigned version_ = 11;
  bool keep_alive_ = false;
  bool head_ = false;
  std::optional<control::Response> answer_;

  // While it follows events.
  std::string wanted_pool_;
  std::deque<SharedLine> queue_;
  std::size_t queued_bytes_ = 0;
  bool overflown_ = false;
};

}  // namespace ostler::runtime
