#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "runtime/selector.hpp"

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstddef>
#include <string>
#include <vector>

#include "config/src/address.hpp"
#include "runtime/limits.hpp"
#include "runtime/listeners.hpp"

using namespace ostler;
using runtime::attach_selector;
using runtime::Listeners;
using runtime::selector_program;
using runtime::UniqueFd;

namespace {

// Several sockets at one address, as the manager opens them.
class Group {
 public:
  Group(const std::string& address, std::size_t count) {
    listener_.address = *config::parse_address(address).address;
    key_ = Listeners::key("app", listener_);
    runtime::ListenError error;
    REQUIRE(listeners_.open(key_, listener_, error));
    for (std::size_t i = 1; i <= count; ++i) {
      REQUIRE(listeners_.claim(key_, core::WorkerId{i}, {}, error) >= 0);
    }
    size_ = sizeof address_;
    REQUIRE(getsockname(fd(0), reinterpret_cast<sockaddr*>(&address_), &size_) == 0);
  }

  [[nodiscard]] int fd(std::size_t index) const { return listeners_.members(key_)[index].fd.get(); }
  void select(const std::vector<std::size_t>& selected,
              const std::optional<runtime::SteeredProbe>& probe = {}) const {
    REQUIRE(attach_selector(fd(0), selector_program(selected, probe)) == 0);
  }
  // One connection, from a port of its own; `about_to`, told of the port, is called before it.
  template <class AboutTo>
  void connect(AboutTo about_to) {
    UniqueFd client(::socket(address_.ss_family, SOCK_STREAM, 0));
    sockaddr_storage from = address_;
    reinterpret_cast<sockaddr_in6*>(&from)->sin6_port = 0;
    socklen_t size = size_;
    REQUIRE(bind(client.get(), reinterpret_cast<sockaddr*>(&from), size_) == 0);
    REQUIRE(getsockname(client.get(), reinterpret_cast<sockaddr*>(&from), &size) == 0);
    about_to(ntohs(reinterpret_cast<sockaddr_in6*>(&from)->sin6_port));
    REQUIRE(::connect(client.get(), reinterpret_cast<sockaddr*>(&address_), size_) == 0);
    clients_.push_back(std::move(client));
  }
  void connect(int count) {
    for (int i = 0; i < count; ++i) connect([](std::uint16_t) {});
  }
  // How many wait on each.
  [[nodiscard]] std::vector<std::int64_t> waiting() const {
    std::vector<std::int64_t> counts;
    for (const auto& member : listeners_.members(key_)) {
      counts.push_back(runtime::waiting_on(member.fd.get()));
    }
    return counts;
  }
  Listeners& listeners() { return listeners_; }
  [[nodiscard]] const std::string& key() const { return key_; }

 private:
  Listeners listeners_;
  config::Listener listener_;
  std::string key_;
  sockaddr_storage address_{};
  socklen_t size_ = 0;
  std::vector<UniqueFd> clients_;
};

const std::vector<std::string> kAddresses{"tcp://127.0.0.1:0", "tcp://[::1]:0"};

}  // namespace

TEST_CASE("connections go to the selected sockets alone, and to all of them") {
  for (const std::string& address : kAddresses) {
    CAPTURE(address);
    Group group(address, 6);
    group.select({0, 2, 3, 5});
    group.connect(200);
    const auto waiting = group.waiting();
    CHECK(waiting[1] == 0);
    CHECK(waiting[4] == 0);
    for (const std::size_t index : {0U, 2U, 3U, 5U}) CHECK(waiting[index] > 20);  // of 50
  }
}

TEST_CASE("a probe reaches the socket that it is for, selected or not") {
  for (const std::string& address : kAddresses) {
    CAPTURE(address);
    Group group(address, 4);
    for (std::size_t index = 0; index < 4; ++index) {
      group.connect([&](std::uint16_t port) {
        group.select({1}, runtime::SteeredProbe{port, index});
      });
    }
    CHECK(group.waiting() == std::vector<std::int64_t>{1, 1, 1, 1});
    group.connect(10);  // from other ports
    CHECK(group.waiting() == std::vector<std::int64_t>{1, 11, 1, 1});
  }
}

TEST_CASE("of more runs than a program can tell apart some are left out, and it is still valid") {
  std::vector<std::size_t> selected;
  for (std::size_t i = 0; i < 20'000; i += 2) selected.push_back(i);
  const auto program = selector_program(selected, {});
  CHECK(program.size() <= 3 * runtime::limits::kSelectorRuns + 2);
  const Group group("tcp://127.0.0.1:0", 2);
  CHECK(attach_selector(group.fd(0), program) == 0);
}

TEST_CASE("also of too many runs none but selected sockets are chosen") {
  constexpr std::size_t kSockets = 2 * runtime::limits::kSelectorRuns + 20;
  Group group("tcp://127.0.0.1:0", kSockets);
  std::vector<std::size_t> selected;
  for (std::size_t i = 1; i < kSockets; i += 2) selected.push_back(i);
  group.select(selected);
  group.connect(100);
  const auto waiting = group.waiting();
  std::int64_t sum = 0;
  for (const std::size_t index : selected) sum += waiting[index];
  CHECK(sum == 100);
}

TEST_CASE("the last socket takes the index of one that is dropped") {
  Group group("tcp://127.0.0.1:0", 4);
  const int last = group.fd(3);
  group.listeners().drop(group.key(), 1);
  CHECK(group.fd(1) == last);
  group.select({1});
  group.connect(5);
  CHECK(group.waiting() == std::vector<std::int64_t>{0, 5, 0});
}

TEST_CASE("a socket whose worker is gone goes to the next, the fullest one first") {
  Group group("tcp://127.0.0.1:0", 3);
  group.select({2});
  group.connect(3);
  const int fullest = group.fd(2);
  group.listeners().release(core::WorkerId{1});
  group.listeners().release(core::WorkerId{3});
  runtime::ListenError error;
  CHECK(group.listeners().claim(group.key(), core::WorkerId{4}, {}, error) == fullest);
  CHECK(group.listeners().claim(group.key(), core::WorkerId{5}, {}, error) == group.fd(0));
  // Nobody's is left; but one whose worker will not accept again is as good.
  CHECK(group.listeners().claim(group.key(), core::WorkerId{6}, {core::WorkerId{2}}, error) ==
        group.fd(1));
  CHECK(group.waiting().size() == 3);
  const int another = group.listeners().claim(group.key(), core::WorkerId{7}, {}, error);
  CHECK(another == group.fd(3));
}
