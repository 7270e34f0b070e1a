// How listeners come about, and why they do not.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <map>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "runtime/clock.hpp"
#include "runtime/limits.hpp"
#include "runtime/runtime.hpp"
#include "runtime/socket_holder.hpp"

namespace ostler::runtime {
namespace {

std::string reason(int error) {
  return std::generic_category().message(error);
}

const config::Listener* find_listener(const config::Pool& pool, const std::string& key) {
  const auto found = std::ranges::find_if(pool.listen, [&](const config::Listener& listener) {
    return Listeners::key(pool.name, listener) == key;
  });
  return found == pool.listen.end() ? nullptr : &*found;
}

// What would be right, where it is known.
std::string remedy(int error) {
  switch (error) {
    case EACCES:
      return "a port below 1024 needs root, CAP_NET_BIND_SERVICE or a lower "
             "net.ipv4.ip_unprivileged_port_start; a unix socket a folder that may be written";
    case EADDRNOTAVAIL:
      return "no interface of this machine has that address: give one that it has, or * for any";
    case ENOENT:
      return "its folder does not exist";
    default:
      return {};
  }
}

}  // namespace

void Runtime::perform(const core::OpenListener& action) {
  const auto launch = launches_.at(action.launch);
  const config::Listener* listener = find_listener(launch->pool, action.key);
  ListenError error;
  const bool one_place = launch->pool.socket_protocol == config::SocketProtocol::kFastcgi;
  if (one_place && launch->pool.listen.size() > 1) {
    explain(error, *listener,
            std::to_string(launch->pool.listen.size()) +
                " sockets of that name were handed over, and there is place for one with "
                "socket_protocol: fastcgi");
    return refuse(action.key, error);
  }
  const bool may_wait = launch->pool.accept != config::Accept::kReuseport;
  if (listeners_.open(action.key, *listener, error, may_wait)) {
    const ListenerFigures figures = listeners_.figures(action.key);
    spdlog::info("listening on {}", figures.address);
    if (figures.backlog_limit >= 0 && figures.backlog_limit < listener->backlog) {
      spdlog::warn("{}: the kernel cut the backlog from {} to {} (net.core.somaxconn)",
                   figures.address, listener->backlog, figures.backlog_limit);
    }
    return enqueue(core::ListenerOpened{action.key});
  }
  // The workers of a manager that was killed may still drain, with the address in their hands.
  const bool patient = error.error == EADDRINUSE && !core_.state().configured &&
                       now() < started_ + limits::kBindPatience;
  if (!patient) {
    if (error.error != EADDRINUSE) return refuse(action.key, error);
    return say_who_has_it(action.key, listener->address, error);
  }
  auto timer = std::make_shared<boost::asio::steady_timer>(context_, limits::kBindAgain);
  timer->async_wait([this, timer, action](const boost::system::error_code&) {
    if (launches_.contains(action.launch)) perform(action);
  });
}

void Runtime::refuse(const std::string& key, const ListenError& error, const std::string& more) {
  core::Failure failure;
  failure.kind = core::FailureKind::kListener;
  failure.stage = error.stage;
  failure.error = error.error;
  const std::string hint = more.empty() ? remedy(error.error) : more;
  if (!hint.empty()) {
    failure.stage = core::describe(failure) + " (" + hint + ")";
    failure.error = 0;
  }
  spdlog::error("{}", core::describe(failure));
  enqueue(core::ListenerFailed{key, failure});
}

// To look for it takes as long as there are processes: the loop does not wait for that.
void Runtime::say_who_has_it(const std::string& key, const config::Address& address,
                             const ListenError& error) {
  searches_.emplace_back([this, key, address, error] {
    const std::string holder = holder_of(address, limits::kHolderSearch);
    boost::asio::post(context_, [this, key, error, holder] {
      refuse(key, error, holder.empty() ? "" : "held by " + holder);
    });
  });
}

// What systemd handed over and no pool names would take connections that nobody serves.
void Runtime::close_unused_sockets() {
  std::set<std::string> names;
  for (const auto& [name, pool] : config_.pools) {
    for (const config::Listener& listener : pool.listen) {
      const bool inherits = listener.address.kind == config::AddressKind::kInherit;
      if (inherits) names.insert(listener.address.path);
    }
  }
  for (const std::string& name : listeners_.close_unused(names)) {
    spdlog::warn(
        "systemd handed over a socket named '{}', and no pool has it: closed (a pool gets it "
        "by 'listen: inherit:{}')",
        name, name);
  }
}

// A unix listener whose file is gone is bound anew before workers are started for it.
void Runtime::mend_listeners(const config::Config& config, std::vector<config::Fault>& faults) {
  for (const auto& [name, pool] : config.pools) {
    for (const config::Listener& listener : pool.listen) {
      ListenError error;
      if (listeners_.mend(Listeners::key(name, listener), error)) continue;
      const std::string hint = remedy(error.error);
      faults.push_back(
          {config.file, 0, 0, "pools." + name + ".listen",
           error.stage + ": " + reason(error.error) + (hint.empty() ? "" : " (" + hint + ")")});
    }
  }
}

void Runtime::adjust_listeners(const std::string& name) {
  const core::Pool* pool = core::find_pool(core_.state(), name);
  const auto launch = pool == nullptr ? launches_.end() : launches_.find(pool->plan().launch);
  if (launch == launches_.end()) return;
  for (const config::Listener& listener : launch->second->pool.listen) {
    ListenError error;
    if (!listeners_.adjust(Listeners::key(name, listener), listener, error)) {
      control::EventView event;
      event.pool = name;
      log_event(spdlog::level::err, event, "{}: {}", error.stage, reason(error.error));
    }
  }
}

}  // namespace ostler::runtime
