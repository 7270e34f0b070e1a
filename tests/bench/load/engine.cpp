#include "engine.hpp"

#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <system_error>

#include <boost/beast/http/error.hpp>

namespace ostler::bench {
namespace {

namespace http = boost::beast::http;

constexpr std::size_t kBatch = 64;  // requests begun, and events handled, before the others' turn
constexpr unsigned kSources = 16;   // loopback addresses, as one has 28 000 ports at most
constexpr std::chrono::milliseconds kQueueRetry{1};
constexpr std::chrono::milliseconds kLongestWait{50};  // until a signal is noticed

Loss loss_of(int error) {
  if (error == ECONNREFUSED || error == ENOENT) return Loss::kRefused;
  if (error == ECONNRESET || error == EPIPE) return Loss::kReset;
  if (error == ETIMEDOUT) return Loss::kTimeout;
  return Loss::kLocal;
}

std::string text_of(const Request& request, const Options& options) {
  const std::string id = std::to_string(request.id);
  const std::string& path = options.targets[request.target].path;
  std::string text = "GET " + path;
  if (options.id_in_query) text += (path.find('?') == std::string::npos ? "?id=" : "&id=") + id;
  text += " HTTP/1.1\r\nHost: bench\r\n";
  if (!options.id_in_query) text += "X-Request-Id: " + id + "\r\n";
  if (options.connections == Connections::kNew) text += "Connection: close\r\n";
  return text + "\r\n";
}

}  // namespace

Engine::Engine(const Options& options, unsigned thread, Clock::time_point start, Shared& shared)
    : options_(options),
      shared_(shared),
      plan_(options, thread, start),
      tally_(options, start),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      source_(thread) {
  if (epoll_ < 0) throw std::system_error(errno, std::generic_category(), "epoll_create1");
  if (options.connections == Connections::kKept) {
    const std::size_t each = options.count / options.threads;
    connections_.resize(each + (thread < options.count % options.threads ? 1 : 0));
    for (std::size_t place = 0; place < connections_.size(); ++place) free_.push_back(place);
  }
}

Engine::~Engine() {
  for (const Connection& one : connections_) {
    if (one.fd >= 0) ::close(one.fd);
  }
  ::close(epoll_);
}

// --- The loop ------------------------------------------------------------------------------------

void Engine::run() {
  while (!finished()) {
    if (shared_.stop) plan_.end();
    const auto now = Clock::now();
    expire(now);
    retry_full_queues(now);
    take_up(now);
    wait();
  }
}

bool Engine::finished() const {
  const bool holding = options_.connections == Connections::kHeld && !shared_.hold_is_over;
  return plan_.over() && busy_ == 0 && waiting_.empty() && !holding;
}

void Engine::take_up(Clock::time_point now) {
  for (std::size_t i = 0; i < kBatch && !plan_.over() && plan_.next().planned <= now; ++i) {
    const Request request = plan_.take();
    tally_.taken_up(request, Clock::now());
    if (const auto place = free_place()) {
      assign(*place, request);
    } else {
      waiting_.push_back(request);
    }
  }
}

// Those that are answered meanwhile are passed over here.
void Engine::expire(Clock::time_point now) {
  while (!deadlines_.empty()) {
    const Deadline first = deadlines_.front();
    const Connection& one = connections_[first.place];
    if (one.busy() && one.request.id == first.id) {
      if (first.at > now) break;
      fail(first.place, Loss::kTimeout,
           one.received > 0 ? "within an answer" : "without an answer");
    }
    deadlines_.pop_front();
  }
  while (!waiting_.empty() && waiting_.front().planned + options_.timeout <= now) {
    tally_.lost(waiting_.front(), Loss::kTimeout, "no connection was free", now);
    ++shared_.outcomes;
    waiting_.pop_front();
  }
}

Clock::time_point Engine::next_event() const {
  auto next = Clock::now() + kLongestWait;
  if (!plan_.over()) next = std::min(next, plan_.next().planned);
  if (!deadlines_.empty()) next = std::min(next, deadlines_.front().at);
  if (!waiting_.empty()) next = std::min(next, waiting_.front().planned + options_.timeout);
  if (!full_.empty()) next = std::min(next, retry_at_);
  return next;
}

void Engine::wait() {
  const auto left = std::max(Clock::duration(0), next_event() - Clock::now());
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(left);
  const timespec time{seconds.count(), (left - seconds).count()};
  std::array<epoll_event, kBatch> events{};
  const int count = ::epoll_pwait2(epoll_, events.data(), kBatch, &time, nullptr);
  if (count < 0 && errno != EINTR) {
    throw std::system_error(errno, std::generic_category(), "epoll_pwait2");
  }
  for (int i = 0; i < count; ++i) handle(events.at(static_cast<std::size_t>(i)).data.u64);
}

void Engine::handle(std::size_t place) {
  switch (connections_[place].state) {
    case Connection::State::kSending:
      return send(place);
    case Connection::State::kReceiving:
      return receive(place);
    case Connection::State::kIdle:
      return idle_readable(place);
    case Connection::State::kUnused:
    case Connection::State::kQueueFull:
      return;
  }
}

// --- Connections ---------------------------------------------------------------------------------

std::optional<std::size_t> Engine::free_place() {
  if (free_.empty()) {
    if (options_.connections == Connections::kKept) return std::nullopt;
    connections_.emplace_back();
    return connections_.size() - 1;
  }
  const std::size_t place = free_.front();
  free_.pop_front();
  return place;
}

void Engine::assign(std::size_t place, const Request& request) {
  Connection& one = connections_[place];
  ++busy_;
  one.request = request;
  one.out = text_of(request, options_);
  one.sent = 0;
  one.received = 0;
  one.in.clear();
  one.answer.emplace();
  one.answer->eager(true);
  one.state = Connection::State::kSending;
  deadlines_.push_back({place, request.id, request.planned + options_.timeout});
  if (one.fd < 0) {
    connect(place);
  } else {
    send(place);
  }
}

void Engine::open_socket(Connection& one) {
  const Endpoint& address = options_.address;
  one.fd = ::socket(address.protocol().family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  one.wants_room = false;
  if (one.fd < 0 || !options_.loopback) return;
  const int on = 1;  // the port is chosen by connect(), which knows who else uses it
  ::setsockopt(one.fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
  sockaddr_in source{};
  source.sin_family = AF_INET;
  source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + source_++ % kSources);
  // Without it the connection would come from 127.0.0.1, which is as well.
  static_cast<void>(::bind(one.fd, reinterpret_cast<const sockaddr*>(&source), sizeof source));
}

void Engine::connect(std::size_t place) {
  Connection& one = connections_[place];
  open_socket(one);
  if (one.fd < 0) return fail_with(place, "socket", errno);
  const auto* address = reinterpret_cast<const sockaddr*>(options_.address.data());
  const auto size = static_cast<socklen_t>(options_.address.size());
  if (::connect(one.fd, address, size) == 0 || errno == EINPROGRESS) {
    watch(place, EPOLL_CTL_ADD, false);
    return send(place);  // on loopback the handshake is over by now
  }
  // A unix socket does not wait for room in the queue, unless it may block.
  if (errno != EAGAIN || options_.address.protocol().family() != AF_UNIX) {
    return fail_with(place, "connect", errno);
  }
  ::close(one.fd);
  one.fd = -1;
  one.state = Connection::State::kQueueFull;
  if (full_.empty()) retry_at_ = Clock::now() + kQueueRetry;
  full_.push_back(place);
}

void Engine::retry_full_queues(Clock::time_point now) {
  if (full_.empty() || now < retry_at_) return;
  std::deque<std::size_t> due;
  due.swap(full_);
  for (const std::size_t place : due) {
    if (connections_[place].state != Connection::State::kQueueFull) continue;  // timed out
    connections_[place].state = Connection::State::kSending;
    connect(place);
  }
}

void Engine::watch(std::size_t place, int operation, bool room) {
  Connection& one = connections_[place];
  one.wants_room = room;
  epoll_event event{};
  event.events = room ? EPOLLIN | EPOLLOUT : EPOLLIN;
  event.data.u64 = place;
  ::epoll_ctl(epoll_, operation, one.fd, &event);
}

void Engine::release(std::size_t place, bool keep) {
  Connection& one = connections_[place];
  --busy_;
  ++shared_.outcomes;
  one.state = keep ? Connection::State::kIdle : Connection::State::kUnused;
  if (!keep && one.fd >= 0) {
    ::close(one.fd);
    one.fd = -1;
  }
  if (keep && options_.connections == Connections::kHeld) return;  // it has done its work
  if (waiting_.empty()) {
    free_.push_back(place);
    return;
  }
  const Request next = waiting_.front();
  waiting_.pop_front();
  assign(place, next);
}

// The server has closed it, which it may, between two requests.
void Engine::idle_readable(std::size_t place) {
  Connection& one = connections_[place];
  ::close(one.fd);
  one.fd = -1;
  if (options_.connections == Connections::kHeld) {
    tally_.closed_while_held();
    one.state = Connection::State::kUnused;  // and not free: it is held no more
  }
}

// --- Requests and answers ------------------------------------------------------------------------

void Engine::send(std::size_t place) {
  Connection& one = connections_[place];
  const ssize_t size =
      ::send(one.fd, one.out.data() + one.sent, one.out.size() - one.sent, MSG_NOSIGNAL);
  if (size < 0 && errno != EAGAIN && errno != EINTR) return fail_with(place, "send", errno);
  if (size > 0) one.sent += static_cast<std::size_t>(size);
  const bool room = one.sent < one.out.size();
  if (!room) one.state = Connection::State::kReceiving;
  if (room != one.wants_room) watch(place, EPOLL_CTL_MOD, room);
}

void Engine::receive(std::size_t place) {
  constexpr std::size_t kPiece = 16384;
  Connection& one = connections_[place];
  const auto room = one.in.prepare(kPiece);
  const ssize_t size = ::recv(one.fd, room.data(), room.size(), 0);
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (size < 0) return fail_with(place, "receive", errno);
  if (size == 0) return ended(place);
  boost::system::error_code error;
  if (!parse(one, static_cast<std::size_t>(size), error)) {
    return fail(place, Loss::kMalformed, error.message());
  }
  if (one.answer->is_done()) finish(place);
}

bool Engine::parse(Connection& one, std::size_t size, boost::system::error_code& error) {
  one.in.commit(size);
  one.received += size;
  while (one.in.size() > 0 && !one.answer->is_done()) {
    const std::size_t used = one.answer->put(one.in.data(), error);
    one.in.consume(used);
    if (error == http::error::need_more) {
      error = {};
      return true;
    }
    if (error) return false;
  }
  return true;
}

void Engine::ended(std::size_t place) {
  Connection& one = connections_[place];
  boost::system::error_code error;
  if (one.received > 0) one.answer->put_eof(error);  // the end of the body, if it has no length
  if (one.received > 0 && !error && one.answer->is_done()) return finish(place);
  fail(place, Loss::kClosed, "after " + std::to_string(one.received) + " bytes of an answer");
}

void Engine::finish(std::size_t place) {
  Connection& one = connections_[place];
  const auto& answer = one.answer->get();
  if (answer.result() != http::status::ok) {
    return fail(place, Loss::kStatus, "status " + std::to_string(answer.result_int()));
  }
  const auto id = answer.find("X-Request-Id");  // a server may say whose answer it is
  if (id != answer.end() && id->value() != std::to_string(one.request.id)) {
    return fail(place, Loss::kWrong, "the answer to " + std::string(id->value()));
  }
  tally_.answered(one.request, Clock::now());
  release(place, options_.connections != Connections::kNew && answer.keep_alive());
}

void Engine::fail(std::size_t place, Loss loss, const std::string& why) {
  tally_.lost(connections_[place].request, loss, why, Clock::now());
  release(place, false);
}

void Engine::fail_with(std::size_t place, const char* what, int error) {
  fail(place, loss_of(error), std::string(what) + ": " + std::strerror(error));
}

}  // namespace ostler::bench
