// Whether what a pool's paths name can be used by those who need it: the manager binds sockets and
// opens the files of `output`, the worker's user enters its directory and executes its program.
#pragma once

#include "config/src/keys.hpp"

namespace ostler::config {

void check_places(Reader& reader, PoolDraft& draft);

}  // namespace ostler::config
