#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "runtime/descriptors.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/resource.h>

#include <array>
#include <cerrno>
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
    if (!one) break;
    all.push_back(std::move(one));
  }
  CHECK(errno == EMFILE);
  return all;
}

void limit_to(rlim_t hard) {
  const rlimit limit{hard, hard};
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

}  // namespace

TEST_CASE("what is received finds a number when nothing else does") {
  limit_to(2048);
  REQUIRE(SpareNumbers::set_aside() == 0);
  const std::vector<Sent> sent(3);
  const auto all = fill(sent.front().to.get());
  CHECK(all.size() > 1500);
  std::vector<Received> received;
  for (const Sent& one : sent) {
    received.push_back(one.take());
    CHECK_FALSE(received.back().truncated);
    CHECK(received.back().descriptors.size() == 1);
  }
  CHECK(::fcntl(sent.front().to.get(), F_DUPFD_CLOEXEC, 0) == -1);  // and still nothing else does
}

TEST_CASE("where there are few, all are for use") {
  limit_to(256);
  REQUIRE(SpareNumbers::set_aside() == 0);
  const Sent sent;
  const auto all = fill(sent.to.get());
  CHECK(all.size() > 200);
  CHECK(sent.take().truncated);
}
