// The `listen` key: a list of addresses and of maps.
#pragma once

#include "config/src/keys.hpp"

namespace ostler::config {

// Reads the list, fills in the names that were not given, and holds them apart. Faulty listeners
// are left out.
void read_listen(Reader& reader, const At& at, PoolDraft& out);

}  // namespace ostler::config
