// The keys about who gets a connection and how many workers there are: `accept`, `dispatch` and
// `workers`.
#pragma once

#include "config/src/keys.hpp"

namespace ostler::config {

void read_accept(Reader& reader, const At& at, PoolDraft& out);
void read_dispatch(Reader& reader, const At& at, PoolDraft& out);

// `auto`, a number, or a map whose keys are in the table of pool keys, below "workers.". These are
// read only while `out.pool.workers` holds ScaledWorkers.
void read_workers(Reader& reader, const At& at, PoolDraft& out);
void read_workers_by(Reader& reader, const At& at, PoolDraft& out);
void read_workers_target(Reader& reader, const At& at, PoolDraft& out);

}  // namespace ostler::config
