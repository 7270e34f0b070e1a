#include "http/body_stream.hpp"

#include <poll.h>
#include <sys/socket.h>

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

// So often the wait for a slow client shows that the worker is alive.
constexpr milliseconds kSlice{100};
constexpr std::string_view kLineEnd = "\r\n";
constexpr std::string_view kLastChunk = "0\r\n\r\n";

}  // namespace

BodyFraming::Frame BodyFraming::frame(std::string_view data) {
  written_ += data.size();
  if (length_ && written_ > *length_) {
    throw std::logic_error("the stream wrote more than its stream_length, " +
                           std::to_string(*length_) + " bytes");
  }
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
  send(frame.before());
  send(data);
  send(frame.behind);
  mark_.progress();
}

void BlockingWriter::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket_, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) {
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    } else if (errno == EAGAIN) {
      wait_for_room();
    } else if (errno != EINTR) {
      fail(errno, "send the body to the client");
    }
  }
}

void BlockingWriter::fail(int error, const char* what) {
  failed_ = true;
  throw boost::system::system_error(error, boost::system::system_category(), what);
}

// What the client takes is not the worker's time: a slow one must not get it aborted.
void BlockingWriter::wait_for_room() {
  for (milliseconds left = patience_; left > left.zero(); left -= kSlice) {
    const auto slice = std::min(left, kSlice);
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
