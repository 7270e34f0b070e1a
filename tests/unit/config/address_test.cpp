#include "config/src/address.hpp"

#include <doctest/doctest.h>

#include "stable.hpp"

namespace ostler::config {
namespace {

std::string normal(std::string_view text) {
  const ParsedAddress parsed = parse_address(text);
  return parsed.address ? parsed.address->text() : "problem: " + parsed.problem;
}

std::string problem(std::string_view text) {
  return parse_address(text).problem;
}

Listener listener(std::string_view text, std::optional<bool> v6only = {}) {
  const ParsedAddress parsed = parse_address(text);
  REQUIRE_MESSAGE(parsed.address.has_value(), parsed.problem);
  Listener out;
  out.address = *parsed.address;
  out.v6only = v6only;
  return out;
}

bool clash(std::string_view a, std::string_view b) {
  const bool one = collide(listener(a), listener(b));
  CHECK(one == collide(listener(b), listener(a)));
  return one;
}

}  // namespace

TEST_CASE("addresses, and their one spelling") {
  CHECK(normal("tcp://127.0.0.1:80") == "tcp://127.0.0.1:80");
  CHECK(normal("tcp://:0") == "tcp://*:0");
  CHECK(normal("tcp://*:65535") == "tcp://*:65535");
  CHECK(normal("tcp://localhost:80") == "tcp://127.0.0.1:80");
  CHECK(normal("tcp://LocalHost:80") == "tcp://127.0.0.1:80");
  CHECK(normal("tcp://[0:0::0:1]:80") == "tcp://[::1]:80");
  CHECK(normal("tcp://[FE80::1%eth0]:80") == "tcp://[fe80::1%eth0]:80");
  CHECK(normal("unix:///run//x/./a.sock") == "unix:///run/x/a.sock");
  CHECK(normal("unix:@name with blanks") == "unix:@name with blanks");
  CHECK(normal("inherit:http") == "inherit:http");
  CHECK(parse_address("tcp://[::1]:8080").address->host == "::1");
  CHECK(parse_address("unix:///a").address->path == "/a");
  CHECK(parse_address("unix:@a").address->path == "a");
}

TEST_CASE("what is not an address, and what would be") {
  CHECK(problem("tcp://127.0.0.1") == "must end in a port, as tcp://127.0.0.1:8080");
  CHECK(problem("tcp://127.0.0.1:65536").find("from 0 to 65535, not '65536'") != std::string::npos);
  CHECK(problem("tcp://127.0.0.1:080").find("not '080'") != std::string::npos);
  CHECK(problem("tcp://127.0.0.1:").find("not ''") != std::string::npos);
  CHECK(problem("tcp://127.0.0.1:-1").find("not '-1'") != std::string::npos);
  CHECK(problem("tcp://1.2.3:80") == "'1.2.3' is not an IPv4 address");
  CHECK(problem("tcp://256.1.1.1:80") == "'256.1.1.1' is not an IPv4 address");
  CHECK(problem("tcp://::1:80") == "an IPv6 address needs brackets, as tcp://[::1]:8080");
  CHECK(problem("tcp://[::1]") == "must end in a port, as tcp://[::1]:8080");
  CHECK(problem("tcp://[::g]:80") == "'::g' is not an IPv6 address");
  CHECK(problem("tcp://[127.0.0.1]:80") == "'127.0.0.1' is not an IPv6 address");
  for (const std::string host :
       {"a b", "u@h", "host", "www.example.com", "ip6-localhost", "1.2.3.x"}) {
    CHECK(problem("tcp://" + host + ":80") ==
          "'" + host + "' is not an address; names are not looked up, so give the address " +
              "itself, as tcp://127.0.0.1:8080");
  }
  CHECK(problem("unix:///").find("must name a file") == 0);
  CHECK(problem("unix:///a/").find("must name a file") == 0);
  CHECK(problem("unix:@").find("an abstract socket's name") == 0);
  CHECK(problem("unix:///" + std::string(107, 'x')).find("107 bytes long, and this one has 108") !=
        std::string::npos);
  CHECK(problem("unix:///" + std::string(106, 'x')).empty());
  CHECK(problem("unix:@" + std::string(107, 'x')).empty());
  CHECK(problem("unix:@" + std::string(108, 'x')).find("1 to 107") != std::string::npos);
  CHECK(problem("inherit:").find("needs the name") != std::string::npos);
  CHECK(problem("inherit:a:b").find("needs the name") != std::string::npos);
  CHECK(problem("8080").find("did you mean 'tcp://' before it") != std::string::npos);
  CHECK(problem("127.0.0.1:80").find("did you mean 'tcp://' before it") != std::string::npos);
  CHECK(problem("http://x:80").find("did you mean 'tcp://'?") != std::string::npos);
  CHECK(problem("unix:/run/x").find("three slashes") != std::string::npos);
  CHECK(problem("unix://run/x").find("three slashes") != std::string::npos);
  CHECK(problem("/run/x").find("'unix://' before it") != std::string::npos);
  CHECK(problem("").find("must be tcp://HOST:PORT") == 0);
}

TEST_CASE("which addresses cannot be open together") {
  CHECK(clash("tcp://127.0.0.1:80", "tcp://127.0.0.1:80"));
  CHECK(clash("tcp://[::1]:80", "tcp://[0::1]:80"));
  CHECK(clash("tcp://*:80", "tcp://:80"));
  CHECK(clash("tcp://*:80", "tcp://127.0.0.1:80"));
  CHECK(clash("tcp://*:80", "tcp://[::1]:80"));
  CHECK(clash("tcp://*:80", "tcp://localhost:80"));
  CHECK(clash("tcp://0.0.0.0:80", "tcp://127.0.0.1:80"));
  CHECK(clash("tcp://[::]:80", "tcp://127.0.0.1:80"));
  CHECK(clash("tcp://[::]:80", "tcp://0.0.0.0:80"));
  CHECK(clash("tcp://[::ffff:127.0.0.1]:80", "tcp://127.0.0.1:80"));
  CHECK(clash("tcp://localhost:80", "tcp://127.0.0.1:80"));
  CHECK(clash("unix:///a", "unix:////a"));
  CHECK(clash("unix:@a", "unix:@a"));
  CHECK(clash("inherit:a", "inherit:a"));

  CHECK(!clash("tcp://*:0", "tcp://*:0"));
  CHECK(!clash("tcp://127.0.0.1:80", "tcp://127.0.0.1:81"));
  CHECK(!clash("tcp://127.0.0.1:80", "tcp://127.0.0.2:80"));
  CHECK(!clash("tcp://127.0.0.1:80", "tcp://[::1]:80"));
  CHECK(!clash("tcp://0.0.0.0:80", "tcp://[::1]:80"));
  CHECK(!clash("tcp://localhost:80", "tcp://[::1]:80"));
  CHECK(!clash("unix:///a", "unix:@a"));
  CHECK(!clash("unix:@a", "inherit:a"));
  CHECK(!collide(listener("tcp://[::]:80", true), listener("tcp://0.0.0.0:80")));
  CHECK(collide(listener("tcp://[::]:80", true), listener("tcp://[::1]:80")));
  CHECK(collide(listener("tcp://[::]:80", false), listener("tcp://0.0.0.0:80")));
}

}  // namespace ostler::config
