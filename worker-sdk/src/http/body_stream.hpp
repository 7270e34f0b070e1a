// How the body of a response that is made while it is sent is framed, and the writer that blocks.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "ostler/http.hpp"

namespace ostler::http {

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
  void send(std::string_view bytes);  // as they are
  void finish() { send(framing_.end()); }
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
