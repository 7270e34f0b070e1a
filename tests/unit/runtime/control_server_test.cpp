#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "runtime/control_server.hpp"

#include <doctest/doctest.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <sys/utsname.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>
#include <vector>

#include "runtime/descriptors.hpp"
#include "tests/unit/runtime/control_server_fixture.hpp"
#include "tests/unit/runtime/lingering.hpp"
#include "tests/unit/runtime/sockets.hpp"

using namespace ostler;
using namespace ostler::runtime;
using Json = nlohmann::json;

namespace {

// Catches the log for as long as it lives.
class CaughtLog {
 public:
  CaughtLog() : before_(spdlog::default_logger()) {
    spdlog::set_default_logger(std::make_shared<spdlog::logger>(
        "test", std::make_shared<spdlog::sinks::ostream_sink_mt>(text_)));
  }
  ~CaughtLog() { spdlog::set_default_logger(before_); }
  CaughtLog(const CaughtLog&) = delete;
  CaughtLog& operator=(const CaughtLog&) = delete;
  [[nodiscard]] bool has(const std::string& words) const {
    return text_.str().find(words) != std::string::npos;
  }

 private:
  std::ostringstream text_;
  std::shared_ptr<spdlog::logger> before_;
};

}  // namespace

TEST_CASE("a question is answered, with length and no caching") {
  Running server;
  Client client(server.socket());
  const Reply reply = client.get("/v1/status");
  CHECK(reply.status == 200);
  CHECK(reply.body == "status\n");
  CHECK(reply.head.find("Content-Length: 7\r\n") != std::string::npos);
  CHECK(reply.head.find("Content-Type: application/json\r\n") != std::string::npos);
  CHECK(reply.head.find("Cache-Control: no-store\r\n") != std::string::npos);
  CHECK(server.last_peer().pid == getpid());
  CHECK(server.last_peer().uid == geteuid());
  CHECK(server.last_peer().gid == getegid());
}

TEST_CASE("a connection serves many requests, pipelined ones in order") {
  Running server;
  Client client(server.socket());
  CHECK(client.get("/v1/status").status == 200);
  CHECK(client.get("/livez").body == "{\"status\":\"ok\"}\n");
  client.send(
      "GET /v1/status HTTP/1.1\r\nHost: o\r\n\r\n"
      "POST /v1/pools/web/scale HTTP/1.1\r\nHost: o\r\nContent-Length: 14\r\n\r\n{\"workers\": 8}"
      "GET /nothing HTTP/1.1\r\nHost: o\r\n\r\n"
      "GET /v1/pools/web HTTP/1.1\r\nHost: o\r\nConnection: close\r\n\r\n");
  CHECK(client.reply().body == "status\n");
  CHECK(client.reply().body == "scale web to 8\n");
  CHECK(client.reply().status == 404);
  CHECK(client.reply().body == "xxx");
  CHECK(client.at_end());
}

TEST_CASE("HTTP/1.0, HEAD and a request in pieces") {
  Running server;
  {
    Client client(server.socket());
    client.send("GET /v1/status HTTP/1.0\r\n\r\n");
    const Reply reply = client.reply();
    CHECK(reply.body == "status\n");
    CHECK(reply.head.starts_with("HTTP/1.0 200"));
    CHECK(client.at_end());
  }
  {
    Client client(server.socket());
    client.send("HEAD /v1/status HTTP/1.1\r\nHost: o\r\n\r\n");
    CHECK(client.reply(true).head.find("Content-Length: 7\r\n") != std::string::npos);
    CHECK(client.get("/v1/status").body == "status\n");
  }
  {
    Client client(server.socket());
    for (const char c :
         std::string("POST /v1/stop HTTP/1.1\r\nHost: o\r\nContent-Length: 13\r\n\r\n"
                     "{\"now\": true}"))
      client.send(std::string(1, c));
    CHECK(client.reply().body == "stop now\n");
  }
}

TEST_CASE("a client that asks first is told to go on") {
  Running server;
  Client client(server.socket());
  client.send(
      "POST /v1/stop HTTP/1.1\r\nHost: o\r\nContent-Length: 13\r\nExpect: 100-continue\r\n\r\n");
  CHECK(client.read_to("\r\n\r\n") == "HTTP/1.1 100 Continue\r\n\r\n");
  client.send("{\"now\": true}");
  CHECK(client.reply().body == "stop now\n");
  client.send(
      "POST /v1/stop HTTP/1.1\r\nHost: o\r\nContent-Length: 2\r\nExpect: wonders\r\n\r\n{}");
  CHECK(client.reply().status == 417);
  CHECK(client.at_end());
}

TEST_CASE("refusals are problem documents") {
  Running server;
  const auto problem = [](const Reply& reply, int status) {
    CHECK(reply.status == status);
    CHECK(reply.head.find("application/problem+json") != std::string::npos);
    const Json json = Json::parse(reply.body, nullptr, false);
    REQUIRE(json.is_object());
    CHECK(json["status"] == status);
  };
  Client client(server.socket());
  problem(client.get("/nothing"), 404);
  problem(client.get("/v1/plan"), 501);
  problem(client.get("/v1/status?x=1"), 400);
  problem(client.post("/v1/pools/web/scale", "{"), 400);
  const Reply wrong = client.post("/v1/status");
  problem(wrong, 405);
  CHECK(wrong.head.find("Allow: GET, HEAD\r\n") != std::string::npos);
  client.send("BREW /v1/stop HTTP/1.1\r\nHost: o\r\n\r\n");
  const Reply strange = client.reply();
  problem(strange, 405);
  CHECK(strange.head.find("Allow: POST\r\n") != std::string::npos);
}

TEST_CASE("what is not HTTP, or too much of it, is refused and the connection closed") {
  Running server;
  const std::pair<std::string, int> cases[] = {
      {"rubbish\r\n\r\n", 400},
      {std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11) + "\r\n\r\n", 400},
      {"GET /v1/status HTTP/2.0\r\n\r\n", 505},
      {"GET /v1/status HTTP/1.1\r\nHost: o\r\nno colon\r\n\r\n", 400},
      {"GET /v1/status HTTP/1.1\r\n\r\n", 400},
      {"GET /v1/status HTTP/1.1\r\nHost: o\r\nHost: o\r\n\r\n", 400},
      {"GET /v1/status HTTP/1.0\r\nHost: o\r\nHost: p\r\n\r\n", 400},
      {"GET /v1/status HTTP/1.1\r\nHost: o\r\nA: b\r\n c\r\n\r\n", 400},
      {"GET /v1/status HTTP/1.1\r\nHost: o\r\n\tc\r\n\r\n", 400},
      {"GET /v1/status HTTP/1.1\nHost: o\n\n", 400},
      {"GET /v1/status HTTP/1.1\r\nHost: o\nA: b\r\n\r\n", 400},
      {"GET /v1/stop HTTP/1.1\r\nHost: o\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", 400},
      {"POST /v1/stop HTTP/1.1\r\nHost: o\r\nContent-Length: -1\r\n\r\n", 400},
      {"POST /v1/stop HTTP/1.1\r\nHost: o\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400},
      {"GET /" + std::string(20000, 'a') + " HTTP/1.1\r\nHost: o\r\n\r\n", 431},
      {"GET / HTTP/1.1\r\nHost: o\r\nA: " + std::string(20000, 'a') + "\r\n\r\n", 431},
      {"POST /v1/stop HTTP/1.1\r\nHost: o\r\nContent-Length: 65537\r\n\r\n" +
           std::string(65537, ' '),
       413},
      {"POST /v1/stop HTTP/1.1\r\nHost: o\r\nContent-Length: 99999999999\r\n\r\n" +
           std::string(500000, ' '),
       413},
      {"POST /v1/stop HTTP/1.1\r\nHost: o\r\nTransfer-Encoding: chunked\r\n\r\n11000\r\n" +
           std::string(0x11000, ' ') + "\r\n0\r\n\r\n",
       413},
  };
  for (const auto& one : cases) {
    const std::string& text = one.first;
    const int status = one.second;
    CAPTURE(text.substr(0, 60));
    Client client(server.socket());
    CHECK(client.send(text));
    CHECK(client.reply().status == status);
    client.half_close();
    CHECK(client.at_end());
  }
  CHECK(server.sessions_become(0));
  Client client(server.socket());
  CHECK(client.get("/v1/status").status == 200);
}

TEST_CASE("a body of just 64 KiB is read") {
  Running server;
  Client client(server.socket());
  CHECK(client.post("/v1/stop", "{\"now\":true" + std::string(65536 - 12, ' ') + "}").body ==
        "stop now\n");
}

TEST_CASE("bodies that are being sent take a bounded room together") {
  ControlLimits limits;
  limits.bodies = 100'000;
  Running server(limits);
  const std::string begun = "POST /v1/stop HTTP/1.1\r\nHost: o\r\nContent-Length: 60000\r\n\r\n{";
  {
    std::vector<std::unique_ptr<Client>> crowd;
    for (int i = 0; i < 2; ++i) crowd.push_back(std::make_unique<Client>(server.socket()));
    for (const auto& client : crowd) client->send(begun);
    // One of them gets the room, and the other is told.
    std::array<pollfd, 2> told{pollfd{crowd[0]->fd(), POLLIN, 0},
                               pollfd{crowd[1]->fd(), POLLIN, 0}};
    REQUIRE(poll(told.data(), 2, 10'000) == 1);
    const std::size_t refused = told[0].revents != 0 ? 0 : 1;
    CHECK(crowd[refused]->reply().status == 503);
    CHECK(Client(server.socket()).get("/v1/status").status == 200);
  }
  REQUIRE(server.sessions_become(0));
  CHECK(Client(server.socket()).post("/v1/stop", "{" + std::string(59'998, ' ') + "}").status ==
        200);
}

TEST_CASE("an answer may come later; others are served meanwhile") {
  Running server;
  Client reload(server.socket());
  reload.send("POST /v1/reload HTTP/1.1\r\nHost: o\r\n\r\nGET /livez HTTP/1.1\r\nHost: o\r\n\r\n");
  REQUIRE(server.waiting_become(1));
  CHECK(Client(server.socket()).get("/v1/status").status == 200);
  server.answer_all(409);
  CHECK(reload.reply().status == 409);
  CHECK(reload.reply().status == 200);
}

TEST_CASE("a client that leaves while it waits frees its session, and its answer is dropped") {
  Running server;
  for (const char* more : {"", "GET /livez HTTP/1.1\r\nHost: o\r\n\r\n"}) {
    Client client(server.socket());
    client.send(std::string("POST /v1/reload HTTP/1.1\r\nHost: o\r\n\r\n") + more);
    REQUIRE(server.waiting_become(1));
    CHECK(server.sessions() == 1);
    client.close();
    CHECK(server.sessions_become(0));
    server.answer_all(200);
  }
  CHECK(Client(server.socket()).get("/v1/status").status == 200);
}

TEST_CASE("a client that left before its command was handled is noticed too") {
  Running server;
  {
    Client client(server.socket());
    client.send("POST /v1/reload HTTP/1.1\r\nHost: o\r\n\r\n");
  }
  REQUIRE(server.waiting_become(1));
  CHECK(server.sessions_become(0));
}

TEST_CASE("a client that has only finished sending still gets its answer") {
  Running server;
  Client client(server.socket());
  client.send("POST /v1/reload HTTP/1.1\r\nHost: o\r\n\r\n");
  client.half_close();
  REQUIRE(server.waiting_become(1));
  CHECK(server.sessions() == 1);
  server.answer_all(200);
  CHECK(client.reply().status == 200);
  CHECK(client.at_end());
}

TEST_CASE("a command that the manager forgets, or fails at, is a 500") {
  Running server;
  Client client(server.socket());
  CHECK(client.post("/v1/restart").status == 500);
  CHECK(client.get("/v1/config").status == 500);
  client.send("POST /v1/reload HTTP/1.1\r\nHost: o\r\n\r\n");
  REQUIRE(server.waiting_become(1));
  server.drop_all();
  CHECK(client.reply().status == 500);
  CHECK(client.get("/v1/status").status == 200);
}

TEST_CASE("a request that takes too long is told so; a quiet connection is closed") {
  Running server(quick());
  for (const char* part :
       {"GET /v1/st", "POST /v1/stop HTTP/1.1\r\nHost: o\r\nContent-Length: 5\r\n\r\n{"}) {
    CAPTURE(part);
    Client client(server.socket());
    client.send(part);
    CHECK(client.reply().status == 408);
    CHECK(client.at_end());
  }
  Client silent(server.socket());
  CHECK(silent.at_end());
  Client idle(server.socket());
  CHECK(idle.get("/livez").status == 200);
  CHECK(idle.at_end());
  CHECK(server.sessions_become(0));
}

TEST_CASE("a request that trickles in does not put off its deadline") {
  Running server(quick());
  Client client(server.socket());
  const auto start = Clock::now();
  while (client.send("G") && Clock::now() - start < kPatience) poll(nullptr, 0, 5);
  CHECK(Clock::now() - start < kPatience);
  CHECK(server.sessions_become(0));
}

TEST_CASE("a client that does not read its answer is cut off") {
  Running server(quick());
  Client client(server.socket());
  client.send("GET /v1/pools/huge HTTP/1.1\r\nHost: o\r\n\r\n");
  CHECK_FALSE(client.read_to("\r\n\r\n").empty());
  CHECK(server.sessions_become(0));
  CHECK(client.read_all().size() < 8'000'000);
}

TEST_CASE("a large answer arrives whole") {
  Running server;
  Client client(server.socket());
  CHECK(client.get("/v1/pools/huge").body.size() == 8'000'000);
}

TEST_CASE("when it is full, the one that has been reading or idle the longest makes way") {
  ControlLimits limits;
  limits.sessions = 4;
  Running server(limits);
  Client waiting(server.socket());
  waiting.send("POST /v1/reload HTTP/1.1\r\nHost: o\r\n\r\n");
  REQUIRE(server.waiting_become(1));
  Client following(server.socket());
  following.send("GET /v1/events HTTP/1.1\r\nHost: o\r\n\r\n");
  following.read_to("\r\n\r\n");
  Client slow(server.socket());
  slow.send("GET /v1/sta");
  REQUIRE(server.sessions_become(3));
  Client idle(server.socket());
  CHECK(idle.get("/livez").status == 200);

  CHECK(Client(server.socket()).get("/v1/status").status == 200);
  CHECK(slow.at_end());
  CHECK(idle.get("/livez").status == 200);
  std::vector<std::unique_ptr<Client>> crowd;
  for (int i = 0; i < 20; ++i) {
    crowd.push_back(std::make_unique<Client>(server.socket()));
    CHECK(crowd.back()->get("/v1/status").status == 200);
  }
  CHECK(idle.at_end());
  CHECK(server.sessions() <= 4);
  server.publish("pool.scaled");
  CHECK(following.chunk().find("pool.scaled") != std::string::npos);
  server.answer_all(200);
  CHECK(waiting.reply().status == 200);
}

TEST_CASE("followers that fill the house make way too") {
  ControlLimits limits;
  limits.sessions = 2;
  Running server(limits);
  std::vector<std::unique_ptr<Client>> followers;
  for (int i = 0; i < 4; ++i) {
    followers.push_back(std::make_unique<Client>(server.socket()));
    followers.back()->send("GET /v1/events HTTP/1.1\r\nHost: o\r\n\r\n");
    CHECK(followers.back()->reply(true).status == 200);
  }
  CHECK(Client(server.socket()).get("/v1/status").status == 200);
}

TEST_CASE("a descriptor that a client sends holds up nobody") {
  Running server;
  Client client(server.socket());
  std::vector<std::jthread> closing;  // ours may be the last close(2) of it
  std::vector<Lingering> sent(2);
  const auto send = [&](Lingering& one, const char* text) {
    iovec part{const_cast<char*>(text), std::strlen(text)};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    attach(header, one.socket.get());
    REQUIRE(sendmsg(client.fd(), &header, 0) > 0);
    closing.emplace_back([socket = std::move(one.socket)]() mutable { socket.reset(); });
  };
  send(sent[0], "GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  CHECK(client.reply().status == 200);
  Client late(server.socket());
  CHECK(late.get("/v1/status").status == 200);
  // What lies in the queue is closed with the socket.
  client = Client(server.socket());
  CHECK(client.get("/v1/status").status == 200);
  send(sent[1], "G");
  client.close();
  CHECK(server.sessions_become(1));
  CHECK(late.get("/v1/status").status == 200);
}

TEST_CASE("the kernel refuses descriptors to who sends them, if it can") {
  std::array<int, 2> ends{};
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0);
  const UniqueFd ours(ends[0]);
  const UniqueFd theirs(ends[1]);
  CHECK_FALSE(refuses_descriptors(ours.get()));
  refuse_descriptors(ours.get());
  utsname kernel{};
  REQUIRE(uname(&kernel) == 0);
  int major = 0;
  int minor = 0;
  REQUIRE(std::sscanf(kernel.release, "%d.%d", &major, &minor) == 2);
  if (std::pair(major, minor) >= std::pair(6, 16)) CHECK(refuses_descriptors(ours.get()));
}

TEST_CASE("100 slow clients and rubbish do not hold up the others") {
  Running server;
  std::vector<std::unique_ptr<Client>> crowd;
  for (int i = 0; i < 100; ++i) {
    crowd.push_back(std::make_unique<Client>(server.socket()));
    switch (i % 4) {
      case 0:
        crowd.back()->send("GET /v1/status HTTP/1.1\r\nHost: o\r\nX-Slow: ");
        break;
      case 1:
        crowd.back()->send("POST /v1/stop HTTP/1.1\r\nHost: o\r\nContent-Length: 60000\r\n\r\n{");
        break;
      case 2:
        crowd.back()->send(std::string(3000, '\xee'));
        break;
      default:
        break;
    }
  }
  std::vector<Clock::duration> times;
  for (int i = 0; i < 21; ++i) {
    for (std::size_t slow = 0; slow < crowd.size(); slow += 4) crowd[slow]->send("z");
    const auto start = Clock::now();
    Client client(server.socket());
    CHECK(client.get("/v1/status").status == 200);
    times.push_back(Clock::now() - start);
  }
  std::sort(times.begin(), times.end());
  CHECK(times[times.size() / 2] < 100ms);
}

TEST_CASE("without a descriptor to be had an operator still gets in") {
  Running server(quick());
  Client first;
  Client second;
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
  // Fill all holes below the limit, so that the next descriptor is one too many.
  std::vector<UniqueFd> plugs;
  const UniqueFd probe(dup(0));
  rlimit tight = before;
  tight.rlim_cur = static_cast<rlim_t>(probe.get()) + 8;
  REQUIRE(setrlimit(RLIMIT_NOFILE, &tight) == 0);
  for (int fd = dup(0); fd >= 0; fd = dup(0)) plugs.emplace_back(fd);
  REQUIRE(errno == EMFILE);
  CHECK(server.socket().reach(first.fd()));
  CHECK(first.get("/v1/status").status == 200);
  // The second gets in when the first, which only waits, makes way.
  CHECK(server.socket().reach(second.fd()));
  CHECK(second.get("/v1/status").status == 200);
  CHECK(first.at_end());
  REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
  CHECK(Client(server.socket()).get("/v1/status").status == 200);
}

TEST_CASE("every change is logged with who asked and what came of it; questions are not") {
  const CaughtLog log;
  {
    Running server;
    Client client(server.socket());
    client.get("/v1/status");
    client.post("/v1/pools/web/scale", R"({"workers": "+2"})");
    client.post("/v1/stop");
    client.send("POST /v1/reload HTTP/1.1\r\nHost: o\r\n\r\n");
    REQUIRE(server.waiting_become(1));
    client.close();
    REQUIRE(server.sessions_become(0));
    server.answer_all(409);
  }
  const std::string who =
      " by uid " + std::to_string(geteuid()) + " pid " + std::to_string(getpid()) + ": ";
  CHECK(log.has("control: scale web by +2" + who + "200\n"));
  CHECK(log.has("control: stop" + who + "200\n"));
  CHECK(log.has("control: reload of all pools" + who + "409, the client has left\n"));
  CHECK_FALSE(log.has("status"));
}

TEST_CASE("without clients nothing happens") {
  const Listening listening;
  boost::asio::io_context context;
  ControlServer server(context, listening.fd(),
                       [](const control::Command&, const Peer&, const ControlServer::Respond& r) {
                         r({200, "text/plain", "x"});
                       });
  {
    Client client(listening);
    client.send("GET /v1/status HTTP/1.1\r\nHost: o\r\nConnection: close\r\n\r\n");
    for (const auto end = Clock::now() + kPatience; Clock::now() < end;) {
      context.run_one_for(100ms);
      char byte = 0;
      if (recv(client.fd(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1) break;
    }
    CHECK(client.get("/v1/status").status == 200);
  }
  context.run_for(50ms);
  CHECK(server.sessions() == 0);
  CHECK(context.run_for(300ms) == 0);
}

TEST_CASE("the server may end while clients are in the middle of something") {
  const Listening listening;
  std::vector<ControlServer::Respond> late;
  boost::asio::io_context context;
  Client client(listening);
  Client follower(listening);
  Client partial(listening);
  client.send("POST /v1/reload HTTP/1.1\r\nHost: o\r\n\r\n");
  follower.send("GET /v1/events HTTP/1.1\r\nHost: o\r\n\r\n");
  partial.send("GET /v1/st");
  {
    ControlServer server(context, listening.fd(),
                         [&](const control::Command&, const Peer&, ControlServer::Respond respond) {
                           late.push_back(std::move(respond));
                         });
    for (const auto end = Clock::now() + kPatience; late.empty() && Clock::now() < end;)
      context.run_one_for(100ms);
    REQUIRE(late.size() == 1);
  }
  late[0]({200, "text/plain", "too late"});
  context.restart();
  CHECK(context.run_for(kPatience) < 100);  // all that was pending ends, and nothing keeps it
  CHECK(client.at_end());
  CHECK(partial.at_end());
}
