#include "http/session.hpp"

#include <cstdio>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/write.hpp>

#include "http/request_rules.hpp"
#include "http/server.hpp"

namespace ostler::http {
namespace {

namespace beast = boost::beast;
using std::chrono::seconds;

// What is read beyond a header belongs to the body or the next request.
constexpr std::size_t kReadAhead = 8 * 1024;
constexpr std::size_t kReadSize = 2 * 1024;
// Closing with unread data in the socket makes the kernel send RST, which may destroy the last
// answer on the client's side before it was read. So what still comes is read and thrown away.
constexpr seconds kLingerTime{2};
constexpr std::size_t kLingerBytes = 256 * 1024;
// A client that pipelines gets answers to what it had sent before it could know of the drain, but
// cannot keep the drain from ending.
constexpr int kPipelinedWhileDraining = 64;
constexpr std::chrono::hours kNoLimit{24 * 365};
constexpr std::size_t kLoggedTarget = 200;

bool is_http_error(const Error& error) {
  return error.category() ==
         beast::http::make_error_code(beast::http::error::bad_method).category();
}

std::string_view text_of(const beast::flat_buffer& buffer) {
  const auto data = buffer.data();
  return {static_cast<const char*>(data.data()), data.size()};
}

// Some clients send an empty line after a body; RFC 9112 section 2.2.
void skip_empty_lines(beast::flat_buffer& buffer) {
  while (text_of(buffer).starts_with("\r\n")) buffer.consume(2);
}

}  // namespace

Session::Session(Socket socket, Server& server)
    : server_(server),
      socket_(std::move(socket)),
      timer_(socket_.get_executor()),
      buffer_(server.options().header_limit + kReadAhead),
      scan_(server.options().header_limit) {}

void Session::await_request() {
  parser_.reset();
  skip_empty_lines(buffer_);
  if (buffer_.size() > 0) return read_header();
  const auto& options = server_.options();
  // Without keep-alive this is the first request, which may take its time all the same.
  enter(Phase::kIdle,
        options.keepalive == options.keepalive.zero() ? options.header_timeout : options.keepalive);
  socket_.async_read_some(buffer_.prepare(kReadSize),
                          [self = shared_from_this()](const Error& error, std::size_t size) {
                            if (error) return self->close();
                            self->buffer_.commit(size);
                            self->read_header();
                          });
}

void Session::read_header() {
  timed_out_ = false;
  parser_.emplace();
  parser_->header_limit(server_.options().header_limit);
  parser_->body_limit(server_.options().body_limit);
  scan_ = HeaderScan(server_.options().header_limit);
  enter(Phase::kReading, server_.options().header_timeout);
  look_at_header();
}

void Session::look_at_header() {
  skip_empty_lines(buffer_);
  switch (scan_.look(text_of(buffer_))) {
    case HeaderScan::State::kMalformed:
      return refuse(status::bad_request);
    case HeaderScan::State::kTooLarge:
      return refuse(status::request_header_fields_too_large);
    case HeaderScan::State::kComplete:
      return on_header();
    case HeaderScan::State::kIncomplete:
      break;
  }
  socket_.async_read_some(buffer_.prepare(kReadSize),
                          [self = shared_from_this()](const Error& error, std::size_t size) {
                            if (error) return self->on_bad_read(error);
                            self->buffer_.commit(size);
                            self->look_at_header();
                          });
}

void Session::on_header() {
  Error error;
  buffer_.consume(parser_->put(buffer_.data(), error));
  if (error) return on_bad_read(error);
  const auto& asked = parser_->get();
  if (const auto fault = fault_of(asked)) return refuse(*fault);
  header_.reset();
  if (parser_->chunked()) header_.emplace(static_cast<const beast::http::fields&>(asked));
  if (parser_->is_done()) return handle();
  // Who has sent some of the body already does not wait for a go-ahead.
  const bool waits = asked.version() >= 11 && buffer_.size() == 0 && asked.count(field::expect);
  waits ? send_continue() : read_body();
}

void Session::send_continue() {
  static constexpr char kContinue[] = "HTTP/1.1 100 Continue\r\n\r\n";
  enter(Phase::kWriting, server_.options().write_timeout);
  asio::async_write(socket_, asio::buffer(kContinue, sizeof kContinue - 1),
                    [self = shared_from_this()](const Error& failed, std::size_t) {
                      if (failed) return self->close();
                      self->read_body();
                    });
}

void Session::read_body() {
  enter(Phase::kReading, server_.options().body_timeout);
  beast::http::async_read(
      socket_, buffer_, *parser_,
      [self = shared_from_this()](const Error& error, std::size_t) { self->on_body(error); });
}

void Session::on_body(const Error& error) {
  if (error) return on_bad_read(error);
  if (header_) static_cast<beast::http::fields&>(parser_->get()) = std::move(*header_);
  handle();
}

void Session::on_bad_read(const Error& error) {
  using beast::http::error::body_limit;
  if (timed_out_ && buffer_.size() == 0 && !parser_->got_some()) return close();
  if (timed_out_) return refuse(status::request_timeout);
  if (error == beast::http::error::header_limit || error == beast::http::error::buffer_overflow) {
    return refuse(status::request_header_fields_too_large);
  }
  if (error == body_limit) return refuse(status::payload_too_large);
  if (!is_http_error(error) || error == beast::http::error::end_of_stream ||
      error == beast::http::error::partial_message) {
    return close();  // the peer went away
  }
  refuse(status::bad_request);
}

void Session::handle() {
  enter(Phase::kHandling, kNoLimit);
  const auto& answer = server_.handler();
  try {
    if (const auto* coroutine = std::get_if<async_handler>(&answer)) {
      return call_coroutine(*coroutine);
    }
    respond(std::get<sync_handler>(answer)(parser_->get()));
  } catch (...) {
    on_handler_failed(std::current_exception());
  }
}

void Session::call_coroutine(const async_handler& answer) {
  asio::co_spawn(socket_.get_executor(), answer(parser_->get()),
                 [self = shared_from_this()](std::exception_ptr error, response response) {
                   if (error) return self->on_handler_failed(error);
                   try {
                     self->respond(std::move(response));
                   } catch (...) {
                     self->on_handler_failed(std::current_exception());
                   }
                 });
}

void Session::on_handler_failed(const std::exception_ptr& error) {
  std::string reason = "an exception that is no std::exception";
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& known) {
    reason = known.what();
  } catch (...) {
  }
  const auto& asked = parser_->get();
  std::fprintf(stderr, "%s %s: %s\n", std::string(asked.method_string()).c_str(),
               std::string(asked.target().substr(0, kLoggedTarget)).c_str(), reason.c_str());
  respond(refusal(status::internal_server_error));
}

void Session::respond(response response) {
  if (phase_ == Phase::kClosed) return;
  write(to_message(std::move(response), parser_->get(), may_keep_alive()));
}

void Session::refuse(status status) {
  write(to_message(refusal(status), parser_->get(), false));
}

bool Session::may_keep_alive() {
  const auto keepalive = server_.options().keepalive;
  if (!parser_->get().keep_alive() || keepalive == keepalive.zero()) return false;
  if (!server_.draining()) return true;
  Error ignored;
  const bool pipelined = buffer_.size() > 0 || socket_.available(ignored) > 0;
  return pipelined && ++answered_while_draining_ <= kPipelinedWhileDraining;
}

void Session::write(Message message) {
  const bool keep_alive = message.keep_alive();
  message_ = std::move(message);
  enter(Phase::kWriting, server_.options().write_timeout);
  beast::http::async_write(
      socket_, message_, [self = shared_from_this(), keep_alive](const Error& error, std::size_t) {
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
      if (socket_.available(ignored) > 0) {
        return enter(Phase::kIdle, server_.options().header_timeout);
      }
      return close();
    case Phase::kReading:
      timed_out_ = true;
      enter(Phase::kReading, kLingerTime);
      socket_.cancel(ignored);
      return;
    case Phase::kHandling:
      return enter(Phase::kHandling, kNoLimit);
    case Phase::kWriting:
    case Phase::kLingering:
      return close();
    case Phase::kClosed:
      return;
  }
}

}  // namespace ostler::http
