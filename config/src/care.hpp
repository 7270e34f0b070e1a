// The keys about how workers serve and how they are looked after: `worker`, `recycle`, `health` and
// `warmup`, and `off` for those that can be turned off.
#pragma once

#include "config/src/keys.hpp"

namespace ostler::config {

void read_worker_class(Reader& reader, const At& at, PoolDraft& out);
void read_access_log(Reader& reader, const At& at, PoolDraft& out);
void read_trusted_proxies(Reader& reader, const At& at, PoolDraft& out);

// `off`, or a map whose keys are in the table of pool keys, below "recycle." and "health.".
void read_recycle(Reader& reader, const At& at, PoolDraft& out);
void read_health(Reader& reader, const At& at, PoolDraft& out);

void read_health_request(Reader& reader, const At& at, PoolDraft& out);
void read_health_exec(Reader& reader, const At& at, PoolDraft& out);
void read_warmup(Reader& reader, const At& at, PoolDraft& out);

}  // namespace ostler::config
