// What a line of the access log says, and that no client can write a second one.
#include "http/access_log.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <ctime>
#include <regex>
#include <stdexcept>
#include <string>

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

// "CLIENT REQUEST STATUS BYTES" of each line.
std::string without_times(const std::string& lines) {
  static const std::regex times(R"( - - \[[^\]]*\])");
  return std::regex_replace(lines, times, "");
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

// Line by line, without their times.
class Log {
 public:
  explicit Log(Pipe& pipe) : pipe_(pipe) {}

  std::string next() {
    const auto all = pipe_.read_until("\n");
    const auto end = all.find('\n');
    pipe_.seen = all.substr(end + 1);
    return without_times(all.substr(0, end));
  }

 private:
  Pipe& pipe_;
};

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

TEST_CASE("a request whose client did not wait for the answer has its line") {
  const Listener listener;
  const Gate gate;
  const http::sync_handler handler = [&gate](const http::request&) {
    gate.wait();
    return http::response{.body = "done"};
  };
  Served served(listener, handler, options_with(worker_class::sync, [](http::options& options) {
                  options.access_log = access_log::common;
                }));
  {
    Fd socket = listener.connect();
    const auto request = get("/a");
    REQUIRE(::send(socket.get(), request.data(), request.size(), 0) > 0);
    const linger reset{1, 0};
    REQUIRE(::setsockopt(socket.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset) == 0);
    served.errors.read_until(Gate::kWaiting);
  }
  gate.open();
  CHECK(served.output.read_until("\n").find("\"GET /a HTTP/1.1\" 200 4") != std::string::npos);
}

TEST_CASE("there is a line for each request in each class, but for the manager's own") {
  for (const std::string name : {"sync", "threads", "async"}) {
    CAPTURE(name);
    Pipe output;
    // The fake manager leaves it to the worker.
    const Fd inherited(checked(::fcntl(output.write.get(), F_DUPFD_CLOEXEC, 200), "duplicate"));
    fake_manager manager(
        {.body =
             [&] {
               ::dup2(inherited.get(), STDOUT_FILENO);
               return http::serve([](const http::request& request) {
                 return http::response{.body = request.client()};
               });
             },
         .worker_options = "class=" + name + " access_log=common trusted_proxies=127.0.0.1"});
    manager.wait_ready();
    CHECK(Client(Fd(manager.hand_over(true))).ask(get("/health")).status == 200);
    const auto ask = [&](const std::string& text) {
      return Client(Fd(manager.connect())).ask(text);
    };
    CHECK(ask(get("/a")).body == "127.0.0.1");
    CHECK(ask(get("/b\"", "X-Forwarded-For: 192.0.2.1, 203.0.113.7\r\n")).body == "203.0.113.7");
    CHECK(ask("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").status == 400);
    CHECK(ask("rubbish\r\n\r\n").status == 400);
    CHECK(without_times(output.read_until("\"-\" 400 12\n")) ==
          "127.0.0.1 \"GET /a HTTP/1.1\" 200 9\n"
          "203.0.113.7 \"GET /b\\\" HTTP/1.1\" 200 11\n"
          "127.0.0.1 \"GET / HTTP/1.1\" 400 12\n"
          "127.0.0.1 \"-\" 400 12\n");
  }
}

TEST_CASE("a line says what was answered, however that was") {
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
    const std::string client = "127.0.0.1 ";
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
  CHECK(log.next() == R"(unix "GET /1 HTTP/1.1" 200 4)");
  CHECK(log.next() == R"(unix "GET /2 HTTP/1.1" 200 4)");
  CHECK(log.next() == R"(unix "-" 400 12)");
}

}  // namespace ostler::test
