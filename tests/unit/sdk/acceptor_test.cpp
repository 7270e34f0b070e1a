// The acceptors alone: nothing is lost when they stop, and they accept no more than there is room.
#include "acceptor.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "example.hpp"
#include "process.hpp"

namespace ostler::test {
namespace {

void set_blocking(const Listener& listener, bool blocking) {
  checked(::fcntl(listener.fd(), F_SETFL, blocking ? 0 : O_NONBLOCK), "set the listener's flags");
}

// How many connections wait to be accepted; accepts them.
int accept_rest(const Listener& listener) {
  set_blocking(listener, false);
  int count = 0;
  for (int fd = -1; (fd = ::accept(listener.fd(), nullptr, nullptr)) >= 0; ++count) ::close(fd);
  return count;
}

constexpr int kRounds = 60;
constexpr int kClients = 8;
constexpr std::chrono::milliseconds kMoment{50};

// Stops an acceptor when so many clients have connected, others follow, and all are accounted for.
std::string stop_after(int before, Listener::Family family, bool blocking) {
  const Listener listener(family);
  set_blocking(listener, blocking);
  Gate gate(1000);
  std::atomic<int> accepted{0};
  std::vector<Fd> clients;
  {
    const Acceptor acceptor(gate, listener.fd(), [&](const Acceptor::Arrival& arrival) {
      ::close(arrival.fd);
      ++accepted;
    });
    for (int i = 0; i < before; ++i) clients.push_back(listener.connect());
  }
  const int taken = accepted;
  for (int i = 0; i < kClients; ++i) clients.push_back(listener.connect());
  const int rest = accept_rest(listener);
  if (taken + rest == static_cast<int>(clients.size()) && accepted == taken) return "";
  return std::to_string(clients.size()) + " clients, accepted " + std::to_string(taken) +
         ", then " + std::to_string(accepted) + ", left " + std::to_string(rest);
}

}  // namespace

TEST_CASE("an acceptor that stops loses no connection, whenever it is stopped") {
  for (const auto family : {Listener::Family::kTcp, Listener::Family::kUnix}) {
    for (const bool blocking : {true, false}) {
      CAPTURE(blocking);
      CHECK(in_child({}, {}, [=] {
              for (int round = 0; round < kRounds; ++round) {
                const std::string fault = stop_after(round % kClients, family, blocking);
                if (!fault.empty()) return fault;
              }
              return std::string("none is lost");
            }) == "none is lost");
    }
  }
}

TEST_CASE("an acceptor stops at once, full or starved or blocked") {
  CHECK(in_child({}, {}, [] {
          const Listener listener;
          for (const bool blocking : {true, false}) {
            set_blocking(listener, blocking);
            for (const long room : {0L, 1L}) {
              Gate gate(room);
              const Acceptor acceptor(gate, listener.fd(), [](const Acceptor::Arrival&) {});
            }
          }
          return std::string("stopped");
        }) == "stopped");
}

TEST_CASE("an acceptor takes no more than there is room for") {
  CHECK(in_child({}, {}, [] {
          const Listener listener;
          set_blocking(listener, true);
          Gate gate(2);
          Reports reports;
          const Acceptor acceptor(gate, listener.fd(), [&](const Acceptor::Arrival& arrival) {
            ::close(arrival.fd);
            reports.say("accepted");
          });
          std::vector<Fd> clients;
          for (int i = 0; i < 4; ++i) clients.push_back(listener.connect());
          std::string said = reports.next();
          said += " ";
          said += reports.next();
          if (reports.silent_for(kMoment)) said += " full";
          gate.give();
          said += " ";
          said += reports.next();
          if (reports.silent_for(kMoment)) said += " full";
          return said;
        }) == "accepted accepted full accepted full");
}

TEST_CASE("the program's own handler for SIGURG is left alone") {
  CHECK(in_child({}, {}, [] {
          static std::atomic<int> caught{0};
          struct sigaction action {};
          action.sa_handler = [](int) { ++caught; };
          action.sa_flags = SA_RESTART;
          ::sigaction(SIGURG, &action, nullptr);
          const Listener listener;
          set_blocking(listener, true);
          Gate gate(1);
          {
            const Acceptor acceptor(gate, listener.fd(), [](const Acceptor::Arrival&) {});
          }
          ::raise(SIGURG);
          return "caught " + std::to_string(caught);
        }) == "caught 1");
}

TEST_CASE("what is no listening stream socket is refused") {
  Gate gate(1);
  const Fd datagram(checked(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "make a socket"));
  CHECK_THROWS_AS(Acceptor(gate, datagram.get(), [](const Acceptor::Arrival&) {}),
                  std::system_error);
}

}  // namespace ostler::test
