// A connection whose close(2) takes as long as its peer likes: SO_LINGER, and more to
// send than the peer takes.
#pragma once

#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <string>

#include "runtime/unique_fd.hpp"

namespace ostler::runtime {

struct Lingering {
  Lingering() : peer(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* const plain = reinterpret_cast<sockaddr*>(&address);
    REQUIRE(::bind(listener.get(), plain, size) == 0);
    REQUIRE(::listen(listener.get(), 8) == 0);
    REQUIRE(::getsockname(listener.get(), plain, &size) == 0);
    REQUIRE(::connect(peer.get(), plain, size) == 0);
    socket = UniqueFd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    const std::string unread(65536, 'x');
    while (::send(socket.get(), unread.data(), unread.size(), MSG_DONTWAIT) > 0) {
    }
    const linger while_unread{1, 60};
    REQUIRE(::setsockopt(socket.get(), SOL_SOCKET, SO_LINGER, &while_unread, sizeof while_unread) ==
            0);
  }

  UniqueFd peer;  // when it is closed, a close(2) of `socket` returns
  UniqueFd socket;
};

}  // namespace ostler::runtime
