// What a line of the access log says, and that no client can write a second one.
#include "http/access_log.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <ctime>
#include <stdexcept>
#include <string>
#include <vector>

#include <boost/asio/buffer.hpp>
#include <boost/asio/write.hpp>

#include "ostler/test/fake_manager.hpp"
#include "served.hpp"

namespace ostler::test {

using http::access_line;
using http::access_log;
using http::AccessEntry;

namespace {

using namespace std::chrono_literals;

// As it would be written in that time zone.
class TimeZone {
 public:
  explicit TimeZone(const char* name) {
    ::setenv("TZ", name, 1);
    ::tzset();
  }
  ~TimeZone() {
    ::unsetenv("TZ");
    ::tzset();
  }
  TimeZone(const TimeZone&) = delete;
  TimeZone& operator=(const TimeZone&) = delete;
};

AccessEntry entry() {
  AccessEntry entry;
  entry.time = std::chrono::system_clock::time_point(1'700'000'000'012ms);
  entry.duration = 1'234'567ns;
  entry.client = "203.0.113.7";
  entry.method = "GET";
  entry.target = "/a?b=c";
  entry.status = 200;
  entry.bytes = 1234;
  return entry;
}

http::response answer(const http::request& request) {
  http::response response;
  if (request.target() == "/throw") throw std::runtime_error("the database is away");
  if (request.target() == "/upgrade") {
    response.upgrade = [](connection& peer) {
      boost::asio::write(peer.socket(), boost::asio::buffer(std::string("HTTP/1.1 101 X\r\n\r\n")));
    };
  } else if (request.target() == "/stream") {
    response.stream = [](http::body_writer& out) {
      for (int i = 0; i < 3; ++i) out.write("line\n");
    };
  } else {
    response.body = "four";
  }
  return response;
}

// The next line of a log, which is in the common format, without its time.
class Log {
 public:
  explicit Log(Pipe& pipe) : pipe_(pipe) {}

  std::string next() {
    const auto all = pipe_.read_until("\n");
    const auto end = all.find('\n');
    std::string line = all.substr(0, end);
    pipe_.seen = all.substr(end + 1);
    const auto begin = line.find('[');
    return line.erase(begin, line.find("] ", begin) + 2 - begin);
  }

 private:
  Pipe& pipe_;
};

// Another number for the pipe's end, which a worker of the fake manager's is left.
Fd for_worker(const Pipe& pipe) {
  return Fd(checked(::fcntl(pipe.write.get(), F_DUPFD, 200), "number the pipe's end"));
}

}  // namespace

TEST_CASE("the common format is the web servers' of old") {
  const TimeZone zone("XYZ-5:30");
  CHECK(access_line(access_log::common, entry()) ==
        "203.0.113.7 - - [15/Nov/2023:03:43:20 +0530] \"GET /a?b=c HTTP/1.1\" 200 1234\n");
  auto empty = entry();
  empty.bytes = 0;
  empty.version = 10;
  empty.status = 304;
  CHECK(access_line(access_log::common, empty) ==
        "203.0.113.7 - - [15/Nov/2023:03:43:20 +0530] \"GET /a?b=c HTTP/1.0\" 304 -\n");
  auto unread = entry();
  unread.method = {};
  unread.target = {};
  unread.status = 400;
  unread.bytes = 12;
  CHECK(access_line(access_log::common, unread) ==
        "203.0.113.7 - - [15/Nov/2023:03:43:20 +0530] \"-\" 400 12\n");
}

TEST_CASE("the json format has everything, in UTC") {
  const TimeZone zone("XYZ-5:30");
  auto full = entry();
  full.user_agent = "curl/8";
  full.referer = "http://a.example/";
  CHECK(access_line(access_log::json, full) ==
        "{\"time\":\"2023-11-14T22:13:20.012Z\",\"client\":\"203.0.113.7\",\"method\":\"GET\","
        "\"target\":\"/a?b=c\",\"version\":\"1.1\",\"status\":200,\"bytes\":1234,"
        "\"duration\":0.001235,\"user_agent\":\"curl/8\",\"referer\":\"http://a.example/\"}\n");
}

TEST_CASE("what a client sent stays inside its field, whatever it is") {
  struct Case {
    std::string sent;
    std::string common;
    std::string json;
  };
  for (const auto& each : {
           Case{"/\"", "/\\\"", "/\\\""},
           Case{"/\\", "/\\\\", "/\\\\"},
           Case{"/\r\n127.0.0.1", "/\\x0d\\x0a127.0.0.1", "/\\u000d\\u000a127.0.0.1"},
           Case{std::string("/\0", 2), "/\\x00", "/\\u0000"},
           Case{"/\x1b[2J\x7f", "/\\x1b[2J\\x7f", "/\\u001b[2J\\u007f"},
           Case{"/\xc3\xa9\xff", "/\\xc3\\xa9\\xff", "/\\u00c3\\u00a9\\u00ff"},
       }) {
    auto hostile = entry();
    hostile.target = hostile.user_agent = hostile.referer = each.sent;
    const auto common = access_line(access_log::common, hostile);
    CHECK(common.find("\"GET " + each.common + " HTTP/1.1\"") != std::string::npos);
    const auto json = access_line(access_log::json, hostile);
    for (const std::string key : {"target", "user_agent", "referer"}) {
      CHECK(json.find("\"" + key + "\":\"" + each.json + "\"") != std::string::npos);
    }
    for (const auto& line : {common, json}) CHECK(line.find('\n') == line.size() - 1);
  }
}

TEST_CASE("each request is a line, with what was answered") {
  for (const auto kind : {worker_class::sync, worker_class::threads}) {
    CAPTURE(static_cast<int>(kind));
    const Listener listener;
    Served served(listener, answer, options_with(kind, [](http::options& options) {
                    options.access_log = access_log::common;
                  }));
    Log log(served.output);
    const auto line_for = [&](const std::string& bytes) {
      Client client(listener);
      client.send(bytes);
      client.receive(false);
      return log.next();
    };
    const std::string client = "127.0.0.1 - - ";
    CHECK(line_for(get("/a?b=c")) == client + R"("GET /a?b=c HTTP/1.1" 200 4)");
    CHECK(line_for("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n") == client + R"("HEAD / HTTP/1.1" 200 -)");
    CHECK(line_for("GET / HTTP/1.0\r\n\r\n") == client + R"("GET / HTTP/1.0" 200 4)");
    // The body alone counts, and not what frames it.
    CHECK(line_for(get("/stream")) == client + R"("GET /stream HTTP/1.1" 200 15)");
    CHECK(line_for(get("/throw")) == client + R"("GET /throw HTTP/1.1" 500 22)");
    CHECK(line_for(get("/upgrade")) == client + R"("GET /upgrade HTTP/1.1" 101 -)");
    CHECK(line_for("GET http://a/b HTTP/1.1\r\nHost: a\r\n\r\n") ==
          client + R"("GET /b HTTP/1.1" 200 4)");
    // What was refused is shown as far as it was read.
    CHECK(line_for("nonsense\r\n\r\n") == client + R"("-" 400 12)");
    CHECK(line_for(get("/a", "Host: b\r\n")) == client + R"("GET /a HTTP/1.1" 400 12)");
    CHECK(line_for(get("/\"\\\xe9")) == client + R"("GET /\"\\\xe9 HTTP/1.1" 200 4)");
  }
}

TEST_CASE("pipelined requests are a line each, in their order") {
  const Listener listener(Listener::Family::kUnix);
  Served served(listener, answer, options_with(worker_class::threads, [](http::options& options) {
                  options.access_log = access_log::common;
                  options.threads = 4;
                }));
  Client client(listener);
  client.send(get("/1") + get("/2") + "what is this\r\n\r\n");
  for (int i = 0; i < 3; ++i) CHECK(client.receive());
  Log log(served.output);
  CHECK(log.next() == R"(unix - - "GET /1 HTTP/1.1" 200 4)");
  CHECK(log.next() == R"(unix - - "GET /2 HTTP/1.1" 200 4)");
  CHECK(log.next() == R"(unix - - "-" 400 12)");
}

TEST_CASE("the log tells who the client is, as the trusted proxies say") {
  const Listener listener;
  Served served(listener, answer, async_with([](http::options& options) {
                  options.access_log = access_log::json;
                  options.trusted_proxies = {"127.0.0.0/8"};
                }));
  Client client(listener);
  client.ask(get("/", "X-Forwarded-For: 192.0.2.1, 203.0.113.7\r\nUser-Agent: a\"b\r\n"));
  const auto line = served.output.read_until("\n");
  CHECK(line.find(R"("client":"203.0.113.7")") != std::string::npos);
  CHECK(line.find(R"("user_agent":"a\"b")") != std::string::npos);
}

TEST_CASE("the manager's own requests are in no log, and the pool's setting turns it on") {
  for (const std::string name : {"sync", "threads", "async"}) {
    CAPTURE(name);
    Pipe output;
    const Fd end = for_worker(output);
    const auto body = [&end] {
      ::dup2(end.get(), STDOUT_FILENO);
      return http::serve(http::sync_handler(answer));
    };
    fake_manager manager({.body = body, .worker_options = "class=" + name + " access_log=common"});
    manager.wait_ready();
    CHECK(Client(Fd(manager.hand_over(true))).ask(get("/private")).status == 200);
    CHECK(Client(Fd(manager.hand_over(true))).ask(get("/", "Host: b\r\n")).status == 400);
    CHECK(Client(Fd(manager.hand_over(false))).ask(get("/handed-over")).status == 200);
    CHECK(Client(Fd(manager.connect())).ask(get("/accepted")).status == 200);
    Log log(output);
    CHECK(log.next().find("GET /handed-over") != std::string::npos);
    CHECK(log.next() == R"(127.0.0.1 - - "GET /accepted HTTP/1.1" 200 4)");
    manager.ask_to_stop();
    CHECK(manager.wait() == 0);
  }
}

}  // namespace ostler::test
