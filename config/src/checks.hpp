// What can only be said of a pool as a whole, of the machine it is to run on, or of several pools.
#pragma once

#include <vector>

#include "config/src/keys.hpp"

namespace ostler::config {

// Fills in what follows from other keys (the environment file's part of `env`, the executable as
// found) and adds a fault for all that does not fit together or is not there. Keys that are faulty
// by themselves are left alone. TRUSTED: the environment file of workers that run as root must be
// one that only root may write, for an environment can make a program run other code.
void check_pool(Reader& reader, PoolDraft& draft, bool trusted);

// Every listener that cannot be open together with one before it.
void check_listeners_apart(Reader& reader, const std::vector<PoolDraft>& drafts);

}  // namespace ostler::config
