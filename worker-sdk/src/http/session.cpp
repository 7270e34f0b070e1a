#include "http/session.hpp"

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string_view>
#include <utility>
#include <variant>

#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/error.hpp>

#include "http/access_log.hpp"
#include "http/request_rules.hpp"
#include "serving/program.hpp"

namespace ostler::http {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
using std::chrono::seconds;

// What is read beyond a header belongs to the body or the next request.
constexpr std::size_t kReadAhead = 8 * 1024;
constexpr std::size_t kReadSize = 2 * 1024;
constexpr std::size_t kBodyReadSize = 16 * 1024;
// Of a body in chunks so much is still to come until all of it was read: "0", CR LF, CR LF. Beast
// before 1.86 takes for granted that it is there when it looks at a last chunk for the second time.
constexpr std::size_t kLeastOfChunks = 5;
// Closing with unread data in the socket makes the kernel send RST, which may destroy the last
// answer on the client's side before it was read. So what still comes is read and thrown away.
constexpr seconds kLingerTime{2};
constexpr std::size_t kLingerBytes = 256 * 1024;
// A client that pipelines gets answers to what it had sent before it could know of the drain, but
// cannot keep the drain from ending.
constexpr int kPipelinedWhileDraining = 64;
constexpr std::size_t kLoggedTarget = 200;

bool is_http_error(const Error& error) {
  return error.category() ==
         beast::http::make_error_code(beast::http::error::bad_method).category();
}

std::string_view text_of(const beast::flat_buffer& buffer) {
  const auto data = buffer.data();
  return {static_cast<const char*>(data.data()), data.size()};
}

std::string_view view(beast::string_view text) {
  return {text.data(), text.size()};
}

void look_at_extensions(std::uint64_t /*size*/, beast::string_view extensions, Error& error) {
  if (!are_extensions(view(extensions))) error = beast::http::error::bad_chunk_extension;
}

// Some clients send an empty line after a body; RFC 9112 section 2.2.
void skip_empty_lines(beast::flat_buffer& buffer) {
  while (text_of(buffer).starts_with("\r\n")) buffer.consume(2);
}

}  // namespace

Session::Session(Socket socket, const Service& service, serving::Origin origin)
    : service_(service),
      origin_(std::move(origin)),
      socket_(std::move(socket)),
      timer_(socket_.get_executor()),
      buffer_(service.options.header_limit + kReadAhead),
      scan_(service.options.header_limit) {
  request_.peer_ = serving::text_of(origin_.peer);
  request_.is_private_ = origin_.is_private;
  request_.stop_token_ = service_.engine.stop_token();
  request_.session_ = this;
  if (!origin_.is_dispatched) return;
  leaving_.emplace(service_.engine.hand_back_token(), [this] { leave_if_idle(); });
}

// --- Reading a request ---------------------------------------------------------------------------

void Session::await_request() {
  parser_.reset();
  skip_empty_lines(buffer_);
  if (buffer_.size() > 0) return read_header();
  if (service_.engine.hands_back(origin_)) return hand_back();
  forget_request();
  const auto& options = service_.options;
  // Without keep-alive this is the first request, which may take its time all the same.
  enter(Phase::kIdle, service_.keeps_alive() ? options.keepalive : options.header_timeout);
  wait_for_request();
}

void Session::wait_for_request() {
  socket_.async_read_some(buffer_.prepare(kReadSize),
                          [self = shared_from_this()](const Error& error, std::size_t size) {
                            if (error) return self->on_no_request(error);
                            self->buffer_.commit(size);
                            skip_empty_lines(self->buffer_);
                            if (self->buffer_.size() > 0) return self->read_header();
                            // It is as idle as before.
                            if (self->service_.engine.hands_back(self->origin_)) {
                              return self->hand_back();
                            }
                            self->wait_for_request();
                          });
}

// The read may have got something already, and only not been told yet: then it is a request like
// any other. What comes from now on stays in the socket and goes with it.
void Session::leave_if_idle() {
  Error ignored;
  if (phase_ == Phase::kIdle) socket_.cancel(ignored);
}

void Session::on_no_request(const Error& error) {
  const bool leaves = error == asio::error::operation_aborted && phase_ == Phase::kIdle &&
                      service_.engine.hands_back(origin_);
  leaves ? hand_back() : close();
}

void Session::hand_back() {
  phase_ = Phase::kClosed;
  timer_.cancel();
  service_.engine.hand_back(socket_, origin_);
}

// There may be many idle connections, and they should not hold what was sent on them last.
void Session::forget_request() {
  static_cast<request::message_type&>(request_) = {};
  response_.reset();
  if (buffer_.capacity() > kReadAhead) buffer_.shrink_to_fit();
}

void Session::read_header() {
  timed_out_ = false;
  make_parser();
  scan_ = HeaderScan(service_.options.header_limit);
  enter(Phase::kReading, service_.options.header_timeout);
  begun_ = deadline_ - service_.options.header_timeout;
  look_at_header();
}

void Session::make_parser() {
  parser_.emplace();
  parser_->header_limit(service_.options.header_limit);
  parser_->body_limit(service_.options.body_limit);
  parser_->on_chunk_header(look_at_extensions);
}

void Session::look_at_header() {
  skip_empty_lines(buffer_);
  switch (scan_.look(text_of(buffer_))) {
    case HeaderScan::State::kMalformed:
      return refuse(status::bad_request);
    case HeaderScan::State::kTooLarge:
      return refuse(scan_.in_first_line() ? status::uri_too_long
                                          : status::request_header_fields_too_large);
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
  const auto used = parser_->put(buffer_.data(), error);
  if (error == beast::http::error::bad_version) return on_other_version();
  buffer_.consume(used);
  if (error) return on_bad_read(error);
  auto& asked = parser_->get();
  if (const auto fault = fault_of(asked)) return refuse(*fault);
  to_origin_form(asked);
  header_.reset();
  if (parser_->chunked()) header_.emplace(static_cast<const beast::http::fields&>(asked));
  if (parser_->is_done()) return handle();
  // Who has sent some of the body already does not wait for a go-ahead.
  const bool waits = asked.version() >= 11 && buffer_.size() == 0 && asked.count(field::expect);
  waits ? send_continue() : read_body();
}

// Beast knows 1.0 and 1.1. A later 1.x is served as the latest that is known; RFC 9110 section 2.5.
void Session::on_other_version() {
  const auto line = text_of(buffer_).substr(0, text_of(buffer_).find("\r\n"));
  const unsigned version = version_of(line);
  const bool known = version == 10 || version == 11;  // then what stands before it is wrong
  if (version == 0 || known) return refuse(status::bad_request);
  if (version < 10 || version > 19) return refuse(status::http_version_not_supported);
  static_cast<char*>(buffer_.data().data())[line.size() - 1] = '1';
  make_parser();
  on_header();
}

void Session::send_continue() {
  static constexpr char kContinue[] = "HTTP/1.1 100 Continue\r\n\r\n";
  enter(Phase::kWriting, service_.options.write_timeout);
  asio::async_write(socket_, asio::buffer(kContinue, sizeof kContinue - 1),
                    [self = shared_from_this()](const Error& failed, std::size_t) {
                      if (failed) return self->close();
                      self->read_body();
                    });
}

void Session::read_body() {
  enter(Phase::kReading, service_.options.body_timeout);
  take_body();
}

void Session::take_body() {
  Error error;
  const std::size_t least = parser_->chunked() ? kLeastOfChunks : 1;
  while (!error && !parser_->is_done() && buffer_.size() >= least) {
    buffer_.consume(parser_->put(buffer_.data(), error));
  }
  if (error && error != beast::http::error::need_more) return on_bad_read(error);
  if (parser_->is_done()) return on_body();
  const auto room = std::min(kBodyReadSize, buffer_.max_size() - buffer_.size());
  if (room == 0) return on_bad_read(beast::http::error::buffer_overflow);
  socket_.async_read_some(buffer_.prepare(room),
                          [self = shared_from_this()](const Error& failed, std::size_t size) {
                            if (failed) return self->on_bad_read(failed);
                            self->buffer_.commit(size);
                            self->take_body();
                          });
}

void Session::on_body() {
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

// --- Calling the handler -------------------------------------------------------------------------

std::string request::client() const {
  if (session_ == nullptr) return peer_;
  const std::string address = peer_.substr(0, peer_.rfind(':'));
  const bool bracketed = address.starts_with('[') && address.ends_with(']');
  return client_of(*this, bracketed ? address.substr(1, address.size() - 2) : address,
                   session_->service_.proxies);
}

void request::extend(nanoseconds time) const noexcept {
  if (session_ != nullptr && session_->mark_) session_->mark_->extend(time);
}

void request::progress() const noexcept {
  if (session_ != nullptr && session_->mark_) session_->mark_->progress();
}

void Session::handle() {
  enter_handling();
  static_cast<request::message_type&>(request_) = parser_->release();
  response_.reset();
  failure_ = nullptr;
  streamed_ = client_gone_ = false;
  if (const auto* coroutine = std::get_if<async_handler>(&service_.handler)) {
    return call_coroutine(*coroutine);
  }
  // The session is kept alive by what is to come, and nothing else is pending.
  service_.engine.call([self = shared_from_this()] { self->call_handler(); },
                       [self = shared_from_this()] { self->on_handled(); });
}

// In class threads on a thread of the pool.
void Session::call_handler() noexcept {
  begin_mark();
  try {
    response_ = std::get<sync_handler>(service_.handler)(request_);
    if (service_.engine.kind() != worker_class::async) {
      if (const auto* write = std::get_if<stream>(&response_->stream)) block_on_stream(*write);
      if (response_->upgrade) upgrade(*response_->upgrade);
    }
  } catch (...) {
    failure_ = std::current_exception();
  }
  // A stream may be to come there; it belongs to the request.
  if (failure_ || service_.engine.kind() != worker_class::async) mark_.reset();
}

void Session::on_handled() {
  if (upgraded_) return on_upgrade_ended(std::exchange(failure_, nullptr));
  if (failure_) return on_failed(std::exchange(failure_, nullptr));
  streamed_ ? on_answered() : respond();
}

void Session::call_coroutine(const async_handler& answer) {
  begin_mark();
  // A handler need not be a coroutine: one that only returns one may throw before.
  try {
    asio::co_spawn(socket_.get_executor(), answer(request_),
                   [self = shared_from_this()](const std::exception_ptr& error, response response) {
                     if (error) return self->on_failed(error);
                     self->response_ = std::move(response);
                     self->respond();
                   });
  } catch (...) {
    on_failed(std::current_exception());
  }
}

void Session::begin_mark() {
  mark_.emplace(service_.engine.worker(), view(request_.method_string()), view(request_.target()),
                origin_.is_private);
}

void Session::on_failed(const std::exception_ptr& error) {
  mark_.reset();
  if (!client_gone_) complain(error);
  if (streamed_) {
    // What was sent cannot be taken back: the client sees by the missing end that there was more.
    log(static_cast<unsigned>(response_->status), head_.framing.written());
    return close();
  }
  response_ = refusal(status::internal_server_error);
  answer(may_keep_alive());
}

void Session::complain(const std::exception_ptr& error) const {
  std::fprintf(stderr, "%s %s: %s\n", std::string(request_.method_string()).c_str(),
               std::string(request_.target().substr(0, kLoggedTarget)).c_str(),
               serving::reason_of(error).c_str());
}

// --- Answering -----------------------------------------------------------------------------------

// With what the handler has returned.
void Session::respond() {
  if (phase_ == Phase::kClosed) return mark_.reset();
  try {
    if (const auto* write = std::get_if<async_stream>(&response_->stream)) {
      return begin_stream(*write);
    }
    if (std::holds_alternative<stream>(response_->stream)) {
      throw std::logic_error(
          "a stream that blocks can only be sent in the classes sync and threads");
    }
    if (response_->upgrade) return upgrade(*response_->upgrade);
    mark_.reset();
    answer(may_keep_alive());
  } catch (...) {
    on_failed(std::current_exception());
  }
}

// In class threads on a thread of the pool.
void Session::block_on_stream(const stream& write) {
  head_ = make_head(*response_, request_, may_keep_alive());
  BlockingWriter writer(socket_.native_handle(), service_.options.write_timeout, *mark_,
                        head_.framing);
  streamed_ = true;
  try {
    writer.send(Parcel(head_.text));
    if (head_.has_body) {
      write(writer);
      writer.finish();
    }
  } catch (...) {
    client_gone_ = writer.failed();
    head_.framing = writer.framing();
    throw;
  }
  head_.framing = writer.framing();
}

class Session::AsyncWriter : public async_body_writer {
 public:
  explicit AsyncWriter(Session& session) : session_(session) {}

  asio::awaitable<void> write(std::string_view data) override {
    if (data.empty()) co_return;
    const auto frame = session_.head_.framing.frame(data);
    co_await send(Parcel(frame.before(), data, frame.behind));
  }

  asio::awaitable<void> send(Parcel parcel) {
    while (!parcel.empty()) {
      session_.wait_for_client();
      Error error;
      const auto sent = co_await session_.socket_.async_write_some(
          parcel.buffers(), asio::redirect_error(asio::use_awaitable, error));
      if (error) {
        session_.client_gone_ = true;
        throw boost::system::system_error(error, "send the body to the client");
      }
      session_.discount_wait();
      parcel.consume(sent);
    }
    session_.enter_handling();
  }

 private:
  Session& session_;
};

void Session::wait_for_client() {
  waited_until_ = Clock::now();
  patience_ends_ = waited_until_ + service_.options.write_timeout;
  enter(Phase::kWriting, kWaitSlice);
}

// What the client takes is not the worker's time: a slow one must not get it aborted.
void Session::discount_wait() {
  const auto now = Clock::now();
  mark_->discount(now - std::exchange(waited_until_, now));
}

void Session::begin_stream(const async_stream& write) {
  if (service_.engine.kind() != worker_class::async) {
    throw std::logic_error("an async_stream can only be sent in class async");
  }
  head_ = make_head(*response_, request_, may_keep_alive());
  asio::co_spawn(socket_.get_executor(), run_stream(write),
                 [self = shared_from_this()](const std::exception_ptr& error) {
                   if (error) return self->on_failed(error);
                   self->mark_.reset();
                   self->on_answered();
                 });
}

// `write` is the response's, which lasts until the stream has ended.
asio::awaitable<void> Session::run_stream(const async_stream& write) {
  AsyncWriter writer(*this);
  streamed_ = true;
  co_await writer.send(Parcel(head_.text));
  if (!head_.has_body) co_return;
  co_await write(writer);
  co_await writer.send(Parcel(head_.framing.end()));
}

// From here on the connection is the other protocol's.
void Session::upgrade(const connection_handler& next) {
  const bool is_async = service_.engine.kind() == worker_class::async;
  if (!(is_async ? static_cast<bool>(next.async()) : static_cast<bool>(next.blocking()))) {
    throw std::logic_error(is_async ? "in class async an upgrade has to be a coroutine"
                                    : "only in class async an upgrade can be a coroutine");
  }
  // A client waits for the 101; RFC 9110 section 7.8. What it sent before was not for the other.
  if (buffer_.size() > 0) throw std::runtime_error("the client sent more before it was upgraded");
  // It has no request in flight any more, but what the handler marks.
  mark_.reset();
  upgraded_.emplace(service_.engine.worker(), std::move(socket_), request_.peer(),
                    service_.engine.stop_token(), origin_.is_private);
  if (!is_async) return next.blocking()(*upgraded_);
  try {
    asio::co_spawn(service_.engine.executor(), next.async()(*upgraded_),
                   [self = shared_from_this()](const std::exception_ptr& error) {
                     self->on_upgrade_ended(error);
                   });
  } catch (...) {
    on_upgrade_ended(std::current_exception());
  }
}

void Session::on_upgrade_ended(const std::exception_ptr& error) {
  if (error) complain(error);
  log(static_cast<unsigned>(status::switching_protocols), 0);
  close();
}

void Session::refuse(status status) {
  if (parser_) static_cast<request::message_type&>(request_) = parser_->release();
  response_ = refusal(status);
  answer(false);
}

bool Session::may_keep_alive() {
  if (!wants_keep_alive(request_) || !service_.keeps_alive()) return false;
  if (!service_.engine.draining()) return true;
  const bool goes_back = service_.engine.hands_back(origin_);
  if (goes_back && buffer_.size() == 0) return true;
  Error ignored;
  const bool pipelined = buffer_.size() > 0 || socket_.available(ignored) > 0;
  return pipelined && ++answered_while_draining_ <= kPipelinedWhileDraining;
}

void Session::answer(bool keep_alive) {
  head_ = make_head(*response_, request_, keep_alive, std::move(head_.text));
  Parcel parcel(head_.text);
  if (head_.has_body) {
    head_.framing.frame(response_->body);
    parcel = Parcel(head_.text, response_->body);
  }
  // As a rule there is room for all of it, and the loop need not be asked.
  if (parcel.send_to(socket_.native_handle())) return on_answered();
  if (errno != EAGAIN) return on_unanswered();
  enter(Phase::kWriting, service_.options.write_timeout);
  asio::async_write(socket_, parcel.buffers(),
                    [self = shared_from_this()](const Error& error, std::size_t) {
                      error ? self->on_unanswered() : self->on_answered();
                    });
}

// The client is gone. It was served all the same.
void Session::on_unanswered() {
  log(static_cast<unsigned>(response_->status), head_.framing.written());
  close();
}

void Session::on_answered() {
  if (phase_ == Phase::kClosed) return;
  log(static_cast<unsigned>(response_->status), head_.framing.written());
  if (!head_.keep_alive) {
    service_.engine.over(origin_);
    return linger();
  }
  if (buffer_.size() == 0) return await_request();
  // What is pipelined waits its turn, and does not grow the stack.
  asio::post(socket_.get_executor(), [self = shared_from_this()] { self->await_request(); });
}

void Session::log(unsigned status, std::uint64_t bytes) const {
  const auto format = service_.options.access_log;
  if (format == access_log::off || origin_.is_private) return;
  const auto took = Clock::now() - begun_;
  AccessEntry entry;
  entry.time = std::chrono::system_clock::now() -
               std::chrono::duration_cast<std::chrono::system_clock::duration>(took);
  entry.duration = took;
  const std::string client = request_.client();
  entry.client = client;
  entry.method = view(request_.method_string());
  entry.target = view(request_.target());
  entry.version = request_.version();
  entry.status = status;
  entry.bytes = bytes;
  entry.user_agent = view(request_[field::user_agent]);
  entry.referer = view(request_[field::referer]);
  write_access_line(access_line(format, entry));
}

// --- The end -------------------------------------------------------------------------------------

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
  serving::Engine::close(upgraded_ ? upgraded_->socket() : socket_, origin_);
  timer_.cancel();
  service_.engine.ended(origin_);
}

// Without a limit.
void Session::enter_handling() {
  if (phase_ == Phase::kClosed) return;
  phase_ = Phase::kHandling;
  deadline_ = Clock::time_point::max();
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
    if (self->waits_ == 0 && self->phase_ != Phase::kHandling) self->wait_for_deadline();
  });
}

void Session::on_deadline() {
  Error ignored;
  switch (phase_) {
    case Phase::kIdle:
      // After a time without the CPU, the next request may lie in the socket already.
      if (socket_.available(ignored) > 0) {
        return enter(Phase::kIdle, service_.options.header_timeout);
      }
      return close();
    case Phase::kReading:
      timed_out_ = true;
      enter(Phase::kReading, kLingerTime);
      socket_.cancel(ignored);
      return;
    case Phase::kWriting:
      if (!mark_) return close();
      discount_wait();  // of a stream
      if (waited_until_ >= patience_ends_) return close();
      return enter(Phase::kWriting,
                   std::min<Clock::duration>(kWaitSlice, patience_ends_ - waited_until_));
    case Phase::kLingering:
      return close();
    case Phase::kHandling:
    case Phase::kClosed:
      return;
  }
}

}  // namespace ostler::http
