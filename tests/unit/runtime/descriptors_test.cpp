#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "runtime/descriptors.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/resource.h>

#include <array>
#include <cstddef>
#include <vector>

#include "tests/unit/runtime/sockets.hpp"

using namespace ostler::runtime;

namespace {

// Two ends of a socket, and a message with a descriptor in the second.
struct Sent {
  Sent() {
    std::array<int, 2> ends{};
    REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) == 0);
    from = UniqueFd(ends[0]);
    to = UniqueFd(ends[1]);
    char text = 'x';
    iovec part{&text, 1};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    attach(message, to.get());
    REQUIRE(::sendmsg(from.get(), &message, 0) == 1);
  }
  [[nodiscard]] Received take() const {
    char text = 0;
    return receive(to.get(), &text, 1);
  }
  UniqueFd from;
  UniqueFd to;
};

// Opens until there are no more numbers.
std::vector<UniqueFd> fill(int any) {
  std::vector<UniqueFd> all;
  while (true) {
    UniqueFd one(::fcntl(any, F_DUPFD_CLOEXEC, 0));
    if (!one) return all;
    all.push_back(std::move(one));
  }
}

void limit_to(rlim_t hard) {
  const rlimit limit{hard, hard};
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

}  // namespace

// What is checked, and by whom, may need descriptors itself: it waits until there are some again.
TEST_CASE("what is received finds a number when nothing else does") {
  limit_to(2048);
  REQUIRE(SpareNumbers::set_aside() == 0);
  const std::vector<Sent> sent(3);
  std::vector<Received> received;
  received.reserve(sent.size());
  auto all = fill(sent.front().to.get());
  for (const Sent& one : sent) received.push_back(one.take());
  const int another = ::fcntl(sent.front().to.get(), F_DUPFD_CLOEXEC, 0);
  const std::size_t count = all.size();
  all.clear();
  CHECK(count > 1500);
  CHECK(another == -1);  // and still nothing else finds one
  for (const Received& one : received) {
    CHECK_FALSE(one.truncated);
    CHECK(one.descriptors.size() == 1);
  }
}

TEST_CASE("where there are few, all are for use") {
  limit_to(256);
  REQUIRE(SpareNumbers::set_aside() == 0);
  const Sent sent;
  auto all = fill(sent.to.get());
  const Received received = sent.take();
  const std::size_t count = all.size();
  all.clear();
  CHECK(count > 200);
  CHECK(received.truncated);
}
