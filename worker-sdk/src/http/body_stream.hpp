// How the body of a response is framed and sent, and the writer that blocks.
#pragma once

#include <cstddef>
#include <cstdint>

#include <array>
#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include <boost/asio/buffer.hpp>

#include "ostler/http.hpp"

namespace ostler::http {

// While a stream waits for a slow client, this often the wait is shown not to be the worker's.
inline constexpr std::chrono::milliseconds kWaitSlice{100};

// What is sent in one piece, in up to three parts, which stay their owners'.
class Parcel {
 public:
  explicit Parcel(std::string_view first, std::string_view second = {}, std::string_view third = {})
      : parts_{first, second, third} {}

  [[nodiscard]] bool empty() const {
    return parts_[0].empty() && parts_[1].empty() && parts_[2].empty();
  }
  // As much as there is room for in the socket, without waiting. True if that was all; else errno
  // says why, EAGAIN if there was no room.
  bool send_to(int socket);
  // What has not been sent.
  [[nodiscard]] std::array<boost::asio::const_buffer, 3> buffers() const;

  void consume(std::size_t size);

 private:
  std::array<std::string_view, 3> parts_;
};

// Counts the bytes of a body, and says what stands before and behind a piece of it.
class BodyFraming {
 public:
  enum class Kind { kChunked, kLength, kUntilClose };

  BodyFraming() = default;
  BodyFraming(Kind kind, std::optional<std::uint64_t> length) : kind_(kind), length_(length) {}

  struct Frame {
    std::array<char, 20> text{};
    std::size_t size = 0;
    [[nodiscard]] std::string_view before() const { return {text.data(), size}; }
    std::string_view behind;
  };
  // Throws std::logic_error if there are more bytes than were promised.
  Frame frame(std::string_view data);
  // What stands at the end. Throws std::logic_error if there are fewer.
  [[nodiscard]] std::string_view end() const;
  [[nodiscard]] Kind kind() const { return kind_; }
  [[nodiscard]] std::uint64_t length() const { return length_.value_or(0); }
  [[nodiscard]] std::uint64_t written() const { return written_; }

 private:
  Kind kind_ = Kind::kChunked;
  std::optional<std::uint64_t> length_;
  std::uint64_t written_ = 0;
};

// On a non-blocking socket that nobody else uses meanwhile. Waits for the client at most `patience`
// at a time. Throws boost::system::system_error.
class BlockingWriter : public body_writer {
 public:
  BlockingWriter(int socket, std::chrono::milliseconds patience, in_flight& mark,
                 BodyFraming framing)
      : socket_(socket), patience_(patience), mark_(mark), framing_(framing) {}

  void write(std::string_view data) override;
  void send(Parcel parcel);  // as it is
  void finish() { send(Parcel(framing_.end())); }
  [[nodiscard]] const BodyFraming& framing() const { return framing_; }
  // The client is gone, or takes nothing in.
  [[nodiscard]] bool failed() const { return failed_; }

 private:
  void wait_for_room();
  [[noreturn]] void fail(int error, const char* what);

  int socket_;
  std::chrono::milliseconds patience_;
  in_flight& mark_;
  BodyFraming framing_;
  bool failed_ = false;
};

}  // namespace ostler::http
