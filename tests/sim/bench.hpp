// How many events a second the core decides upon, without the judge.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ostler::sim {

// Records the life of busy pools once, then replays it and prints events per second. Returns an
// exit status.
int bench(std::uint64_t seed, std::size_t events);

}  // namespace ostler::sim
