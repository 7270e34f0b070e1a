// Who the client is, by what proxies say who are trusted or are not.
#include "http/proxies.hpp"

#include <doctest/doctest.h>
#include <unistd.h>

#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "served.hpp"

namespace ostler::test {

using http::client_of;
using http::ProxyList;

namespace {

using Fields = std::vector<std::pair<std::string, std::string>>;

std::string client(const Fields& fields, const std::string& peer,
                   const std::vector<std::string>& trusted) {
  boost::beast::http::fields message;
  for (const auto& [name, value] : fields) message.insert(name, value);
  return client_of(message, peer, ProxyList(trusted));
}

bool has_ipv6() {
  try {
    const Listener probe(Listener::Family::kTcp6);
    return true;
  } catch (const std::system_error&) {
    return false;
  }
}

// "CLIENT for PEER", as a handler sees them, the peer without its port.
std::string seen_by_handler(Listener::Family family, const std::vector<std::string>& trusted) {
  const Listener listener(family);
  const auto tell = [](const http::request& request) -> http::response {
    return {.body = request.client() + " for " + request.peer()};
  };
  const Served served(listener, tell, async_with([&](http::options& options) {
                        options.trusted_proxies = trusted;
                      }));
  const auto body =
      Client(listener).ask(get("/", "X-Forwarded-For: 192.0.2.1, 203.0.113.7\r\n")).body;
  return family == Listener::Family::kUnix ? body : body.substr(0, body.rfind(':'));
}

}  // namespace

TEST_CASE("a proxy is trusted by its address, its network, or for coming from a unix socket") {
  struct Case {
    std::vector<std::string> trusted;
    std::string peer;
    bool is_trusted;
  };
  for (const auto& each : {
           Case{{}, "10.0.0.1", false},
           Case{{}, "unix", false},
           Case{{"10.0.0.1"}, "10.0.0.1", true},
           Case{{"10.0.0.1"}, "10.0.0.2", false},
           Case{{"10.0.0.1"}, "unix", false},
           Case{{"unix"}, "unix", true},
           Case{{"unix"}, "127.0.0.1", false},
           Case{{"10.0.0.0/8"}, "10.255.255.255", true},
           Case{{"10.0.0.0/8"}, "11.0.0.0", false},
           Case{{"192.0.2.128/25"}, "192.0.2.127", false},
           Case{{"192.0.2.128/25"}, "192.0.2.128", true},
           Case{{"10.1.2.3/31"}, "10.1.2.2", true},
           Case{{"10.1.2.3/31"}, "10.1.2.4", false},
           Case{{"0.0.0.0/0"}, "203.0.113.9", true},
           Case{{"0.0.0.0/0"}, "2001:db8::1", false},
           Case{{"::/0"}, "2001:db8::1", true},
           Case{{"::/0"}, "203.0.113.9", false},
           Case{{"2001:db8::/33"}, "2001:db8:7fff::1", true},
           Case{{"2001:db8::/33"}, "2001:db8:8000::1", false},
           Case{{"10.0.0.1"}, "::ffff:10.0.0.1", true},
           Case{{"::ffff:10.0.0.1"}, "10.0.0.1", true},
           Case{{"fe80::/10"}, "fe80::1%eth0", true},
           Case{{"10.0.0.1", "unix", "2001:db8::/32"}, "2001:db8::7", true},
       }) {
    CAPTURE(each.peer);
    CHECK(ProxyList(each.trusted).trusts(each.peer) == each.is_trusted);
  }
}

TEST_CASE("what names no proxy is refused by name") {
  for (const std::string entry :
       {"", "proxy.example", "10.0.0", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1",
        "10.0.0.0/8x", "10.0.0.0/ 8", "unix/1", "fe80::1%eth0", "10.0.0.1:80", "[::1]"}) {
    CAPTURE(entry);
    CHECK_THROWS_WITH_AS(
        ProxyList({entry}),
        ("trusted_proxies: '" + entry + "' is not an address, ADDRESS/BITS or unix").c_str(),
        std::invalid_argument);
  }
}

TEST_CASE("only a trusted peer is believed") {
  const Fields claim{{"X-Forwarded-For", "203.0.113.7"}, {"Forwarded", "for=203.0.113.7"}};
  CHECK(client(claim, "198.51.100.1", {}) == "198.51.100.1");
  CHECK(client(claim, "198.51.100.1", {"10.0.0.0/8"}) == "198.51.100.1");
  CHECK(client(claim, "unix", {"10.0.0.0/8"}) == "unix");
  CHECK(client(claim, "10.0.0.1", {"10.0.0.0/8"}) == "203.0.113.7");
  CHECK(client(claim, "unix", {"unix"}) == "203.0.113.7");
  CHECK(client({}, "10.0.0.1", {"10.0.0.0/8"}) == "10.0.0.1");
}

TEST_CASE("the client is the last of whom no trusted proxy is") {
  struct Case {
    std::string listed;  // X-Forwarded-For
    std::string client;
  };
  for (const auto& each : {
           Case{"203.0.113.7", "203.0.113.7"},
           Case{" 203.0.113.7 ", "203.0.113.7"},
           Case{"203.0.113.7:4711", "203.0.113.7"},
           Case{"2001:db8::7", "2001:db8::7"},
           Case{"[2001:db8::7]", "2001:db8::7"},
           Case{"[2001:db8::7]:4711", "2001:db8::7"},
           Case{"2001:0DB8:0::0:7", "2001:db8::7"},
           Case{"::ffff:203.0.113.7", "203.0.113.7"},
           // What stands left of the first untrusted one is its own word.
           Case{"192.0.2.1, 203.0.113.7", "203.0.113.7"},
           Case{"192.0.2.1, 203.0.113.7, 10.0.0.2,10.0.0.3", "203.0.113.7"},
           Case{"10.0.0.4, 10.0.0.2", "10.0.0.4"},
           Case{"203.0.113.7,", "203.0.113.7"},
           Case{",, 203.0.113.7,,", "203.0.113.7"},
           // Nobody who is trusted has written what is no address.
           Case{"unknown", "10.0.0.1"},
           Case{"203.0.113.7, unknown", "10.0.0.1"},
           Case{"203.0.113.7, unknown, 10.0.0.2", "10.0.0.2"},
           Case{"203.0.113.7, \" , 10.0.0.2", "10.0.0.2"},
           Case{"", "10.0.0.1"},
           Case{"203.0.113.999", "10.0.0.1"},
           Case{"fe80::1%eth0", "10.0.0.1"},
           Case{"[2001:db8::7", "10.0.0.1"},
           Case{"[2001:db8::7]x", "10.0.0.1"},
           Case{"unix", "10.0.0.1"},
           Case{"203.0.113.7 203.0.113.8", "10.0.0.1"},
       }) {
    CAPTURE(each.listed);
    CHECK(client({{"X-Forwarded-For", each.listed}}, "10.0.0.1", {"10.0.0.0/8"}) == each.client);
  }
}

TEST_CASE("Forwarded is read as RFC 7239 has it") {
  struct Case {
    std::string forwarded;
    std::string client;
  };
  for (const auto& each : {
           Case{"for=203.0.113.7", "203.0.113.7"},
           Case{"For=203.0.113.7;proto=https;by=10.0.0.9", "203.0.113.7"},
           Case{"proto=https; by=10.0.0.9; FOR=203.0.113.7", "203.0.113.7"},
           Case{"for=\"203.0.113.7:4711\"", "203.0.113.7"},
           Case{"for=\"[2001:db8::7]:4711\"", "2001:db8::7"},
           Case{"for=192.0.2.1, for=203.0.113.7, for=10.0.0.2", "203.0.113.7"},
           Case{"by=\"a,b;for=192.0.2.1\";for=203.0.113.7", "203.0.113.7"},
           Case{"by=\"\\\",for=192.0.2.1\";for=203.0.113.7", "203.0.113.7"},
           Case{"for=203.0.113.7, for=_hidden", "10.0.0.1"},
           Case{"for=203.0.113.7, for=unknown, for=10.0.0.2", "10.0.0.2"},
           Case{"for=203.0.113.7, by=10.0.0.2", "10.0.0.1"},
           Case{"for=\"203.0.113.7", "10.0.0.1"},
           Case{"for=", "10.0.0.1"},
           Case{"for", "10.0.0.1"},
           Case{"203.0.113.7", "10.0.0.1"},
           Case{"\"", "10.0.0.1"},
           Case{"\"\\", "10.0.0.1"},
           // The proxy's own entry is inside the client's quote.
           Case{"for=192.0.2.1;x=\", for=203.0.113.7", "10.0.0.1"},
           Case{"for=192.0.2.1, for=192.0.2.2;x=\"\\\", for=203.0.113.7", "10.0.0.1"},
       }) {
    CAPTURE(each.forwarded);
    CHECK(client({{"Forwarded", each.forwarded}}, "10.0.0.1", {"10.0.0.0/8"}) == each.client);
  }
}

TEST_CASE("a list over several fields is one, and two that disagree are none") {
  const std::vector<std::string> trusted{"10.0.0.0/8"};
  CHECK(client({{"X-Forwarded-For", "192.0.2.1"}, {"X-Forwarded-For", "203.0.113.7"}}, "10.0.0.1",
               trusted) == "203.0.113.7");
  CHECK(client({{"X-Forwarded-For", "203.0.113.7"}, {"x-forwarded-for", "10.0.0.2"}}, "10.0.0.1",
               trusted) == "203.0.113.7");
  CHECK(client({{"X-Forwarded-For", "203.0.113.7"}, {"Forwarded", "for=203.0.113.8"}}, "10.0.0.1",
               trusted) == "10.0.0.1");
  CHECK(client({{"X-Forwarded-For", "203.0.113.7"}, {"Forwarded", "for=_hidden"}}, "10.0.0.1",
               trusted) == "10.0.0.1");
}

TEST_CASE("a handler is told of the client by any kind of peer") {
  using Family = Listener::Family;
  CHECK(seen_by_handler(Family::kTcp, {}) == "127.0.0.1 for 127.0.0.1");
  CHECK(seen_by_handler(Family::kTcp, {"unix", "10.0.0.0/8"}) == "127.0.0.1 for 127.0.0.1");
  CHECK(seen_by_handler(Family::kTcp, {"127.0.0.0/8"}) == "203.0.113.7 for 127.0.0.1");
  CHECK(seen_by_handler(Family::kUnix, {}) == "unix for unix");
  CHECK(seen_by_handler(Family::kUnix, {"127.0.0.0/8"}) == "unix for unix");
  CHECK(seen_by_handler(Family::kUnix, {"unix"}) == "203.0.113.7 for unix");
  CHECK(http::request().client().empty());
}

TEST_CASE("a handler is told of the client by a peer with IPv6" * doctest::skip(!has_ipv6())) {
  using Family = Listener::Family;
  CHECK(seen_by_handler(Family::kTcp6, {}) == "::1 for [::1]");
  CHECK(seen_by_handler(Family::kTcp6, {"127.0.0.0/8"}) == "::1 for [::1]");
  CHECK(seen_by_handler(Family::kTcp6, {"::1"}) == "203.0.113.7 for [::1]");
}

TEST_CASE("a worker whose proxies are none does not serve, and says which") {
  const Listener listener;
  Pipe errors;
  Process process({listener.fd(), errors.write.get()}, [] {
    ::dup2(4, STDERR_FILENO);
    set_environment({{"LISTEN_PID", "self"}, {"LISTEN_FDS", "1"}});
    const auto nothing = [](const http::request&) { return http::response(); };
    return http::serve(http::sync_handler(nothing), async_with([](http::options& options) {
                         options.trusted_proxies = {"10.0.0.0/8", "proxy.example"};
                       }));
  });
  errors.read_until("trusted_proxies: 'proxy.example' is not an address, ADDRESS/BITS or unix\n");
  CHECK(process.wait() == http::kUsageError);
}

}  // namespace ostler::test
