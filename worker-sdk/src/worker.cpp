#include "ostler/worker.hpp"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <stdexcept>
#include <system_error>

#include "internals.hpp"

namespace ostler {

namespace {

// "KEY=value" in a buffer of its own: these messages must not allocate, so that they cannot throw.
template <class Number>
class Message {
 public:
  Message(std::string_view key, Number value) {
    char* end = std::copy(key.begin(), key.end(), text_.begin());
    end = std::to_chars(end, text_.data() + text_.size(), value).ptr;
    size_ = static_cast<std::size_t>(end - text_.data());
  }
  operator std::string_view() const { return {text_.data(), size_}; }

 private:
  std::array<char, 64> text_{};
  std::size_t size_ = 0;
};

bool is_control(char c) {
  return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
}

// Cuts to `most` bytes, but not inside a UTF-8 sequence.
std::string_view cut(std::string_view text, std::size_t most) {
  if (text.size() <= most) return text;
  while (most > 0 && (static_cast<unsigned char>(text[most]) & 0xc0) == 0x80) --most;
  return text.substr(0, most);
}

// Without a limit for silence nobody looks for it; it is only seen in time that the work is over.
constexpr std::chrono::seconds kUsualBeat{5};

// A twentieth of what the manager tolerates: by so much a loop may be taken for stuck too early.
std::chrono::nanoseconds beat_every(std::optional<worker::microseconds> heartbeat_interval) {
  if (!heartbeat_interval) return kUsualBeat;
  return std::max<std::chrono::nanoseconds>(*heartbeat_interval / 10, std::chrono::milliseconds(1));
}

}  // namespace

ChannelEvents::ChannelEvents(const Channel& channel, const Scoreboard& scoreboard) {
  if (!channel.connected()) return;
  epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
  if (epoll_ < 0) throw std::system_error(errno, std::generic_category(), "create an epoll set");
  for (const int each : {channel.fd(), scoreboard.timer_fd()}) {
    epoll_event event{.events = EPOLLIN, .data = {}};
    if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, each, &event) != 0) {
      const int error = errno;
      ::close(epoll_);
      throw std::system_error(error, std::generic_category(), "watch the channel to the manager");
    }
  }
}

ChannelEvents::~ChannelEvents() {
  if (epoll_ >= 0) ::close(epoll_);
}

void ChannelEvents::forget(const Channel& channel) const noexcept {
  ::epoll_ctl(epoll_, EPOLL_CTL_DEL, channel.fd(), nullptr);
}

worker::state::state(std::initializer_list<int> stop_signals)
    : stop(stop_signals),
      scoreboard(channel, beat_every(heartbeat_interval),
                 environment::take_number(OSTLER_ENV_RECYCLE_REQUESTS).value_or(0)) {}

worker::worker(std::initializer_list<int> stop_signals)
    : state_(std::make_unique<state>(stop_signals)) {}

worker::~worker() = default;

bool worker::managed() const noexcept {
  return state_->notifier.connected() || state_->channel.connected();
}

const std::vector<listener>& worker::listeners() const noexcept {
  return state_->listeners;
}

int worker::listener_fd(std::string_view name) const {
  std::string names;
  for (const auto& each : state_->listeners) {
    if (each.name == name) return each.fd;
    names += names.empty() ? each.name : ", " + each.name;
  }
  throw std::out_of_range("no inherited listener is named '" + std::string(name) + "'; there are " +
                          (names.empty() ? "none" : names));
}

const std::optional<std::string>& worker::pool() const noexcept {
  return state_->pool;
}

std::optional<std::uint32_t> worker::slot() const noexcept {
  if (!state_->slot) return std::nullopt;
  return static_cast<std::uint32_t>(*state_->slot);
}

std::optional<std::uint64_t> worker::generation() const noexcept {
  return state_->generation;
}

bool worker::ready() const noexcept {
  // What is said on the channel is neither lost nor taken for a stranger's.
  const auto& channel = state_->channel;
  if (channel.connected() &&
      channel.deliver({OSTLER_READY, 0, 0}, kReadyAttempts * kNotifyPatience)) {
    return true;
  }
  for (int attempt = 1; attempt <= kReadyAttempts; ++attempt) {
    if (state_->notifier.send("READY=1")) return true;
    if (errno != EAGAIN) return false;
  }
  return false;
}

bool worker::status(std::string_view text) const noexcept {
  constexpr std::string_view kKey = "STATUS=";
  std::array<char, kKey.size() + kStatusLimit> message{};
  const auto shown = cut(text, kStatusLimit);
  char* end = std::copy(kKey.begin(), kKey.end(), message.begin());
  end = std::transform(shown.begin(), shown.end(), end,
                       [](char c) { return is_control(c) ? ' ' : c; });
  return state_->notifier.send({message.data(), static_cast<std::size_t>(end - message.data())});
}

bool worker::heartbeat() const noexcept {
  state_->scoreboard.beat();
  return state_->notifier.send("WATCHDOG=1", Notifier::Wait::kNotAtAll);
}

std::optional<worker::microseconds> worker::heartbeat_interval() const noexcept {
  return state_->heartbeat_interval;
}

bool worker::stopping() const noexcept {
  return state_->notifier.send("STOPPING=1");
}

bool worker::report_errno(int error) const noexcept {
  return state_->notifier.send(Message("ERRNO=", error));
}

bool worker::extend_timeout(microseconds time) const noexcept {
  if (time <= microseconds::zero()) {
    errno = EINVAL;
    return false;
  }
  return state_->notifier.send(Message("EXTEND_TIMEOUT_USEC=", time.count()));
}

int worker::channel_fd() const noexcept {
  if (!state_->watched.exchange(true)) state_->scoreboard.watch();
  return state_->events.fd();
}

channel_message worker::state::receive() noexcept {
  bool ended = false;
  const auto message = channel.receive(ended);
  if (ended) {
    // The kernel's signal tells of the manager's death.
    events.forget(channel);
    channel_ended = true;
  }
  if (message.what == channel_message::kind::may_accept) may_accept = true;
  if (message.what == channel_message::kind::drain) draining = true;
  return message;
}

descriptors::Room worker::state::room_for(std::size_t connections) noexcept {
  const auto room = descriptors::room_for(connections, scoreboard.connections(), listeners.size());
  if (room.connections < connections && !told_no_room.exchange(true)) {
    std::fprintf(stderr,
                 "serve %zu connections at a time: the limit of %llu open files allows %zu\n",
                 connections, descriptors::limit(), room.connections);
  }
  return room;
}

void worker::state::offer_room() noexcept {
  if (!draining && stop.requests() == 0) scoreboard.offer_room();
}

channel_message worker::receive() const noexcept {
  state_->scoreboard.tick();
  return state_->receive();
}

bool worker::dispatched() const noexcept {
  return state_->dispatched;
}

void worker::offer(std::uint32_t connections, std::uint32_t at_once) const noexcept {
  const auto room = static_cast<std::uint32_t>(state_->room_for(connections).connections);
  state_->scoreboard.describe(OSTLER_CLASS_OTHER, room, at_once);
}

bool worker::give_back(int fd, std::uint64_t listener) const noexcept {
  const auto deadline = std::chrono::steady_clock::now() + kGiveBackPatience;
  if (!state_->channel.hand_back({&fd, 1}, listener, deadline)) return false;
  ::close(fd);
  return true;
}

bool worker::may_accept() const noexcept {
  return state_->may_accept;
}

void worker::connection_opened() const noexcept {
  state_->scoreboard.connection_opened();
}

void worker::connection_closed() const noexcept {
  state_->scoreboard.connection_closed();
  state_->offer_room();
}

in_flight::in_flight(const worker& worker, std::string_view what, bool is_private) noexcept
    : in_flight(worker, what, {}, is_private) {}

in_flight::in_flight(const worker& worker, std::string_view method, std::string_view target,
                     bool is_private) noexcept
    : board_(worker.state_->scoreboard), is_private_(is_private) {
  board_.begin(*this, method, target);
}

int worker::stop_fd() const noexcept {
  return state_->stop.fd();
}

bool worker::stop_requested() const noexcept {
  return state_->stop.requests() > 0;
}

int worker::stop_requests() const noexcept {
  return state_->stop.requests();
}

}  // namespace ostler
