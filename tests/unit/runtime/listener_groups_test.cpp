// Listeners with several sockets, and those that change from one way of sharing to another.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "config/src/address.hpp"
#include "runtime/listeners.hpp"
#include "runtime/selector.hpp"

using namespace ostler;
using core::WorkerId;
using runtime::Listeners;
using runtime::UniqueFd;

namespace {

constexpr WorkerId kFirst{1};
constexpr WorkerId kSecond{2};
constexpr WorkerId kThird{3};
constexpr WorkerId kFourth{4};

// Where a socket is bound.
struct Place {
  explicit Place(int fd) {
    REQUIRE(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  }
  [[nodiscard]] std::uint16_t port() const { return ntohs(address.sin6_port); }

  sockaddr_in6 address{};  // the port is at the same place in both families
  socklen_t size = sizeof address;
};

// One listener, and its clients.
class Fixture {
 public:
  explicit Fixture(const std::string& address = "tcp://127.0.0.1:0") {
    listener_.address = *config::parse_address(address).address;
    listener_.backlog = 16;
    key = Listeners::key("app", listener_);
    runtime::ListenError error;
    REQUIRE(listeners.open(key, listener_, error));
  }
  int claim(WorkerId worker, const std::set<WorkerId>& hopeless = {}) {
    runtime::ListenError error;
    return listeners.claim(key, worker, hopeless, error);
  }
  int share(WorkerId worker) {
    runtime::ListenError error;
    return listeners.share(key, worker, error);
  }
  bool spare() {
    runtime::ListenError error;
    return listeners.spare(key, error);
  }
  [[nodiscard]] std::size_t size() const { return listeners.members(key).size(); }
  [[nodiscard]] std::uint16_t port() const { return Place(listeners.fd(key)).port(); }
  void select(const std::vector<std::size_t>& selected) const {
    const auto program = runtime::selector_program(selected, {});
    REQUIRE(runtime::attach_selector(listeners.fd(key), program) == 0);
  }
  void connect(int count) {
    const Place place(listeners.fd(key));
    for (int i = 0; i < count; ++i) {
      clients.emplace_back(::socket(place.address.sin6_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
      REQUIRE(::connect(clients.back().get(), reinterpret_cast<const sockaddr*>(&place.address),
                        place.size) == 0);
    }
  }
  // Whether somebody else can listen at its address.
  UniqueFd join(bool reuseport, int& reason) const {
    const Place place(listeners.fd(key));
    UniqueFd fd(::socket(place.address.sin6_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int one = 1;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (reuseport) ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    const auto* const any = reinterpret_cast<const sockaddr*>(&place.address);
    reason = ::bind(fd.get(), any, place.size) == 0 && ::listen(fd.get(), 16) == 0 ? 0 : errno;
    return fd;
  }

  Listeners listeners;
  std::string key;
  std::vector<UniqueFd> clients;

 private:
  config::Listener listener_;
};

bool blocks(int fd) {
  return (static_cast<unsigned>(::fcntl(fd, F_GETFL)) & unsigned{O_NONBLOCK}) == 0;
}

}  // namespace

TEST_CASE("those who share have one socket; others have their own, at the same address") {
  Fixture with;
  const int shared = with.share(kFirst);
  CHECK(with.share(kSecond) == shared);
  const int own = with.claim(kThird);
  CHECK(own != shared);
  CHECK(Place(own).port() == with.port());
  CHECK(with.size() == 2);
  CHECK(with.listeners.fd(with.key, kSecond) == shared);
  CHECK(with.listeners.fd(with.key, kThird) == own);
  CHECK((static_cast<unsigned>(::fcntl(own, F_GETFD)) & unsigned{FD_CLOEXEC}) != 0);
}

TEST_CASE("a shared socket is nobody's own before the last who shared it is gone") {
  Fixture with;
  const int shared = with.share(kFirst);
  with.share(kSecond);
  with.listeners.release(kFirst);
  CHECK(with.claim(kThird) != shared);
  with.listeners.release(kSecond);
  CHECK(with.claim(kFourth) == shared);
  CHECK(with.size() == 2);
}

TEST_CASE("those who are to share get the fullest socket that nobody has") {
  Fixture with;
  with.claim(kFirst);
  with.claim(kSecond);
  const int fullest = with.claim(kThird);
  with.select({2});
  with.connect(2);
  with.listeners.release(kSecond);
  with.listeners.release(kThird);
  CHECK(with.share(WorkerId{4}) == fullest);
  CHECK(with.share(WorkerId{5}) == fullest);
  CHECK(with.size() == 3);
}

TEST_CASE("the socket of one who never accepts again has two owners until he is gone") {
  Fixture with;
  const int socket = with.claim(kFirst);
  CHECK(with.claim(kSecond, {kFirst}) == socket);
  CHECK(with.listeners.members(with.key)[0].owners == std::set{kFirst, kSecond});
  const int another = with.claim(kThird, {kFirst});  // the second may accept
  CHECK(another != socket);
  with.listeners.release(kFirst);
  CHECK(with.listeners.fd(with.key, kSecond) == socket);
  with.listeners.release(kSecond);
  CHECK(with.claim(kFourth) == socket);
}

TEST_CASE("of spare sockets there is one") {
  Fixture with;
  REQUIRE(with.spare());
  CHECK(with.size() == 1);  // that it was opened with
  with.claim(kFirst);
  REQUIRE(with.spare());
  REQUIRE(with.spare());
  CHECK(with.size() == 2);
  with.claim(kSecond);
  CHECK(with.size() == 2);
}

TEST_CASE("what no worker has is the manager's to accept from, and does not block it") {
  Fixture with;
  const int first = with.claim(kFirst);
  REQUIRE(with.spare());
  const std::vector<Listeners::Own> own = with.listeners.own(with.key);
  REQUIRE(own.size() == 1);
  const int second = own.front().fd;
  CHECK(second != first);
  CHECK_FALSE(own.front().lent);
  CHECK_FALSE(blocks(second));
  CHECK(blocks(first));
  CHECK(with.claim(kSecond) == second);
  CHECK(blocks(second));  // as systemd would hand it over
  CHECK(with.listeners.own(with.key).empty());
  with.listeners.release(kFirst);
  CHECK(with.listeners.own(with.key) == std::vector{Listeners::Own{first, true}});
  CHECK(with.share(kThird) == first);
  CHECK(blocks(first));
  CHECK(with.listeners.own("tcp://127.0.0.1:1").empty());
}

TEST_CASE("whichever way it is shared, the address stays, and so does what waits") {
  Fixture with;
  const std::uint16_t port = with.port();
  const int shared = with.share(kFirst);
  with.connect(1);
  with.claim(kSecond);
  with.claim(kThird);
  CHECK(with.port() == port);
  CHECK(runtime::waiting_on(shared) == 1);
  with.listeners.release(kSecond);
  with.listeners.drop(with.key, 1);
  with.listeners.release(kThird);
  with.listeners.drop(with.key, 1);
  CHECK(with.size() == 1);
  with.listeners.release(kFirst);
  CHECK(with.listeners.own(with.key) == std::vector{Listeners::Own{shared, true}});
  with.connect(1);  // the selector that was there is no hindrance
  for (int i = 0; i < 2; ++i) {
    const UniqueFd accepted(::accept4(shared, nullptr, nullptr, SOCK_CLOEXEC));
    CHECK(accepted);
  }
  CHECK(with.port() == port);
}

TEST_CASE("nothing comes to a socket that was dropped, though somebody has it still") {
  Fixture with;
  with.claim(kFirst);
  const UniqueFd left(::fcntl(with.claim(kSecond), F_DUPFD_CLOEXEC, 0));
  with.select({0, 1});
  with.listeners.drop(with.key, 1);
  with.connect(12);
  CHECK(runtime::waiting_on(with.listeners.fd(with.key)) == 12);
}

TEST_CASE("that a descriptor is going to be closed is told before it is") {
  Fixture with;
  std::vector<int> told;
  with.listeners.on_closing([&](int fd) {
    CHECK(::fcntl(fd, F_GETFD) >= 0);
    told.push_back(fd);
  });
  const int first = with.claim(kFirst);
  const int second = with.claim(kSecond);
  const int third = with.claim(kThird);
  with.listeners.drop(with.key, 1);
  CHECK(told == std::vector{second});
  with.listeners.close(with.key);
  CHECK(told == std::vector{second, first, third});
  CHECK(with.listeners.members(with.key).empty());
}

TEST_CASE("a listener's figures are those of all its sockets") {
  Fixture with;
  with.claim(kFirst);
  with.claim(kSecond);
  with.select({0});
  with.connect(2);
  with.select({1});
  with.connect(3);
  const auto figures = with.listeners.figures(with.key);
  CHECK(figures.backlog == 5);
  CHECK(figures.backlog_limit == 32);
}

TEST_CASE("nobody else can listen at an address before there is a group") {
  const Fixture with;
  int reason = 0;
  for (const bool reuseport : {false, true}) {
    const UniqueFd other = with.join(reuseport, reason);
    CHECK(reason == EADDRINUSE);
  }
}

// One of the same user can join, and while the group's sockets stay he gets nothing. When one is
// added or dropped, the kernel's indices are no longer those that the manager counts.
TEST_CASE("whoever joins a group is not chosen, and without SO_REUSEPORT he cannot join") {
  Fixture with;
  with.claim(kFirst);
  with.claim(kSecond);
  int reason = 0;
  const UniqueFd refused = with.join(false, reason);
  CHECK(reason == EADDRINUSE);
  const UniqueFd other = with.join(true, reason);
  REQUIRE(reason == 0);
  with.connect(10);
  with.select({0, 1});
  with.connect(10);
  CHECK(runtime::waiting_on(other.get()) == 0);
}

TEST_CASE("sockets for any address take clients of both families") {
  Fixture with("tcp://*:0");
  with.claim(kFirst);
  with.claim(kSecond);
  with.select({1});
  with.connect(1);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(with.port());
  const UniqueFd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  CHECK(::connect(client.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  CHECK(runtime::waiting_on(with.listeners.fd(with.key, kSecond)) == 2);
}
