#include "config/src/listen.hpp"

#include <array>
#include <set>
#include <utility>

#include "config/src/address.hpp"
#include "config/src/scalars.hpp"
#include "config/src/walk.hpp"

namespace ostler::config {
namespace {

constexpr std::size_t kMaxListeners = 256;

void read_address(Reader& reader, const At& at, Listener& out) {
  if (at.node->kind != NodeKind::kScalar) {
    return reader.wrong(at, "an address such as tcp://127.0.0.1:8080");
  }
  ParsedAddress parsed = parse_address(at.node->text);
  if (!parsed.address) return reader.faults().add(at, std::move(parsed.problem));
  out.address = std::move(*parsed.address);
}

void read_name(Reader& reader, const At& at, Listener& out) {
  if (at.node->kind != NodeKind::kScalar || !is_listener_name(at.node->text)) {
    return reader.wrong(at, "1 to 255 printable ASCII characters without ':'");
  }
  out.name = at.node->text;
}

void read_v6only(Reader& reader, const At& at, Listener& out) {
  bool only = false;
  if (reader.boolean(at, only)) out.v6only = only;
}

// Settings that make no sense for the kind of address they were given with.
void check_fit(Reader& reader, const At& at, const Listener& listener) {
  if (listener.address.kind != AddressKind::kUnixPath) {
    for (const std::string_view key : {"mode", "user", "group"}) {
      const At value = descend(at, key);
      if (value.node != nullptr)
        reader.faults().add(value, "is only for sockets with a path (unix:///PATH)");
    }
  }
  const At v6only = descend(at, "v6only");
  if (v6only.node != nullptr && !is_ipv6(listener.address)) {
    reader.faults().add(v6only, "is only for IPv6 addresses, such as tcp://[::]:80");
  }
}

// One item of the list; whether it is without a fault.
bool read_listener(Reader& reader, const At& at, Listener& out) {
  const std::size_t before = reader.faults().added();
  if (at.node->kind != NodeKind::kMap) {
    read_address(reader, at, out);
    return reader.faults().added() == before;
  }
  walk(reader, at, listener_keys(), out);
  if (at.node->find("address") == nullptr) {
    reader.faults().add(at, "needs an address, as {address: tcp://127.0.0.1:8080, …}");
  } else if (reader.faults().added() == before) {
    check_fit(reader, at, out);
  }
  return reader.faults().added() == before;
}

// "http", then "http1", …, those that were given to others left out.
void name_listeners(Reader& reader, PoolDraft& draft) {
  std::set<std::string> taken;
  for (std::size_t i = 0; i < draft.pool.listen.size(); ++i) {
    const std::string& name = draft.pool.listen[i].name;
    if (name.empty() || taken.insert(name).second) continue;
    reader.faults().add(
        descend(draft.listeners[i], "name"),
        "the name " + quote(name) + " is already that of another listener of this pool");
  }
  std::size_t number = 0;
  for (Listener& listener : draft.pool.listen) {
    while (listener.name.empty()) {
      std::string name = "http" + (number == 0 ? "" : std::to_string(number));
      ++number;
      if (taken.insert(name).second) listener.name = std::move(name);
    }
  }
}

}  // namespace

std::span<const Key<Listener>> listener_keys() {
  static constexpr std::array kKeys = {
      Key<Listener>{{"address", "", "tcp://HOST:PORT, unix:///PATH, unix:@NAME or inherit:NAME"},
                    read_address},
      Key<Listener>{{"name", "", "what workers know it by (default: http, then http1, …)"},
                    read_name},
      Key<Listener>{
          {"backlog", "2048", "how many connections may wait"},
          [](Reader& r, const At& at, Listener& out) { r.whole(at, 1, 1'000'000, out.backlog); }},
      Key<Listener>{{"v6only", "", "leave IPv4 out of an IPv6 address"}, read_v6only},
      Key<Listener>{{"mode", "0666", "a unix socket's mode"},
                    [](Reader& r, const At& at, Listener& out) { r.mode(at, out.mode); }},
      Key<Listener>{{"user", "", "a unix socket's owner"},
                    [](Reader& r, const At& at, Listener& out) { r.account(at, out.user); }},
      Key<Listener>{{"group", "", "a unix socket's group"},
                    [](Reader& r, const At& at, Listener& out) { r.account(at, out.group); }},
  };
  return kKeys;
}

void read_listen(Reader& reader, const At& at, PoolDraft& out) {
  if (at.node->kind != NodeKind::kList) {
    return reader.wrong(at, "a list of addresses, such as [tcp://127.0.0.1:8080]");
  }
  if (at.node->items.size() > kMaxListeners) {
    return reader.faults().add(at,
                               "holds more than " + std::to_string(kMaxListeners) + " listeners");
  }
  for (std::size_t i = 0; i < at.node->items.size(); ++i) {
    Listener listener;
    const At one = item(at, i);
    if (!read_listener(reader, one, listener)) continue;
    out.pool.listen.push_back(std::move(listener));
    out.listeners.push_back(one);
  }
  name_listeners(reader, out);
}

}  // namespace ostler::config
