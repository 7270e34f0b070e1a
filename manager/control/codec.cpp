#include "control/codec.hpp"

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>
#include <utility>

#include "control/problems.hpp"
#include "core/limits.hpp"

namespace ostler::control {

namespace {

using Json = nlohmann::ordered_json;

std::string text_of(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// Microseconds are enough for anybody, and shorter.
Json seconds(double value) {
  return std::round(value * 1e6) / 1e6;
}

Json seconds(const std::optional<double>& value) {
  return value ? seconds(*value) : Json(nullptr);
}

template <class T>
Json known(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

Json json_of(const Value& value) {
  return std::visit([](const auto& v) { return Json(v); }, value);
}

void add(Json& object, const Members& members) {
  for (const auto& [name, value] : members) object[name] = json_of(value);
}

Json json_of(const ListenerView& listener) {
  return {{"name", listener.name},
          {"address", listener.address},
          {"backlog", known(listener.backlog)},
          {"backlog_limit", known(listener.backlog_limit)}};
}

Json json_of(const ServingView& serving) {
  return {{"request", serving.request}, {"seconds", seconds(serving.seconds)}};
}

Json json_of(const WorkerView& worker) {
  Json serving = Json::array();
  for (const ServingView& request : worker.serving) serving.push_back(json_of(request));
  return {{"worker", worker.worker},
          {"slot", worker.slot},
          {"pid", known(worker.pid)},
          {"generation", worker.generation},
          {"state", worker.state},
          {"uptime", seconds(worker.uptime)},
          {"class", known(worker.worker_class)},
          {"requests", known(worker.requests)},
          {"active", known(worker.active)},
          {"connections", known(worker.connections)},
          {"busy", seconds(worker.busy)},
          {"serving", std::move(serving)},
          {"memory", known(worker.memory)},
          {"cpu", seconds(worker.cpu)},
          {"heartbeat_age", seconds(worker.heartbeat_age)},
          {"status", known(worker.status)},
          {"not_ready", known(worker.not_ready)}};
}

Json json_of(const RolloutView& rollout) {
  return {{"generation", rollout.generation},
          {"replaced", rollout.replaced},
          {"rolling_back", rollout.rolling_back}};
}

Json json_of(const ErrorView& error) {
  return {{"message", error.message},
          {"time", error.time ? Json(rfc3339(*error.time)) : Json(nullptr)},
          {"slot", known(error.slot)},
          {"pid", known(error.pid)},
          {"generation", known(error.generation)},
          {"output", error.output}};
}

Json json_of(const ReopenFault& fault) {
  return {{"file", fault.file}, {"operation", fault.operation}, {"reason", fault.reason}};
}

Json json_of(const ConfigFault& fault) {
  return {{"file", fault.file},
          {"line", fault.line > 0 ? Json(fault.line) : Json(nullptr)},
          {"column", fault.column > 0 ? Json(fault.column) : Json(nullptr)},
          {"key", fault.key},
          {"message", fault.message}};
}

template <class T>
Json list(const std::vector<T>& items) {
  Json result = Json::array();
  for (const T& item : items) result.push_back(json_of(item));
  return result;
}

Json json_of(const ScalingView& scaling) {
  return {
      {"min", scaling.min}, {"max", scaling.max}, {"by", scaling.by}, {"target", scaling.target}};
}

Json json_of(const PoolView& pool) {
  return {{"state", pool.state},
          {"generation", pool.generation},
          {"accept", pool.accept},
          {"spawn", pool.spawn},
          {"target", pool.target},
          {"ready", pool.ready},
          {"starting", pool.starting},
          {"draining", pool.draining},
          {"workers_configured", known(pool.workers_configured)},
          {"scaled", pool.scaled},
          {"scaling", pool.scaling ? json_of(*pool.scaling) : Json(nullptr)},
          {"listeners", list(pool.listeners)},
          {"requests", known(pool.requests)},
          {"restarts", pool.restarts},
          {"reloads", pool.reloads},
          {"rollout", pool.rollout ? json_of(*pool.rollout) : Json(nullptr)},
          {"backing_off", seconds(pool.backing_off)},
          {"last_error", pool.last_error ? json_of(*pool.last_error) : Json(nullptr)},
          {"workers", list(pool.workers)}};
}

Json json_of(const ManagerErrorView& error) {
  return {{"message", error.message}, {"time", rfc3339(error.time)}};
}

Json json_of(const StatusView& status) {
  Json pools = Json::object();
  for (const auto& [name, pool] : status.pools) pools[name] = json_of(pool);
  return {{"version", status.version},
          {"pid", status.pid},
          {"state", status.state},
          {"uptime", seconds(status.uptime)},
          {"config", known(status.config)},
          {"notify_rejected", status.notify_rejected},
          {"ignored_events", status.ignored_events},
          {"loop_turn_max", seconds(status.loop_turn_max)},
          {"last_error", status.last_error ? json_of(*status.last_error) : Json(nullptr)},
          {"pools", std::move(pools)}};
}

Json json_of(const PoolResult& pool) {
  Json json = {{"outcome", pool.outcome},
               {"generation", known(pool.generation)},
               {"replaced", pool.replaced},
               {"took", seconds(pool.took)},
               {"cut", known(pool.cut)}};
  if (pool.reason) json["reason"] = *pool.reason;
  if (!pool.output.empty()) json["output"] = pool.output;
  return json;
}

void add(Json& object, const ReloadResult& result) {
  object["outcome"] = result.outcome;
  Json pools = Json::object();
  for (const auto& [name, pool] : result.pools) pools[name] = json_of(pool);
  object["pools"] = std::move(pools);
  if (!result.errors.empty()) object["errors"] = list(result.errors);
}

Json json_of(const Problem& problem) {
  Json json = {{"type", problem.type},
               {"title", problem.title},
               {"status", problem.status},
               {"detail", problem.detail}};
  add(json, problem.members);
  return json;
}

Response answer(int status, std::string_view type, std::string body) {
  body += '\n';
  return {status, std::string(type), std::move(body)};
}

// What a reload that did not go through is as a problem, without its members.
Problem problem_of(const ReloadResult& result) {
  if (result.outcome == "rejected") {
    Problem problem{"urn:ostler:problem:rejected",
                    "The configuration has faults",
                    422,
                    "nothing was changed: ",
                    {}};
    const std::size_t faults = result.errors.size();
    problem.detail +=
        faults == 1 ? result.errors.front().message : std::to_string(faults) + " faults";
    return problem;
  }
  Problem problem{"urn:ostler:problem:" + result.outcome,
                  "The reload was not completed",
                  503,
                  "the outcome is " + result.outcome,
                  {}};
  for (char& c : problem.type)
    if (c == '_') c = '-';
  if (result.outcome == "rolled_back") {
    problem.title = "The reload was rolled back";
    problem.status = 409;
  }
  std::string reasons;
  for (const auto& [name, pool] : result.pools)
    if (pool.reason) reasons += (reasons.empty() ? "" : "; ") + name + ": " + *pool.reason;
  if (!reasons.empty()) problem.detail = std::move(reasons);
  return problem;
}

// --- Reading ---

using Scalar = std::variant<std::nullptr_t, bool, std::int64_t, double, std::string>;
using Body = std::vector<std::pair<std::string, Scalar>>;

// Takes one JSON object whose members are scalars. Whatever else comes ends the parse at once, so
// that neither depth nor number of values is a burden.
class FlatReader : public nlohmann::json::json_sax_t {
 public:
  Body body;
  std::string fault;

  bool null() override { return value(nullptr); }
  bool boolean(bool v) override { return value(v); }
  bool number_integer(number_integer_t v) override { return value(v); }
  bool number_unsigned(number_unsigned_t v) override {
    if (v > INT64_MAX) return value(static_cast<double>(v));
    return value(static_cast<std::int64_t>(v));
  }
  bool number_float(number_float_t v, const string_t& /*text*/) override { return value(v); }
  bool string(string_t& v) override { return value(std::move(v)); }
  bool binary(binary_t& /*v*/) override { return fail("the body holds binary data"); }
  bool start_object(std::size_t /*size*/) override {
    if (open_) return nested();
    open_ = true;
    return true;
  }
  bool end_object() override { return true; }
  bool start_array(std::size_t /*size*/) override { return open_ ? nested() : not_an_object(); }
  bool end_array() override { return true; }
  bool key(string_t& name) override {
    for (const auto& member : body)
      if (member.first == name) return fail("member " + quote(name) + " is there twice");
    if (body.size() == kMembers) return fail("the body has too many members");
    body.emplace_back(std::move(name), nullptr);
    return true;
  }
  bool parse_error(std::size_t position, const std::string& /*token*/,
                   const nlohmann::detail::exception& /*error*/) override {
    return fail("the body is not JSON: the fault is at byte " + std::to_string(position));
  }

 private:
  static constexpr std::size_t kMembers = 16;

  bool fail(std::string what) {
    if (fault.empty()) fault = std::move(what);
    return false;
  }
  bool not_an_object() { return fail("the body must be a JSON object"); }
  bool nested() {
    return fail("member " + quote(body.empty() ? "" : body.back().first) +
                " holds a list or an object; the body must be a flat JSON object");
  }
  template <class T>
  bool value(T v) {
    if (!open_) return not_an_object();
    body.back().second = std::move(v);
    return true;
  }

  bool open_ = false;
};

// The value of the only member that is allowed, `name`; none if it is not there.
std::variant<std::optional<Scalar>, Problem> parse_one(std::string_view body,
                                                       std::string_view name) {
  if (body.size() > kMaxBody)
    return too_large("the body has " + std::to_string(body.size()) + " bytes; " +
                     std::to_string(kMaxBody) + " are the most");
  if (body.empty()) return std::nullopt;
  FlatReader reader;
  const bool good = nlohmann::json::sax_parse(body.begin(), body.end(), &reader);
  if (!good || !reader.fault.empty()) return bad_request(std::move(reader.fault));
  std::optional<Scalar> found;
  for (auto& [key, value] : reader.body) {
    if (key != name) {
      const std::string takes =
          name.empty() ? "it takes none" : "it takes '" + std::string(name) + "'";
      return bad_request("unknown member " + quote(key) + " in the body; " + takes);
    }
    found = std::move(value);
  }
  return found;
}

std::optional<ScaleBody> scale_of(const Scalar& scalar) {
  constexpr std::int64_t kMost = core::limits::kWorkersPerPool;
  if (const auto* number = std::get_if<std::int64_t>(&scalar)) {
    if (*number < 0 || *number > kMost) return std::nullopt;
    return ScaleBody{ScaleKind::kSet, static_cast<int>(*number)};
  }
  const auto* text = std::get_if<std::string>(&scalar);
  if (!text) return std::nullopt;
  if (*text == "auto") return ScaleBody{ScaleKind::kAutomatic, 0};
  if (*text == "reset") return ScaleBody{ScaleKind::kReset, 0};
  if (text->size() < 2 || text->size() > 6 || ((*text)[0] != '+' && (*text)[0] != '-'))
    return std::nullopt;
  int number = 0;
  for (const char c : text->substr(1)) {
    if (c < '0' || c > '9') return std::nullopt;
    number = number * 10 + (c - '0');
  }
  if (number > kMost) return std::nullopt;
  return ScaleBody{ScaleKind::kAdd, (*text)[0] == '-' ? -number : number};
}

}  // namespace

std::string rfc3339(WallTime time) {
  const auto micros = std::chrono::floor<std::chrono::microseconds>(time.time_since_epoch());
  const auto whole = std::chrono::floor<std::chrono::seconds>(micros);
  const auto stamp = static_cast<std::time_t>(whole.count());
  std::tm parts{};
  gmtime_r(&stamp, &parts);
  char text[80];
  std::snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ", parts.tm_year + 1900,
                parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
                static_cast<int>((micros - whole).count()));
  return text;
}

std::string to_json(const StatusView& status) {
  return text_of(json_of(status));
}
std::string to_json(const PoolView& pool) {
  return text_of(json_of(pool));
}
std::string to_json(const Problem& problem) {
  return text_of(json_of(problem));
}

std::string to_json(const ReloadResult& result) {
  Json json = Json::object();
  add(json, result);
  return text_of(json);
}

std::string to_json(const Done& done) {
  Json json = {{"outcome", done.outcome}};
  add(json, done.members);
  return text_of(json);
}

std::string to_json(const Members& members) {
  Json json = Json::object();
  add(json, members);
  return text_of(json);
}

std::string to_json(const Value& value) {
  return text_of(json_of(value));
}

Members members_of(const EventView& event) {
  Members members;
  if (!event.event.empty()) members.emplace_back("event", event.event);
  if (event.pool) members.emplace_back("pool", *event.pool);
  if (event.worker) members.emplace_back("worker", *event.worker);
  if (event.slot) members.emplace_back("slot", std::int64_t{*event.slot});
  if (event.pid) members.emplace_back("pid", std::int64_t{*event.pid});
  if (event.generation) {
    members.emplace_back("generation", static_cast<std::int64_t>(*event.generation));
  }
  members.insert(members.end(), event.members.begin(), event.members.end());
  return members;
}

std::string to_json(const EventView& event) {
  Json json = {{"time", rfc3339(event.time)}};
  add(json, members_of(event));
  return text_of(json);
}

Response respond(const StatusView& status) {
  return answer(200, kJson, to_json(status));
}
Response respond(const PoolView& pool) {
  return answer(200, kJson, to_json(pool));
}

Response respond(const ReloadResult& result) {
  if (result.outcome == "reloaded") return answer(200, kJson, to_json(result));
  const Problem problem = problem_of(result);
  Json json = json_of(problem);
  add(json, result);
  return answer(problem.status, kProblemJson, text_of(json));
}

Response respond(const Done& done, int status) {
  return answer(status, kJson, to_json(done));
}

Response respond(const ReopenResult& result) {
  if (result.errors.empty()) {
    return respond(Done{"done", {{"reopened", std::int64_t{result.reopened}}}});
  }
  const ReopenFault& first = result.errors.front();
  const std::size_t faults = result.errors.size();
  const Problem problem =
      reopen_failed(faults == 1 ? first.operation + " " + first.file + ": " + first.reason +
                                      "; its lines still go to the file that was open"
                                : std::to_string(faults) +
                                      " files; their lines still go to the files that were open");
  Json json = json_of(problem);
  json["reopened"] = result.reopened;
  json["errors"] = list(result.errors);
  return answer(problem.status, kProblemJson, text_of(json));
}

Response respond(const Problem& problem) {
  Response response = answer(problem.status, kProblemJson, to_json(problem));
  response.allow = problem.allow;
  return response;
}

Response respond_live() {
  return answer(200, kJson, R"({"status":"ok"})");
}

Response respond_ready(bool ready, std::string_view manager_state) {
  if (ready) return respond_live();
  return answer(503, kJson, text_of(Json{{"status", std::string(manager_state)}}));
}

std::variant<ScaleBody, Problem> parse_scale(std::string_view body) {
  auto parsed = parse_one(body, "workers");
  if (auto* problem = std::get_if<Problem>(&parsed)) return std::move(*problem);
  const auto& value = std::get<0>(parsed);
  if (!value) return bad_request(R"(the body must say how many, for example {"workers": 8})");
  if (const auto scale = scale_of(*value)) return *scale;
  return bad_request(
      R"('workers' must be a number from 0 to 10000, "+N", "-N", "auto" or "reset")");
}

std::variant<Stop, Problem> parse_stop(std::string_view body) {
  auto parsed = parse_one(body, "now");
  if (auto* problem = std::get_if<Problem>(&parsed)) return std::move(*problem);
  const auto& value = std::get<0>(parsed);
  if (!value) return Stop{};
  if (const auto* now = std::get_if<bool>(&*value)) return Stop{*now};
  return bad_request("'now' must be true or false");
}

std::variant<std::monostate, Problem> parse_nothing(std::string_view body) {
  auto parsed = parse_one(body, "");
  if (auto* problem = std::get_if<Problem>(&parsed)) return std::move(*problem);
  if (std::get<0>(parsed)) return bad_request("unknown member '' in the body; it takes none");
  return std::monostate{};
}

}  // namespace ostler::control
