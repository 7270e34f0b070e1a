#include "http/body_stream.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <stdexcept>

#include <boost/asio/error.hpp>
#include <boost/system/system_error.hpp>

namespace ostler::http {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr std::string_view kLineEnd = "\r\n";
constexpr std::string_view kLastChunk = "0\r\n\r\n";

}  // namespace

bool Parcel::send_to(int socket) {
  while (!empty()) {
    std::array<iovec, 3> parts{};
    for (std::size_t i = 0; i < parts.size(); ++i) {
      // It is only read.
      parts[i] = {.iov_base = const_cast<char*>(parts_[i].data()), .iov_len = parts_[i].size()};
    }
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = parts.size();
    const ssize_t sent = ::sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) {
      consume(static_cast<std::size_t>(sent));
    } else if (errno != EINTR) {
      return false;
    }
  }
  return true;
}

void Parcel::consume(std::size_t size) {
  for (auto& part : parts_) {
    const std::size_t taken = std::min(size, part.size());
    part.remove_prefix(taken);
    size -= taken;
  }
}

std::array<boost::asio::const_buffer, 3> Parcel::buffers() const {
  const auto buffer = [](std::string_view part) {
    return boost::asio::const_buffer(part.data(), part.size());
  };
  return {buffer(parts_[0]), buffer(parts_[1]), buffer(parts_[2])};
}

BodyFraming::Frame BodyFraming::frame(std::string_view data) {
  if (length_ && data.size() > *length_ - written_) {
    throw std::logic_error("the stream wrote more than its stream_length, " +
                           std::to_string(*length_) + " bytes");
  }
  written_ += data.size();
  Frame frame;
  if (kind_ != Kind::kChunked) return frame;
  char* const begin = frame.text.data();
  char* end = std::to_chars(begin, begin + frame.text.size(), data.size(), 16).ptr;
  end += kLineEnd.copy(end, kLineEnd.size());
  frame.size = static_cast<std::size_t>(end - begin);
  frame.behind = kLineEnd;
  return frame;
}

std::string_view BodyFraming::end() const {
  if (length_ && written_ < *length_) {
    throw std::logic_error("the stream wrote " + std::to_string(written_) +
                           " bytes of its stream_length, " + std::to_string(*length_));
  }
  return kind_ == Kind::kChunked ? kLastChunk : std::string_view();
}

void BlockingWriter::write(std::string_view data) {
  if (data.empty()) return;
  const auto frame = framing_.frame(data);
  send(Parcel(frame.before(), data, frame.behind));
  mark_.progress();
}

void BlockingWriter::send(Parcel parcel) {
  if (failed_) fail(EPIPE, "send more after that has failed");
  while (!parcel.send_to(socket_)) {
    if (errno != EAGAIN) fail(errno, "send the body to the client");
    wait_for_room();
  }
}

void BlockingWriter::fail(int error, const char* what) {
  failed_ = true;
  throw boost::system::system_error(error, boost::system::system_category(), what);
}

// What the client takes is not the worker's time: a slow one must not get it aborted.
void BlockingWriter::wait_for_room() {
  for (milliseconds left = patience_; left > milliseconds::zero(); left -= kWaitSlice) {
    const auto slice = std::min(left, kWaitSlice);
    pollfd room{socket_, POLLOUT, 0};
    const auto begin = Clock::now();
    const int ready = ::poll(&room, 1, static_cast<int>(slice.count()));
    mark_.discount(Clock::now() - begin);
    mark_.progress();
    if (ready > 0) return;
    if (ready < 0 && errno != EINTR) fail(errno, "wait for the client to take the body in");
  }
  fail(ETIMEDOUT, "wait for the client to take the body in");
}

}  // namespace ostler::http
