#include "runtime/worker_channel.hpp"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <system_error>
#include <utility>

#include "runtime/clock.hpp"
#include "runtime/descriptors.hpp"
#include "runtime/limits.hpp"

namespace ostler::runtime {

Connection::~Connection() {
  // A worker that had it may have set SO_LINGER: close(2) would wait for a peer that does not read.
  constexpr linger kOff{};
  if (fd) ::setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &kOff, sizeof kOff);
}

namespace {

UniqueFd make_socket(UniqueFd& worker_end) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    throw std::system_error(errno, std::generic_category(), "socketpair");
  }
  worker_end = UniqueFd(ends[1]);
  return UniqueFd(ends[0]);
}

bool has_option(int fd, int name, int wanted) {
  int value = 0;
  socklen_t size = sizeof value;
  return ::getsockopt(fd, SOL_SOCKET, name, &value, &size) == 0 && value == wanted;
}

bool is_connection(int fd) {
  return has_option(fd, SO_TYPE, SOCK_STREAM) && has_option(fd, SO_ACCEPTCONN, 0);
}

bool is_connected(int fd) {
  sockaddr_storage peer{};
  socklen_t size = sizeof peer;
  return ::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) == 0;
}

// The port or the path of a connection's end here; an address may be any of this machine.
std::string place_of(int fd) {
  sockaddr_storage local{};
  socklen_t size = sizeof local;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&local), &size) != 0) return {};
  const auto* const bytes = reinterpret_cast<const char*>(&local);
  if (local.ss_family == AF_UNIX) return {bytes, size};
  // Of both kinds the port is behind the family.
  static_assert(offsetof(sockaddr_in, sin_port) == offsetof(sockaddr_in6, sin6_port));
  return {bytes, offsetof(sockaddr_in, sin_port) + sizeof(in_port_t)};
}

}  // namespace

WorkerChannel::WorkerChannel(boost::asio::io_context& context, WorkerEnds& worker_ends)
    : scoreboard_(worker_ends.scoreboard), socket_(context) {
  UniqueFd ours = make_socket(worker_ends.channel);
  socket_.assign(ours.get());
  static_cast<void>(ours.release());
}

WorkerChannel::~WorkerChannel() {
  close();
}

void WorkerChannel::start(Hooks hooks, std::vector<std::string> listeners) {
  hooks_ = std::move(hooks);
  listeners_ = std::move(listeners);
  since_ = std::chrono::steady_clock::now();
  wait();
}

void WorkerChannel::wait() {
  socket_.async_wait(boost::asio::posix::descriptor_base::wait_read,
                     [self = shared_from_this()](const boost::system::error_code& error) {
                       if (error || !self->socket_.is_open()) return;
                       self->drain();
                       if (self->socket_.is_open()) self->wait();
                     });
}

// Whoever may still hold the other end cannot make it last: every message is counted or asked for.
void WorkerChannel::read_to_end() {
  while (socket_.is_open() && receive_one()) {
  }
}

void WorkerChannel::drain() {
  for (int left = limits::kMessagesPerTurn; left > 0 && socket_.is_open(); --left) {
    if (!receive_one()) return;
  }
}

bool WorkerChannel::receive_one() {
  ostler_message message{};
  Received received;
  // A worker that ended with something unread: that is said once, and before what it had sent.
  do {
    received = receive(socket_.native_handle(), &message, sizeof message);
  } while (received.size < 0 && errno == ECONNRESET);
  if (received.size < 0) {
    if (errno != EAGAIN && errno != EINTR) close();
    return false;
  }
  std::vector<UniqueFd>& descriptors = received.descriptors;
  // It is gone, or has closed its end; a packet of no bytes looks the same.
  if (received.size == 0) {
    if (!descriptors.empty()) closer_.close(std::move(descriptors));
    close();
    return false;
  }
  if (received.truncated || received.size != sizeof message || descriptors.size() > OSTLER_BATCH) {
    give_up("a message of another size, or with too many descriptors");
  } else if (!descriptors.empty() && message.type != OSTLER_RETURN) {
    give_up("a message with a descriptor");
  } else if (!expected(message) && too_many()) {
    give_up("more messages than a worker has reason to send");
  } else {
    take(message, descriptors);
  }
  if (!descriptors.empty()) closer_.close(std::move(descriptors));  // those that were not taken
  return socket_.is_open();
}

// What is only said when it was asked for, or counted by itself, needs no other bound.
bool WorkerChannel::expected(const ostler_message& message) const {
  return (message.type == OSTLER_ROOM && room_awaited_ > 0) || message.type == OSTLER_RETURN ||
         message.type == OSTLER_NOT_TAKEN;
}

void WorkerChannel::take(const ostler_message& message, std::vector<UniqueFd>& descriptors) {
  switch (message.type) {
    case OSTLER_HELLO:
      if (message.value != OSTLER_PROTOCOL_VERSION) {
        return give_up("version " + std::to_string(message.value) + " of the protocol; this is " +
                       std::to_string(OSTLER_PROTOCOL_VERSION));
      }
      speaks_ = true;
      return hooks_.heard(core::WorkerSign::kSpeaks);
    case OSTLER_READY:
      return hooks_.heard(core::WorkerSign::kReady);
    case OSTLER_AWAKE:
      return hooks_.heard(core::WorkerSign::kAwake);
    case OSTLER_RECYCLE:
      return hooks_.heard(core::WorkerSign::kWorn);
    case OSTLER_ROOM:
      room_awaited_ = std::max(room_awaited_ - 1, 0);
      return hooks_.room();
    case OSTLER_RETURN:
      return take_returned(message, descriptors);
    case OSTLER_NOT_TAKEN:
      return take_not_taken(message);
    default:
      give_up("a message of the unknown type " + std::to_string(message.type));
  }
}

// It can give back no more than it was given. What it is, is looked at: another worker will get it.
void WorkerChannel::take_returned(const ostler_message& message,
                                  std::vector<UniqueFd>& descriptors) {
  // Or it could be handed the same ones again, for ever.
  if (!asked_back_) return give_up("connections back before it was asked for them");
  untaken();
  const auto waiting =
      std::ranges::count_if(untaken_, [](const Connection& one) { return bool(one.fd); });
  const std::uint64_t known = handed_ - returned_ - static_cast<std::uint64_t>(waiting);
  if (descriptors.empty() || descriptors.size() != message.count || descriptors.size() > known) {
    return give_up("connections back that it was not given");
  }
  if (message.value >= listeners_.size()) {
    return give_up("connections back of a listener that it does not have");
  }
  const std::string& listener = listeners_[message.value];
  for (const UniqueFd& fd : descriptors) {
    if (!came_in_by(listener, fd.get())) return give_up("something back that it was not given");
  }
  returned_ += descriptors.size();
  std::vector<Connection> connections;
  for (UniqueFd& fd : descriptors) {
    // The client may have reset it meanwhile: then nobody is to be served.
    if (is_connected(fd.get())) connections.emplace_back(std::move(fd), listener);
  }
  std::erase_if(descriptors, [](const UniqueFd& fd) { return !fd; });
  if (!connections.empty()) hooks_.returned(std::move(connections));
}

// Its table of descriptors was full. The copies of what it names have not been dropped: until this
// message came, none was (untaken()).
void WorkerChannel::take_not_taken(const ostler_message& message) {
  const std::uint64_t dropped = handed_ - untaken_.size();
  const std::uint64_t first = message.value - dropped;
  if (message.count == 0 || message.count > untaken_.size() || message.value < dropped ||
      first > untaken_.size() - message.count) {
    return give_up("connections not taken that it was not given");
  }
  std::vector<Connection> connections;
  for (std::uint64_t i = first; i < first + message.count; ++i) {
    if (!untaken_[i].fd) return give_up("connections not taken for a second time");
    connections.push_back(std::move(untaken_[i]));
  }
  returned_ += connections.size();
  not_taken_ += connections.size();
  hooks_.not_taken(std::move(connections));
}

// A worker says a word when it starts, when it wakes and when it is worn.
bool WorkerChannel::too_many() {
  const auto now = std::chrono::steady_clock::now();
  if (now - since_ > limits::kMessageSpan) {
    since_ = now;
    received_ = 0;
  }
  return ++received_ > limits::kMessagesPerSpan;
}

void WorkerChannel::give_up(const std::string& reason) {
  close();
  speaks_ = false;
  hooks_.broken(reason);
}

// What the worker has sent may lie in its queue.
void WorkerChannel::close() {
  if (!socket_.is_open()) return;
  std::vector<UniqueFd> descriptor;
  descriptor.emplace_back(socket_.release());
  closer_.close(std::move(descriptor));
}

// A connection whose end here is where those of that listener have theirs.
bool WorkerChannel::came_in_by(const std::string& listener, int fd) const {
  const auto place = places_.find(listener);
  return place != places_.end() && is_connection(fd) && place->second.contains(place_of(fd));
}

int WorkerChannel::hand_over(const UniqueFd& connection) {
  return send({OSTLER_CONNECTION, OSTLER_PRIVATE, 0}, {connection.get()});
}

int WorkerChannel::let_accept() {
  return send({OSTLER_ACCEPT, 0, 0}, {});
}

int WorkerChannel::tell_to_return() {
  const int error = send({OSTLER_DRAIN, 0, 0}, {});
  asked_back_ = asked_back_ || error == 0;
  return error;
}

void WorkerChannel::want_room() {
  // What it says may still be on its way when it is asked again.
  room_awaited_ = scoreboard_.want_room() ? room_awaited_ + 1 : std::max(room_awaited_, 1);
}

int WorkerChannel::dispatch(std::vector<Connection>& connections) {
  std::vector<int> descriptors;
  descriptors.reserve(connections.size());
  for (const Connection& connection : connections) descriptors.push_back(connection.fd.get());
  // What came in by a listener that its generation does not have any more counts as the first's.
  const auto listener = std::ranges::find(listeners_, connections.front().listener);
  const auto index = static_cast<std::uint64_t>(listener - listeners_.begin());
  const int error = send({OSTLER_DISPATCH, static_cast<std::uint32_t>(descriptors.size()),
                          index < listeners_.size() ? index : 0},
                         descriptors);
  if (error != 0) return error;
  const std::string& came_by = index < listeners_.size() ? *listener : listeners_.front();
  places_[came_by].insert(place_of(connections.front().fd.get()));
  if (untaken_.empty()) untaken_since_ = now();
  handed_ += connections.size();
  for (Connection& connection : connections) untaken_.push_back(std::move(connection));
  connections.clear();
  return 0;
}

std::size_t WorkerChannel::untaken() {
  if (untaken_.empty()) return 0;
  const std::uint64_t taken = scoreboard_.taken();
  // Some of these it could not take, and the message that says which is on its way.
  if (scoreboard_.not_taken() <= not_taken_) drop_taken(taken);
  return untaken_.size();
}

void WorkerChannel::drop_taken(std::uint64_t taken) {
  const std::uint64_t left = handed_ - std::min(taken, handed_);
  if (left >= untaken_.size()) return;
  while (untaken_.size() > left) untaken_.pop_front();
  untaken_since_ = now();
}

std::vector<Connection> WorkerChannel::take_back() {
  drop_taken(scoreboard_.taken());
  std::vector<Connection> connections;
  for (Connection& connection : untaken_) {
    if (connection.fd) connections.push_back(std::move(connection));
  }
  untaken_.clear();
  return connections;
}

int WorkerChannel::send(const ostler_message& message, const std::vector<int>& descriptors) {
  if (!socket_.is_open()) return EPIPE;
  ostler_message sent = message;
  iovec part{&sent, sizeof sent};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * OSTLER_BATCH)> control{};
  if (!descriptors.empty()) {
    const std::size_t size = sizeof(int) * descriptors.size();
    header.msg_control = control.data();
    header.msg_controllen = CMSG_SPACE(size);
    cmsghdr* const rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(size);
    std::memcpy(CMSG_DATA(rights), descriptors.data(), size);
  }
  while (::sendmsg(socket_.native_handle(), &header, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
    if (errno != EINTR) return errno;
  }
  return 0;
}

}  // namespace ostler::runtime
