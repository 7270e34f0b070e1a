// Memory for the moment when there is no more: what is being done then can be done, and whoever
// holds memory for others is told to give some back.
//
// Only where the system refuses memory (RLIMIT_AS, strict overcommit). A cgroup's limit kills.
#pragma once

namespace ostler::runtime {

// Sets it aside, and has operator new fall back on it when the system refuses memory, and fail as
// usual when that is gone, too. Once in a process; any thread may need it.
void keep_memory_reserve();
// Whether it was needed since memory_was_short() was last asked.
bool memory_is_short();
bool memory_was_short();
// Sets it aside again if that can be done; to be called when others have given memory back.
void refill_memory_reserve();

}  // namespace ostler::runtime
