#include "config/src/care.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>

#include "config/src/probe_request.hpp"
#include "config/src/scalars.hpp"
#include "config/src/walk.hpp"
#include "config/src/words.hpp"

namespace ostler::config {
namespace {

constexpr std::size_t kMostWarmups = 100;
// They reach a worker in one variable of its environment, of which Linux takes 128 KiB.
constexpr std::size_t kMostProxies = 1000;

// 32 or 128; none: not an IP address.
std::optional<int> address_bits(const std::string& text) {
  in6_addr address{};
  if (::inet_pton(AF_INET, text.c_str(), &address) == 1) return 32;
  if (::inet_pton(AF_INET6, text.c_str(), &address) == 1) return 128;
  return std::nullopt;
}

// An IPv4 address written as an IPv6 one.
bool is_mapped(const std::string& text) {
  in6_addr address{};
  return ::inet_pton(AF_INET6, text.c_str(), &address) == 1 && IN6_IS_ADDR_V4MAPPED(&address);
}

// "192.0.2.7", "2001:db8::/32" or "unix". Of a mapped address it is not clear how bits are counted.
bool is_proxy(const std::string& text) {
  if (text == "unix") return true;
  const std::size_t slash = text.find('/');
  const auto bits = address_bits(text.substr(0, slash));
  if (!bits || slash == std::string::npos) return bits.has_value();
  if (is_mapped(text.substr(0, slash))) return false;
  const auto length = parse_whole(std::string_view(text).substr(slash + 1));
  return length && *length <= *bits;
}

}  // namespace

std::string_view word(WorkerClass worker_class) {
  switch (worker_class) {
    case WorkerClass::kSync:
      return "sync";
    case WorkerClass::kThreads:
      return "threads";
    case WorkerClass::kAsync:
      return "async";
  }
  return {};
}

std::string_view word(AccessLog log) {
  switch (log) {
    case AccessLog::kOff:
      return "off";
    case AccessLog::kCommon:
      return "common";
    case AccessLog::kJson:
      return "json";
  }
  return {};
}

void read_worker_class(Reader& reader, const At& at, PoolDraft& out) {
  static constexpr std::array kChoices = {Choice<WorkerClass>{"sync", WorkerClass::kSync},
                                          Choice<WorkerClass>{"threads", WorkerClass::kThreads},
                                          Choice<WorkerClass>{"async", WorkerClass::kAsync}};
  WorkerClass choice{};
  if (reader.choice(at, kChoices, choice)) out.pool.worker.worker_class = choice;
}

void read_access_log(Reader& reader, const At& at, PoolDraft& out) {
  static constexpr std::array kChoices = {Choice<AccessLog>{"off", AccessLog::kOff},
                                          Choice<AccessLog>{"common", AccessLog::kCommon},
                                          Choice<AccessLog>{"json", AccessLog::kJson}};
  AccessLog choice = AccessLog::kOff;
  if (is_off(*at.node) || reader.choice(at, kChoices, choice)) out.pool.worker.access_log = choice;
}

void read_trusted_proxies(Reader& reader, const At& at, PoolDraft& out) {
  std::vector<std::string> proxies;
  if (!reader.texts(at, "a list such as [127.0.0.1, 10.0.0.0/8, unix]", proxies)) return;
  if (proxies.size() > kMostProxies) {
    return reader.wrong(at, "a list of at most " + std::to_string(kMostProxies) + " proxies");
  }
  for (std::size_t i = 0; i < proxies.size(); ++i) {
    if (is_proxy(proxies[i])) continue;
    reader.wrong(item(at, i), "an IP address, a network such as 10.0.0.0/8, or unix");
  }
  out.pool.worker.trusted_proxies = std::move(proxies);
}

void read_recycle(Reader& reader, const At& at, PoolDraft& out) {
  if (is_off(*at.node)) {
    out.pool.recycle = {};
  } else if (at.node->kind == NodeKind::kMap) {
    walk(reader, at, pool_keys(), out, "recycle.");
  } else {
    reader.wrong(at, "off, or a map such as {requests: 10000, lifetime: 1d}");
  }
}

void read_health(Reader& reader, const At& at, PoolDraft& out) {
  if (is_off(*at.node)) {
    out.pool.health.reset();
  } else if (at.node->kind == NodeKind::kMap) {
    out.pool.health.emplace();
    out.health_request = {};
    walk(reader, at, pool_keys(), out, "health.");
    if (!out.health_request.method.empty()) out.pool.health->request = out.health_request;
  } else {
    reader.wrong(at, "off, or a map such as {request: \"GET /healthz\", interval: 10s}");
  }
}

void read_health_request(Reader& reader, const At& at, PoolDraft& out) {
  read_request_line(reader, at, out.health_request);
}

void read_health_exec(Reader& reader, const At& at, PoolDraft& out) {
  if (std::vector<std::string> words; read_command_words(reader, at, words)) {
    out.pool.health->exec = std::move(words);
  }
}

void read_warmup(Reader& reader, const At& at, PoolDraft& out) {
  if (at.node->kind != NodeKind::kList) return reader.wrong(at, "a list such as [\"GET /\"]");
  if (at.node->items.size() > kMostWarmups) {
    return reader.wrong(at, "a list of at most " + std::to_string(kMostWarmups) + " requests");
  }
  std::vector<ProbeRequest> requests(at.node->items.size());
  bool good = true;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    good = read_probe_request(reader, item(at, i), requests[i]) && good;
  }
  if (good) out.pool.warmup = std::move(requests);
}

}  // namespace ostler::config
