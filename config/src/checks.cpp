#include "config/src/checks.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <optional>
#include <system_error>
#include <utility>

#include "config/src/address.hpp"
#include "config/src/env_file.hpp"
#include "config/src/files.hpp"
#include "config/src/places.hpp"
#include "config/src/scalars.hpp"
#include "config/src/text.hpp"
#include "config/src/tokens.hpp"

namespace ostler::config {
namespace {

// The checks of one pool; `at(KEY)` is where a key was written, its node null if it was not.
class PoolCheck {
 public:
  PoolCheck(Reader& reader, PoolDraft& draft, bool trusted)
      : reader_(reader),
        draft_(draft),
        pool_(draft.pool),
        host_(reader.host()),
        trusted_(trusted) {}

  void run() {
    merge_env_file();
    check_directory();
    check_command();
    check_tokens();
    check_restart();
    check_account();
    if (at("sandbox.no_new_privileges").node == nullptr) {
      pool_.no_new_privileges = pool_.user.has_value();
    }
    check_output();
    for (std::size_t i = 0; i < pool_.listen.size(); ++i) check_listener(i);
    check_fastcgi();
    check_accept();
    check_ready();
    check_dispatch();
    check_scaling();
    check_worker();
    check_recycle();
    check_health();
    check_private_requests();
    check_places(reader_, draft_);
  }

 private:
  [[nodiscard]] At at(std::string_view key) const { return descend(draft_.at, key); }
  [[nodiscard]] bool faulty(std::string_view key) const { return reader_.is_faulty(at(key).path); }
  void fault(const At& where, std::string message) {
    reader_.faults().add(where, std::move(message));
    reader_.mark_faulty(where.path);
  }

  void merge_env_file() {
    if (!pool_.env_file) return;
    const At where = at("env_file");
    const auto user = pool_.user ? find_user(*pool_.user) : UserId{host_.uid, true};
    const FileText file = read_file(*pool_.env_file, trusted_ && user && user->uid == 0);
    if (!file.problem.empty()) return fault(where, quote(*pool_.env_file) + " " + file.problem);
    EnvFile parsed = parse_env_file(file.text);
    const auto source = std::make_shared<const Source>(Source{*pool_.env_file, {}, {}, {}});
    for (auto& [line, problem] : parsed.problems) {
      reader_.faults().add({source, line, 1}, where.path, std::move(problem));
    }
    pool_.env.merge(parsed.values);
  }

  void check_directory() {
    if (faulty("directory")) return;
    if (!pool_.directory) return take_own_folder();
    const std::string folder = real_path(*pool_.directory);
    struct stat status {};
    if (folder.empty() || stat(folder.c_str(), &status) != 0) {
      const std::string reason = std::generic_category().message(errno);
      return fault(at("directory"), "the folder " + quote(*pool_.directory) + ": " + reason);
    }
    if (!S_ISDIR(status.st_mode)) {
      return fault(at("directory"), quote(*pool_.directory) + " is not a folder");
    }
    pool_.folder = folder;
  }

  // The manager is there already, whether or not it could go there again.
  void take_own_folder() {
    std::string folder = real_path(host_.folder);
    if (folder.empty() && errno != EACCES) {
      const std::string reason = std::generic_category().message(errno);
      nowhere_ = true;
      return reader_.faults().add(draft_.place, draft_.at.path,
                                  "its workers start in the manager's working directory, " +
                                      quote(host_.folder) + ": " + reason +
                                      "; give the pool a 'directory:'");
    }
    const bool enterable = faccessat(AT_FDCWD, folder.c_str(), X_OK, AT_EACCESS) == 0;
    if (enterable) pool_.folder = std::move(folder);
  }

  void check_command() {
    if (pool_.command.empty()) {
      if (at("command").node != nullptr) return;  // has its fault already
      return reader_.faults().add(draft_.place, draft_.at.path,
                                  "needs a 'command', such as command: [/usr/bin/app, --flag]");
    }
    find_program("command", pool_.command.front(), pool_.executable, pool_.argv0);
  }

  // Where the program is that KEY names, and what it is told to be; both empty if there is a fault.
  void find_program(std::string_view key, const std::string& name, std::string& executable,
                    std::string& argv0) {
    if (has_token(name)) {
      return fault(at(key), "the executable's own name cannot hold a token such as {slot}");
    }
    if (nowhere_ || faulty("directory") || faulty("env_file")) return;
    Found found =
        find_executable(name, host_.path_with(pool_.env), pool_.folder.value_or(host_.folder));
    if (!found.problem.empty()) return fault(at(key), std::move(found.problem));
    const std::string full = absolute_path(found.path, "/");
    executable = in_real_folder(full);
    argv0 = executable == full ? name : executable;
  }

  [[nodiscard]] std::vector<std::string_view> listener_names() const {
    std::vector<std::string_view> names;
    for (const Listener& listener : pool_.listen) names.push_back(listener.name);
    return names;
  }

  [[nodiscard]] bool has_token(std::string_view text) const {
    return !find_tokens(text, listener_names()).empty();
  }

  void check_tokens() {
    const At command = at("command");
    for (std::size_t i = 1; i < pool_.command.size(); ++i) {
      const bool list = command.node->kind == NodeKind::kList;
      check_tokens_in(list ? item(command, i) : command, pool_.command[i]);
    }
    const At env = at("env");
    for (const auto& [name, value] : pool_.env) {
      const Entry* entry = env.node == nullptr ? nullptr : env.node->find(name);
      const At where = entry == nullptr ? at("env_file") : child(env, *entry);
      check_tokens_in(where, value);
      if (entry != nullptr) check_dollars(where, value);
    }
    if (pool_.output.mode == OutputMode::kFile) check_tokens_in(at("output"), pool_.output.path);
  }

  void check_tokens_in(const At& where, std::string_view text) {
    check_spelling(where, text);
    if (faulty("listen")) return;
    for (const Token& token : find_tokens(text, listener_names())) {
      if (token.kind != TokenKind::kFd) continue;
      if (pool_.accept == Accept::kDispatch) {
        return fault(where,
                     "holds {fd}, but with accept: dispatch workers are handed connections and "
                     "no listener; leave it out, or use accept: shared");
      }
      if (!token.name.empty()) {
        check_fd_name(where, token.name);
      } else if (pool_.listen.empty()) {
        fault(where, "holds {fd}, but the pool has no listener; give it one with 'listen:'");
      }
    }
  }

  void check_spelling(const At& where, std::string_view text) {
    for (const Misspelt& one : find_misspelt_tokens(text)) {
      fault(where, "holds " + shown(one.text) + "; did you mean " + std::string(one.meant) + "?");
    }
  }

  // Passwords have them too, so the value is not shown.
  void check_dollars(const At& where, std::string_view value) {
    for (std::size_t at = value.find('$'); at < value.size(); at = value.find('$', at + 1)) {
      std::size_t name = at + 1;
      if (name < value.size() && value[name] == '{') ++name;
      const char c = name < value.size() ? value[name] : ' ';
      const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
      if (!letter) continue;
      draft_.warnings.push_back(
          fault_at(where.node->place, where.path,
                   "holds a '$' before a name, and workers get it as it is: no variable is "
                   "expanded here"));
      return;
    }
  }

  void check_fd_name(const At& where, std::string_view name) {
    const std::vector<std::string_view> names = listener_names();
    if (std::find(names.begin(), names.end(), name) != names.end()) return;
    std::string known = did_you_mean(name, names);
    if (known.empty() && !names.empty()) known = "; there is " + shown(any_of(names));
    if (names.empty()) known = "; the pool has none";
    fault(where, "{fd:" + shown(name) + "} names no listener of this pool" + known);
  }

  void check_restart() {
    const Restart& restart = pool_.restart;
    if (restart.backoff <= restart.backoff_max) return;
    if (faulty("restart.backoff") || faulty("restart.backoff_max")) return;
    const At most = at("restart.backoff_max");
    if (most.node == nullptr) {
      return fault(at("restart.backoff"),
                   "must not be above backoff_max, which is " + duration_text(restart.backoff_max));
    }
    fault(most, "must not be below backoff, which is " + duration_text(restart.backoff));
  }

  void check_account() {
    if (pool_.user && !faulty("user")) check_user();
    if (!pool_.group || faulty("group")) return;
    const auto gid = find_group(*pool_.group);
    if (!gid) {
      fault(at("group"), "there is no group " + quote(*pool_.group));
    } else if (*gid != host_.gid && !host_.may_set_group()) {
      fault(at("group"), may_not_switch("group", *pool_.group));
    }
  }

  void check_user() {
    const auto user = find_user(*pool_.user);
    if (!user) return fault(at("user"), "there is no user " + quote(*pool_.user));
    // With the user the groups are set too.
    const bool may_switch = host_.may_set_user() && host_.may_set_group();
    if (user->uid != host_.uid && !may_switch) {
      return fault(at("user"), may_not_switch("user", *pool_.user));
    }
    if (!user->known && at("group").node == nullptr) {
      fault(at("user"), "user " + quote(*pool_.user) +
                            " has no entry in the user database, so its group is not known; give "
                            "a 'group:' too");
    }
  }

  // Root opens it, so the workers must not be able to make that another file.
  void check_output() {
    if (!trusted_ || pool_.output.mode != OutputMode::kFile || !pool_.user) return;
    if (faulty("output") || faulty("user") || faulty("group")) return;
    const Account account = account_of(*pool_.user, pool_.group);
    if (account.uid == 0) return;
    const std::string folder = folder_writable_by(account, pool_.output.path);
    if (folder.empty()) return;
    fault(at("output"), quote(pool_.output.path) + " may be led elsewhere by " +
                            quote(user_text(account.uid)) + ", who may write the folder " +
                            quote(folder) +
                            ", and the manager opens it as root; take a folder that only root may "
                            "write, such as /var/log/" +
                            pool_.name);
  }

  [[nodiscard]] std::string may_not_switch(std::string_view what, const std::string& name) const {
    return "the manager runs as " + quote(user_text(host_.uid)) + " and may not switch to the " +
           std::string(what) + " " + quote(name) + "; start it as root, or leave '" +
           std::string(what) + "' out";
  }

  void check_listener(std::size_t index) {
    const Listener& listener = pool_.listen[index];
    const At& where = draft_.listeners[index];
    if (listener.address.kind == AddressKind::kTcp && !host_.may_bind(listener.address.port)) {
      fault(address_at(where),
            "ports below " + std::to_string(host_.first_free_port) +
                " are for root and CAP_NET_BIND_SERVICE, and the manager runs as " +
                quote(user_text(host_.uid)) + "; use a higher port, or inherit:NAME");
    }
    if (listener.user) {
      const auto user = find_user(*listener.user);
      const bool allowed = user && (user->uid == host_.uid || host_.may_give_files_away());
      check_owner(descend(where, "user"), "user", *listener.user, user.has_value(), allowed);
    }
    if (listener.group) {
      const auto gid = find_group(*listener.group);
      const bool allowed = gid && (host_.in_group(*gid) || host_.may_give_files_away());
      check_owner(descend(where, "group"), "group", *listener.group, gid.has_value(), allowed);
    }
  }

  void check_owner(const At& where, const std::string& what, const std::string& name, bool exists,
                   bool allowed) {
    if (!exists) {
      fault(where, "there is no " + what + " " + quote(name));
    } else if (!allowed) {
      fault(where, "the manager runs as " + quote(user_text(host_.uid)) +
                       " and may not give a socket to the " + what + " " + quote(name) +
                       "; start it as root, or leave '" + what + "' out");
    }
  }

  [[nodiscard]] static At address_at(const At& listener) {
    const At address = descend(listener, "address");
    return address.node == nullptr ? listener : address;
  }

  void check_fastcgi() {
    if (pool_.socket_protocol != SocketProtocol::kFastcgi || faulty("listen")) return;
    if (pool_.listen.size() == 1) return;
    fault(at("socket_protocol"),
          "fastcgi needs exactly one listener (it becomes fd 0), and the "
          "pool has " +
              std::to_string(pool_.listen.size()));
  }

  void check_accept() {
    if (pool_.accept == Accept::kShared || faulty("listen")) return;
    if (pool_.listen.empty()) {
      return fault(at("accept"),
                   "says how workers share listeners, and the pool " + quote(pool_.name) +
                       " has none; use accept: shared, or give it one with 'listen:'");
    }
    if (pool_.accept == Accept::kDispatch) {
      if (pool_.socket_protocol != SocketProtocol::kFastcgi) return;
      return fault(at("accept"),
                   "is for workers built on the SDK, which are handed connections, and "
                   "those of the pool " +
                       quote(pool_.name) +
                       " speak fastcgi; use accept: shared, or leave "
                       "'socket_protocol' out");
    }
    for (std::size_t i = 0; i < pool_.listen.size(); ++i) {
      if (pool_.listen[i].address.kind == AddressKind::kTcp) continue;
      fault(address_at(draft_.listeners[i]),
            "accept: reuseport needs a socket for each worker, which there is on tcp alone; use "
            "tcp://HOST:PORT, or accept: shared or dispatch");
    }
  }

  // Merged in from the defaults it is for those pools that dispatch.
  void check_ready() {
    if (pool_.ready.mode != ReadyMode::kListening || faulty("listen")) return;
    if (pool_.listen.empty()) {
      fault(at("ready"), "needs a listener, on which a worker can be seen to wait");
    } else if (pool_.accept == Accept::kDispatch) {
      fault(at("ready"), "is not for accept: dispatch, where the manager waits for connections");
    }
  }

  void check_dispatch() {
    if (pool_.accept == Accept::kDispatch || faulty("accept")) return;
    pool_.dispatch = Pool{}.dispatch;
    const Entry* entry = draft_.at.node->find("dispatch");
    if (entry == nullptr || entry->from_defaults || faulty("dispatch")) return;
    fault(at("dispatch"), "goes with accept: dispatch, and accept is " +
                              std::string(word(pool_.accept)) +
                              "; leave it out, or set accept: dispatch");
  }

  void check_scaling() {
    auto* scaled = std::get_if<ScaledWorkers>(&pool_.workers);
    if (scaled == nullptr || faulty("workers")) return;
    if (at("workers.max").node == nullptr) {
      fault(at("workers"), "needs a 'max', such as {min: 2, max: 8}; or give a number, or auto");
    } else if (scaled->max < scaled->min) {
      fault(at("workers.max"), "must not be below min, which is " + std::to_string(scaled->min));
    }
    const At target = at("workers.target");
    if (target.node == nullptr && scaled->by == ScaleBy::kBacklog) scaled->target = 1;
    if (scaled->by == ScaleBy::kBusy && scaled->target > 1) {
      fault(target, "is a share of the workers' capacity with by: busy, above 0 and up to 1, not " +
                        found(*target.node) + "; or use by: backlog");
    }
    if (pool_.listen.empty() && !faulty("listen")) check_scaling_without_listener(*scaled);
  }

  void check_scaling_without_listener(const ScaledWorkers& scaled) {
    if (scaled.by == ScaleBy::kBacklog) {
      fault(at("workers.by"),
            "backlog counts connections that wait at a listener, and the pool has "
            "none; use by: busy, or give it one with 'listen:'");
    }
    if (scaled.min == 0) {
      fault(at("workers.min"),
            "with no worker only a connection can ask for one, and the pool has "
            "no listener; use at least 1, or give it one with 'listen:'");
    }
  }

  void check_worker() {
    const WorkerSettings& worker = pool_.worker;
    if (!worker.threads || !worker.worker_class || *worker.worker_class == WorkerClass::kThreads) {
      return;
    }
    fault(at("worker.threads"), "is for class: threads; leave it out, or change the class");
  }

  void check_recycle() {
    const At where = at("recycle");
    if (where.node == nullptr || where.node->kind != NodeKind::kMap || faulty("recycle")) return;
    const Recycle& recycle = pool_.recycle;
    if (recycle.requests_jitter > 0 && !recycle.requests) {
      fault(at("recycle.requests_jitter"), "goes with 'requests', which is not given");
    }
    if (recycle.lifetime_jitter > Duration{0} && !recycle.lifetime) {
      fault(at("recycle.lifetime_jitter"), "goes with 'lifetime', which is not given");
    }
    if (recycle == Recycle{}) fault(where, "needs 'requests', 'lifetime' or 'memory'; or off");
  }

  void check_health() {
    if (!pool_.health || faulty("health")) return;
    Health& health = *pool_.health;
    if (health.timeout > health.interval) {
      const At timeout = at("health.timeout");
      fault(timeout.node == nullptr ? at("health.interval") : timeout,
            "the interval, which is " + duration_text(health.interval) +
                ", must not be below the timeout, which is " + duration_text(health.timeout));
    }
    if (health.request.has_value() == !health.exec.empty()) {
      return fault(at("health"), health.request ? "has both 'request' and 'exec'; give one of them"
                                                : "needs a 'request' such as \"GET /healthz\", or "
                                                  "an 'exec' such as [/usr/lib/app/check]");
    }
    if (health.exec.empty()) return;
    for (const char* key : {"health.host", "health.headers", "health.expect"}) {
      if (at(key).node != nullptr)
        fault(at(key), "goes with 'request', and the check is a program");
    }
    check_exec_tokens(health.exec);
    find_program("health.exec", health.exec.front(), health.executable, health.argv0);
  }

  void check_exec_tokens(const std::vector<std::string>& words) {
    const At exec = at("health.exec");
    for (std::size_t i = 1; i < words.size(); ++i) {
      const At where = exec.node->kind == NodeKind::kList ? item(exec, i) : exec;
      check_spelling(where, words[i]);
      const auto tokens = find_tokens(words[i], listener_names());
      if (std::ranges::count(tokens, TokenKind::kFd, &Token::kind) == 0) continue;
      fault(where, "holds {fd}, but a check is not given the pool's listeners");
    }
  }

  void check_private_requests() {
    if (faulty("listen")) return;
    const bool checked = pool_.health && pool_.health->request && !faulty("health");
    if (checked) check_serves_http("health.request", "; use health: {exec}");
    if (!pool_.warmup.empty()) check_serves_http("warmup", "");
  }

  // KEY holds requests, which go to a worker that serves HTTP.
  void check_serves_http(std::string_view key, const char* way_out) {
    if (pool_.socket_protocol == SocketProtocol::kFastcgi) {
      fault(at(key),
            std::string("is for workers that serve HTTP, and this pool's speak fastcgi") + way_out);
    } else if (pool_.listen.empty()) {
      fault(at(key), "is for workers that serve HTTP, and the pool has no listener");
    }
  }

  Reader& reader_;
  PoolDraft& draft_;
  Pool& pool_;
  const Host& host_;
  bool trusted_;
  bool nowhere_ = false;  // there is no folder for its workers to start in
};

// The listeners seen so far, so arranged that each new one is held against few of them.
class Seen {
 public:
  struct Ref {
    const PoolDraft* draft;
    std::size_t index;
    [[nodiscard]] const Listener& listener() const { return draft->pool.listen[index]; }
  };

  // One that collides with REF, if there is any; else REF is remembered.
  std::optional<Ref> meet(const Ref& ref) {
    const Address& address = ref.listener().address;
    if (address.kind == AddressKind::kUnixPath) {
      const auto [place, fresh] = paths_.try_emplace(in_real_folder(address.path), ref);
      if (fresh) return std::nullopt;
      return place->second;
    }
    const bool tcp = address.kind == AddressKind::kTcp;
    Group& group = groups_[tcp ? std::to_string(address.port) : address.text()];
    const bool any = is_any_address(ref.listener());
    const std::string host(bare_host(address));
    if (const auto other = first(group.any, ref)) return other;
    const auto same = group.by_host.find(host);
    if (same != group.by_host.end() && collide(same->second.listener(), ref.listener())) {
      return same->second;
    }
    if (any) {
      if (const auto other = first(group.all, ref)) return other;
      group.any.push_back(ref);
    }
    group.all.push_back(ref);
    group.by_host.emplace(host, ref);
    return std::nullopt;
  }

 private:
  struct Group {
    std::vector<Ref> all, any;
    std::map<std::string, Ref> by_host;
  };

  static std::optional<Ref> first(const std::vector<Ref>& refs, const Ref& ref) {
    const auto found = std::find_if(refs.begin(), refs.end(), [&ref](const Ref& other) {
      return collide(other.listener(), ref.listener());
    });
    if (found == refs.end()) return std::nullopt;
    return *found;
  }

  std::map<std::string, Group> groups_;
  std::map<std::string, Ref> paths_;  // of unix sockets, by what their folders are links to
};

}  // namespace

void check_pool(Reader& reader, PoolDraft& draft, bool trusted) {
  PoolCheck(reader, draft, trusted).run();
}

void check_listeners_apart(Reader& reader, const std::vector<PoolDraft>& drafts) {
  Seen seen;
  for (const PoolDraft& draft : drafts) {
    for (std::size_t i = 0; i < draft.pool.listen.size(); ++i) {
      const auto other = seen.meet({&draft, i});
      if (!other) continue;
      const std::string owner =
          other->draft == &draft ? "this pool itself" : "pool " + quote(other->draft->pool.name);
      const At& there = other->draft->listeners[other->index];
      reader.faults().add(draft.listeners[i], shown(draft.pool.listen[i].address.text()) +
                                                  " is taken: " + owner + " listens on " +
                                                  shown(other->listener().address.text()) + " (" +
                                                  there.node->place.text() + ")");
    }
  }
}

}  // namespace ostler::config
