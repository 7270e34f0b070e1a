#include "runtime/listeners.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

#include "config/src/host.hpp"
#include "config/src/text.hpp"
#include "runtime/selector.hpp"
#include "runtime/socket_path.hpp"

namespace ostler::runtime {

using config::Address;
using config::AddressKind;

struct Listeners::Socket {
  std::vector<Member> members;
  config::Listener listener;
  bool grouped = false;   // its sockets may share their address
  SocketPath path;        // of a unix path that was bound here
  std::string inherited;  // NAME; empty: opened here
};

namespace {

constexpr int kFirstInherited = 3;
constexpr int kMaxInherited = 4096;

// --- Addresses -----------------------------------------------------------------------------------

// A socket address of any family, with what is needed to show it.
struct Name {
  sockaddr_storage storage{};
  socklen_t size = 0;

  [[nodiscard]] const sockaddr* any() const { return reinterpret_cast<const sockaddr*>(&storage); }
  [[nodiscard]] sockaddr* any() { return reinterpret_cast<sockaddr*>(&storage); }
  [[nodiscard]] int family() const { return storage.ss_family; }
};

std::optional<Name> name_of(int fd) {
  Name name;
  name.size = sizeof name.storage;
  if (getsockname(fd, name.any(), &name.size) != 0) return std::nullopt;
  return name;
}

Address tcp_address(const Name& name) {
  Address address;
  std::array<char, NI_MAXHOST> host{};
  std::array<char, NI_MAXSERV> port{};
  if (getnameinfo(name.any(), name.size, host.data(), host.size(), port.data(), port.size(),
                  NI_NUMERICHOST | NI_NUMERICSERV) == 0) {
    address.host = host.data();
    address.port = static_cast<std::uint16_t>(std::strtoul(port.data(), nullptr, 10));
  }
  return address;
}

Address unix_address(const Name& name) {
  Address address;
  const auto* const local = reinterpret_cast<const sockaddr_un*>(&name.storage);
  const std::size_t length = name.size - offsetof(sockaddr_un, sun_path);
  const std::string_view path(static_cast<const char*>(local->sun_path), length);
  const bool abstract = !path.empty() && path.front() == '\0';
  address.kind = abstract ? AddressKind::kUnixAbstract : AddressKind::kUnixPath;
  address.path = abstract ? path.substr(1) : path.substr(0, path.find('\0'));
  return address;
}

std::optional<Address> bound_address(int fd) {
  const std::optional<Name> name = name_of(fd);
  if (!name) return std::nullopt;
  switch (name->family()) {
    case AF_INET:
    case AF_INET6:
      return tcp_address(*name);
    case AF_UNIX:
      return unix_address(*name);
    default:
      return std::nullopt;
  }
}

bool any_host(const std::string& host) {
  return host.empty() || host == "*";
}

std::optional<Name> tcp_name(const std::string& host, std::uint16_t port) {
  addrinfo hints{};
  hints.ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) {
    return std::nullopt;
  }
  Name name;
  name.size = found->ai_addrlen;
  std::memcpy(&name.storage, found->ai_addr, found->ai_addrlen);
  freeaddrinfo(found);
  return name;
}

// --- Opening -------------------------------------------------------------------------------------

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

UniqueFd stream_socket(int family) {
  return UniqueFd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
}

bool set_option(int fd, int level, int option, int value) {
  return setsockopt(fd, level, option, &value, sizeof value) == 0;
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

bool open_tcp(const config::Listener& listener, UniqueFd& fd, ListenError& error) {
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

std::optional<int> option(int fd, int name) {
  int value = 0;
  socklen_t size = sizeof value;
  if (getsockopt(fd, SOL_SOCKET, name, &value, &size) != 0) return std::nullopt;
  return value;
}

bool accepts_streams(int fd) {
  return option(fd, SO_TYPE) == SOCK_STREAM && option(fd, SO_ACCEPTCONN) == 1;
}

// --- Figures -------------------------------------------------------------------------------------

// On a listener these two are the accept queue's length and its limit.
bool tcp_queue(int fd, tcp_info& info) {
  socklen_t size = sizeof info;
  return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0;
}

void tcp_queues(const std::vector<Member>& members, ListenerFigures& figures) {
  figures.backlog = figures.backlog_limit = 0;
  for (const Member& member : members) {
    tcp_info info{};
    if (!tcp_queue(member.fd.get(), info)) continue;
    figures.backlog += info.tcpi_unacked;
    figures.backlog_limit += info.tcpi_sacked;
  }
}

struct DiagRequest {
  nlmsghdr header{};
  unix_diag_req query{};
};

bool ask_diag(int fd, ino_t inode) {
  DiagRequest request;
  request.header.nlmsg_len = sizeof request;
  request.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  request.header.nlmsg_flags = NLM_F_REQUEST;
  request.query.sdiag_family = AF_UNIX;
  request.query.udiag_states = ~0U;
  request.query.udiag_ino = static_cast<std::uint32_t>(inode);
  request.query.udiag_show = UDIAG_SHOW_RQLEN;
  request.query.udiag_cookie[0] = request.query.udiag_cookie[1] = ~0U;  // whichever has the inode
  return send(fd, &request, sizeof request, 0) == static_cast<ssize_t>(sizeof request);
}

// The kernel answers before send returns; NLMSG_ERROR if it has no such socket or no sock_diag.
void unix_queue(ino_t inode, ListenerFigures& figures) {
  const UniqueFd diag(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  if (!diag || !ask_diag(diag.get(), inode)) return;
  alignas(nlmsghdr) std::array<char, 1024> reply{};
  const ssize_t got = recv(diag.get(), reply.data(), reply.size(), MSG_DONTWAIT);
  constexpr std::size_t kAttributeHeader = NLMSG_ALIGN(sizeof(nlattr));
  constexpr std::size_t kAttributes = NLMSG_LENGTH(sizeof(unix_diag_msg));
  nlmsghdr header{};
  if (got < static_cast<ssize_t>(kAttributes)) return;
  std::memcpy(&header, reply.data(), sizeof header);
  if (header.nlmsg_type != SOCK_DIAG_BY_FAMILY) return;
  const auto end = static_cast<std::size_t>(got);
  for (std::size_t at = kAttributes; at + sizeof(nlattr) <= end;) {
    nlattr attribute{};
    std::memcpy(&attribute, reply.data() + at, sizeof attribute);
    unix_diag_rqlen queue{};
    if (attribute.nla_type == UNIX_DIAG_RQLEN && at + kAttributeHeader + sizeof queue <= end) {
      std::memcpy(&queue, reply.data() + at + kAttributeHeader, sizeof queue);
      figures.backlog = queue.udiag_rqueue;
      figures.backlog_limit = queue.udiag_wqueue;
      return;
    }
    at += std::max<std::size_t>(NLA_ALIGN(attribute.nla_len), kAttributeHeader);
  }
}

ino_t inode_of(int fd) {
  struct stat status {};
  return fstat(fd, &status) == 0 ? status.st_ino : 0;
}

// --- Inherited sockets ---------------------------------------------------------------------------

std::optional<long> number(const char* text) {
  if (text == nullptr) return std::nullopt;
  long value = 0;
  const char* const end = text + std::strlen(text);
  const auto [stop, error] = std::from_chars(text, end, value);
  return error == std::errc{} && stop == end && stop != text ? std::optional(value) : std::nullopt;
}

std::string take_variable(const char* name) {
  const char* const value = getenv(name);
  std::string result = value == nullptr ? "" : value;
  unsetenv(name);
  return result;
}

}  // namespace

// What is not a listening stream socket is closed: nothing in ostler could use it.
std::multimap<std::string, UniqueFd> take_inherited_sockets() {
  const auto pid = number(take_variable("LISTEN_PID").c_str());
  const auto count = number(take_variable("LISTEN_FDS").c_str());
  const std::string all_names = take_variable("LISTEN_FDNAMES");
  unsetenv("LISTEN_PIDFDID");
  std::multimap<std::string, UniqueFd> sockets;
  if (pid != getpid() || !count || *count < 0 || *count > kMaxInherited) return sockets;
  std::string_view names = all_names;
  for (int fd = kFirstInherited; fd < kFirstInherited + *count; ++fd) {
    const std::string_view name = names.substr(0, names.find(':'));
    names.remove_prefix(std::min(names.size(), name.size() + 1));
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) continue;
    UniqueFd socket(fd);
    if (!accepts_streams(fd)) continue;
    sockets.emplace(name.empty() ? "unknown" : name, std::move(socket));
  }
  return sockets;
}

Listeners::Listeners(std::multimap<std::string, UniqueFd> inherited)
    : inherited_(std::move(inherited)) {}

Listeners::~Listeners() = default;

std::string Listeners::key(const std::string& pool, const config::Listener& listener) {
  std::string key = listener.address.text();
  if (listener.address.kind == AddressKind::kTcp && listener.address.port == 0) {
    key += "?" + pool + "/" + listener.name;
  }
  if (listener.v6only) key += *listener.v6only ? "?v6only=1" : "?v6only=0";
  return key;
}

bool Listeners::open(const std::string& key, const config::Listener& listener, ListenError& error) {
  if (is_open(key)) return true;
  Socket socket;
  UniqueFd fd;
  switch (listener.address.kind) {
    case AddressKind::kTcp:
      if (!open_tcp(listener, fd, error)) return false;
      break;
    case AddressKind::kUnixPath:
      if (!open_path(listener, fd, socket.path, error)) return false;
      break;
    case AddressKind::kUnixAbstract:
      if (!open_abstract(listener, fd, error)) return false;
      break;
    case AddressKind::kInherit: {
      const auto found = inherited_.find(listener.address.path);
      if (found == inherited_.end()) {
        return explain(error, listener, "no listening socket of that name was handed over");
      }
      socket.inherited = found->first;
      fd = std::move(found->second);
      inherited_.erase(found);
    }
  }
  if (socket.inherited.empty() && !start_listening(listener, fd.get(), error)) return false;
  socket.listener = listener;
  socket.members.push_back({std::move(fd), false, false, {}});
  sockets_.emplace(key, std::move(socket));
  return true;
}

bool Listeners::adjust(const std::string& key, const config::Listener& listener,
                       ListenError& error) {
  const auto found = sockets_.find(key);
  if (found == sockets_.end()) return explain(error, listener, "it is not open");
  Socket& socket = found->second;
  socket.listener = listener;
  if (!socket.inherited.empty()) return true;
  if (socket.path && !apply_permissions(listener, socket.path, error)) return false;
  return std::ranges::all_of(socket.members, [&](const Member& member) {
    return start_listening(listener, member.fd.get(), error);
  });
}

namespace {

// Whom nobody has, or only those who never accept again; the fullest one, if any.
Member* free_member(std::vector<Member>& members, const std::set<core::WorkerId>& hopeless,
                    bool beside = false) {
  Member* best = nullptr;
  std::int64_t most = -2;
  for (Member& member : members) {
    const bool free = std::ranges::includes(hopeless, member.owners);
    if (!free || member.shared || (beside && member.nonblocking)) continue;
    const std::int64_t waiting = waiting_on(member.fd.get());
    if (waiting <= most) continue;
    most = waiting;
    best = &member;
  }
  return best;
}

// Another socket at the address of `first`. The first one was bound alone, so that nobody else can
// have the address.
bool open_another(const config::Listener& listener, const std::vector<Member>& members,
                  UniqueFd& fd, ListenError& error) {
  const auto name = name_of(members.front().fd.get());
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

}  // namespace

bool Listeners::add(Socket& socket, ListenError& error) {
  if (!socket.grouped) {
    const bool joined = std::ranges::all_of(socket.members, [](const Member& member) {
      return set_option(member.fd.get(), SOL_SOCKET, SO_REUSEPORT, 1);
    });
    if (!joined) return fail(error, "set SO_REUSEPORT on", socket.listener, errno);
  }
  UniqueFd fd;
  if (!open_another(socket.listener, socket.members, fd, error)) return false;
  // Without a selector, which only a group can have, whoever joins would get connections at once.
  if (!std::exchange(socket.grouped, true)) {
    const int reason = attach_selector(fd.get(), selector_program({0}, {}));
    if (reason != 0) return fail(error, "attach a selector to", socket.listener, reason);
  }
  socket.members.push_back({std::move(fd), false, false, {}});
  return true;
}

namespace {

// Workers get it as they would from systemd.
int give(Member& member, core::WorkerId worker) {
  if (std::exchange(member.nonblocking, false)) ::fcntl(member.fd.get(), F_SETFL, 0);
  member.owners.insert(worker);
  return member.fd.get();
}

}  // namespace

std::vector<int> Listeners::own(const std::string& key) {
  std::vector<int> fds;
  const auto found = sockets_.find(key);
  if (found == sockets_.end()) return fds;
  for (Member& member : found->second.members) {
    if (!member.owners.empty()) continue;
    if (!std::exchange(member.nonblocking, true)) ::fcntl(member.fd.get(), F_SETFL, O_NONBLOCK);
    fds.push_back(member.fd.get());
  }
  return fds;
}

int Listeners::share(const std::string& key, core::WorkerId worker, ListenError& error,
                     bool beside) {
  Socket& socket = sockets_.at(key);
  beside = beside && socket.listener.address.kind == AddressKind::kTcp;
  const auto shared = std::ranges::find_if(socket.members, &Member::shared);
  Member* member =
      shared == socket.members.end() ? free_member(socket.members, {}, beside) : &*shared;
  if (member == nullptr) {
    if (!add(socket, error)) return -1;
    member = &socket.members.back();
  }
  member->shared = true;
  return give(*member, worker);
}

int Listeners::claim(const std::string& key, core::WorkerId worker,
                     const std::set<core::WorkerId>& hopeless, ListenError& error, bool beside) {
  Socket& socket = sockets_.at(key);
  Member* member = free_member(socket.members, hopeless, beside);
  if (member == nullptr) {
    if (!add(socket, error)) return -1;
    member = &socket.members.back();
  }
  return give(*member, worker);
}

bool Listeners::spare(const std::string& key, ListenError& error) {
  Socket& socket = sockets_.at(key);
  return free_member(socket.members, {}) != nullptr || add(socket, error);
}

void Listeners::release(core::WorkerId worker) {
  for (auto& [key, socket] : sockets_) {
    for (Member& member : socket.members) {
      if (member.owners.erase(worker) > 0 && member.owners.empty()) member.shared = false;
    }
  }
}

// shutdown(2) takes it out of the group even if a process that a worker left behind still has it;
// the last socket of the group gets its index.
void Listeners::drop(const std::string& key, std::size_t member) {
  std::vector<Member>& members = sockets_.at(key).members;
  const int fd = members.at(member).fd.get();
  if (closing_) closing_(fd);
  ::shutdown(fd, SHUT_RDWR);
  std::swap(members[member], members.back());
  members.pop_back();
}

const std::vector<Member>& Listeners::members(const std::string& key) const {
  static const std::vector<Member> kNone;
  const auto found = sockets_.find(key);
  return found == sockets_.end() ? kNone : found->second.members;
}

std::vector<std::string> Listeners::keys() const {
  std::vector<std::string> keys;
  for (const auto& [key, socket] : sockets_) keys.push_back(key);
  return keys;
}

void Listeners::close(const std::string& key) {
  const auto found = sockets_.find(key);
  if (found == sockets_.end()) return;
  Socket& socket = found->second;
  for (const Member& member : socket.members) {
    if (closing_) closing_(member.fd.get());
  }
  if (!socket.inherited.empty()) {
    inherited_.emplace(socket.inherited, std::move(socket.members.front().fd));
  }
  sockets_.erase(found);
}

bool Listeners::is_open(const std::string& key) const {
  return sockets_.contains(key);
}

int Listeners::fd(const std::string& key, core::WorkerId worker) const {
  const std::vector<Member>& all = members(key);
  const auto own = std::ranges::find_if(
      all, [&](const Member& member) { return member.owners.contains(worker); });
  if (own != all.end()) return own->fd.get();
  return all.empty() ? -1 : all.front().fd.get();
}

ino_t Listeners::inode(const std::string& key, core::WorkerId worker) const {
  return inode_of(fd(key, worker));
}

ListenerFigures Listeners::figures(const std::string& key) const {
  ListenerFigures figures;
  const auto address = bound_address(fd(key));
  if (!address) return figures;
  figures.address = address->text();
  if (address->kind == AddressKind::kTcp) {
    tcp_queues(members(key), figures);
  } else {
    unix_queue(inode(key), figures);
  }
  return figures;
}

std::int64_t waiting_on(int fd) {
  tcp_info info{};
  return tcp_queue(fd, info) ? std::int64_t{info.tcpi_unacked} : -1;
}

std::string Listeners::server_starter_name(const std::string& key) const {
  const auto address = bound_address(fd(key));
  if (!address) return {};
  if (address->kind == AddressKind::kUnixAbstract) return "@" + address->path;
  if (address->kind == AddressKind::kUnixPath) return address->path;
  std::string port = std::to_string(address->port);
  if (address->host == "0.0.0.0" || address->host == "::") return port;
  const bool v6 = address->host.find(':') != std::string::npos;
  return (v6 ? "[" + address->host + "]" : address->host) + ":" + port;
}

}  // namespace ostler::runtime
