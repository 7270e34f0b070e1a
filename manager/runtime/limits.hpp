// Every bound of the shell in one place; those of the core are in core/limits.hpp.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

#include "core/ids.hpp"

namespace ostler::runtime::limits {

using std::chrono::milliseconds;
using std::chrono::seconds;

// How soon after an unexpected failure the manager looks again what there is to do.
inline constexpr auto kAfterFailure = milliseconds(100);
// Set aside for when the system refuses memory.
inline constexpr std::size_t kMemoryReserve = std::size_t{2} << 20U;
// A worker's output: a longer line is cut into several; the last ones are kept for reports.
inline constexpr std::size_t kOutputLine = 8192;
inline constexpr std::size_t kTailLines = 32;  // a stack of the SDK's fits
inline constexpr std::size_t kTailLine = 512;
// Reading workers' output: bytes and lines of one worker before it is the next one's turn; the time
// for all of them before other handlers run, and the pause after that, if more waits.
inline constexpr std::size_t kOutputRead = 8192;
inline constexpr std::size_t kOutputBatch = 64;
inline constexpr auto kOutputTurn = milliseconds(1);
inline constexpr auto kOutputPause = milliseconds(2);
// What is read at once of a worker that is gone: as much as a pipe holds.
inline constexpr std::size_t kOutputDrain = 65536;
// What is counted at the end of what a pipe still holds: the most that a user may have it hold.
inline constexpr std::size_t kOutputGivenUp = std::size_t{1024} * 1024;
// Dead workers whose last lines are remembered for the answers that name them.
inline constexpr std::size_t kRemembered = 64;
// Lines that wait for the log thread: of one worker, before its pipe is not read on; the bytes of
// all workers together; the manager's own, before more of them are dropped. Bytes with what the
// queue needs for a line.
inline constexpr std::size_t kLogLines = 1024;
inline constexpr std::size_t kLogBytes = std::size_t{256} * 1024;
inline constexpr std::size_t kLogWorkersBytes = std::size_t{2} * 1024 * 1024;
inline constexpr std::size_t kLogOwnLines = 4096;
inline constexpr std::size_t kLogOwnBytes = std::size_t{1024} * 1024;
// How long one line may take to be written before workers wait for the log no more, and what they
// write is dropped.
inline constexpr auto kLogStandsStill = seconds(1);
// Requests to open log files anew that wait while the log is written.
inline constexpr std::size_t kLogJobs = 64;
// How long the last lines may take at the end.
inline constexpr auto kLogPatience = seconds(1);
// Looking whether starting workers wait for connections: how often, and for how long at a stretch.
inline constexpr auto kProbeEvery = milliseconds(5);
inline constexpr auto kProbeTurn = std::chrono::microseconds(2500);
inline constexpr int kProbeShare = 20;  // at most one part in so many of the time
inline constexpr std::size_t kLooksPerSweep = 64;
// A look that has not come back after so long is left alone, and how many may be.
inline constexpr auto kLookPatience = seconds(5);
inline constexpr std::size_t kLostSweeps = 8;
// How long a new process may take to execute its program before it is killed; and how long until it
// is dead.
inline constexpr auto kExecPatience = seconds(5);
inline constexpr auto kDeathPatience = seconds(1);
// A worker's channel: messages taken at a time, and in a span of time before it is closed.
inline constexpr int kMessagesPerTurn = 16;
inline constexpr int kMessagesPerSpan = 1000;
inline constexpr auto kMessageSpan = seconds(10);
// Notify sockets: messages read from one before the next has its turn; how long they are read at a
// stretch, and for how long not after that, if more waits; and how long the last words of a worker
// that is gone may take.
inline constexpr int kNotifyBatch = 8;
inline constexpr auto kNotifyTurn = milliseconds(1);
inline constexpr auto kNotifyPause = milliseconds(3);
inline constexpr auto kNotifyDrain = milliseconds(5);
// Descriptors of one sender that are not closed yet, before nothing more is read from it.
inline constexpr std::size_t kMostUnclosed = 256;
// Sockets whose path was removed, and on which a worker may still be connected.
inline constexpr std::size_t kFormerNotifySockets = 2;
// How soon after a file of ours was removed it is looked which ones are to be made again.
inline constexpr auto kRemovalSettles = milliseconds(100);
// Looking at the sockets of `accept: reuseport`: how often while there is load, while nothing
// moves, and for which share of the time at most (one part in so many). At half the pace every
// tenth request finds another before it.
inline constexpr core::Duration kSteerEvery = std::chrono::microseconds(100);
inline constexpr core::Duration kSteerRarely = milliseconds(5);
inline constexpr int kSteerShare = 5;
// How long nothing may happen until nobody looks any more.
inline constexpr core::Duration kQuiet = milliseconds(100);
// A worker that has accepted nothing for so long, while something waited, gets nothing more.
inline constexpr core::Duration kSuspect = milliseconds(20);
// How long nothing must have waited on the socket of a worker before it is told to stop: handshakes
// that had begun when it was deselected are over by then.
inline constexpr core::Duration kLinger = milliseconds(250);
// How long it is searched for whoever has an address that could not be had.
inline constexpr core::Duration kHolderSearch = seconds(5);
// How often a backlog is looked at that is to be served before a pool ends.
inline constexpr core::Duration kLookAtBacklog = milliseconds(5);
// How long a socket that nobody has waits for the next worker.
inline constexpr core::Duration kFreeFor = seconds(1);
// Runs of neighbours that a selector tells apart.
inline constexpr std::size_t kSelectorRuns = 300;
// Connections accepted and handed over in one turn; and how many may be on their way to one worker.
inline constexpr int kDispatchPerTurn = 128;
inline constexpr std::uint64_t kUntaken = 64;
// How soon the workers of a listener that others break again and again are replaced for it again.
inline constexpr core::Duration kStrandedAgain = seconds(60);
// Connections accepted at a time on a thread of its own.
inline constexpr int kAcceptBatch = 16;
// A worker that does one thing at a time is quick if each of so many requests took less than this
// on average, idle time included; or that many were not done in such a span.
inline constexpr std::uint64_t kPaceRequests = 32;
inline constexpr core::Duration kPaceSpan = milliseconds(20);
inline constexpr core::Duration kQuick = std::chrono::microseconds(200);
// One that has taken nothing for so long of what was handed to it gets nothing more: longer than a
// busy machine keeps a process from running, or its connections would crowd at the others.
inline constexpr core::Duration kStandsStill = milliseconds(100);
// How long a worker whose channel was full, or had nobody at its other end, is not tried again.
inline constexpr core::Duration kRefused = milliseconds(3);
// How long a worker that had no descriptor for a connection gets none, if it closes none.
inline constexpr core::Duration kTableFull = milliseconds(100);
// When nothing can be accepted for want of descriptors or memory, how soon it is tried again.
inline constexpr core::Duration kAcceptAgain = milliseconds(100);
// How soon after a hand-over it is looked whether it was taken.
inline constexpr core::Duration kLookAtTaken = milliseconds(1);
// How often it is looked what workers are at, while their pool's load is followed; and how long
// after the last question nobody looks any more.
inline constexpr core::Duration kSampleLoad = milliseconds(25);
inline constexpr core::Duration kLoadForgotten = seconds(1);
// Less of a CPU than this is what a program uses that has nothing to do.
inline constexpr double kNoShare = 0.05;
// The handshake of a request of the manager's own, in milliseconds.
inline constexpr int kProbeHandshake = 2;
// What a scoreboard can say at most.
inline constexpr std::uint64_t kMostRequests = std::uint64_t{1} << 53U;  // exact in JSON
inline constexpr std::uint64_t kMostConnections = 1'000'000;
inline constexpr auto kMostExtension = std::chrono::hours(24);
// Requests in flight that a report names, and that an answer shows of one worker.
inline constexpr std::size_t kRequestsNamed = 8;
// What a worker may answer to a request of the manager's own, in bytes, before the rest is ignored.
inline constexpr std::uint32_t kProbeHeader = 16 * 1024;
inline constexpr std::uint64_t kProbeBody = 1024 * 1024;
// Measuring memory and CPU for a status answer: the time for one sweep over the workers, the age at
// which a worker's figures are measured again, and how long the answer waits.
inline constexpr auto kSampleTurn = milliseconds(10);
inline constexpr auto kSampleAge = seconds(3);
inline constexpr auto kSamplePatience = milliseconds(25);
// How long measuring one worker may hold up the others. One of a hundred gigabytes takes longer,
// and is known later.
inline constexpr auto kMeasurePatience = milliseconds(250);
// How long a worker that hangs lives on so that it is seen what it does; and how many are looked
// at.
inline constexpr auto kHangPatience = milliseconds(100);
inline constexpr std::size_t kHangLooks = 64;
// Between two looks at the CPU that a worker has used when it sends a heartbeat.
inline constexpr auto kBeatSample = milliseconds(500);
// At first start: how long an address in use is waited for (a manager that was killed, whose
// workers still drain), and how often it is tried.
inline constexpr auto kBindPatience = seconds(5);
inline constexpr auto kBindAgain = milliseconds(50);
// Looking at processes that workers left behind, at a stretch.
inline constexpr auto kOrphanTurn = milliseconds(2);
// How long one has to end that no worker's settings are known for.
inline constexpr auto kOrphanPatience = seconds(10);
// The watcher gives up on what does not die of SIGKILL within so long.
inline constexpr auto kWatcherPatience = seconds(10);
// After the last worker is gone, how long answers on their way may take.
inline constexpr auto kFarewell = seconds(2);

}  // namespace ostler::runtime::limits
