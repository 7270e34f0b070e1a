// The process's table of descriptors: how many connections find room in it.
#pragma once

#include <cstddef>

namespace ostler::descriptors {

// Raises the soft limit of open files to the hard one. False, with errno set, if it cannot.
bool raise_limit() noexcept;

struct Room {
  std::size_t connections = 0;  // that may be open; as many as were wanted, if there is room
  std::size_t over = 0;         // beyond these, connections that wait for the client to close
};

// The room that the soft limit leaves now for `wanted` connections, of which `open` are open
// already. Some descriptors stay free, for what the program opens while it serves, and for one
// connection that each of so many listeners may accept beyond the limit. At least 1 is left, if
// any are wanted.
Room room_for(std::size_t wanted, std::size_t open, std::size_t listeners) noexcept;

// The soft limit, for a message.
unsigned long long limit() noexcept;

}  // namespace ostler::descriptors
