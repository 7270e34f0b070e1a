// Opens sockets that listen, step by step: socket, options, bind, owner and mode, listen.
#pragma once

#include <string>

#include "config/src/model.hpp"
#include "runtime/socket_path.hpp"
#include "runtime/unique_fd.hpp"

namespace ostler::runtime {

struct ListenError {
  std::string stage;  // "bind tcp://127.0.0.1:80"
  int error = 0;      // errno; 0: `stage` says it all
};

// Both return false, for their caller's use.
bool fail(ListenError& error, const char* stage, const config::Listener& listener, int reason);
bool explain(ListenError& error, const config::Listener& listener, const std::string& what);

bool set_option(int fd, int level, int option, int value);

// Bound, and not listening yet. `beside_own`: another socket of ours has part of the address, and
// SO_REUSEPORT.
[[nodiscard]] bool open_tcp(const config::Listener& listener, bool beside_own, UniqueFd& fd,
                            ListenError& error);
[[nodiscard]] bool open_abstract(const config::Listener& listener, UniqueFd& fd,
                                 ListenError& error);
[[nodiscard]] bool open_path(const config::Listener& listener, UniqueFd& fd, SocketPath& path,
                             ListenError& error);
// Another socket at the address of `first`, listening.
[[nodiscard]] bool open_another(const config::Listener& listener, int first, UniqueFd& fd,
                                ListenError& error);

// Owner and mode of the file of a unix socket.
[[nodiscard]] bool apply_permissions(const config::Listener& listener, const SocketPath& path,
                                     ListenError& error);
[[nodiscard]] bool start_listening(const config::Listener& listener, int fd, ListenError& error);

}  // namespace ostler::runtime
