// Every bound of the core in one place.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

#include "core/ids.hpp"

namespace ostler::core::limits {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

// Spawns asked for in one step; the rest follow in the next, so that a pool of thousands does not
// keep the loop from its other duties: a spawn takes about 0.1 ms, and the queue of the notify
// socket, which those who have started fill meanwhile, is short.
inline constexpr std::size_t kSpawnsPerStep = 16;
// Passes over the touched pools in one step.
inline constexpr int kRounds = 8;
// Requests that wait for an answer, and those who wait for the next reload.
inline constexpr std::size_t kOperations = 256;
inline constexpr std::size_t kReloadAskers = 64;
// What one EXTEND_TIMEOUT_USEC may add.
inline constexpr Duration kExtension = hours(1);
// From SIGABRT to SIGKILL.
inline constexpr Duration kAbort = seconds(1);
// A process that SIGKILL does not end sits in the kernel; it is asked again this often.
inline constexpr Duration kKillAgain = seconds(10);
// A step that comes this much later than promised means that the manager itself stood still.
inline constexpr Duration kLate = seconds(1);
// What every deadline gets on top of the time lost: the first moments after are for reading what
// workers said meanwhile.
inline constexpr Duration kGrace = seconds(5);
// Times the manager stood still that are remembered, for the sake of work that began before.
inline constexpr std::size_t kStalls = 8;
// Tries each pool gets at first start before the manager gives up (exit code 4).
inline constexpr int kFirstStartTries = 5;
// A worker has to be ready for so long before its exit code 0 counts as an end in order. If it ends
// with 0 earlier, its slot waits for at most as long.
inline constexpr Duration kWorked = seconds(1);
// Back-off doubles at most this often; by then every legal backoff_max is reached.
inline constexpr int kBackoffDoublings = 40;
inline constexpr int kWorkersPerPool = 10000;
// How often memory is measured where `recycle.memory` limits it.
inline constexpr Duration kMeasureEvery = seconds(10);
// How often the load of a pool that has any is asked for.
inline constexpr Duration kWatchEvery = milliseconds(250);
// Two answers further apart than this say nothing of the time between them.
inline constexpr Duration kLoadGap = seconds(1);
// Of the time for which fewer workers must have been enough, so many parts are looked at one by
// one.
inline constexpr int kCalmParts = 8;
// That time doubles at most this often.
inline constexpr int kCalmDoublings = 4;
// What an answer may claim: more than there can be.
inline constexpr std::int64_t kCapacity = 10'000'000'000;  // a thousand things for each worker
inline constexpr std::int64_t kWaiting = 10'000'000;

}  // namespace ostler::core::limits
