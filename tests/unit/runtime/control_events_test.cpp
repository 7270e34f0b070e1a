#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
// What the control server does without being asked: events, and its own end.
#include <doctest/doctest.h>

#include <future>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/unit/runtime/control_server_fixture.hpp"

using namespace ostler;
using namespace ostler::runtime;
using Json = nlohmann::json;

TEST_CASE("what happened is kept, as much as is allowed") {
  Running server;
  for (int i = 0; i < 300; ++i)
    server.publish(std::string("e").append(std::to_string(i)), i % 2 ? "web" : "api");
  server.publish("manager.ready");
  Client client(server.socket());
  const Reply all = client.get("/v1/events?follow=false");
  CHECK(all.status == 200);
  CHECK(all.head.find("application/x-ndjson") != std::string::npos);
  CHECK(std::count(all.body.begin(), all.body.end(), '\n') == 256);
  CHECK(all.body.find("\"e44\"") == std::string::npos);
  CHECK(all.body.find("\"e45\"") != std::string::npos);
  std::istringstream lines(all.body);
  for (std::string line; std::getline(lines, line);) CHECK(Json::parse(line)["event"].is_string());
  const Reply some = client.get("/v1/events?follow=false&pool=web");
  CHECK(some.body.find("api") == std::string::npos);
  CHECK(some.body.find("\"e299\"") != std::string::npos);
  CHECK(some.body.find("manager.ready") != std::string::npos);
}

TEST_CASE("those who follow get each event as it happens, from now on") {
  Running server;
  server.publish("before");
  Client everything(server.socket());
  everything.send("GET /v1/events HTTP/1.1\r\nHost: o\r\n\r\n");
  const Reply head = everything.reply(true);
  CHECK(head.status == 200);
  CHECK(head.head.find("Transfer-Encoding: chunked") != std::string::npos);
  CHECK(head.head.find("application/x-ndjson") != std::string::npos);
  Client web(server.socket());
  web.send("GET /v1/events?pool=web HTTP/1.1\r\nHost: o\r\n\r\n");
  web.reply(true);
  Client old(server.socket());
  old.send("GET /v1/events HTTP/1.0\r\n\r\n");
  CHECK(old.reply(true).head.find("chunked") == std::string::npos);

  server.publish("one", "api");
  server.publish("two", "web");
  server.publish("three");
  CHECK(Json::parse(everything.chunk())["event"] == "one");
  CHECK(Json::parse(everything.chunk())["event"] == "two");
  CHECK(Json::parse(web.chunk())["event"] == "two");
  CHECK(Json::parse(old.read_to("\n"))["event"] == "one");
  everything.close();
  web.close();
  CHECK(server.sessions_become(1));
  server.publish("four");
  old.read_to("three");
  CHECK(old.read_to("\n").size() > 1);
  CHECK(Json::parse(old.read_to("\n"))["event"] == "four");
}

TEST_CASE("a follower that is too slow is told so and cut off; the others are not") {
  ControlLimits limits;
  limits.queued_lines = 8;
  Running server(limits);
  Client slow(server.socket());
  slow.send("GET /v1/events HTTP/1.1\r\nHost: o\r\n\r\n");
  slow.reply(true);
  Client fast(server.socket());
  fast.send("GET /v1/events HTTP/1.1\r\nHost: o\r\n\r\n");
  fast.reply(true);
  for (int i = 0; i < 200; ++i) {
    server.publish("worker.failed", "web", std::string(10000, 'x'));
    REQUIRE(fast.chunk().find("worker.failed") != std::string::npos);
  }
  const std::string all = slow.read_all();
  CHECK(all.find("worker.failed") != std::string::npos);
  const auto overflow = all.find("events.overflow");
  REQUIRE(overflow != std::string::npos);
  CHECK(all.find("worker.failed", overflow) == std::string::npos);
  CHECK(all.ends_with("\r\n0\r\n\r\n"));
  CHECK(server.sessions_become(1));
}

TEST_CASE("the queue of a follower is bounded in bytes, and a dead one does not stay") {
  ControlLimits limits = quick();
  limits.queued_bytes = 20000;
  Running server(limits);
  Client slow(server.socket());
  slow.send("GET /v1/events HTTP/1.1\r\nHost: o\r\n\r\n");
  slow.reply(true);
  for (int i = 0; i < 200; ++i) server.publish("worker.failed", "web", std::string(10000, 'x'));
  CHECK(server.sessions_become(0));  // it never read, not even the last line
}

TEST_CASE("a shutdown answers those who wait, ends streams, closes the rest and says when") {
  Running server;
  Client waiting(server.socket());
  waiting.send("POST /v1/reload HTTP/1.1\r\nHost: o\r\n\r\n");
  REQUIRE(server.waiting_become(1));
  Client following(server.socket());
  following.send("GET /v1/events HTTP/1.1\r\nHost: o\r\n\r\n");
  following.reply(true);
  Client idle(server.socket());
  CHECK(idle.get("/livez").status == 200);
  server.publish("manager.stopping");
  std::promise<void> done;
  server.shut_down([&] { done.set_value(); });
  CHECK(waiting.reply().status == 503);
  CHECK(waiting.at_end());
  CHECK(following.chunk().find("manager.stopping") != std::string::npos);
  CHECK(following.chunk().empty());
  CHECK(following.at_end());
  CHECK(idle.at_end());
  CHECK(done.get_future().wait_for(kPatience) == std::future_status::ready);
  CHECK(server.sessions() == 0);
  server.answer_all(200);  // too late
  std::promise<void> again;
  server.shut_down([&] { again.set_value(); });
  CHECK(again.get_future().wait_for(kPatience) == std::future_status::ready);
}

TEST_CASE("a shutdown does not wait for a client that does not read") {
  ControlLimits limits;
  limits.farewell = 100ms;
  Running server(limits);
  Client client(server.socket());
  client.send("GET /v1/pools/huge HTTP/1.1\r\nHost: o\r\n\r\n");
  client.read_to("\r\n\r\n");
  std::promise<void> done;
  server.shut_down([&] { done.set_value(); });
  CHECK(done.get_future().wait_for(kPatience) == std::future_status::ready);
}
