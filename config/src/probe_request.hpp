// Reads the requests that the manager itself sends to workers: those of `health` and `warmup`.
#pragma once

#include "config/src/model.hpp"
#include "config/src/reader.hpp"

namespace ostler::config {

// "GET /healthz"; false if it is not.
bool read_request_line(Reader& reader, const At& at, ProbeRequest& out);
void read_probe_host(Reader& reader, const At& at, ProbeRequest& out);
void read_probe_headers(Reader& reader, const At& at, ProbeRequest& out);
void read_probe_expect(Reader& reader, const At& at, ProbeRequest& out);

// A request line alone, or a map {request, host, headers, expect}; false if it is faulty.
bool read_probe_request(Reader& reader, const At& at, ProbeRequest& out);

// "200-399", "404"
std::string text_of(const StatusRange& range);

}  // namespace ostler::config
