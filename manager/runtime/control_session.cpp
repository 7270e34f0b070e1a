#include "runtime/control_session.hpp"

#include <spdlog/spdlog.h>

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/chunk_encode.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/serializer.hpp>
#include <boost/beast/http/write.hpp>
#include <exception>
#include <string_view>
#include <utility>
#include <variant>

#include "control/codec.hpp"
#include "control/problems.hpp"
#include "runtime/background.hpp"

namespace ostler::runtime {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;

namespace {

constexpr std::string_view kServer = "ostler/" OSTLER_VERSION;
constexpr std::size_t kFirstRead = 1024;
constexpr std::size_t kBatch = std::size_t{64} * 1024;
// What a refused client may still send before the connection is cut.
constexpr std::size_t kLingerBytes = std::size_t{1024} * 1024;

auto into(error_code& error) {
  return asio::redirect_error(asio::use_awaitable, error);
}

template <class Message>
void set_common(Message& message, unsigned version, bool keep_alive) {
  message.version(version);
  message.keep_alive(keep_alive);
  message.set(http::field::server, kServer);
  message.set(http::field::cache_control, "no-store");
}

// Why a head is refused that the parser accepts: other parsers read its lines differently (RFC
// 9112, 2.2 and 5.2). "": it is not refused.
std::string head_fault(std::string_view head) {
  for (std::size_t at = head.find('\n'); at != head.npos; at = head.find('\n', at + 1)) {
    if (at == 0 || head[at - 1] != '\r') return "a line does not end with CR LF";
    const char next = at + 1 < head.size() ? head[at + 1] : 'x';
    if (next == ' ' || next == '\t') return "a header field goes on in a second line";
  }
  return {};
}

// The same of the header field Host (RFC 9112, 3.2).
std::string host_fault(const http::fields& fields, unsigned version) {
  const std::size_t hosts = fields.count(http::field::host);
  if (hosts > 1) return "there is more than one Host";
  return hosts == 0 && version == 11 ? "a request in HTTP/1.1 needs a Host" : "";
}

// What is wrong with a request that could not be read; nullopt: nobody is there to be told.
std::optional<control::Problem> problem_of(error_code error, const ControlLimits& limits) {
  if (error == http::error::header_limit || error == http::error::buffer_overflow)
    return control::header_too_large(std::to_string(limits.header) +
                                     " bytes are the most for a request line and header");
  if (error == http::error::body_limit)
    return control::too_large(std::to_string(control::kMaxBody) + " bytes are the most for a body");
  if (error == http::error::bad_version) return control::version_not_supported();
  if (error == http::error::end_of_stream || error == http::error::partial_message)
    return std::nullopt;
  if (error.category() == http::make_error_code(http::error::bad_method).category())
    return control::bad_request("this is not HTTP: " + error.message());
  return std::nullopt;
}

}  // namespace

// One command's right to be answered. The last copy of a `Respond` that was never called answers.
struct ControlSession::Ticket {
  Ticket(std::weak_ptr<ControlSession> asked_by, const Peer& asking, const control::Command& what)
      : session(std::move(asked_by)), peer(asking) {
    if (control::role_of(what) == control::Role::kOperate) change = control::describe(what);
  }
  Ticket(const Ticket&) = delete;
  Ticket& operator=(const Ticket&) = delete;
  ~Ticket() {
    if (!done) answer(control::respond(control::internal_error("the request got no answer")));
  }

  void answer(control::Response response) {
    if (std::exchange(done, true)) return;
    const auto alive = session.lock();
    const bool heard = alive && alive->activity_ == Activity::kWaiting && !alive->hung_up_;
    if (!change.empty())
      spdlog::info("control: {} by uid {} pid {}: {}{}", change, peer.uid, peer.pid,
                   response.status, heard ? "" : ", the client has left");
    if (heard) alive->answered(std::move(response));
  }

  std::weak_ptr<ControlSession> session;
  Peer peer;
  std::string change;  // "": nothing to log
  bool done = false;
};

// Leaves nothing behind, however the coroutine ends.
class ControlSession::Leave {
 public:
  explicit Leave(ControlSession& session) : session_(session) {}
  Leave(const Leave&) = delete;
  Leave& operator=(const Leave&) = delete;
  ~Leave() {
    session_.cut_off();
    session_.disarm();
    session_.host_->ended(session_);
  }

 private:
  ControlSession& session_;
};

ControlSession::ControlSession(std::shared_ptr<ControlHost> host, Socket socket, Peer peer)
    : host_(std::move(host)),
      socket_(std::move(socket), host_->closer()),
      peer_(peer),
      deadline_(socket_.get_executor()),
      signal_(socket_.get_executor(), Clock::time_point::max()),
      buffer_(2 * host_->limits().header) {}

// For the body of one request.
class ControlSession::Room {
 public:
  explicit Room(ControlHost& host) : host_(host) {}
  ~Room() { host_.give_room_back(bytes_); }
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;
  // One of unknown length may be as long as any.
  bool take(const Parser& parser) {
    if (parser.is_done()) return true;
    const auto length = parser.content_length();
    const std::size_t wanted = length ? static_cast<std::size_t>(*length) : control::kMaxBody;
    if (!host_.take_room(wanted)) return false;
    bytes_ = wanted;
    return true;
  }

 private:
  ControlHost& host_;
  std::size_t bytes_ = 0;
};

void ControlSession::start() {
  spawn_logged(socket_.get_executor(), "control session", run());
}

asio::awaitable<void> ControlSession::run() {
  const auto self = shared_from_this();
  const Leave leave(*this);
  while (co_await serve_one()) served_ = true;
}

// One request and its answer. False: the connection is to be closed.
asio::awaitable<bool> ControlSession::serve_one() {
  Parser parser;
  parser.header_limit(static_cast<std::uint32_t>(host_->limits().header));
  parser.body_limit(control::kMaxBody);
  Room room(*host_);
  if (!co_await read_request(parser, room)) co_return false;
  const auto& request = parser.get();
  version_ = request.version() == 10 ? 10 : 11;
  keep_alive_ = request.keep_alive();
  head_ = request.method() == http::verb::head;
  auto routed = control::route(request.method_string(), request.target(), request.body());
  if (auto* problem = std::get_if<control::Problem>(&routed)) {
    spdlog::debug("control: refused uid {} pid {}: {} {}", peer_.uid, peer_.pid, problem->status,
                  problem->title);
    co_return co_await send(control::respond(*problem));
  }
  const auto command = std::get<control::Command>(std::move(routed));
  co_return co_await run_command(command);
}

// --- Reading ---

asio::awaitable<bool> ControlSession::read_request(Parser& parser, Room& room) {
  const ControlLimits& limits = host_->limits();
  error_code error;
  enter(Activity::kReading);
  if (buffer_.size() == 0) {
    buffer_.shrink_to_fit();
    arm(served_ ? limits.idle : limits.read);
    const auto space = buffer_.prepare(kFirstRead);
    buffer_.commit(co_await socket_.async_read_some(space, into(error)));
    if (error || timed_out_) co_return false;
  }
  arm(limits.read);
  if (const std::string fault = co_await read_head(error); !fault.empty()) {
    co_return co_await refuse(control::bad_request(fault));
  }
  if (!error) co_await http::async_read_header(socket_, buffer_, parser, into(error));
  if (error) co_return co_await refuse(error);
  if (const std::string fault = host_fault(parser.get(), parser.get().version()); !fault.empty()) {
    co_return co_await refuse(control::bad_request(fault));
  }
  if (!room.take(parser)) {
    co_return co_await refuse(control::busy("too many requests with bodies are being sent"));
  }
  const auto expect = parser.get()[http::field::expect];
  if (!expect.empty() && parser.get().version() == 11) {
    if (!beast::iequals(expect, "100-continue")) {
      const control::Problem problem = control::expectation_failed(expect);
      keep_alive_ = false;
      co_await send(control::respond(problem));
      co_await linger();
      co_return false;
    }
    co_await send_continue(parser);
  }
  co_await http::async_read(socket_, buffer_, parser, into(error));
  if (error) co_return co_await refuse(error);
  disarm();
  co_return true;
}

// Reads until the buffer holds the head of the next request, or more bytes than a head may have.
// Returns its head_fault().
asio::awaitable<std::string> ControlSession::read_head(error_code& error) {
  while (!error) {
    const auto data = buffer_.cdata();
    const std::string_view text(static_cast<const char*>(data.data()), data.size());
    const std::size_t end = text.find("\r\n\r\n");
    if (std::string fault = head_fault(text.substr(0, end)); !fault.empty()) co_return fault;
    if (end != text.npos || text.size() > host_->limits().header) break;
    const auto space = buffer_.prepare(kFirstRead);
    buffer_.commit(co_await socket_.async_read_some(space, into(error)));
  }
  co_return std::string();
}

asio::awaitable<void> ControlSession::send_continue(const Parser& parser) {
  if (parser.is_done()) co_return;
  constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
  error_code error;
  enter(Activity::kWriting);
  arm(host_->limits().write);
  co_await asio::async_write(socket_, asio::buffer(kContinue), into(error));
  if (error) cut_off();
  enter(Activity::kReading);
  arm(host_->limits().read);
}

// Answers what could not be read, and has the connection closed: where the next request begins is
// not known.
asio::awaitable<bool> ControlSession::refuse(error_code error) {
  auto problem =
      timed_out_ ? std::optional(control::request_timeout("the request was not complete in time"))
                 : problem_of(error, host_->limits());
  if (!problem || !socket_.is_open()) co_return false;
  co_return co_await refuse(*problem);
}

asio::awaitable<bool> ControlSession::refuse(const control::Problem& problem) {
  version_ = 11;
  keep_alive_ = false;
  head_ = false;
  co_await send(control::respond(problem));
  co_await linger();
  co_return false;
}

// Closing with unread bytes would break the client's send before it reads the answer.
asio::awaitable<void> ControlSession::linger() {
  if (!socket_.is_open()) co_return;
  error_code error;
  socket_.shutdown(Socket::shutdown_send);
  enter(Activity::kReading);
  arm(host_->limits().linger);
  std::array<char, 4096> waste{};
  for (std::size_t total = 0; !error && total < kLingerBytes && !timed_out_;)
    total += co_await socket_.async_read_some(asio::buffer(waste), into(error));
}

// --- Answering ---

asio::awaitable<bool> ControlSession::run_command(const control::Command& command) {
  if (const auto* events = std::get_if<control::Events>(&command)) {
    if (!events->follow || head_) {
      control::Response response{200, std::string(control::kJsonLines), {}};
      if (!events->follow) response.body = host_->recent_events(events->pool);
      co_return co_await send(std::move(response));
    }
    co_await follow(*events);
    co_return false;
  }
  if (std::holds_alternative<control::Livez>(command))
    co_return co_await send(control::respond_live());
  co_return co_await ask(command);
}

// Has the manager answer, which may take as long as a reload does.
asio::awaitable<bool> ControlSession::ask(const control::Command& command) {
  enter(Activity::kWaiting);
  answer_.reset();
  {
    auto ticket = std::make_shared<Ticket>(weak_from_this(), peer_, command);
    try {
      host_->handle(command, peer_,
                    [ticket](control::Response response) { ticket->answer(std::move(response)); });
    } catch (const std::exception& error) {
      spdlog::error("control: {}: {}", control::describe(command), error.what());
      ticket->answer(control::respond(control::internal_error("the manager failed to do it")));
    }
  }
  if (!answer_) watch_hang_up();
  while (!answer_ && !hung_up_ && socket_.is_open()) co_await wait_signal();
  if (!answer_) co_return false;
  control::Response response = std::move(*answer_);
  co_return co_await send(std::move(response));
}

void ControlSession::answered(control::Response response) {
  if (answer_) return;
  answer_ = std::move(response);
  signal_.cancel();
}

asio::awaitable<bool> ControlSession::send(control::Response response) {
  error_code error;
  socket_.cancel();  // the watch for a hang-up
  const bool keep = keep_alive_ && !closing_;
  http::response<http::string_body> message;
  set_common(message, version_, keep);
  message.result(static_cast<unsigned>(response.status));
  message.set(http::field::content_type, response.content_type);
  if (!response.allow.empty()) message.set(http::field::allow, response.allow);
  message.body() = std::move(response.body);
  message.prepare_payload();
  http::response_serializer<http::string_body> serializer(message);
  enter(Activity::kWriting);
  arm(closing_ ? host_->limits().farewell : host_->limits().write);
  if (head_)
    co_await http::async_write_header(socket_, serializer, into(error));
  else
    co_await http::async_write(socket_, serializer, into(error));
  disarm();
  co_return keep && !error && !closing_ && socket_.is_open();
}

// --- Events ---

asio::awaitable<void> ControlSession::follow(const control::Events& events) {
  http::response<http::empty_body> message;
  set_common(message, version_, false);
  message.set(http::field::content_type, control::kJsonLines);
  const bool chunked = version_ == 11;
  message.chunked(chunked);
  http::response_serializer<http::empty_body> serializer(message);
  error_code error;
  // From here on events are queued: "from now on" begins before the client reads the header.
  wanted_pool_ = events.pool;
  enter(Activity::kFollowing);
  co_await http::async_write_header(socket_, serializer, into(error));
  if (error) co_return;
  watch_hang_up();
  co_await stream_queue(chunked);
}

// No deadline while there is room in the queue: a client may read at its leisure.
asio::awaitable<void> ControlSession::stream_queue(bool chunked) {
  error_code error;
  while (!error && !hung_up_ && socket_.is_open()) {
    const std::string batch = next_batch();
    if (!batch.empty()) {
      if (chunked)
        co_await asio::async_write(socket_, http::make_chunk(asio::buffer(batch)), into(error));
      else
        co_await asio::async_write(socket_, asio::buffer(batch), into(error));
    } else if (overflown_ || closing_) {
      if (chunked) co_await asio::async_write(socket_, http::make_chunk_last(), into(error));
      co_return;
    } else {
      co_await wait_signal();
    }
  }
}

std::string ControlSession::next_batch() {
  std::string batch;
  while (!queue_.empty() && batch.size() < kBatch) {
    batch += queue_.front()->text;
    queued_bytes_ -= queue_.front()->text.size();
    queue_.pop_front();
  }
  return batch;
}

void ControlSession::offer(const SharedLine& line) {
  if (activity_ != Activity::kFollowing || overflown_ || closing_ || !line->concerns(wanted_pool_))
    return;
  const ControlLimits& limits = host_->limits();
  if (queue_.size() >= limits.queued_lines ||
      queued_bytes_ + line->text.size() > limits.queued_bytes)
    return overflow();
  queue_.push_back(line);
  queued_bytes_ += line->text.size();
  signal_.cancel();
}

// What is queued is still sent, then the line that says why no more comes.
void ControlSession::overflow() {
  control::EventView event;
  event.time = std::chrono::system_clock::now();
  event.event = "events.overflow";
  event.members = {{"reason", "events came faster than they were read"}};
  auto line = std::make_shared<const EventLine>(EventLine{{}, control::to_json(event) + "\n"});
  queued_bytes_ += line->text.size();
  queue_.push_back(std::move(line));
  overflown_ = true;
  arm(host_->limits().write);
  signal_.cancel();
}

// --- The end, deadlines, hang-ups ---

void ControlSession::shut_down() {
  if (std::exchange(closing_, true)) return;
  switch (activity_) {
    case Activity::kReading:
      return cut_off();
    case Activity::kWaiting:
      return answered(control::respond(control::stopping()));
    case Activity::kWriting:
    case Activity::kFollowing:
      break;
  }
  arm(host_->limits().farewell);
  signal_.cancel();
}

void ControlSession::cut_off() {
  socket_.close();
  signal_.cancel();
}

void ControlSession::enter(Activity activity) {
  activity_ = activity;
  since_ = Clock::now();
}

void ControlSession::arm(std::chrono::milliseconds time) {
  timed_out_ = false;
  deadline_.expires_after(time);
  deadline_.async_wait([weak = weak_from_this()](error_code error) {
    if (const auto self = weak.lock(); self && !error) self->deadline_passed();
  });
}

void ControlSession::disarm() {
  deadline_.expires_at(Clock::time_point::max());
}

// Not by cancelling: an operation that begins just after would never end.
void ControlSession::deadline_passed() {
  if (deadline_.expiry() > Clock::now()) return;  // it was moved meanwhile
  timed_out_ = true;
  if (activity_ != Activity::kReading) return cut_off();
  socket_.shutdown(Socket::shutdown_receive);
}

asio::awaitable<void> ControlSession::wait_signal() {
  error_code ignored;
  co_await signal_.async_wait(into(ignored));
}

void ControlSession::watch_hang_up() {
  socket_.async_wait(Socket::wait_error, [weak = weak_from_this()](error_code error) {
    const auto self = weak.lock();
    if (!self || error) return;
    self->hung_up_ = true;
    self->signal_.cancel();
  });
}

}  // namespace ostler::runtime
