#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
#include <sys/socket.h>

#include <array>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <optional>
#include <string>

#include "runtime/private_request.hpp"

using namespace ostler;
using namespace std::chrono_literals;
using runtime::PrivateAnswer;
using runtime::UniqueFd;

namespace {

// Asks once, and is the worker at the other end.
struct Exchange {
  explicit Exchange(std::chrono::nanoseconds limit = 10s,
                    const config::ProbeRequest& asked = {"GET", "/healthz?deep=1"}) {
    std::array<int, 2> pair{};
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair.data()) == 0);
    worker = UniqueFd(pair[1]);
    runtime::ask_privately(context, UniqueFd(pair[0]), asked, limit,
                           [this](const PrivateAnswer& told) {
                             CHECK_FALSE(answer);
                             answer = told;
                           });
  }
  std::string request() {
    std::string text;
    while (text.find("\r\n\r\n") == std::string::npos) {
      context.poll();
      std::array<char, 512> part{};
      const ssize_t size = ::recv(worker.get(), part.data(), part.size(), MSG_DONTWAIT);
      if (size > 0) text.append(part.data(), static_cast<std::size_t>(size));
      REQUIRE((size > 0 || errno == EAGAIN));
    }
    return text;
  }
  void reply(const std::string& text) const {
    REQUIRE(::send(worker.get(), text.data(), text.size(), MSG_NOSIGNAL) ==
            static_cast<ssize_t>(text.size()));
  }
  PrivateAnswer told() {
    context.run_for(20s);
    REQUIRE(context.stopped());  // nothing is left to wait for
    REQUIRE(answer);
    return *answer;
  }

  boost::asio::io_context context;
  UniqueFd worker;
  std::optional<PrivateAnswer> answer;
};

}  // namespace

TEST_CASE("the status of the answer is told") {
  Exchange with;
  const std::string request = with.request();
  CHECK(request.starts_with("GET /healthz?deep=1 HTTP/1.1\r\n"));
  CHECK(request.find("\r\nHost: localhost\r\n") != std::string::npos);
  CHECK(request.find("\r\nUser-Agent: ostlerd/") != std::string::npos);
  CHECK(request.find("\r\nConnection: close\r\n") != std::string::npos);
  with.reply("HTTP/1.1 503 Sorry\r\nContent-Length: 4\r\n\r\nill\n");
  with.worker.reset();
  CHECK(with.told().status == 503);
}

TEST_CASE("the request bears the host and the headers that were asked for") {
  Exchange with(10s, {"HEAD", "/", "shop.example:80", {{"X-A", "1"}, {"user-agent", "me"}}, {}});
  const std::string request = with.request();
  CHECK(request ==
        "HEAD / HTTP/1.1\r\nHost: shop.example:80\r\nConnection: close\r\nX-A: 1\r\n"
        "user-agent: me\r\n\r\n");
  with.worker.reset();
  with.told();
}

TEST_CASE("an answer is good if its status is expected; else it is said what was, and the host") {
  const config::ProbeRequest usual{"GET", "/"};
  for (const int status : {200, 204, 301, 399}) CHECK(runtime::unexpected(usual, status).empty());
  CHECK(runtime::unexpected(usual, 500) ==
        "GET / was answered with 500, not 200-399 (Host: localhost)");
  CHECK(runtime::unexpected(usual, 400) ==
        "GET / was answered with 400, not 200-399 (Host: localhost); set `host` if the application "
        "accepts only its own names");
  CHECK_FALSE(runtime::unexpected(usual, 101).empty());
  const config::ProbeRequest odd{"GET", "/", "a.b", {}, {{204, 204}, {400, 499}}};
  CHECK(runtime::unexpected(odd, 204).empty());
  CHECK(runtime::unexpected(odd, 404).empty());
  CHECK(runtime::unexpected(odd, 200) ==
        "GET / was answered with 200, not 204, 400-499 (Host: a.b)");
}

TEST_CASE("a worker that closes the connection has not answered") {
  Exchange with;
  SUBCASE("at once") {}
  SUBCASE("after the request") {
    with.request();
  }
  SUBCASE("within the answer") {
    with.request();
    with.reply("HTTP/1.1 20");
  }
  with.worker.reset();
  const PrivateAnswer answer = with.told();
  CHECK_FALSE(answer.status);
  CHECK_FALSE(answer.fault.empty());
  CHECK_FALSE(answer.late);
}

TEST_CASE("a worker that does not answer is told to be late") {
  Exchange with(50ms);
  const PrivateAnswer answer = with.told();
  CHECK_FALSE(answer.status);
  CHECK(answer.late);
  CHECK(answer.fault == "was not answered within 50 ms");
}

TEST_CASE("an answer that never ends holds nobody up") {
  Exchange with(200ms);
  with.request();
  with.reply("HTTP/1.1 200 OK\r\n\r\nand so on");
  CHECK(with.told().status == 200);
}

TEST_CASE("rubbish is no answer") {
  Exchange with;
  with.request();
  SUBCASE("not HTTP") {
    with.reply("\x16\x03\x01 what is this?\r\n\r\n");
  }
  SUBCASE("a header without end") {
    with.reply("HTTP/1.1 200 OK\r\nX: " + std::string(20'000, 'x'));
  }
  const PrivateAnswer answer = with.told();
  CHECK_FALSE(answer.status);
  CHECK(answer.fault.starts_with("no answer could be read: "));
}
