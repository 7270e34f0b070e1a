// Listeners that turn new connections away, and are closed or come back.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "config/src/address.hpp"
#include "runtime/backlog.hpp"
#include "runtime/listeners.hpp"
#include "runtime/socket_name.hpp"

using namespace ostler;
using core::WorkerId;
using runtime::Listeners;
using runtime::UniqueFd;

namespace {

constexpr WorkerId kFirst{1};
constexpr WorkerId kSecond{2};

// A client of the address that a socket has; errno in `error`, 0 if it is connected.
UniqueFd client_of(const runtime::SocketName& name, int& error) {
  UniqueFd fd(::socket(name.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  error = ::connect(fd.get(), name.any(), name.size) == 0 ? 0 : errno;
  return fd;
}

struct Fixture {
  explicit Fixture(const std::string& address) {
    listener.address = *config::parse_address(address).address;
    key = Listeners::key("app", listener);
    runtime::ListenError error;
    REQUIRE(listeners.open(key, listener, error));
    name = *runtime::name_of(listeners.fd(key));
  }
  int share(WorkerId worker) {
    runtime::ListenError error;
    return listeners.share(key, worker, error);
  }
  // errno of an attempt to connect; a client that is connected stays.
  int connect() {
    int error = 0;
    clients.push_back(client_of(name, error));
    return error;
  }
  config::Listener listener;
  std::string key;
  runtime::SocketName name;
  Listeners listeners;
  std::vector<UniqueFd> clients;
};

std::string scratch_path() {
  return (std::filesystem::temp_directory_path() / ("ostler-away-" + std::to_string(getpid())))
      .string();
}

}  // namespace

TEST_CASE("a tcp listener turns new connections away and keeps those that wait") {
  Fixture with("tcp://127.0.0.1:0");
  const int fd = with.share(kFirst);
  CHECK(with.connect() == 0);
  with.listeners.turn_away(with.key);
  CHECK(with.listeners.turned_away(with.key));
  CHECK(with.connect() == ECONNREFUSED);
  CHECK(runtime::waiting_on(fd) == 1);
  const UniqueFd accepted(::accept4(fd, nullptr, nullptr, SOCK_CLOEXEC));
  REQUIRE(accepted);
  CHECK(::send(accepted.get(), "x", 1, 0) == 1);
  char byte = 0;
  CHECK(::recv(with.clients.front().get(), &byte, 1, 0) == 1);
}

TEST_CASE("whoever gets a listener that turns away makes an end of that") {
  Fixture with("tcp://127.0.0.1:0");
  const int old = with.share(kFirst);
  CHECK(with.connect() == 0);
  with.listeners.turn_away(with.key);
  const int fd = with.share(kSecond);
  REQUIRE(fd >= 0);
  CHECK(!with.listeners.turned_away(with.key));
  CHECK(with.connect() == 0);
  CHECK(runtime::waiting_on(old) >= 1);  // its own socket, or another at the same address
  with.listeners.release(kSecond);
}

TEST_CASE("a unix listener that turns away is not found at its path, and comes back to it") {
  Fixture with("unix://" + scratch_path());
  const int old = with.share(kFirst);
  CHECK(with.connect() == 0);
  with.listeners.turn_away(with.key);
  CHECK(with.connect() == ENOENT);
  CHECK(runtime::queue_of(old).waiting == 1);
  const int fd = with.share(kSecond);
  REQUIRE(fd >= 0);
  CHECK(fd != old);
  CHECK(with.connect() == 0);
  CHECK(runtime::queue_of(fd).waiting == 1);
  CHECK(with.listeners.close_former(false).empty());
  with.listeners.release(kFirst);
  const auto cut = with.listeners.close_former(false);
  REQUIRE(cut.size() == 1);
  CHECK(cut.front().connections == 1);
}

TEST_CASE("an abstract listener is found until it is closed") {
  Fixture with("unix:@ostler-away-" + std::to_string(getpid()));
  with.listeners.turn_away(with.key);
  CHECK(with.connect() == 0);
  with.listeners.close(with.key);
  CHECK(with.listeners.close_former(false).size() == 1);
  CHECK(with.connect() == ECONNREFUSED);
}

TEST_CASE("what waits on a closed listener is counted when the last worker has let go of it") {
  Fixture with("tcp://127.0.0.1:0");
  with.share(kFirst);
  with.share(kSecond);
  CHECK(with.connect() == 0);
  CHECK(with.connect() == 0);
  with.listeners.close(with.key);
  CHECK(with.connect() == ECONNREFUSED);
  with.listeners.release(kFirst);
  CHECK(with.listeners.close_former(false).empty());
  with.listeners.release(kSecond);
  const auto cut = with.listeners.close_former(false);
  REQUIRE(cut.size() == 1);
  CHECK(cut.front().connections == 2);
  CHECK(cut.front().address.starts_with("tcp://127.0.0.1:"));
  CHECK(with.listeners.close_former(true).empty());
}

TEST_CASE("an address that workers of a closed listener still have can be opened again") {
  Fixture with("tcp://127.0.0.1:0");
  with.share(kFirst);
  const auto port = runtime::port_of(with.name);
  with.listeners.close(with.key);
  auto again = with.listener;
  again.address.port = port;
  runtime::ListenError error;
  CHECK(with.listeners.open("again", again, error));
  CHECK(with.connect() == 0);
  CHECK(runtime::waiting_on(with.listeners.fd("again")) == 1);
}

TEST_CASE("a wider address takes over from a narrower one when that turns away") {
  Fixture with("tcp://127.0.0.1:0");
  auto wider = with.listener;
  wider.address.host = "0.0.0.0";
  wider.address.port = runtime::port_of(with.name);
  const std::string key = Listeners::key("app", wider);
  runtime::ListenError error;
  REQUIRE(with.listeners.open(key, wider, error));
  CHECK(with.connect() == 0);
  CHECK(runtime::waiting_on(with.listeners.fd(with.key)) == 1);
  with.listeners.turn_away(with.key);
  CHECK(with.connect() == 0);
  CHECK(runtime::waiting_on(with.listeners.fd(key)) == 1);
}

TEST_CASE("a narrower address gets connections when a worker is ready for it, or at once") {
  Fixture with("tcp://0.0.0.0:0");
  auto narrower = with.listener;
  narrower.address.host = "127.0.0.1";
  narrower.address.port = runtime::port_of(with.name);
  const std::string key = Listeners::key("app", narrower);
  runtime::ListenError error;
  REQUIRE(with.listeners.open(key, narrower, error));
  const auto name = *runtime::name_of(with.listeners.fd(key));
  int failure = 0;
  const UniqueFd before = client_of(name, failure);
  CHECK(failure == 0);
  const auto early = runtime::waiting_on(with.listeners.fd(key));
  const bool privileged = early == 0;  // CAP_NET_RAW: it could be hidden meanwhile
  CHECK(runtime::waiting_on(with.listeners.fd(with.key)) == (privileged ? 1 : 0));
  with.listeners.show(key);
  const UniqueFd after = client_of(name, failure);
  CHECK(failure == 0);
  CHECK(runtime::waiting_on(with.listeners.fd(key)) == early + 1);
}

TEST_CASE("an address that somebody else has is still refused") {
  Fixture with("tcp://127.0.0.1:0");
  Listeners others;
  auto same = with.listener;
  same.address.port = runtime::port_of(with.name);
  runtime::ListenError error;
  CHECK(!others.open("same", same, error));
  CHECK(error.error == EADDRINUSE);
}
