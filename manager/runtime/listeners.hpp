// The sockets that workers accept from. The manager opens them and holds them for as long as it
// lives; it accepts from none, unless their pool says `accept: dispatch`.
//
// A listener has one socket that all its workers share or, with `accept: reuseport`, a group of
// them at one address (SO_REUSEPORT, socket(7)), each with an owner. What waits on a socket
// outlives its worker, and goes to whoever gets the socket next. A listener can change from one way
// to the other while it is open.
//
// They are blocking, as systemd hands them out: O_NONBLOCK belongs to the open socket that the
// manager and all workers share, and a program that blocks in accept(2), php-cgi for one, takes
// EAGAIN for the end. Programs with an event loop set O_NONBLOCK themselves.
//
// A tcp host is a numeric address, or empty or `*` for any address: IPv6
// with IPv4 mapped into it, or IPv4 where there is no IPv6. Other names would have to be asked of
// the network, and nothing in the manager blocks.
//
// A port may change its address while it is open (127.0.0.1 to any): both sockets are open then,
// and the kernel gives the narrower one what both could have. turn_away.hpp tells how it changes
// hands.
//
// A unix path is bound under its own name and not renamed into place, because programs tell
// sockets apart by getsockname(2). listen(2) comes last: before it no client can connect, so that
// it does not matter that owner and mode are not yet what they should be.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "config/src/model.hpp"
#include "core/ids.hpp"
#include "runtime/activation.hpp"
#include "runtime/backlog.hpp"
#include "runtime/open_socket.hpp"
#include "runtime/unique_fd.hpp"

namespace ostler::runtime {

struct ListenerFigures {
  std::string address;              // as bound: the port the kernel chose, if it did
  std::int64_t backlog = -1;        // connections waiting; -1: not known
  std::int64_t backlog_limit = -1;  // as the kernel has it, after somaxconn; -1: not known
};

// One socket of a listener.
struct Member {
  UniqueFd fd;
  bool shared = false;       // by all workers that are to share one
  bool nonblocking = false;  // the manager accepts from it
  bool lent = false;         // others have, or had, the open socket: O_NONBLOCK is theirs too
  std::set<core::WorkerId> owners;  // who has it; more than one if it is shared, or the other hangs
};

class Listeners {
 public:
  explicit Listeners(InheritedSockets inherited = {});
  ~Listeners();
  Listeners(const Listeners&) = delete;
  Listeners& operator=(const Listeners&) = delete;

  // Equal key, same socket: the canonical address, and v6only where it matters. A unix path is
  // named by its folder without symlinks. A port that the kernel chooses is each listener's own, so
  // pool and name are part of its key.
  static std::string key(const std::string& pool, const config::Listener& listener);

  // The pool as it is to be started: with the keys of its listeners as they are now, and for
  // `inherit:NAME` as many listeners as there are sockets of that name.
  [[nodiscard]] config::Pool resolve(config::Pool pool) const;
  // Closes the sockets from systemd whose names are not among these; their names.
  std::vector<std::string> close_unused(const std::set<std::string>& names);
  // Why nobody can connect to it: a unix path leads to this socket no more, or a process that has
  // the socket has shut it down (shutdown(2) is for all who have it). A clause that follows the
  // name, with what helps; "": nothing is wrong.
  [[nodiscard]] std::string fault(const std::string& key) const;
  // Mends that: a tcp socket listens again, a path is bound anew, and the next worker gets the new
  // socket. One that cannot be mended is logged once, and is no error. False: error.
  [[nodiscard]] bool mend(const std::string& key, ListenError& error);

  // `may_wait`: a narrower address than one of ours need not get connections before a worker is
  // ready for it. Opens (socket, options, bind, mode and owner, listen) or adopts the socket of
  // `listener` under `key`; true also if that is open already. Close-on-exec. Error: nothing is
  // left behind. A unix path that nobody listens on any more is replaced; one that somebody does is
  // EADDRINUSE.
  [[nodiscard]] bool open(const std::string& key, const config::Listener& listener,
                          ListenError& error, bool may_wait = true);
  // Applies what can change on an open socket: backlog, mode, owner. What systemd opened is left
  // as its unit says.
  [[nodiscard]] bool adjust(const std::string& key, const config::Listener& listener,
                            ListenError& error);
  // The socket for a worker: the one that all share, or one of its own. A socket that nobody has
  // any more comes first, the fullest of them; else one is opened. `hopeless` workers never accept
  // again. `beside`: the manager goes on accepting from its own where another can be opened, which
  // is not so at a path. -1: error.
  [[nodiscard]] int share(const std::string& key, core::WorkerId worker, ListenError& error,
                          bool beside = false);
  [[nodiscard]] int claim(const std::string& key, core::WorkerId worker,
                          const std::set<core::WorkerId>& hopeless, ListenError& error,
                          bool beside = false);
  // A socket that nobody has, for connections to wait on while no worker is there. False: error.
  [[nodiscard]] bool spare(const std::string& key, ListenError& error);
  // Sockets that no worker has, for the manager to accept from: they do not block, unless somebody
  // whom one was lent to takes that back.
  struct Own {
    int fd = -1;
    bool lent = false;
    bool operator==(const Own&) const = default;
  };
  [[nodiscard]] std::vector<Own> own(const std::string& key);
  // The worker is gone. What it had stays open.
  void release(core::WorkerId worker);
  // Closes one of several sockets; what waits on it would be lost.
  void drop(const std::string& key, std::size_t member);
  // In the order of their indices for a selector (selector.hpp); a reference until the next change.
  [[nodiscard]] const std::vector<Member>& members(const std::string& key) const;
  [[nodiscard]] std::vector<std::string> keys() const;
  // Called when a socket has been mended: these workers had it before, and may accept no more. Not
  // again within a minute: it may be that each worker does that when it goes.
  void on_stranded(std::function<void(const std::set<core::WorkerId>&)> stranded) {
    stranded_ = std::move(stranded);
  }
  // Called before a descriptor is closed.
  void on_closing(std::function<void(int fd)> closing) { closing_ = std::move(closing); }

  // From now on no new connection finds it; what waits is there to be served. Whoever gets it next
  // by `share` or `claim` makes an end of that. Not so with inherited sockets, and an abstract one
  // is found until it is closed.
  void turn_away(const std::string& key);
  [[nodiscard]] bool turned_away(const std::string& key) const;
  // Makes an end of that, and binds a path anew that leads elsewhere; as `share` and `claim` do.
  [[nodiscard]] bool admit(const std::string& key, ListenError& error);
  // A worker is ready that accepts from it: connections that another listener of ours has had until
  // now may come.
  void show(const std::string& key);

  // Closes; unlinks the path of a unix socket if it is still this socket's. An inherited socket
  // is kept instead, so that it can be adopted again. What workers still have goes on in their
  // hands.
  void close(const std::string& key);
  struct Cut {
    std::string address;
    std::int64_t connections = 0;
  };
  // Lets go of closed sockets that no worker has any more, or of all: connections that still
  // waited.
  std::vector<Cut> close_former(bool all);

  [[nodiscard]] bool is_open(const std::string& key) const;
  // The socket of a worker, or of anybody; -1: not open.
  [[nodiscard]] int fd(const std::string& key, core::WorkerId worker = {}) const;
  [[nodiscard]] ino_t inode(const std::string& key, core::WorkerId worker = {}) const;  // for /proc
  // Of all its sockets together.
  [[nodiscard]] ListenerFigures figures(const std::string& key) const;
  // "127.0.0.1:8080", "8080" for any address, or the path, as SERVER_STARTER_PORT wants it.
  [[nodiscard]] std::string server_starter_name(const std::string& key) const;

 private:
  struct Socket;
  struct Former;
  [[nodiscard]] static bool add(Socket& socket, ListenError& error);
  [[nodiscard]] bool open_beside_own(Socket& socket, const config::Listener& listener,
                                     bool may_wait, UniqueFd& fd, ListenError& error);
  [[nodiscard]] bool open_anew(const std::string& key, Socket& socket, ListenError& error);
  [[nodiscard]] bool listen_again(const std::string& key, Socket& socket, ListenError& error);
  void retire(const std::string& key, std::vector<Member> members);
  InheritedSockets inherited_;
  std::map<std::string, Socket> sockets_;
  std::vector<Former> former_;
  bool tell_stranded(Socket& socket, const std::set<core::WorkerId>& workers) const;
  std::function<void(int fd)> closing_;
  std::function<void(const std::set<core::WorkerId>&)> stranded_;
};

}  // namespace ostler::runtime
