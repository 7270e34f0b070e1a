#include "control/codec.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "control/problems.hpp"

using namespace ostler::control;
using Json = nlohmann::json;

namespace {

WallTime at(std::int64_t seconds, std::int64_t micros) {
  return WallTime(std::chrono::seconds(seconds) + std::chrono::microseconds(micros));
}

WorkerView some_worker() {
  WorkerView worker;
  worker.worker = "web.0";
  worker.pid = 4243;
  worker.generation = 1;
  worker.state = "ready";
  worker.uptime = 12.4;
  worker.worker_class = "threads";
  worker.requests = 460;
  worker.active = 1;
  worker.connections = 3;
  worker.busy = 1.5;
  worker.serving = {{"GET /slow", 1.25}};
  worker.memory = 5242880;
  worker.cpu = 0.31;
  return worker;
}

StatusView some_status() {
  PoolView pool;
  pool.state = "running";
  pool.generation = 1;
  pool.accept = "shared";
  pool.scaling = ScalingView{2, 8, "busy", 0.5};
  pool.spawn = "exec";
  pool.target = pool.ready = 4;
  pool.workers_configured = 4;
  pool.listeners = {{"http", "tcp://127.0.0.1:8080", 0, 2048}};
  pool.requests = 1834;
  pool.workers = {some_worker()};
  StatusView status;
  status.version = "0.1.0";
  status.pid = 4242;
  status.state = "running";
  status.uptime = 12.5;
  status.config = "/etc/ostler/ostler.yaml";
  status.pools["web"] = pool;
  return status;
}

template <class T>
const Problem& problem(const std::variant<T, Problem>& result) {
  REQUIRE(std::holds_alternative<Problem>(result));
  return std::get<Problem>(result);
}

}  // namespace

TEST_CASE("a status is the documented JSON, in the documented order") {
  CHECK(to_json(some_status()) ==
        R"({"version":"0.1.0","pid":4242,"state":"running","uptime":12.5,)"
        R"("config":"/etc/ostler/ostler.yaml","notify_rejected":0,"ignored_events":0,)"
        R"("loop_turn_max":0.0,"last_error":null,"pools":{"web":{)"
        R"("state":"running","generation":1,"accept":"shared","spawn":"exec",)"
        R"("target":4,"ready":4,"starting":0,"draining":0,"workers_configured":4,"scaled":false,)"
        R"("scaling":{"min":2,"max":8,"by":"busy","target":0.5},)"
        R"("listeners":[{"name":"http","address":"tcp://127.0.0.1:8080","backlog":0,)"
        R"("backlog_limit":2048}],)"
        R"("requests":1834,"restarts":0,"reloads":0,"rollout":null,"backing_off":null,)"
        R"("last_error":null,"workers":[{"worker":"web.0","slot":0,"pid":4243,"generation":1,)"
        R"("state":"ready","uptime":12.4,"class":"threads","requests":460,"active":1,)"
        R"("connections":3,"busy":1.5,"serving":[{"request":"GET /slow","seconds":1.25}],)"
        R"("memory":5242880,"cpu":0.31,"heartbeat_age":null,"status":null,"not_ready":null}]}}})");
}

TEST_CASE("what is not known is null, and numbers that are none are null") {
  WorkerView worker;
  PoolView pool;
  pool.workers = {worker};
  pool.listeners = {{}};
  pool.backing_off = std::numeric_limits<double>::infinity();
  const Json json = Json::parse(to_json(pool));
  for (const char* name : {"pid", "uptime", "requests", "active", "connections", "memory", "cpu",
                           "heartbeat_age", "status"})
    CHECK_MESSAGE(json["workers"][0][name].is_null(), name);
  CHECK(json["listeners"][0]["backlog"].is_null());
  CHECK(json["requests"].is_null());
  CHECK(json["backing_off"].is_null());
  CHECK(Json::parse(to_json(StatusView{}))["config"].is_null());
}

TEST_CASE("a pool that is rolling and failing says so") {
  PoolView pool;
  pool.rollout = RolloutView{3, 2, true};
  pool.backing_off = 0.25;
  pool.last_error = ErrorView{"exited with code 3", at(0, 0), 1, 4711, 3, {"boom", "bang"}};
  const Json json = Json::parse(to_json(pool));
  CHECK(json["rollout"] == Json({{"generation", 3}, {"replaced", 2}, {"rolling_back", true}}));
  CHECK(json["backing_off"] == 0.25);
  CHECK(json["last_error"] == Json({{"message", "exited with code 3"},
                                    {"time", "1970-01-01T00:00:00.000000Z"},
                                    {"slot", 1},
                                    {"pid", 4711},
                                    {"generation", 3},
                                    {"output", {"boom", "bang"}}}));
}

TEST_CASE("text from workers cannot break the JSON") {
  WorkerView worker;
  worker.status = std::string("a\xff\xfe\"\\\n\x00\x1b[31m\xc3", 13);
  PoolView pool;
  pool.workers = {worker};
  const std::string text = to_json(pool);
  CHECK(text.find('\n') == std::string::npos);
  CHECK(text.find('\x1b') == std::string::npos);
  CHECK(Json::parse(text)["workers"][0]["status"].is_string());

  EventView event;
  event.event = "worker.failed";
  event.members = {{"output", Lines{"\xc0\xaf", "ok\nnot a second line"}}};
  const std::string line = to_json(event);
  CHECK(line.find('\n') == std::string::npos);
  CHECK(Json::parse(line)["output"][1] == "ok\nnot a second line");
}

TEST_CASE("an event has its time, its name, whom it is about and free members") {
  EventView event;
  event.time = at(1769862896, 123456);
  event.event = "worker.failed";
  CHECK(to_json(event) == R"({"time":"2026-01-31T12:34:56.123456Z","event":"worker.failed"})");
  event.pool = "web";
  event.worker = "web.2";
  event.slot = 2;
  event.pid = 99;
  event.generation = 7;
  event.members = {{"reason", "exited with code 3"},
                   {"exit_code", std::int64_t{3}},
                   {"signal", nullptr},
                   {"retry_in", 0.5},
                   {"core_dumped", false},
                   {"output", Lines{"last words"}}};
  CHECK(to_json(event) ==
        R"({"time":"2026-01-31T12:34:56.123456Z","event":"worker.failed","pool":"web",)"
        R"("worker":"web.2","slot":2,"pid":99,"generation":7,"reason":"exited with code 3",)"
        R"("exit_code":3,"signal":null,"retry_in":0.5,"core_dumped":false,)"
        R"("output":["last words"]})");
}

TEST_CASE("times are UTC with microseconds, before 1970 too") {
  CHECK(rfc3339(at(0, 0)) == "1970-01-01T00:00:00.000000Z");
  CHECK(rfc3339(at(951782400, 1)) == "2000-02-29T00:00:00.000001Z");
  CHECK(rfc3339(at(0, -1)) == "1969-12-31T23:59:59.999999Z");
}

TEST_CASE("a reload that went through is 200") {
  ReloadResult result;
  result.outcome = "reloaded";
  result.pools["web"] = {"reloaded", 2, 4, 1.5, std::uint64_t{0}, {}, {}};
  const Response response = respond(result);
  CHECK(response.status == 200);
  CHECK(response.content_type == "application/json");
  CHECK(response.body ==
        R"({"outcome":"reloaded","pools":{"web":{"outcome":"reloaded","generation":2,)"
        R"("replaced":4,"took":1.5,"cut":0}}})"
        "\n");
}

TEST_CASE("a reload that was rolled back is a problem with the result's members") {
  ReloadResult result;
  result.outcome = "rolled_back";
  result.pools["web"] = {"rolled_back", 1, 2, 0.1, {}, "exited with code 3", {"boom"}};
  const Response response = respond(result);
  CHECK(response.status == 409);
  CHECK(response.content_type == "application/problem+json");
  const Json json = Json::parse(response.body);
  CHECK(json["type"] == "urn:ostler:problem:rolled-back");
  CHECK(json["status"] == 409);
  CHECK(json["detail"].get<std::string>().find("web: exited with code 3") != std::string::npos);
  CHECK(json["outcome"] == "rolled_back");
  CHECK(json["pools"]["web"]["cut"].is_null());
  CHECK(json["pools"]["web"]["reason"] == "exited with code 3");
  CHECK(json["pools"]["web"]["output"] == Json({"boom"}));
}

TEST_CASE("a reload that was rejected is 422 with every fault") {
  ReloadResult result;
  result.outcome = "rejected";
  result.errors = {{"/etc/o.yaml", 3, 5, "pools.web.wrokers", "unknown key 'wrokers'"},
                   {"", 0, 0, "", "bind tcp://127.0.0.1:80: Permission denied"}};
  const Response response = respond(result);
  CHECK(response.status == 422);
  const Json json = Json::parse(response.body);
  CHECK(json["outcome"] == "rejected");
  CHECK(json["errors"][0] == Json({{"file", "/etc/o.yaml"},
                                   {"line", 3},
                                   {"column", 5},
                                   {"key", "pools.web.wrokers"},
                                   {"message", "unknown key 'wrokers'"}}));
  CHECK(json["errors"][1]["line"].is_null());
  CHECK(json["detail"] == "nothing was changed: 2 faults");
  result.errors.pop_back();
  CHECK(Json::parse(respond(result).body)["detail"] ==
        "nothing was changed: unknown key 'wrokers'");
}

TEST_CASE("a reload that the manager did not get to is 503") {
  ReloadResult result;
  result.outcome = "stopping";
  CHECK(respond(result).status == 503);
}

TEST_CASE("log files that could not be opened anew are a problem that names each of them") {
  CHECK(respond(ReopenResult{2, {}}).body == "{\"outcome\":\"done\",\"reopened\":2}\n");
  const ReopenFault web{"/l/web.log", "open", "No such file or directory"};
  const Response one = respond(ReopenResult{1, {web}});
  CHECK(one.status == 409);
  CHECK(one.content_type == "application/problem+json");
  const Json json = Json::parse(one.body);
  CHECK(json["type"] == "urn:ostler:problem:reopen-failed");
  CHECK(json["detail"] ==
        "open /l/web.log: No such file or directory; its lines still go to the file that was open");
  CHECK(json["reopened"] == 1);
  CHECK(json["errors"] == Json::array({{{"file", "/l/web.log"},
                                        {"operation", "open"},
                                        {"reason", "No such file or directory"}}}));
  const ReopenFault api{"/l/api.log", "open", "Permission denied"};
  const Json two = Json::parse(respond(ReopenResult{0, {web, api}}).body);
  CHECK(two["detail"] == "2 files; their lines still go to the files that were open");
  CHECK(two["errors"].size() == 2);
}

TEST_CASE("a fault of the manager's own has its time") {
  StatusView status;
  status.last_error = ManagerErrorView{"reopen: open /l: Is a directory", at(0, 0)};
  CHECK(Json::parse(to_json(status))["last_error"] ==
        Json({{"message", "reopen: open /l: Is a directory"},
              {"time", "1970-01-01T00:00:00.000000Z"}}));
}

TEST_CASE("other answers") {
  CHECK(to_json(Done{"done", {{"pool", "web"}, {"target", std::int64_t{8}}}}) ==
        R"({"outcome":"done","pool":"web","target":8})");
  CHECK(respond(Done{"accepted", {}}, 202).status == 202);
  CHECK(respond(some_status()).body.back() == '\n');
  CHECK(respond_live().status == 200);
  CHECK(respond_ready(true, "running").status == 200);
  CHECK(respond_ready(true, "reloading").status == 200);
  CHECK(respond_ready(false, "starting").status == 503);
  CHECK(respond_ready(false, "stopping").body == "{\"status\":\"stopping\"}\n");
  const Response refused = respond(method_not_allowed("PUT", "/v1/stop", "POST"));
  CHECK(refused.status == 405);
  CHECK(refused.allow == "POST");
  CHECK(refused.content_type == "application/problem+json");
}

TEST_CASE("a problem is an RFC 9457 document") {
  Problem p = no_such_pool("w\x01\xff");
  p.members = {{"pools", Lines{"web"}}};
  const Json json = Json::parse(to_json(p));
  CHECK(json["type"] == "urn:ostler:problem:no-such-pool");
  CHECK(json["title"] == "No such pool");
  CHECK(json["status"] == 404);
  CHECK(json["detail"].is_string());
  CHECK(json["pools"] == Json({"web"}));
  CHECK(quote(std::string(5000, 'x')).size() < 100);
}

TEST_CASE("scale bodies that are right") {
  const auto scale = [](const char* body) {
    const auto parsed = parse_scale(body);
    REQUIRE_MESSAGE(std::holds_alternative<ScaleBody>(parsed), body);
    const auto& value = std::get<ScaleBody>(parsed);
    return std::pair(value.kind, value.value);
  };
  CHECK(scale(R"({"workers": 8})") == std::pair(ScaleKind::kSet, 8));
  CHECK(scale(R"({"workers": 0})") == std::pair(ScaleKind::kSet, 0));
  CHECK(scale(R"( {"workers":10000} )") == std::pair(ScaleKind::kSet, 10000));
  CHECK(scale(R"({"workers": "+2"})") == std::pair(ScaleKind::kAdd, 2));
  CHECK(scale(R"({"workers": "-1"})") == std::pair(ScaleKind::kAdd, -1));
  CHECK(scale(R"({"workers": "-10000"})") == std::pair(ScaleKind::kAdd, -10000));
  CHECK(scale(R"({"workers": "auto"})") == std::pair(ScaleKind::kAutomatic, 0));
  CHECK(scale(R"({"workers": "reset"})") == std::pair(ScaleKind::kReset, 0));
  CHECK(scale(R"({"\u0077orkers": 3})") == std::pair(ScaleKind::kSet, 3));
}

TEST_CASE("scale bodies that are wrong get a 400 that says why") {
  const std::pair<const char*, const char*> cases[] = {
      {"", "must say how many"},
      {"{}", "must say how many"},
      {"8", "must be a JSON object"},
      {"[]", "must be a JSON object"},
      {"null", "must be a JSON object"},
      {R"("auto")", "must be a JSON object"},
      {"{", "not JSON"},
      {R"({"workers": 8)", "not JSON"},
      {R"({"workers": 8} x)", "not JSON"},
      {R"({"workers": 8}{})", "not JSON"},
      {"{'workers': 8}", "not JSON"},
      {R"({"workers": 08})", "not JSON"},
      {R"({"workers": NaN})", "not JSON"},
      {"{\"workers\": \"\xff\"}", "not JSON"},
      {R"({"workers": 8, "workers": 9})", "'workers' is there twice"},
      {R"({"workers": 8, "force": true})", "unknown member 'force'"},
      {R"({"Workers": 8})", "unknown member 'Workers'"},
      {R"({"workers": -1})", "from 0 to 10000"},
      {R"({"workers": 10001})", "from 0 to 10000"},
      {R"({"workers": 8.0})", "from 0 to 10000"},
      {R"({"workers": 1e3})", "from 0 to 10000"},
      {R"({"workers": 99999999999999999999999})", "from 0 to 10000"},
      {R"({"workers": 18446744073709551615})", "from 0 to 10000"},
      {R"({"workers": true})", "from 0 to 10000"},
      {R"({"workers": null})", "from 0 to 10000"},
      {R"({"workers": "8"})", "from 0 to 10000"},
      {R"({"workers": "+"})", "from 0 to 10000"},
      {R"({"workers": "+1x"})", "from 0 to 10000"},
      {R"({"workers": "+-1"})", "from 0 to 10000"},
      {R"({"workers": "+10001"})", "from 0 to 10000"},
      {R"({"workers": "+000000001"})", "from 0 to 10000"},
      {R"({"workers": "AUTO"})", "from 0 to 10000"},
      {R"({"workers": [8]})", "'workers' holds a list"},
      {R"({"workers": {"min": 1}})", "'workers' holds a list or an object"},
  };
  for (const auto& one : cases) {
    const char* body = one.first;
    const char* why = one.second;
    CAPTURE(body);
    const auto parsed = parse_scale(body);
    const Problem& p = problem(parsed);
    CHECK(p.status == 400);
    CHECK_MESSAGE(p.detail.find(why) != std::string::npos, p.detail);
  }
}

TEST_CASE("bodies that are too big, too deep or too many are refused cheaply") {
  const auto big = parse_scale(std::string(kMaxBody + 1, ' '));
  CHECK(problem(big).status == 413);
  const auto deep = parse_scale(std::string(kMaxBody, '['));
  CHECK(problem(deep).status == 400);
  std::string nested;
  while (nested.size() < kMaxBody - 10) nested += "{\"a\":";
  CHECK(problem(parse_scale(nested)).detail.find("'a' holds") != std::string::npos);
  std::string many = "{";
  for (int i = 0; i < 1000; ++i) many.append("\"").append(std::to_string(i)).append("\":1,");
  CHECK(problem(parse_scale(many + "\"x\":1}")).detail.find("too many") != std::string::npos);
}

TEST_CASE("stop bodies") {
  const auto now = [](const char* body) {
    const auto parsed = parse_stop(body);
    REQUIRE_MESSAGE(std::holds_alternative<Stop>(parsed), body);
    return std::get<Stop>(parsed).now;
  };
  CHECK_FALSE(now(""));
  CHECK_FALSE(now("{}"));
  CHECK_FALSE(now(R"({"now": false})"));
  CHECK(now(R"({"now": true})"));
  for (const char* body : {R"({"now": 1})", R"({"now": null})", R"({"now": "true"})", "true",
                           R"({"later": true})", R"({"now": true, "now": true})", "x"})
    CHECK_MESSAGE(problem(parse_stop(body)).status == 400, body);
}

TEST_CASE("endpoints without a body take none") {
  CHECK(std::holds_alternative<std::monostate>(parse_nothing("")));
  CHECK(std::holds_alternative<std::monostate>(parse_nothing("{}")));
  for (const char* body : {R"({"": 1})", R"({"a": 1})", "[]", "0", "nothing"})
    CHECK_MESSAGE(problem(parse_nothing(body)).status == 400, body);
}
