#include "control/routes.hpp"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <optional>
#include <span>
#include <utility>

#include "control/codec.hpp"
#include "control/problems.hpp"

namespace ostler::control {

namespace {

using Result = std::variant<Command, Problem>;

// What a request asks of the endpoint it has found. Each question remembers the first fault;
// a query parameter that nobody asked for is one.
class Request {
 public:
  Request(std::string argument, std::string_view query, std::string_view body)
      : argument_(std::move(argument)), body_(body) {
    read_query(query);
  }

  // The part of the path that the pattern leaves open.
  std::string pool() { return checked_pool(argument_, "pool name"); }
  int pid() {
    int value = 0;
    const char* end = argument_.data() + argument_.size();
    const auto [stop, error] = std::from_chars(argument_.data(), end, value);
    const bool plain = !argument_.empty() && argument_[0] >= '1' && argument_[0] <= '9';
    if (plain && error == std::errc() && stop == end) return value;
    fail(bad_request(quote(argument_) + " is not a pid"));
    return 0;
  }

  bool flag(std::string_view name, bool otherwise) {
    const auto value = take(name);
    if (!value) return otherwise;
    if (*value != "true" && *value != "false")
      fail(bad_request("query parameter '" + std::string(name) + "' must be true or false, not " +
                       quote(*value)));
    return *value == "true";
  }
  std::string pool_parameter() {
    const auto value = take("pool");
    return value ? checked_pool(*value, "pool name in the query") : std::string();
  }

  template <class T>
  T body(std::variant<T, Problem> (*parse)(std::string_view)) {
    auto parsed = parse(body_);
    if (auto* value = std::get_if<T>(&parsed)) return std::move(*value);
    fail(std::get<Problem>(std::move(parsed)));
    return T{};
  }

  Result finish(Command command) {
    if (!query_.empty())
      fail(bad_request("unknown query parameter " + quote(query_.front().first)));
    if (problem_) return std::move(*problem_);
    return command;
  }

  static std::optional<std::string> decode(std::string_view text) {
    std::string result;
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '%') {
        result += text[i];
        continue;
      }
      const int high = i + 1 < text.size() ? digit(text[i + 1]) : -1;
      const int low = i + 2 < text.size() ? digit(text[i + 2]) : -1;
      if (high < 0 || low < 0) return std::nullopt;
      result += static_cast<char>(high * 16 + low);
      i += 2;
    }
    return result;
  }

 private:
  static int digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  }

  void fail(Problem problem) {
    if (!problem_) problem_ = std::move(problem);
  }

  void read_query(std::string_view query) {
    while (!query.empty()) {
      const std::string_view part = query.substr(0, query.find('&'));
      query.remove_prefix(std::min(part.size() + 1, query.size()));
      const std::size_t equals = part.find('=');
      auto name = decode(part.substr(0, equals));
      auto value = decode(equals == std::string_view::npos ? "" : part.substr(equals + 1));
      if (!name || !value) return fail(bad_request("bad percent-encoding in the query"));
      for (const auto& parameter : query_)
        if (parameter.first == *name)
          return fail(bad_request("query parameter " + quote(*name) + " is there twice"));
      if (query_.size() == kParameters) return fail(bad_request("too many query parameters"));
      query_.emplace_back(std::move(*name), std::move(*value));
    }
  }

  std::optional<std::string> take(std::string_view name) {
    const auto found = std::find_if(query_.begin(), query_.end(),
                                    [&](const auto& parameter) { return parameter.first == name; });
    if (found == query_.end()) return std::nullopt;
    std::string value = std::move(found->second);
    query_.erase(found);
    return value;
  }

  // The rule of the configuration file.
  std::string checked_pool(const std::string& name, const char* what) {
    const auto lower = [](char c) { return c >= 'a' && c <= 'z'; };
    const auto inner = [&](char c) {
      return lower(c) || (c >= '0' && c <= '9') || c == '_' || c == '-';
    };
    if (!name.empty() && name.size() <= 63 && lower(name[0]) &&
        std::all_of(name.begin(), name.end(), inner))
      return name;
    fail(bad_request(quote(name) + " is not a " + what +
                     ": a small letter, then up to 62 of a-z, 0-9, '_' and '-'"));
    return {};
  }

  static constexpr std::size_t kParameters = 16;
  std::string argument_;
  std::string_view body_;
  std::vector<std::pair<std::string, std::string>> query_;
  std::optional<Problem> problem_;
};

enum class Takes { kNothing, kBody };

struct Row {
  std::string_view method;
  std::string_view path;  // a segment in braces stands for any
  Role role;
  Takes takes;
  Command (*make)(Request&);  // null: not available in this version
};

Command worker_command(Request& request, core::WorkerRequest what) {
  return WorkerCommand{request.pid(), what};
}

constexpr Row kTable[] = {
    {"GET", "/v1/status", Role::kView, Takes::kNothing,
     [](Request&) -> Command { return GetStatus{}; }},
    {"GET", "/v1/pools/{pool}", Role::kView, Takes::kNothing,
     [](Request& r) -> Command { return GetPool{r.pool()}; }},
    {"GET", "/v1/config", Role::kView, Takes::kNothing,
     [](Request&) -> Command { return GetConfig{}; }},
    {"GET", "/v1/events", Role::kView, Takes::kNothing,
     [](Request& r) -> Command {
       return Events{r.flag("follow", true), r.pool_parameter()};
     }},
    {"GET", "/v1/plan", Role::kView, Takes::kNothing, nullptr},
    {"POST", "/v1/reload", Role::kOperate, Takes::kNothing,
     [](Request& r) -> Command {
       return Reload{{}, r.flag("wait", true)};
     }},
    {"POST", "/v1/restart", Role::kOperate, Takes::kNothing,
     [](Request& r) -> Command {
       return Restart{{}, r.flag("wait", true)};
     }},
    {"POST", "/v1/pools/{pool}/reload", Role::kOperate, Takes::kNothing,
     [](Request& r) -> Command {
       return Reload{r.pool(), r.flag("wait", true)};
     }},
    {"POST", "/v1/pools/{pool}/restart", Role::kOperate, Takes::kNothing,
     [](Request& r) -> Command {
       return Restart{r.pool(), r.flag("wait", true)};
     }},
    {"POST", "/v1/pools/{pool}/scale", Role::kOperate, Takes::kBody,
     [](Request& r) -> Command {
       std::string pool = r.pool();
       const ScaleBody body = r.body(parse_scale);
       return Scale{std::move(pool), body.kind, body.value};
     }},
    {"POST", "/v1/workers/{pid}/recycle", Role::kOperate, Takes::kNothing,
     [](Request& r) { return worker_command(r, core::WorkerRequest::kRecycle); }},
    {"POST", "/v1/workers/{pid}/stop", Role::kOperate, Takes::kNothing,
     [](Request& r) { return worker_command(r, core::WorkerRequest::kDrain); }},
    {"POST", "/v1/workers/{pid}/kill", Role::kOperate, Takes::kNothing,
     [](Request& r) { return worker_command(r, core::WorkerRequest::kKill); }},
    {"POST", "/v1/stop", Role::kOperate, Takes::kBody,
     [](Request& r) -> Command { return r.body(parse_stop); }},
    {"POST", "/v1/reopen", Role::kOperate, Takes::kNothing,
     [](Request&) -> Command { return Reopen{}; }},
    {"GET", "/metrics", Role::kView, Takes::kNothing, nullptr},
    {"GET", "/livez", Role::kView, Takes::kNothing, [](Request&) -> Command { return Livez{}; }},
    {"GET", "/readyz", Role::kView, Takes::kNothing, [](Request&) -> Command { return Readyz{}; }},
};

// The segment of `path` that `pattern` leaves open, "" if there is none; nullopt: no match.
std::optional<std::string_view> match(std::string_view pattern, std::string_view path) {
  const std::size_t brace = pattern.find('{');
  if (brace == std::string_view::npos)
    return pattern == path ? std::optional<std::string_view>("") : std::nullopt;
  const std::string_view head = pattern.substr(0, brace);
  const std::string_view tail = pattern.substr(pattern.find('}') + 1);
  if (path.size() < head.size() + tail.size() || !path.starts_with(head) || !path.ends_with(tail))
    return std::nullopt;
  const auto open = path.substr(head.size(), path.size() - head.size() - tail.size());
  return open.find('/') == std::string_view::npos ? std::optional(open) : std::nullopt;
}

// "GET, HEAD" for every method that some row has for this path.
std::string allowed_methods(std::string_view path) {
  std::string result;
  for (const Row& row : kTable) {
    if (!match(row.path, path)) continue;
    if (!result.empty()) result += ", ";
    result += row.method == "GET" ? "GET, HEAD" : std::string(row.method);
  }
  return result;
}

// Leaves path and query of what stands in the request line; nullopt: it is none.
std::optional<std::string_view> origin_form(std::string_view target) {
  for (const char c : target)
    if (c <= 0x20 || c >= 0x7f || c == '#') return std::nullopt;
  constexpr std::string_view kScheme = "http://";
  if (target.starts_with(kScheme)) {
    const std::size_t slash = target.find('/', kScheme.size());
    if (slash == std::string_view::npos || slash == kScheme.size()) return std::nullopt;
    target.remove_prefix(slash);
  }
  return target.starts_with('/') ? std::optional(target) : std::nullopt;
}

Result run(const Row& row, std::string_view open, std::string_view query, std::string_view body) {
  if (!row.make) return not_available(row.path);
  auto argument = Request::decode(open);
  if (!argument) return bad_request("bad percent-encoding in the path");
  Request request(std::move(*argument), query, body);
  Command command = row.make(request);
  if (row.takes == Takes::kNothing) request.body(parse_nothing);
  return request.finish(std::move(command));
}

}  // namespace

Result route(std::string_view method, std::string_view target, std::string_view body) {
  const auto origin = origin_form(target);
  if (!origin) return bad_request(quote(target) + " is not a path");
  const std::size_t mark = origin->find('?');
  const std::string_view path = origin->substr(0, mark);
  const std::string_view query = mark == std::string_view::npos ? "" : origin->substr(mark + 1);
  const std::string_view wanted = method == "HEAD" ? "GET" : method;
  for (const Row& row : kTable)
    if (const auto open = match(row.path, path); open && row.method == wanted)
      return run(row, *open, query, body);
  std::string allowed = allowed_methods(path);
  if (allowed.empty()) return no_such_path(path);
  return method_not_allowed(method, path, std::move(allowed));
}

Role role_of(const Command& command) {
  struct Visitor {
    Role operator()(const GetStatus&) const { return Role::kView; }
    Role operator()(const GetPool&) const { return Role::kView; }
    Role operator()(const GetConfig&) const { return Role::kView; }
    Role operator()(const Events&) const { return Role::kView; }
    Role operator()(const Livez&) const { return Role::kView; }
    Role operator()(const Readyz&) const { return Role::kView; }
    Role operator()(const Reload&) const { return Role::kOperate; }
    Role operator()(const Restart&) const { return Role::kOperate; }
    Role operator()(const Scale&) const { return Role::kOperate; }
    Role operator()(const WorkerCommand&) const { return Role::kOperate; }
    Role operator()(const Stop&) const { return Role::kOperate; }
    Role operator()(const Reopen&) const { return Role::kOperate; }
  };
  return std::visit(Visitor{}, command);
}

std::string describe(const Command& command) {
  struct Visitor {
    static std::string pool_or_all(const std::string& pool) {
      return pool.empty() ? " of all pools" : " of " + pool;
    }
    std::string operator()(const GetStatus&) const { return "status"; }
    std::string operator()(const GetPool& get) const { return "status of " + get.name; }
    std::string operator()(const GetConfig&) const { return "config"; }
    std::string operator()(const Events& events) const {
      return "events" + pool_or_all(events.pool);
    }
    std::string operator()(const Livez&) const { return "livez"; }
    std::string operator()(const Readyz&) const { return "readyz"; }
    std::string operator()(const Reload& reload) const {
      return "reload" + pool_or_all(reload.pool);
    }
    std::string operator()(const Restart& restart) const {
      return "restart" + pool_or_all(restart.pool);
    }
    std::string operator()(const Scale& scale) const {
      const std::string number = std::to_string(scale.value);
      switch (scale.kind) {
        case ScaleKind::kSet:
          return "scale " + scale.pool + " to " + number;
        case ScaleKind::kAdd:
          return "scale " + scale.pool + " by " + (scale.value < 0 ? "" : "+") + number;
        case ScaleKind::kAutomatic:
          return "scale " + scale.pool + " to auto";
        case ScaleKind::kReset:
          return "scale " + scale.pool + " back to its file";
      }
      return {};
    }
    std::string operator()(const WorkerCommand& worker) const {
      const std::string pid = " worker " + std::to_string(worker.pid);
      switch (worker.request) {
        case core::WorkerRequest::kRecycle:
          return "recycle" + pid;
        case core::WorkerRequest::kDrain:
          return "stop" + pid;
        case core::WorkerRequest::kKill:
          return "kill" + pid;
      }
      return {};
    }
    std::string operator()(const Stop& stop) const { return stop.now ? "stop now" : "stop"; }
    std::string operator()(const Reopen&) const { return "reopen"; }
  };
  return std::visit(Visitor{}, command);
}

std::vector<Endpoint> endpoints() {
  std::vector<Endpoint> result;
  for (const Row& row : kTable) result.push_back({row.method, row.path, row.role});
  return result;
}

}  // namespace ostler::control
