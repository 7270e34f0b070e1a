#include "ostler/worker.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <limits>
#include <stdexcept>

#include "environment.hpp"
#include "notifier.hpp"
#include "stop_signals.hpp"

namespace ostler {

struct worker::state {
  // Before anything is opened: it would take the number of a descriptor that was promised and is
  // not there, and pass for it.
  std::vector<listener> listeners = environment::take_listeners();
  // Then at once, because until then a stop signal ends the process.
  StopSignals stop;
  Notifier notifier{environment::text("NOTIFY_SOCKET"), kNotifyPatience};
  std::optional<microseconds> heartbeat_interval = environment::heartbeat_interval();
  std::optional<std::string> pool = environment::text("OSTLER_POOL");
  std::optional<std::uint64_t> slot =
      environment::number("OSTLER_SLOT", std::numeric_limits<std::uint32_t>::max());
  std::optional<std::uint64_t> generation = environment::number("OSTLER_GENERATION");

  explicit state(std::initializer_list<int> stop_signals) : stop(stop_signals) {}
};

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

}  // namespace

worker::worker(std::initializer_list<int> stop_signals)
    : state_(std::make_unique<state>(stop_signals)) {}

worker::~worker() = default;

bool worker::managed() const noexcept {
  return state_->notifier.connected();
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
