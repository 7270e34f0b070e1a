#include "control/routes.hpp"

#include <doctest/doctest.h>

#include <map>
#include <set>
#include <string>

using namespace ostler::control;
using ostler::core::WorkerRequest;

namespace {

template <class T>
T command(std::string_view method, std::string_view target, std::string_view body = "") {
  const auto result = route(method, target, body);
  CAPTURE(target);
  if (const auto* problem = std::get_if<Problem>(&result)) FAIL(problem->detail);
  REQUIRE(std::holds_alternative<T>(std::get<Command>(result)));
  return std::get<T>(std::get<Command>(result));
}

Problem problem(std::string_view method, std::string_view target, std::string_view body = "") {
  const auto result = route(method, target, body);
  CAPTURE(target);
  REQUIRE(std::holds_alternative<Problem>(result));
  return std::get<Problem>(result);
}

// A path that the pattern matches.
std::string filled(std::string_view pattern) {
  std::string path(pattern);
  for (const auto& [name, value] : {std::pair("{pool}", "web"), std::pair("{pid}", "4243")})
    if (const auto at = path.find(name); at != std::string::npos)
      path.replace(at, std::string(name).size(), value);
  return path;
}

std::string body_for(std::string_view pattern) {
  return pattern.ends_with("/scale") ? R"({"workers": 1})" : "";
}

}  // namespace

TEST_CASE("every endpoint, its method and the role it needs: nothing else is there") {
  const std::set<std::tuple<std::string, std::string, Role>> expected = {
      {"GET", "/v1/status", Role::kView},
      {"GET", "/v1/pools/{pool}", Role::kView},
      {"GET", "/v1/config", Role::kView},
      {"GET", "/v1/events", Role::kView},
      {"GET", "/v1/plan", Role::kView},
      {"GET", "/metrics", Role::kView},
      {"GET", "/livez", Role::kView},
      {"GET", "/readyz", Role::kView},
      {"POST", "/v1/reload", Role::kOperate},
      {"POST", "/v1/restart", Role::kOperate},
      {"POST", "/v1/pools/{pool}/reload", Role::kOperate},
      {"POST", "/v1/pools/{pool}/restart", Role::kOperate},
      {"POST", "/v1/pools/{pool}/scale", Role::kOperate},
      {"POST", "/v1/workers/{pid}/recycle", Role::kOperate},
      {"POST", "/v1/workers/{pid}/stop", Role::kOperate},
      {"POST", "/v1/workers/{pid}/kill", Role::kOperate},
      {"POST", "/v1/stop", Role::kOperate},
      {"POST", "/v1/reopen", Role::kOperate},
  };
  std::set<std::tuple<std::string, std::string, Role>> found;
  for (const Endpoint& e : endpoints()) found.emplace(e.method, e.path, e.role);
  CHECK(found == expected);
}

TEST_CASE("the command that an endpoint makes needs the role that the table names") {
  for (const Endpoint& e : endpoints()) {
    CAPTURE(e.path);
    const auto result = route(e.method, filled(e.path), body_for(e.path));
    if (const auto* refused = std::get_if<Problem>(&result)) {
      CHECK(refused->status == 501);
      CHECK(refused->detail.find("not available in this version") != std::string::npos);
      continue;
    }
    CHECK(role_of(std::get<Command>(result)) == e.role);
    CHECK_FALSE(describe(std::get<Command>(result)).empty());
  }
}

TEST_CASE("every other method on every path is a 405 that names what is allowed") {
  std::map<std::string, std::set<std::string>> methods;
  for (const Endpoint& e : endpoints()) {
    auto& allowed = methods[filled(e.path)];
    allowed.emplace(e.method);
    if (e.method == "GET") allowed.emplace("HEAD");
  }
  for (const auto& endpoint : methods) {
    const std::string& path = endpoint.first;
    const auto& allowed = endpoint.second;
    for (const char* method : {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE",
                               "CONNECT", "get", "post", "", "RUBBISH", "GET "}) {
      CAPTURE(path);
      CAPTURE(method);
      if (allowed.contains(method)) continue;
      const Problem refused = problem(method, path, "{}");
      CHECK(refused.status == 405);
      CHECK(refused.allow == (allowed.contains("POST") ? "POST" : "GET, HEAD"));
    }
  }
}

TEST_CASE("paths that are not in the table are 404, whatever the method") {
  for (const char* path : {"/",
                           "/v1",
                           "/v1/",
                           "/v1/status/",
                           "//v1/status",
                           "/v1//status",
                           "/V1/status",
                           "/v2/status",
                           "/v1/pools",
                           "/v1/pools/",
                           "/v1/pools/web/",
                           "/v1/pools/web/stop",
                           "/v1/pools/a/b/scale",
                           "/v1/pools/web/scale/",
                           "/v1/workers",
                           "/v1/workers/1",
                           "/v1/workers/1/2/kill",
                           "/v1/workers/1/reload",
                           "/v1/../v1/status",
                           "/v1/./status",
                           "/livez/",
                           "/healthz",
                           "/v1/status;x",
                           "/v1/status%20",
                           "/%76%31/status",
                           "/v1/statusx",
                           "/v1/statu"}) {
    for (const char* method : {"GET", "POST", "PUT", "HEAD"}) {
      CAPTURE(path);
      const auto result = route(method, path, "");
      REQUIRE(std::holds_alternative<Problem>(result));
      const int status = std::get<Problem>(result).status;
      // An empty pool name matches the pattern of a pool: a bad request, or a wrong method.
      if (std::string_view(path) == "/v1/pools/")
        CHECK((status == 400 || status == 405));
      else
        CHECK(status == 404);
    }
  }
}

TEST_CASE("questions") {
  command<GetStatus>("GET", "/v1/status");
  command<GetStatus>("HEAD", "/v1/status");
  command<GetStatus>("GET", "/v1/status?");
  command<GetStatus>("GET", "/v1/status", "{}");
  command<GetStatus>("GET", "http://ostler/v1/status");
  command<GetConfig>("GET", "/v1/config");
  command<Livez>("GET", "/livez");
  command<Readyz>("GET", "/readyz");
  CHECK(command<GetPool>("GET", "/v1/pools/web").name == "web");
  CHECK(command<GetPool>("GET", "/v1/pools/a-b_0").name == "a-b_0");
  CHECK(command<GetPool>("GET", "/v1/pools/%77eb").name == "web");
  CHECK(command<GetPool>("GET", "/v1/pools/" + std::string(63, 'a')).name.size() == 63);
}

TEST_CASE("pool names that cannot be are 400") {
  for (const char* name : {"", "Web", "0web", "_web", "web%2Fx", "web%00", "w.b", "w%C3%A4b", "%",
                           "%4", "%zz", "web%", "+"}) {
    CAPTURE(name);
    CHECK(problem("GET", std::string("/v1/pools/") + name).status == 400);
    CHECK(problem("POST", std::string("/v1/pools/") + name + "/reload").status == 400);
  }
  CHECK(problem("GET", "/v1/pools/" + std::string(64, 'a')).status == 400);
}

TEST_CASE("targets that are none are 400") {
  for (const char* target : {"", "*", "v1/status", "/v1/status#x", "/v1/sta tus", "/v1/status\n",
                             "/v1/\x7f", "/v1/\xc3\xa4", "http://ostler", "http:///v1/status",
                             "https://ostler/v1/status", "ostler:80"}) {
    CAPTURE(target);
    CHECK(problem("GET", target).status == 400);
  }
}

TEST_CASE("events") {
  CHECK(command<Events>("GET", "/v1/events").follow);
  CHECK(command<Events>("GET", "/v1/events").pool.empty());
  CHECK(command<Events>("GET", "/v1/events?follow=true").follow);
  CHECK_FALSE(command<Events>("GET", "/v1/events?follow=false").follow);
  const auto some = command<Events>("GET", "/v1/events?pool=web&follow=false");
  CHECK(some.pool == "web");
  CHECK_FALSE(some.follow);
  for (const char* query : {"follow=yes", "follow=", "follow", "follow=TRUE", "pool=", "pool=W",
                            "pool=a%2fb", "x=1", "follow=true&follow=true", "follow=true&x", "&",
                            "=", "follow=%", "%66ollow=maybe", "follow=true&"}) {
    CAPTURE(query);
    const bool fine = std::string_view(query) == "follow=true&";  // an empty end is nothing
    if (fine)
      command<Events>("GET", std::string("/v1/events?") + query);
    else
      CHECK(problem("GET", std::string("/v1/events?") + query).status == 400);
  }
  CHECK(problem("GET", "/v1/events?since=5").detail.find("'since'") != std::string::npos);
}

TEST_CASE("reload and restart") {
  CHECK(command<Reload>("POST", "/v1/reload").pool.empty());
  CHECK(command<Reload>("POST", "/v1/reload").wait);
  CHECK_FALSE(command<Reload>("POST", "/v1/reload?wait=false").wait);
  CHECK(command<Reload>("POST", "/v1/pools/web/reload?wait=true").pool == "web");
  CHECK(command<Restart>("POST", "/v1/restart").pool.empty());
  CHECK_FALSE(command<Restart>("POST", "/v1/pools/web/restart?wait=false").wait);
  CHECK(command<Restart>("POST", "/v1/pools/web/restart").pool == "web");
  CHECK(problem("POST", "/v1/reload?wait=0").status == 400);
  CHECK(problem("POST", "/v1/reload?now=true").status == 400);
  CHECK(problem("POST", "/v1/reload", R"({"wait": false})").status == 400);
  CHECK(problem("POST", "/v1/status?wait=true").status == 405);
}

TEST_CASE("scale") {
  const auto scale = command<Scale>("POST", "/v1/pools/web/scale", R"({"workers": "-2"})");
  CHECK(scale.pool == "web");
  CHECK(scale.kind == ScaleKind::kAdd);
  CHECK(scale.value == -2);
  CHECK(problem("POST", "/v1/pools/web/scale").status == 400);
  CHECK(problem("POST", "/v1/pools/web/scale?wait=false", R"({"workers": 1})").status == 400);
  CHECK(problem("POST", "/v1/pools/web/scale", std::string(70000, ' ')).status == 413);
}

TEST_CASE("commands to one worker") {
  const auto kill = command<WorkerCommand>("POST", "/v1/workers/4243/kill");
  CHECK(kill.pid == 4243);
  CHECK(kill.request == WorkerRequest::kKill);
  CHECK(command<WorkerCommand>("POST", "/v1/workers/1/stop").request == WorkerRequest::kDrain);
  CHECK(command<WorkerCommand>("POST", "/v1/workers/2147483647/recycle").request ==
        WorkerRequest::kRecycle);
  for (const char* pid : {"", "0", "-1", "+1", "01", "1x", "x", "web.0", "2147483648", "1%20",
                          "99999999999999999999", "%31%", "1.0"}) {
    CAPTURE(pid);
    CHECK(problem("POST", std::string("/v1/workers/") + pid + "/kill").status == 400);
  }
}

TEST_CASE("stop and reopen") {
  CHECK_FALSE(command<Stop>("POST", "/v1/stop").now);
  CHECK(command<Stop>("POST", "/v1/stop", R"({"now": true})").now);
  CHECK(problem("POST", "/v1/stop", R"({"now": 1})").status == 400);
  CHECK(problem("POST", "/v1/stop?now=true").status == 400);
  command<Reopen>("POST", "/v1/reopen");
  CHECK(problem("POST", "/v1/reopen", "x").status == 400);
}

TEST_CASE("a command as the log has it") {
  CHECK(describe(Scale{"web", ScaleKind::kAdd, 2}) == "scale web by +2");
  CHECK(describe(Scale{"web", ScaleKind::kAdd, -2}) == "scale web by -2");
  CHECK(describe(Scale{"web", ScaleKind::kSet, 8}) == "scale web to 8");
  CHECK(describe(Reload{}) == "reload of all pools");
  CHECK(describe(Restart{"web", true}) == "restart of web");
  CHECK(describe(WorkerCommand{7, WorkerRequest::kKill}) == "kill worker 7");
  CHECK(describe(Stop{true}) == "stop now");
}
