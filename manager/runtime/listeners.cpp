#include "runtime/listeners.hpp"

#include <fcntl.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <optional>
#include <system_error>
#include <tuple>
#include <utility>

#include "runtime/clock.hpp"
#include "runtime/limits.hpp"
#include "runtime/selector.hpp"
#include "runtime/socket_name.hpp"
#include "runtime/socket_path.hpp"
#include "runtime/turn_away.hpp"

namespace ostler::runtime {

using config::Address;
using config::AddressKind;

struct Listeners::Socket {
  std::vector<Member> members;
  config::Listener listener;
  bool grouped = false;                   // its sockets may share their address
  SocketPath path;                        // of a unix path that was bound here
  std::string inherited;                  // NAME; empty: opened here
  bool turned_away = false;               // no new connection finds it
  bool shown_later = false;               // not before a worker for it is ready
  bool told_dead = false;                 // it was shut down, and cannot listen again: logged once
  std::optional<core::Time> stranded_at;  // when workers were last told of as stranded
  [[nodiscard]] bool is_tcp() const { return listener.address.kind == AddressKind::kTcp; }
};

// Closed, and workers may still have it: they may yet serve what waits.
struct Listeners::Former {
  std::string address;
  std::vector<Member> members;
};

Listeners::Listeners(InheritedSockets inherited) : inherited_(std::move(inherited)) {}

Listeners::~Listeners() = default;

namespace {

// The folder's own name, whatever symlinks and dots lead to it.
std::string without_detours(const std::string& path) {
  const auto slash = path.rfind('/');
  std::error_code error;
  const auto folder = std::filesystem::canonical(path.substr(0, slash + 1), error);
  return error ? path : (folder / path.substr(slash + 1)).string();
}

// Any process that has a listening socket can end it with shutdown(2). SO_ACCEPTCONN is 0 then for
// a tcp socket; a unix socket keeps it, and polls as hung up.
bool is_shut_down(const UniqueFd& fd) {
  int listens = 1;
  socklen_t size = sizeof listens;
  if (::getsockopt(fd.get(), SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0) return false;
  pollfd entry{fd.get(), POLLRDHUP, 0};
  return listens == 0 || ::poll(&entry, 1, 0) == 1;
}

bool can_listen_again(const UniqueFd& fd) {
  int domain = 0;
  socklen_t size = sizeof domain;
  ::getsockopt(fd.get(), SOL_SOCKET, SO_DOMAIN, &domain, &size);
  return domain == AF_INET || domain == AF_INET6;
}

std::string canonical_key(const std::string& pool, const config::Listener& listener) {
  Address address = listener.address;
  std::string more;
  if (address.kind == AddressKind::kTcp) {
    const bool any = any_host(address.host) || address.host == "::";
    if (const auto name = tcp_name(address.host, address.port); name && !any) {
      address.host = tcp_address(*name).host;
    }
    if (any) address.host.clear();  // every way to say so
    if (address.port == 0) more = "?" + pool + "/" + listener.name;
    if (any && listener.v6only.value_or(false)) more += "?v6only=1";
  }
  if (address.kind == AddressKind::kUnixPath) address.path = without_detours(address.path);
  if (listener.inherited > 0) more = "?" + std::to_string(listener.inherited + 1);
  return address.text() + more;
}

}  // namespace

std::string Listeners::key(const std::string& pool, const config::Listener& listener) {
  return listener.key.empty() ? canonical_key(pool, listener) : listener.key;
}

config::Pool Listeners::resolve(config::Pool pool) const {
  std::vector<config::Listener> all;
  for (config::Listener& listener : pool.listen) {
    std::size_t count = 1;
    if (listener.address.kind == AddressKind::kInherit) {
      const auto found = inherited_.find(listener.address.path);
      if (found != inherited_.end()) count = std::max<std::size_t>(found->second.size(), 1);
    }
    for (listener.inherited = 0; listener.inherited < count; ++listener.inherited) {
      listener.key = canonical_key(pool.name, listener);
      all.push_back(listener);
    }
  }
  for (config::Listener& listener : all) listener.key = canonical_key(pool.name, listener);
  pool.listen = std::move(all);
  return pool;
}

std::vector<std::string> Listeners::close_unused(const std::set<std::string>& names) {
  std::vector<std::string> unused;
  std::erase_if(inherited_, [&](const auto& entry) {
    if (names.contains(entry.first)) return false;
    unused.push_back(entry.first);
    return true;
  });
  return unused;
}

std::string Listeners::fault(const std::string& key) const {
  const auto found = sockets_.find(key);
  if (found == sockets_.end() || found->second.turned_away) return {};
  const Socket& socket = found->second;
  if (socket.path && !socket.path.is_there()) {
    return "was removed or replaced: nobody can connect. A reload binds it anew";
  }
  if (!std::ranges::any_of(socket.members, is_shut_down, &Member::fd)) return {};
  const std::string text = "was shut down by a process that has it: nobody can connect. ";
  if (socket.path || can_listen_again(socket.members.front().fd))
    return text + "A reload opens it again";
  return text + (socket.inherited.empty() ? "Restart ostlerd" : "Restart whoever handed it over");
}

namespace {

std::set<core::WorkerId> owners_of(const std::vector<Member>& members) {
  std::set<core::WorkerId> owners;
  for (const Member& member : members) owners.insert(member.owners.begin(), member.owners.end());
  return owners;
}

}  // namespace

bool Listeners::mend(const std::string& key, ListenError& error) {
  const auto found = sockets_.find(key);
  if (found == sockets_.end() || found->second.turned_away) return true;
  Socket& socket = found->second;
  const bool shut_down = std::ranges::any_of(socket.members, is_shut_down, &Member::fd);
  if (shut_down && !socket.path) return listen_again(key, socket, error);
  if (!shut_down && !(socket.path && !socket.path.is_there())) return true;
  if (shut_down) socket.path.unlink();  // if it leads there still
  const std::set<core::WorkerId> before = owners_of(socket.members);
  if (!open_anew(key, socket, error)) return false;
  spdlog::warn(
      "{} had been {}: it is bound anew. Workers that have the old socket, to which nobody "
      "can connect, {}",
      key, shut_down ? "shut down by a process that has it" : "removed or replaced",
      tell_stranded(socket, before) ? "are replaced" : "are replaced by a reload");
  return true;
}

// False: not so soon after the last time.
bool Listeners::tell_stranded(Socket& socket, const std::set<core::WorkerId>& workers) const {
  const core::Time at = now();
  if (socket.stranded_at && at - *socket.stranded_at < limits::kStrandedAgain) return false;
  socket.stranded_at = at;
  if (stranded_ && !workers.empty()) stranded_(workers);
  return true;
}

// A tcp socket keeps its port; others cannot listen again.
bool Listeners::listen_again(const std::string& key, Socket& socket, ListenError& error) {
  if (!can_listen_again(socket.members.front().fd)) {
    if (!std::exchange(socket.told_dead, true)) spdlog::error("{} {}", key, fault(key));
    return true;
  }
  std::set<core::WorkerId> owners;
  for (const Member& member : socket.members) {
    if (!is_shut_down(member.fd)) continue;
    if (::listen(member.fd.get(), socket.listener.backlog) != 0) {
      return explain(error, socket.listener, "listen");
    }
    owners.insert(member.owners.begin(), member.owners.end());
  }
  spdlog::warn(
      "{} had been shut down by a process that has it: it listens again. Workers that have "
      "it, and may have stopped accepting, {}",
      key, tell_stranded(socket, owners) ? "are replaced" : "are replaced by a reload");
  return true;
}

bool Listeners::open(const std::string& key, const config::Listener& listener, ListenError& error,
                     bool may_wait) {
  if (is_open(key)) return true;
  Socket socket;
  UniqueFd fd;
  switch (listener.address.kind) {
    case AddressKind::kTcp:
      if (!open_tcp(listener, false, fd, error) &&
          !open_beside_own(socket, listener, may_wait, fd, error)) {
        return false;
      }
      break;
    case AddressKind::kUnixPath:
      if (!open_path(listener, fd, socket.path, error)) return false;
      break;
    case AddressKind::kUnixAbstract:
      if (!open_abstract(listener, fd, error)) return false;
      break;
    case AddressKind::kInherit: {
      const auto found = inherited_.find(listener.address.path);
      if (found == inherited_.end() || listener.inherited >= found->second.size()) {
        return explain(error, listener, "no listening socket of that name was handed over");
      }
      socket.inherited = found->first;
      fd = std::move(found->second[listener.inherited]);  // its place is kept for its return
      if (!fd) return explain(error, listener, "another listener has it");
    }
  }
  if (socket.inherited.empty() && !start_listening(listener, fd.get(), error)) return false;
  const bool lent = !socket.inherited.empty();
  socket.listener = listener;
  socket.members.push_back({std::move(fd), false, false, lent, {}});
  sockets_.emplace(key, std::move(socket));
  return true;
}

namespace {

// Whether a socket that was hidden can be shown again by us.
bool may_show() {
  const UniqueFd probe(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  return probe && hide_from_lookup(probe.get()) == 0 && show_to_lookup(probe.get()) == 0;
}

}  // namespace

// The port is ours already, at another address that has part of this one. Both may have it if both
// have SO_REUSEPORT and were made by one user. Until a worker is ready that accepts from the new
// one, the old one keeps all connections that both could have, if that is in our power.
bool Listeners::open_beside_own(Socket& socket, const config::Listener& listener, bool may_wait,
                                UniqueFd& fd, ListenError& error) {
  if (error.error != EADDRINUSE) return false;
  int shown = -1;  // the highest rank of those that get connections
  bool any = false;
  const auto join = [&](const std::vector<Member>& members, bool shows) {
    for (const Member& member : members) {
      const auto name = name_of(member.fd.get());
      const bool tcp = name && (name->family() == AF_INET || name->family() == AF_INET6);
      if (!tcp || port_of(*name) != listener.address.port) continue;
      any = set_option(member.fd.get(), SOL_SOCKET, SO_REUSEPORT, 1) || any;
      if (shows) shown = std::max(shown, rank_of(*name));
    }
  };
  for (const auto& [key, other] : sockets_) join(other.members, !other.turned_away);
  for (const Former& former : former_) join(former.members, false);
  if (!any || !open_tcp(listener, true, fd, error)) return false;
  const auto name = name_of(fd.get());
  if (shown < 0 || !name || rank_of(*name) <= shown || !may_wait || !may_show()) return true;
  socket.shown_later = hide_from_lookup(fd.get()) == 0;
  return true;
}

void Listeners::show(const std::string& key) {
  const auto found = sockets_.find(key);
  if (found == sockets_.end() || !std::exchange(found->second.shown_later, false)) return;
  for (const Member& member : found->second.members) {
    if (const int reason = show_to_lookup(member.fd.get()); reason != 0) {
      spdlog::error("show {} to new connections: {}", key, std::generic_category().message(reason));
    }
  }
}

// What systemd opened outlives the manager: what waits there is for the next start.
void Listeners::turn_away(const std::string& key) {
  const auto found = sockets_.find(key);
  if (found == sockets_.end() || !found->second.inherited.empty()) return;
  Socket& socket = found->second;
  socket.turned_away = true;
  socket.path.unlink();
  for (const Member& member : socket.members) {
    const int reason = socket.is_tcp() ? hide_from_lookup(member.fd.get()) : 0;
    if (reason == 0) continue;
    socket.turned_away = false;  // more may come for ever: nobody is to wait for that
    spdlog::warn("turn connections away from {}: {}", key, std::generic_category().message(reason));
  }
}

bool Listeners::turned_away(const std::string& key) const {
  const auto found = sockets_.find(key);
  return found != sockets_.end() && found->second.turned_away;
}

// Somebody is to serve it again. What cannot be taken back is opened anew.
bool Listeners::admit(const std::string& key, ListenError& error) {
  Socket& socket = sockets_.at(key);
  if (!std::exchange(socket.turned_away, false)) {
    ListenError lost;
    if (mend(key, lost)) return true;
    spdlog::error("{}: {}", lost.stage, std::generic_category().message(lost.error));
    return true;  // it has a socket, if one that nobody finds
  }
  if (socket.is_tcp()) {
    const bool shown = std::ranges::all_of(
        socket.members, [](const Member& member) { return show_to_lookup(member.fd.get()) == 0; });
    if (shown) return true;
  } else if (socket.listener.address.kind != AddressKind::kUnixPath) {
    return true;
  }
  return open_anew(key, socket, error);
}

// Those who have the old socket serve what waits there.
bool Listeners::open_anew(const std::string& key, Socket& socket, ListenError& error) {
  UniqueFd fd;
  SocketPath path;
  if (socket.is_tcp()) {
    for (const Member& member : socket.members) {
      set_option(member.fd.get(), SOL_SOCKET, SO_REUSEPORT, 1);
    }
    if (!open_another(socket.listener, socket.members.front().fd.get(), fd, error)) return false;
  } else if (!open_path(socket.listener, fd, path, error) ||
             !start_listening(socket.listener, fd.get(), error)) {
    return false;
  }
  retire(key, std::move(socket.members));
  socket.members.clear();
  socket.members.push_back({std::move(fd), false, false, false, {}});
  socket.path = std::move(path);
  socket.grouped = false;
  return true;
}

// Takes sockets out of use. Nobody new connects to them.
void Listeners::retire(const std::string& key, std::vector<Member> members) {
  Former former;
  const auto address = bound_address(members.front().fd.get());
  former.address = address ? address->text() : key;
  for (const Member& member : members) {
    if (closing_) closing_(member.fd.get());
    const bool tcp = address && address->kind == AddressKind::kTcp;
    if (tcp && !member.owners.empty()) std::ignore = hide_from_lookup(member.fd.get());
  }
  former.members = std::move(members);
  former_.push_back(std::move(former));
}

std::vector<Listeners::Cut> Listeners::close_former(bool all) {
  std::vector<Cut> cuts;
  std::erase_if(former_, [&](const Former& former) {
    std::int64_t waiting = 0;
    for (const Member& member : former.members) {
      if (!all && !member.owners.empty()) return false;
      waiting += std::max<std::int64_t>(queue_of(member.fd.get()).waiting, 0);
    }
    if (waiting > 0) cuts.push_back({former.address, waiting});
    return true;
  });
  return cuts;
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

}  // namespace

bool Listeners::add(Socket& socket, ListenError& error) {
  if (!socket.grouped) {
    const bool joined = std::ranges::all_of(socket.members, [](const Member& member) {
      return set_option(member.fd.get(), SOL_SOCKET, SO_REUSEPORT, 1);
    });
    if (!joined) return fail(error, "set SO_REUSEPORT on", socket.listener, errno);
  }
  UniqueFd fd;
  if (!open_another(socket.listener, socket.members.front().fd.get(), fd, error)) return false;
  // Without a selector, which only a group can have, whoever joins would get connections at once.
  if (!std::exchange(socket.grouped, true)) {
    const int reason = attach_selector(fd.get(), selector_program({0}, {}));
    if (reason != 0) return fail(error, "attach a selector to", socket.listener, reason);
  }
  socket.members.push_back({std::move(fd), false, false, false, {}});
  return true;
}

namespace {

// Workers get it as they would from systemd.
int give(Member& member, core::WorkerId worker) {
  if (std::exchange(member.nonblocking, false)) ::fcntl(member.fd.get(), F_SETFL, 0);
  member.lent = true;
  member.owners.insert(worker);
  return member.fd.get();
}

}  // namespace

std::vector<Listeners::Own> Listeners::own(const std::string& key) {
  std::vector<Own> fds;
  const auto found = sockets_.find(key);
  if (found == sockets_.end()) return fds;
  for (Member& member : found->second.members) {
    if (!member.owners.empty()) continue;
    if (!std::exchange(member.nonblocking, true)) ::fcntl(member.fd.get(), F_SETFL, O_NONBLOCK);
    fds.push_back({member.fd.get(), member.lent});
  }
  return fds;
}

int Listeners::share(const std::string& key, core::WorkerId worker, ListenError& error,
                     bool beside) {
  if (!admit(key, error)) return -1;
  Socket& socket = sockets_.at(key);
  beside = beside && socket.is_tcp();
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
  if (!admit(key, error)) return -1;
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
  if (socket.turned_away) return true;  // nobody will come
  return free_member(socket.members, {}) != nullptr || add(socket, error);
}

void Listeners::release(core::WorkerId worker) {
  const auto release = [&](std::vector<Member>& members) {
    for (Member& member : members) {
      if (member.owners.erase(worker) > 0 && member.owners.empty()) member.shared = false;
    }
  };
  for (auto& [key, socket] : sockets_) release(socket.members);
  for (Former& former : former_) release(former.members);
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
  if (socket.inherited.empty()) {
    retire(key, std::move(socket.members));
  } else {
    UniqueFd& fd = socket.members.front().fd;
    if (closing_) closing_(fd.get());
    inherited_[socket.inherited].at(socket.listener.inherited) = std::move(fd);
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
  figures.backlog = figures.backlog_limit = -1;
  for (const Member& member : members(key)) {
    const Queue queue = queue_of(member.fd.get());
    if (queue.waiting < 0) continue;
    figures.backlog = std::max<std::int64_t>(figures.backlog, 0) + queue.waiting;
    figures.backlog_limit = std::max<std::int64_t>(figures.backlog_limit, 0) + queue.limit;
  }
  return figures;
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
