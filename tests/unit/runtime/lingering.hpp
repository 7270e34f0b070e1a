// A connection whose close(2) takes as long as its peer likes: SO_LINGER, and more to
// send than the peer takes.
#pragma once

#include <doctest/doctest.h>
#include <sys/socket.h>

#include <cstdint>
#include <string>

#include "runtime/unique_fd.hpp"
#include "tests/unit/runtime/sockets.hpp"

namespace ostler::runtime {

struct Lingering {
  Lingering() {
    std::uint16_t port = 0;
    const UniqueFd listener = listen_on_loopback(port);
    peer = connect_to_loopback(port);
    socket = accept_from(listener);
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
