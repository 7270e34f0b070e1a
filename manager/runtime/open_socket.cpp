#include "runtime/open_socket.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <optional>

#include "config/src/host.hpp"
#include "config/src/text.hpp"
#include "runtime/socket_name.hpp"

namespace ostler::runtime {

using config::Address;

bool fail(ListenError& error, const char* stage, const config::Listener& listener, int reason) {
  error.stage = std::string(stage) + " " + listener.address.text();
  error.error = reason;
  return false;
}

bool explain(ListenError& error, const config::Listener& listener, const std::string& what) {
  error.stage = listener.address.text() + ": " + what;
  error.error = 0;
  return false;
}

bool set_option(int fd, int level, int option, int value) {
  return setsockopt(fd, level, option, &value, sizeof value) == 0;
}

namespace {

UniqueFd stream_socket(int family) {
  return UniqueFd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
}

// SO_REUSEADDR: a manager that comes back is not kept out by connections of its predecessor that
// are still being closed. TCP_NODELAY is handed on to connections: a program that takes whatever it
// inherits for a unix socket (uvicorn) does not set it itself, and each answer that it writes in
// two pieces would wait for the client's acknowledgement.
bool set_tcp_options(int fd, int family, std::optional<bool> v6only) {
  return set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1) &&
         set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1) &&
         (!v6only || family != AF_INET6 ||
          set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, *v6only ? 1 : 0));
}

}  // namespace

bool open_tcp(const config::Listener& listener, bool beside_own, UniqueFd& fd, ListenError& error) {
  const Address& address = listener.address;
  const bool any = any_host(address.host);
  std::optional<bool> v6only = listener.v6only;
  if (any && !v6only) v6only = false;
  auto name = tcp_name(any ? "::" : address.host, address.port);
  if (!name) {
    return explain(error, listener,
                   config::quote(address.host) + " is not an address; names are not " +
                       "looked up, so give the address itself");
  }
  fd = stream_socket(name->family());
  if (!fd && any && errno == EAFNOSUPPORT && !listener.v6only.value_or(false)) {
    name = tcp_name("0.0.0.0", address.port);
    fd = stream_socket(AF_INET);
  }
  if (!fd) return fail(error, "socket", listener, errno);
  if (!set_tcp_options(fd.get(), name->family(), v6only)) {
    return fail(error, "setsockopt", listener, errno);
  }
  if (beside_own && !set_option(fd.get(), SOL_SOCKET, SO_REUSEPORT, 1)) {
    return fail(error, "setsockopt", listener, errno);
  }
  if (bind(fd.get(), name->any(), name->size) != 0) return fail(error, "bind", listener, errno);
  return true;
}

bool open_abstract(const config::Listener& listener, UniqueFd& fd, ListenError& error) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string& name = listener.address.path;
  if (name.size() >= sizeof address.sun_path) return fail(error, "bind", listener, ENAMETOOLONG);
  std::memcpy(address.sun_path + 1, name.data(), name.size());
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  fd = stream_socket(AF_UNIX);
  if (!fd) return fail(error, "socket", listener, errno);
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0) {
    return fail(error, "bind", listener, errno);
  }
  return true;
}

bool apply_permissions(const config::Listener& listener, const SocketPath& path,
                       ListenError& error) {
  uid_t uid = path.made_by();
  gid_t gid = path.made_by_group();
  if (listener.user) {
    const auto user = config::find_user(*listener.user);
    if (!user) return explain(error, listener, "there is no user " + config::quote(*listener.user));
    uid = user->uid;
  }
  if (listener.group) {
    const auto group = config::find_group(*listener.group);
    if (!group) {
      return explain(error, listener, "there is no group " + config::quote(*listener.group));
    }
    gid = *group;
  }
  const int reason = path.set_owner_and_mode(uid, gid, listener.mode);
  return reason == 0 || fail(error, "set owner and mode of", listener, reason);
}

bool open_path(const config::Listener& listener, UniqueFd& fd, SocketPath& path,
               ListenError& error) {
  fd = stream_socket(AF_UNIX);
  if (!fd) return fail(error, "socket", listener, errno);
  const int reason = path.bind(fd.get(), listener.address.path);
  if (reason != 0) return fail(error, "bind", listener, reason);
  return apply_permissions(listener, path, error);
}

bool start_listening(const config::Listener& listener, int fd, ListenError& error) {
  return listen(fd, listener.backlog) == 0 || fail(error, "listen on", listener, errno);
}

// The first one was bound alone, so that nobody else can
// have the address.
bool open_another(const config::Listener& listener, int first, UniqueFd& fd, ListenError& error) {
  const auto name = name_of(first);
  if (!name) return fail(error, "getsockname", listener, errno);
  fd = stream_socket(name->family());
  if (!fd) return fail(error, "socket", listener, errno);
  std::optional<bool> v6only = listener.v6only;
  if (any_host(listener.address.host) && !v6only) v6only = false;
  if (!set_tcp_options(fd.get(), name->family(), v6only) ||
      !set_option(fd.get(), SOL_SOCKET, SO_REUSEPORT, 1)) {
    return fail(error, "setsockopt", listener, errno);
  }
  if (bind(fd.get(), name->any(), name->size) != 0) return fail(error, "bind", listener, errno);
  return start_listening(listener, fd.get(), error);
}

}  // namespace ostler::runtime
