#include "runtime/notify_socket.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <utility>

#include "config/src/text.hpp"
#include "core/limits.hpp"
#include "runtime/unique_fd.hpp"

namespace ostler::runtime {
namespace {

constexpr std::size_t kDatagram = 4096;
// The sender and as many descriptors as the kernel lets one message have.
constexpr std::size_t kControl = CMSG_SPACE(sizeof(ucred)) + CMSG_SPACE(253 * sizeof(int));
constexpr int kPerTurn = 256;
// More than the kernel lets wait on a socket (net.unix.max_dgram_qlen, 512 where systemd set it),
// but an end: a worker that sends without pause cannot keep the loop here.
constexpr int kPerDrain = 1024;
constexpr int kAncestors = 64;
constexpr int kHighestErrno = 4095;

// --- Text ----------------------------------------------------------------------------------------

template <class Number>
std::optional<Number> number(std::string_view text) {
  Number value = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  return error == std::errc{} && stop == end ? std::optional(value) : std::nullopt;
}

std::string escaped(unsigned code) {
  static constexpr std::string_view kHex = "0123456789abcdef";
  return {'\\', 'x', kHex[code >> 4U & 15U], kHex[code & 15U]};
}

// One character of valid UTF-8. U+0080 to U+009F can steer a terminal as the first 32 can.
std::string harmless(std::string_view character) {
  const auto first = static_cast<unsigned char>(character.front());
  if (first < 0x20 || first == 0x7F) return escaped(first);
  const auto last = static_cast<unsigned char>(character.back());
  return first == 0xC2 && last < 0xA0 ? escaped(last) : std::string(character);
}

std::size_t character_length(char first) {
  const auto byte = static_cast<unsigned char>(first);
  return byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
}

std::string harmless_text(std::string_view text) {
  std::string out;
  std::size_t valid = config::first_invalid_utf8(text).value_or(text.size());
  while (!text.empty()) {
    const std::size_t length = valid > 0 ? character_length(text.front()) : 1;
    const std::string piece = valid > 0 ? harmless(text.substr(0, length)) : "\uFFFD";
    if (out.size() + piece.size() > kStatusBytes) break;
    out += piece;
    text.remove_prefix(length);
    valid = valid > 0 ? valid - length : config::first_invalid_utf8(text).value_or(text.size());
  }
  return out;
}

void parse_line(std::string_view line, Notification& out) {
  const std::size_t equals = line.find('=');
  if (equals == std::string_view::npos) return;
  const std::string_view key = line.substr(0, equals);
  const std::string_view value = line.substr(equals + 1);
  if (key == "READY") out.ready = out.ready || value == "1";
  if (key == "STOPPING") out.stopping = out.stopping || value == "1";
  if (key == "BARRIER") out.barrier = out.barrier || value == "1";
  if (key == "WATCHDOG") {
    out.watchdog = out.watchdog || value == "1";
    out.trigger = out.trigger || value == "trigger";
  }
  if (key == "STATUS") out.status = harmless_text(value);
  if (key == "ERRNO") {
    const auto error = number<int>(value);
    if (error && *error >= 0 && *error <= kHighestErrno) out.error = error;
  }
  if (key == "EXTEND_TIMEOUT_USEC") {
    using std::chrono::microseconds;
    const auto most = std::chrono::duration_cast<microseconds>(core::limits::kExtension);
    if (const auto extend = number<std::uint64_t>(value)) {
      const auto capped = std::min(*extend, static_cast<std::uint64_t>(most.count()));
      out.extend = microseconds(static_cast<microseconds::rep>(capped));
    }
  }
}

// --- Messages ------------------------------------------------------------------------------------

// Pid of the sender as the kernel says, 0 if it does not, and descriptors that came along.
struct Ancillary {
  pid_t sender = 0;
  std::vector<UniqueFd> descriptors;
};

Ancillary read_ancillary(msghdr& message) {
  Ancillary result;
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET) continue;
    const std::size_t size = part->cmsg_len - CMSG_LEN(0);
    if (part->cmsg_type == SCM_CREDENTIALS && size == sizeof(ucred)) {
      ucred credentials{};
      std::memcpy(&credentials, CMSG_DATA(part), sizeof credentials);
      result.sender = credentials.pid;
    }
    if (part->cmsg_type == SCM_RIGHTS) {
      for (std::size_t at = 0; at + sizeof(int) <= size; at += sizeof(int)) {
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(part) + at, sizeof fd);
        result.descriptors.emplace_back(fd);
      }
    }
  }
  return result;
}

// --- Kinship -------------------------------------------------------------------------------------

struct Kin {
  pid_t parent = 0;
  pid_t session = 0;
};

// "4242 (any name) S PARENT GROUP SESSION …": the name may hold anything, brackets too.
Kin kin_of(pid_t pid) {
  Kin kin;
  const std::string path = "/proc/" + std::to_string(pid) + "/stat";
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 512> text{};
  const ssize_t size = file ? read(file.get(), text.data(), text.size()) : -1;
  if (size <= 0) return kin;
  std::string_view rest(text.data(), static_cast<std::size_t>(size));
  const std::size_t name_end = rest.rfind(')');
  if (name_end == std::string_view::npos) return kin;
  rest.remove_prefix(name_end + 1);
  std::array<pid_t, 4> fields{};  // state (no number), parent, group, session
  for (pid_t& field : fields) {
    rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
    const std::string_view word = rest.substr(0, rest.find(' '));
    field = number<pid_t>(word).value_or(0);
    rest.remove_prefix(word.size());
  }
  return {fields[1], fields[3]};
}

}  // namespace

Notification parse_notification(std::string_view datagram) {
  // Some send the terminating NUL of a C string along.
  while (datagram.ends_with('\0')) datagram.remove_suffix(1);
  Notification result;
  while (!datagram.empty()) {
    const std::string_view line = datagram.substr(0, datagram.find('\n'));
    parse_line(line, result);
    datagram.remove_prefix(std::min(datagram.size(), line.size() + 1));
  }
  return result;
}

core::WorkerId attribute_sender(pid_t sender,
                                const std::function<core::WorkerId(pid_t)>& worker_of) {
  const pid_t self = getpid();
  const pid_t session = kin_of(sender).session;
  pid_t pid = sender;
  for (int i = 0; i < kAncestors && pid > 1 && pid != self; ++i) {
    if (const core::WorkerId worker = worker_of(pid)) return worker;
    pid = kin_of(pid).parent;
  }
  return session > 1 && session != self ? worker_of(session) : core::WorkerId{};
}

NotifySocket::NotifySocket(boost::asio::io_context& context, Attribute attribute, Deliver deliver)
    : descriptor_(context),
      attribute_(std::move(attribute)),
      deliver_(std::move(deliver)),
      alive_(std::make_shared<NotifySocket*>(this)) {}

NotifySocket::~NotifySocket() = default;

int NotifySocket::open(const std::string& path) {
  UniqueFd fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  if (!fd || setsockopt(fd.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof on) != 0) return errno;
  SocketPath file;
  int error = file.bind(fd.get(), path);
  if (error == 0) error = file.set_owner_and_mode(file.made_by(), file.made_by_group(), 0666);
  if (error != 0) return error;
  boost::system::error_code failed;
  descriptor_.assign(fd.get(), failed);
  if (failed) return failed.value();
  static_cast<void>(fd.release());
  path_ = path;
  file_ = std::move(file);
  wait();
  return 0;
}

void NotifySocket::drain() {
  if (descriptor_.is_open()) receive(kPerDrain);
}

void NotifySocket::wait() {
  descriptor_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                         [alive = std::weak_ptr(alive_)](const boost::system::error_code& error) {
                           const auto self = alive.lock();
                           if (self && !error) (*self)->take_turn();
                         });
}

// A flood must leave others their turn.
void NotifySocket::take_turn() {
  if (!receive(kPerTurn)) return wait();
  boost::asio::post(descriptor_.get_executor(), [alive = std::weak_ptr(alive_)] {
    if (const auto self = alive.lock()) (*self)->take_turn();
  });
}

bool NotifySocket::receive(int most) {
  for (int i = 0; i < most; ++i) {
    if (!receive_one()) return false;
  }
  return true;
}

bool NotifySocket::receive_one() {
  std::array<char, kDatagram> text{};
  alignas(cmsghdr) std::array<char, kControl> control{};
  iovec data{text.data(), text.size()};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t size =
      recvmsg(descriptor_.native_handle(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (size < 0) return errno == EINTR;
  // A BARRIER's descriptor is closed at the end of this, after what came before it was handled.
  const Ancillary ancillary = read_ancillary(message);
  if (size == 0) return true;
  const bool whole = (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0;
  const core::WorkerId worker =
      whole && ancillary.sender > 0 ? attribute_(ancillary.sender) : core::WorkerId{};
  if (!worker) {
    ++rejected_;
    return true;
  }
  deliver_(worker, parse_notification({text.data(), static_cast<std::size_t>(size)}));
  return true;
}

}  // namespace ostler::runtime
