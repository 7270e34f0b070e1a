// Every bound of ostlerctl in one place.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace ostler::ctl::limits {

// How long the manager may take to take a connection, or to answer what needs no waiting.
inline constexpr std::chrono::milliseconds kPatience = std::chrono::seconds(10);
// While the manager stops: how often to look whether it is still there.
inline constexpr std::chrono::milliseconds kLookAgain{100};
// A status with 10000 workers in each of several pools fits.
inline constexpr std::size_t kBody = std::size_t{64} << 20;
inline constexpr std::uint32_t kHeader = 16 << 10;
// One event, with the last lines of a worker's output.
inline constexpr std::size_t kLine = std::size_t{1} << 20;
// After an answer, events that came before it are still told, but no endless stream of them.
inline constexpr int kLastTurns = 100000;

}  // namespace ostler::ctl::limits
