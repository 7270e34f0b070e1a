#include "session.hpp"

#include <utility>

#include <boost/asio/buffer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/write.hpp>

#include "server.hpp"

namespace ostler::example {
namespace {

using std::chrono::seconds;

constexpr std::uint32_t kHeaderLimit = 8 * 1024;
constexpr std::uint64_t kBodyLimit = 64 * 1024;
constexpr std::size_t kBufferLimit = 16 * 1024;
constexpr std::size_t kReadSize = 2 * 1024;
constexpr seconds kHeaderTime{10};
constexpr seconds kBodyTime{30};
constexpr seconds kWriteTime{30};
// Closing with unread data in the socket makes the kernel send RST, which may destroy the last
// answer on the client's side before it was read. So what still comes is read and thrown away.
constexpr seconds kLingerTime{2};
constexpr std::size_t kLingerBytes = 256 * 1024;
// A client that pipelines gets answers to what it had sent before it could know of the drain, but
// cannot keep the drain from ending.
constexpr int kPipelinedWhileDraining = 64;

bool is_http_error(const Error& error) {
  return error.category() == http::make_error_code(http::error::bad_method).category();
}

}  // namespace

Session::Session(Socket socket, Server& server)
    : server_(server),
      socket_(std::move(socket)),
      timer_(socket_.get_executor()),
      buffer_(kBufferLimit) {}

void Session::await_request() {
  parser_.reset();
  if (buffer_.size() > 0) return read_header();
  const auto keepalive = server_.options().keepalive;
  // Without keep-alive this is the first request, which may take its time all the same.
  enter(Phase::kIdle, keepalive == keepalive.zero() ? kHeaderTime : keepalive);
  socket_.async_read_some(buffer_.prepare(kReadSize),
                          [self = shared_from_this()](const Error& error, std::size_t size) {
                            if (error) return self->close();
                            self->buffer_.commit(size);
                            self->read_header();
                          });
}

void Session::read_header() {
  parser_.emplace();
  parser_->header_limit(kHeaderLimit);
  parser_->body_limit(kBodyLimit);
  enter(Phase::kReading, kHeaderTime);
  http::async_read_header(
      socket_, buffer_, *parser_,
      [self = shared_from_this()](const Error& error, std::size_t) { self->on_header(error); });
}

void Session::on_header(const Error& error) {
  if (error) return on_bad_read(error);
  if (parser_->is_done()) return handle();
  if (!boost::beast::iequals(parser_->get()[http::field::expect], "100-continue")) {
    return read_body();
  }
  static constexpr char kContinue[] = "HTTP/1.1 100 Continue\r\n\r\n";
  enter(Phase::kWriting, kWriteTime);
  asio::async_write(socket_, asio::buffer(kContinue, sizeof kContinue - 1),
                    [self = shared_from_this()](const Error& failed, std::size_t) {
                      if (failed) return self->close();
                      self->read_body();
                    });
}

void Session::read_body() {
  enter(Phase::kReading, kBodyTime);
  http::async_read(socket_, buffer_, *parser_,
                   [self = shared_from_this()](const Error& error, std::size_t) {
                     if (error) return self->on_bad_read(error);
                     self->handle();
                   });
}

void Session::on_bad_read(const Error& error) {
  auto status = http::status::bad_request;
  if (timed_out_) {
    status = http::status::request_timeout;
  } else if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    status = http::status::request_header_fields_too_large;
  } else if (error == http::error::body_limit) {
    status = http::status::payload_too_large;
  } else if (!is_http_error(error) || error == http::error::end_of_stream ||
             error == http::error::partial_message) {
    return close();  // the peer went away
  }
  respond({status, std::string(http::obsolete_reason(status)) + "\n", "", {}}, false);
}

void Session::handle() {
  auto answer = answer_to(parser_->get(), server_.options().identity);
  if (answer.after == std::chrono::milliseconds::zero()) return respond(std::move(answer), true);
  pending_ = std::move(answer);
  enter(Phase::kPausing, pending_.after);
}

void Session::respond(Answer answer, bool may_keep_alive) {
  const auto& request = parser_->get();
  bool keep_alive = may_keep_alive && request.keep_alive() &&
                    server_.options().keepalive != std::chrono::milliseconds::zero();
  if (keep_alive && server_.draining()) {
    Error ignored;
    const bool pipelined = buffer_.size() > 0 || socket_.available(ignored) > 0;
    keep_alive = pipelined && ++answered_while_draining_ <= kPipelinedWhileDraining;
  }
  response_ = to_response(std::move(answer), server_.options().identity, request, keep_alive);
  enter(Phase::kWriting, kWriteTime);
  http::async_write(socket_, response_,
                    [self = shared_from_this(), keep_alive](const Error& error, std::size_t) {
                      if (error) return self->close();
                      keep_alive ? self->await_request() : self->linger();
                    });
}

void Session::linger() {
  if (phase_ != Phase::kLingering) {
    enter(Phase::kLingering, kLingerTime);
    Error ignored;
    socket_.shutdown(Socket::shutdown_send, ignored);
  }
  buffer_.clear();
  socket_.async_read_some(buffer_.prepare(kReadSize),
                          [self = shared_from_this()](const Error& error, std::size_t size) {
                            self->discarded_ += size;
                            if (error || self->discarded_ > kLingerBytes) return self->close();
                            self->linger();
                          });
}

void Session::close() {
  if (phase_ == Phase::kClosed) return;
  phase_ = Phase::kClosed;
  Error ignored;
  socket_.close(ignored);
  timer_.cancel();
  server_.on_session_end();
}

void Session::enter(Phase phase, Clock::duration limit) {
  if (phase_ == Phase::kClosed) return;
  phase_ = phase;
  deadline_ = Clock::now() + limit;
  // A wait that ends too early is begun again then, which is cheaper than cancelling it at every
  // step of every request.
  if (waits_ == 0 || deadline_ < timer_.expiry()) wait_for_deadline();
}

void Session::wait_for_deadline() {
  ++waits_;
  timer_.expires_at(deadline_);
  timer_.async_wait([self = shared_from_this()](const Error&) {
    --self->waits_;
    if (self->phase_ == Phase::kClosed) return;
    if (Clock::now() >= self->deadline_) return self->on_deadline();
    if (self->waits_ == 0) self->wait_for_deadline();
  });
}

void Session::on_deadline() {
  Error ignored;
  switch (phase_) {
    case Phase::kIdle:
      // After a time without the CPU, the next request may lie in the socket already.
      if (socket_.available(ignored) > 0) return enter(Phase::kIdle, kHeaderTime);
      return close();
    case Phase::kReading:
      timed_out_ = true;
      enter(Phase::kReading, kLingerTime);
      socket_.cancel(ignored);
      return;
    case Phase::kPausing:
      return respond(std::move(pending_), true);
    case Phase::kWriting:
    case Phase::kLingering:
      return close();
    case Phase::kClosed:
      return;
  }
}

}  // namespace ostler::example
