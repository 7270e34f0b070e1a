// Whether what a pool's paths name can be used by those who need it: the manager binds sockets and
// opens the files of `output`, the worker's user enters its directory and executes its program.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "config/src/keys.hpp"

namespace ostler::config {

void check_places(Reader& reader, PoolDraft& draft);

// The paths that the manager uses itself, with links in their folders resolved, and what for. It is
// a fault if `log.output`, below ROOT, is one of the others.
using OwnPaths = std::map<std::string, std::string>;
OwnPaths own_paths(Reader& reader, const At& root, const Config& config,
                   const std::string& control_socket);

// Whether a unix socket or a file of `output` lies where the manager has something of its own, or
// a file of `output` where a unix socket is. `output` may be the file of `log.output`.
void check_paths_apart(Reader& reader, const std::vector<PoolDraft>& drafts, OwnPaths own);

}  // namespace ostler::config
