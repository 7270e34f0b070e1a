// What RFC 9110 and RFC 9112 say about where a request begins, ends and goes, above all where two
// servers in a row could read it differently (request smuggling): bytes in, status out.
#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "served.hpp"

namespace ostler::test {
namespace {

struct Case {
  std::string name;
  std::string bytes;
  int status = 400;
  // What the handler saw, if it was asked.
  std::string seen{};
  // Whether the connection ends with the answer. It always does when the request is refused.
  bool closes = false;
};

// "METHOD TARGET host=HOST body=BODY", and how often it was called until then.
http::response tell(const http::request& request) {
  static int calls = 0;
  if (request.target() == "/calls") return {.body = std::to_string(calls)};
  ++calls;
  return {.body = std::string(request.method_string()) + " " + std::string(request.target()) +
                  " host=" + std::string(request[http::field::host]) + " body=" + request.body()};
}

std::string with(const std::string& line) {
  return "GET / HTTP/1.1\r\nHost: a\r\n" + line + "\r\n\r\n";
}

std::string with_host(const std::string& host) {
  return "GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n";
}

std::string coded(const std::string& coding, const std::string& body = "0\r\n\r\n") {
  return "POST / HTTP/1.1\r\nHost: a\r\n" + coding + "\r\n\r\n" + body;
}

std::string chunks(const std::string& body) {
  return coded("Transfer-Encoding: chunked", body);
}

std::string sized(const std::string& length, const std::string& body = "12345") {
  return "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + length + "\r\n\r\n" + body;
}

std::string line(const std::string& request_line) {
  return request_line + "\r\nHost: a\r\n\r\n";
}

std::string repeated(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

std::string nul(const std::string& text) {
  std::string bytes = text;
  for (std::size_t at = 0; (at = bytes.find("NUL")) != std::string::npos;) {
    bytes.replace(at, 3, 1, '\0');
  }
  return bytes;
}

std::vector<Case> request_lines() {
  const std::string long_word(9000, 'a');
  return {
      {"no version, as in HTTP/0.9", "GET /\r\n\r\n"},
      {"the HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
      {"HTTP/2.0", line("GET / HTTP/2.0"), 505},
      {"HTTP/0.9 by name", line("GET / HTTP/0.9"), 505},
      {"HTTP/1.2 is served as 1.1", line("GET / HTTP/1.2"), 200, "GET / host=a body="},
      {"HTTP/1.9 needs a host like 1.1", "GET / HTTP/1.9\r\n\r\n"},
      {"a version of two digits", line("GET / HTTP/1.10")},
      {"a version without a minor number", line("GET / HTTP/1")},
      {"a version with a sign", line("GET / HTTP/+1.1")},
      {"lower case http", line("GET / http/1.1")},
      {"another protocol", line("GET / RTSP/1.0")},
      {"text behind the version", line("GET / HTTP/1.1 x")},
      {"a blank behind the version", line("GET / HTTP/1.1 ")},
      {"a blank before the method", " " + line("GET / HTTP/1.1")},
      {"two blanks behind the method", line("GET  / HTTP/1.1")},
      {"two blanks behind the target", line("GET /  HTTP/1.1")},
      {"a tab behind the method", line("GET\t/ HTTP/1.1")},
      {"a tab in the target", line("GET /a\tb HTTP/1.1")},
      {"a blank in the target", line("GET /a b HTTP/1.1")},
      {"NUL in the target", nul(line("GET /aNULb HTTP/1.1"))},
      {"DEL in the target", line("GET /a\x7f HTTP/1.1")},
      {"CR in the target", line("GET /a\rb HTTP/1.1")},
      {"LF in the target", line("GET /a\nb HTTP/1.1")},
      {"no target", line("GET HTTP/1.1")},
      {"an empty target", line("GET  HTTP/1.1")},
      {"no method", line("/ HTTP/1.1")},
      {"a method that is no token", line("GE(T / HTTP/1.1")},
      {"a method with a colon", line("GET: / HTTP/1.1")},
      {"an unknown method is the handler's", line("BREW /pot HTTP/1.1"), 200,
       "BREW /pot host=a body="},
      {"methods have a case", line("get / HTTP/1.1"), 200, "get / host=a body="},
      {"TRACE is the handler's", line("TRACE / HTTP/1.1"), 200, "TRACE / host=a body="},
      {"empty lines before a request", "\r\n\r\n" + line("GET / HTTP/1.1"), 200,
       "GET / host=a body="},
      {"an empty line behind a request", line("GET / HTTP/1.1") + "\r\n", 200,
       "GET / host=a body="},
      {"an empty line that ends in LF alone", "\n" + line("GET / HTTP/1.1")},
      {"a thousand empty lines before a request", repeated("\r\n", 1000) + line("GET / HTTP/1.1"),
       200, "GET / host=a body="},
      {"a CR before a request", "\r" + line("GET / HTTP/1.1")},
      {"a method that is too long", line(long_word + " / HTTP/1.1"), 414},
      {"a target that is too long", line("GET /" + long_word + " HTTP/1.1"), 414},
      {"a control character behind the version", line("GET / HTTP/1.1\x01")},
      {"NUL behind the version", nul(line("GET / HTTP/1.1NUL"))},
      {"NUL in the method", nul(line("GENULT / HTTP/1.1"))},
      {"TLS", std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 15)},
  };
}

std::vector<Case> targets() {
  return {
      {"absolute form becomes origin form, and its host counts",
       line("GET http://b:80/x?y HTTP/1.1"), 200, "GET /x?y host=b:80 body="},
      {"absolute form without a path", line("GET http://b HTTP/1.1"), 200, "GET / host=b body="},
      {"absolute form with a query alone", line("GET https://b?y HTTP/1.1"), 200,
       "GET /?y host=b body="},
      {"OPTIONS of a host", line("OPTIONS http://b HTTP/1.1"), 200, "OPTIONS * host=b body="},
      {"absolute form does not replace Host", "GET http://b/ HTTP/1.1\r\n\r\n"},
      {"absolute form with its scheme in capitals", line("GET HTTP://b/x HTTP/1.1"), 200,
       "GET /x host=b body="},
      {"absolute form in HTTP/1.0", "GET http://b/x HTTP/1.0\r\n\r\n", 200,
       "GET /x host=b body=", true},
      {"absolute form does not mend Host", "GET http://b/ HTTP/1.1\r\nHost: a b\r\n\r\n"},
      {"absolute form with a blank in its host", line("GET http://b c/ HTTP/1.1")},
      {"absolute form with a user", line("GET http://u@b/ HTTP/1.1")},
      {"absolute form without a host", line("GET http:///x HTTP/1.1")},
      {"absolute form of another scheme", line("GET ftp://b/ HTTP/1.1")},
      {"OPTIONS *", line("OPTIONS * HTTP/1.1"), 200, "OPTIONS * host=a body="},
      {"GET *", line("GET * HTTP/1.1")},
      {"OPTIONS of a path", line("OPTIONS /x HTTP/1.1"), 200, "OPTIONS /x host=a body="},
      {"OPTIONS without a target's form", line("OPTIONS x HTTP/1.1")},
      {"* and more", line("OPTIONS *x HTTP/1.1")},
      {"authority form", line("GET b:80 HTTP/1.1")},
      {"a path without its slash", line("GET x HTTP/1.1")},
      {"CONNECT", line("CONNECT b:80 HTTP/1.1"), 501},
  };
}

std::vector<Case> hosts() {
  return {
      {"no Host", "GET / HTTP/1.1\r\n\r\n"},
      {"no Host in HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", 200, "GET / host= body=", true},
      {"two Hosts", with("Host: a")},
      {"two Hosts in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"},
      {"an empty Host", with_host(""), 200, "GET / host= body="},
      {"Host with a port", with_host("a.example:8080"), 200, "GET / host=a.example:8080 body="},
      {"Host of IPv6", with_host("[::1]:80"), 200, "GET / host=[::1]:80 body="},
      {"Host of IPv6 that does not end", with_host("[::1")},
      {"Host with text behind IPv6", with_host("[::1]a")},
      {"Host with a blank", with_host("a b")},
      {"Host of two names", with_host("a, b")},
      {"Host with a user", with_host("u@a")},
      {"Host with a path", with_host("a/b")},
      {"Host with a port that is none", with_host("a:b")},
      {"Host that is not ASCII", with_host("\xc3\xa4")},
      {"Host with a tab", with_host("a\tb")},
      {"Host with blanks around", with_host(" \ta "), 200, "GET / host=a body="},
      {"two Hosts, one of them empty", with("Host:")},
      {"two Hosts in different capitals", with("hOST: b")},
      {"Host with two ports", with_host("a:1:2")},
  };
}

std::vector<Case> fields() {
  const std::string long_word(9000, 'a');
  return {
      {"a folded field", with("A: b\r\n c")},
      {"a field folded with a tab", with("A: b\r\n\tc")},
      {"a blank before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n"},
      {"a blank before the colon", with("A : b")},
      {"a tab before the colon", with("A\t: b")},
      {"no colon", with("A")},
      {"no name", with(": b")},
      {"a blank in a name", with("A B: c")},
      {"NUL in a name", nul(with("ANULB: c"))},
      {"NUL in a value", nul(with("A: bNULc"))},
      {"a control character in a value", with("A: b\x01")},
      {"DEL in a value", with("A: b\x7f")},
      {"a vertical tab in a value", with("A: b\x0b")},
      {"a name that is no token", with("A(: b")},
      {"a name that is not ASCII", with("\xc3\xa4: b")},
      {"LF alone ends a line", with("A: b\nC: d")},
      {"LF alone everywhere", "GET / HTTP/1.1\nHost: a\n\n"},
      {"CR alone in a value", with("A: b\rC: d")},
      {"CR CR LF", with("A: b\r")},
      {"a value that is not ASCII", with("A: \xc3\xa4"), 200, "GET / host=a body="},
      {"a tab in a value", with("A: b\tc"), 200, "GET / host=a body="},
      {"an empty value", with("A:"), 200, "GET / host=a body="},
      {"no blank behind the colon", with("A:b"), 200, "GET / host=a body="},
      {"a field that is too long", with("A: " + long_word), 431},
      {"a name that is too long", with(long_word + ": a"), 431},
      {"two thousand bytes of small fields", with(repeated("A:\r\n", 500) + "B: c"), 200,
       "GET / host=a body="},
      {"more small fields than the limit", with(repeated("A:\r\n", 2100) + "B: c"), 431},
      {"an expectation that nobody knows", with("Expect: miracles"), 417},
      {"such an expectation among two", with("Expect: miracles\r\nExpect: 100-continue"), 417},
      {"such an expectation in a list", with("Expect: 100-continue, miracles"), 417},
      {"an expectation of HTTP/1.0 is none", "GET / HTTP/1.0\r\nExpect: miracles\r\n\r\n", 200,
       "GET / host= body=", true},
      {"a go-ahead for no body", with("Expect: 100-Continue"), 200, "GET / host=a body="},
  };
}

std::vector<Case> lengths() {
  const std::string seen = "POST / host=a body=12345";
  return {
      {"a length", sized("5"), 200, seen},
      {"a length with blanks around", sized(" \t5 \t"), 200, seen},
      {"a length with zeros", sized("0005"), 200, seen},
      {"the same length twice", sized("5\r\nContent-Length: 5")},
      {"two lengths", sized("5\r\nContent-Length: 4")},
      {"a list of one length", sized("5, 5")},
      {"a list of two lengths", sized("5, 4")},
      {"a list that ends", sized("5,")},
      {"a negative length", sized("-5")},
      {"a length with a plus", sized("+5")},
      {"a length in hexadecimal", sized("0x5")},
      {"a length with a fraction", sized("5.0")},
      {"a length with a blank inside", sized("1 2")},
      {"an empty length", sized("")},
      {"a length that is a word", sized("five")},
      {"a length of 2^64", sized("18446744073709551616")},
      {"a length of many digits", sized(std::string(100, '9'))},
      {"a length over the limit", sized("18446744073709551615"), 413},
      {"a blank before the length's colon",
       "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n12345"},
      {"a length on a folded line",
       "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n 5\r\n\r\n12345"},
      {"a length and one with a blank before the colon", sized("5\r\nContent-Length : 4")},
      {"a length behind NUL", nul(sized("NUL5"))},
      {"a length behind a vertical tab", sized("\v5")},
      {"a length in digits that are not ASCII", sized("\xd9\xa5")},
      {"a length with its sign behind", sized("5-")},
      {"no length is no body", "POST / HTTP/1.1\r\nHost: a\r\n\r\n", 200, "POST / host=a body="},
      {"a length of none", sized("0", ""), 200, "POST / host=a body="},
      {"a length in HTTP/1.0", "POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi", 200,
       "POST / host= body=hi", true},
      {"OPTIONS * with a body", "OPTIONS * HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", 200,
       "OPTIONS * host=a body=hi"},
      {"a GET with a body", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", 200,
       "GET / host=a body=hi"},
  };
}

std::vector<Case> codings() {
  const std::string te = "Transfer-Encoding: ";
  return {
      {"chunked", coded(te + "chunked"), 200, "POST / host=a body="},
      {"chunked in capitals", coded(te + "CHUNKED"), 200, "POST / host=a body="},
      {"chunked behind a tab", coded("Transfer-Encoding:\tchunked"), 200, "POST / host=a body="},
      {"chunked with blanks around", coded(te + " \tchunked \t"), 200, "POST / host=a body="},
      {"a name that only resembles it", coded("Transfer_Encoding: chunked\r\nContent-Length: 5"),
       200, "POST / host=a body=0\r\n\r\n"},
      {"an empty coding and a length", coded(te + "\r\nContent-Length: 5")},
      {"an empty coding and chunked", coded(te + "\r\n" + te + "chunked")},
      {"chunked before a comma", coded(te + "chunked,")},
      {"NUL in the coding's name", nul(coded("Transfer-EncodingNUL: chunked"))},
      {"chunked and a length in HTTP/1.0",
       "POST / HTTP/1.0\r\n" + te + "chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"},
      {"chunked and a length", coded(te + "chunked\r\nContent-Length: 5")},
      {"a length and chunked", coded("Content-Length: 5\r\n" + te + "chunked")},
      {"a length and a coding that is not chunked", coded("Content-Length: 5\r\n" + te + "gzip")},
      {"chunked in two fields", coded(te + "chunked\r\n" + te + "chunked")},
      {"chunked and identity in two fields", coded(te + "chunked\r\n" + te + "identity")},
      {"a coding in two fields", coded(te + "gzip\r\n" + te + "chunked")},
      {"chunked twice", coded(te + "chunked, chunked")},
      {"chunked, but not the last", coded(te + "chunked, identity")},
      {"chunked behind another", coded(te + "gzip, chunked"), 501},
      {"identity", coded(te + "identity")},
      {"a word that ends in chunked", coded(te + "xchunked")},
      {"a word that begins with chunked", coded(te + "chunkedx")},
      {"chunked in quotes", coded(te + "\"chunked\"")},
      {"chunked with a parameter", coded(te + "chunked;a=b")},
      {"chunked behind a comma", coded(te + ",chunked"), 501},
      {"an empty coding", coded(te)},
      {"chunked behind a vertical tab", coded(te + "\vchunked")},
      {"chunked behind NUL", nul(coded(te + "NULchunked"))},
      {"chunked on a folded line", coded("Transfer-Encoding:\r\n chunked")},
      {"a blank before the coding's colon", coded("Transfer-Encoding : chunked")},
      {"a tab before the coding's colon", coded("Transfer-Encoding\t: chunked")},
      {"LF before the coding", coded("A: b\n" + te + "chunked")},
      {"chunked in HTTP/1.0", "POST / HTTP/1.0\r\n" + te + "chunked\r\n\r\n0\r\n\r\n"},
  };
}

std::vector<Case> chunk_cases() {
  const std::string seen = "POST / host=a body=abc";
  return {
      {"one chunk", chunks("3\r\nabc\r\n0\r\n\r\n"), 200, seen},
      {"three chunks", chunks("1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n"), 200, seen},
      {"a size with zeros", chunks("0003\r\nabc\r\n000\r\n\r\n"), 200, seen},
      {"a size in capitals", chunks("A\r\n0123456789\r\n0\r\n\r\n"), 200,
       "POST / host=a body=0123456789"},
      {"extensions are left out", chunks("3;a;b=c;d=\"e\"\r\nabc\r\n0;f\r\n\r\n"), 200, seen},
      {"trailers are left out", chunks("3\r\nabc\r\n0\r\nHost: b\r\nX: y\r\n\r\n"), 200, seen},
      {"blanks around an extension", chunks("3 ; a = b\r\nabc\r\n0\r\n\r\n"), 200, seen},
      {"a chunk's data are only data", chunks("5\r\n0\r\n\r\n\r\n0\r\n\r\n"), 200,
       "POST / host=a body=0\r\n\r\n"},
      {"no size", chunks("\r\nabc\r\n0\r\n\r\n")},
      {"an extension without a size", chunks(";a\r\nabc\r\n0\r\n\r\n")},
      {"a size that is none", chunks("g\r\nabc\r\n0\r\n\r\n")},
      {"a negative size", chunks("-3\r\nabc\r\n0\r\n\r\n")},
      {"a size with a plus", chunks("+3\r\nabc\r\n0\r\n\r\n")},
      {"a size with 0x", chunks("0x3\r\nabc\r\n0\r\n\r\n")},
      {"a blank before the size", chunks(" 3\r\nabc\r\n0\r\n\r\n")},
      {"an underscore in the size", chunks("1_0\r\nabc\r\n0\r\n\r\n")},
      {"text behind the size", chunks("3 abc\r\nabc\r\n0\r\n\r\n")},
      {"NUL behind the size", nul(chunks("3NUL\r\nabc\r\n0\r\n\r\n"))},
      {"a size of 2^64", chunks("10000000000000000\r\nabc\r\n0\r\n\r\n")},
      {"a size that is 3 modulo 2^64", chunks("10000000000000003\r\nabc\r\n0\r\n\r\n")},
      {"a size over the limit", chunks("fffffffffffffff0\r\nabc\r\n0\r\n\r\n"), 413},
      {"a chunk that is longer than its size", chunks("2\r\nabc\r\n0\r\n\r\n")},
      {"a chunk without its line end", chunks("3\r\nabc0\r\n\r\n")},
      {"LF alone behind a size", chunks("3\nabc\r\n0\r\n\r\n")},
      {"CR alone behind a size", chunks("3\rabc\r\n0\r\n\r\n")},
      {"LF alone behind a chunk", chunks("3\r\nabc\n0\r\n\r\n")},
      {"LF alone in an extension", chunks("3;a\nb\r\nabc\r\n0\r\n\r\n")},
      {"LF alone in a quoted extension", chunks("3;a=\"b\nc\"\r\nabc\r\n0\r\n\r\n")},
      {"LF alone behind a backslash", chunks("3;a=\"b\\\nc\"\r\nabc\r\n0\r\n\r\n")},
      {"LF alone in the last chunk's extension", chunks("3\r\nabc\r\n0;a=\"\n\"\r\n\r\n")},
      {"NUL in a quoted extension", nul(chunks("3;a=\"NUL\"\r\nabc\r\n0\r\n\r\n"))},
      {"DEL in a quoted extension", chunks("3;a=\"\x7f\"\r\nabc\r\n0\r\n\r\n")},
      {"CR LF in a quoted extension", chunks("3;a=\"b\r\nc\"\r\nabc\r\n0\r\n\r\n")},
      {"a control character in an extension", chunks("3;a\x01\r\nabc\r\n0\r\n\r\n")},
      {"an extension without a name", chunks("3;\r\nabc\r\n0\r\n\r\n")},
      {"an extension without its value", chunks("3;a=\r\nabc\r\n0\r\n\r\n")},
      {"an extension that is too long",
       chunks("3;" + std::string(20'000, 'a') + "\r\nabc\r\n0\r\n\r\n"), 431},
      {"a size that is too long", chunks(std::string(20'000, '0') + "3\r\nabc\r\n0\r\n\r\n"), 431},
      {"a blank behind the size", chunks("3 \r\nabc\r\n0\r\n\r\n")},
      {"LF alone behind the last chunk", chunks("0\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")},
      {"the last chunk without its line end", chunks("0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")},
      {"CR alone in an extension", chunks("3;a\rb\r\nabc\r\n0\r\n\r\n")},
      {"LF alone in a trailer", chunks("0\r\nA: b\nC: d\r\n\r\n")},
      {"a trailer without a colon", chunks("0\r\nA\r\n\r\n")},
      {"a folded trailer is left out like others", chunks("0\r\nA: b\r\n c\r\n\r\n"), 200,
       "POST / host=a body="},
      {"NUL in a trailer", nul(chunks("0\r\nA: bNUL\r\n\r\n"))},
      {"a blank before a trailer's colon", chunks("0\r\nA : b\r\n\r\n")},
      {"trailers that are too long", chunks("0\r\n" + repeated("A: b\r\n", 4000) + "\r\n"), 431},
      {"a trailer with a coding", chunks("0\r\nTransfer-Encoding: chunked\r\n\r\n")},
      {"a trailer with a length", chunks("0\r\nContent-Length: 5\r\n\r\n")},
  };
}

std::vector<Case> connections() {
  const std::string seen = "GET / host=a body=";
  const auto old = [](const std::string& lines) {
    return "GET / HTTP/1.0\r\nHost: a\r\n" + lines + "\r\n\r\n";
  };
  return {
      {"1.1 is kept", line("GET / HTTP/1.1"), 200, seen},
      {"1.1 with another option", with("Connection: x"), 200, seen},
      {"1.1 with keep-alive", with("Connection: keep-alive"), 200, seen},
      {"1.1 with close", with("Connection: close"), 200, seen, true},
      {"1.1 with close in capitals", with("Connection: CLOSE"), 200, seen, true},
      {"1.1 with close in a list", with("Connection: x,close , y"), 200, seen, true},
      {"1.1 with close in a second field", with("Connection: x\r\nConnection: close"), 200, seen,
       true},
      {"1.1 with close and keep-alive", with("Connection: keep-alive, close"), 200, seen, true},
      {"1.1 with a word that ends in close", with("Connection: xclose"), 200, seen},
      {"1.0 is closed", line("GET / HTTP/1.0"), 200, seen, true},
      {"1.0 with keep-alive", old("Connection: Keep-Alive"), 200, seen},
      {"1.0 with keep-alive in a list", old("Connection: x, keep-alive"), 200, seen},
      {"1.0 with keep-alive in a second field", old("Connection: x\r\nConnection: keep-alive"), 200,
       seen},
      {"1.0 with close and keep-alive", old("Connection: close, keep-alive"), 200, seen, true},
      {"1.0 with close in a second field", old("Connection: keep-alive\r\nConnection: close"), 200,
       seen, true},
  };
}

int calls(const Listener& listener) {
  return std::stoi(Client(listener).ask(get("/calls", "Connection: close\r\n")).body);
}

// Whether the server would read the next request where this one has ended.
void check_next(Client& client, const Reply& reply, bool closes, int calls_until_now) {
  CHECK(reply.keeps_alive() != closes);
  if (closes) {
    CHECK(client.closed_in_order());
  } else {
    CHECK(client.ask(get("/calls")).body == std::to_string(calls_until_now));
    CHECK(client.hears_nothing_for(std::chrono::milliseconds(0)));
  }
}

void check(const Listener& listener, const Case& each, worker_class kind) {
  CAPTURE(each.name);
  const int before = calls(listener);
  Client client(listener);
  client.send(each.bytes);
  const auto reply = client.receive();
  REQUIRE(reply);
  CHECK(reply->status == each.status);
  if (each.status == 200) {
    CHECK(reply->body == each.seen);
    check_next(client, *reply, each.closes || kind == worker_class::sync, before + 1);
  } else {
    check_next(client, *reply, true, before);
    CHECK(calls(listener) == before);
  }
}

void check_in_every_class(const std::vector<Case>& cases) {
  for (const auto kind : {worker_class::sync, worker_class::threads, worker_class::async}) {
    CAPTURE(static_cast<int>(kind));
    const Listener listener;
    const Served served(listener, tell, in_class(kind));
    for (const auto& each : cases) check(listener, each, kind);
  }
}

}  // namespace

TEST_CASE("the request line as in RFC 9112 section 3") {
  check_in_every_class(request_lines());
}

TEST_CASE("the target as in RFC 9112 section 3.2") {
  check_in_every_class(targets());
}

TEST_CASE("the host as in RFC 9110 section 7.2") {
  check_in_every_class(hosts());
}

TEST_CASE("fields as in RFC 9112 section 5") {
  check_in_every_class(fields());
}

TEST_CASE("Content-Length as in RFC 9112 section 6.3") {
  check_in_every_class(lengths());
}

TEST_CASE("Transfer-Encoding as in RFC 9112 section 6") {
  check_in_every_class(codings());
}

TEST_CASE("chunks as in RFC 9112 section 7.1") {
  check_in_every_class(chunk_cases());
}

TEST_CASE("the connection as in RFC 9112 section 9.3") {
  check_in_every_class(connections());
}

TEST_CASE("what comes byte by byte is read as what comes at once") {
  const Listener listener;
  const Served served(listener, tell);
  for (const auto& cases :
       {request_lines(), targets(), fields(), lengths(), codings(), chunk_cases(), connections()}) {
    for (const auto& each : cases) {
      if (each.bytes.size() > 200) continue;
      CAPTURE(each.name);
      Client client(listener);
      for (const char byte : each.bytes) client.send({byte});
      const auto reply = client.receive();
      REQUIRE(reply);
      CHECK(reply->status == each.status);
      if (each.status == 200) CHECK(reply->body == each.seen);
    }
  }
}

TEST_CASE("what follows a body is the next request") {
  const Listener listener;
  const Served served(listener, tell);
  for (const std::string& first : {chunks("3\r\nabc\r\n0\r\n\r\n"),
                                   chunks("3\r\nabc\r\n0\r\nX: y\r\n\r\n"), sized("3", "abc")}) {
    CAPTURE(first);
    Client client(listener);
    client.send(first + get("/next"));
    CHECK(client.receive()->body == "POST / host=a body=abc");
    CHECK(client.receive()->body == "GET /next host=test body=");
    CHECK(client.hears_nothing_for(std::chrono::milliseconds(20)));
  }
}

TEST_CASE("what follows a refused request is not looked at") {
  const Listener listener;
  const Served served(listener, tell);
  Client client(listener);
  client.send(coded("Transfer-Encoding: chunked\r\nContent-Length: 4") + get("/smuggled"));
  CHECK(client.receive()->status == 400);
  CHECK(client.closed_in_order());
  CHECK(Client(listener).ask(get("/calls")).body == "0");
}

TEST_CASE(
    "a hundred pipelined requests are answered in order, in the classes that keep connections") {
  for (const auto kind : {worker_class::threads, worker_class::async}) {
    const Listener listener;
    const Served served(listener, tell,
                        options_with(kind, [](auto& options) { options.threads = 4; }));
    Client client(listener);
    std::string all;
    for (int i = 0; i < 100; ++i) all += get("/" + std::to_string(i));
    client.send(all);
    for (int i = 0; i < 100; ++i) {
      CHECK(client.receive()->body == "GET /" + std::to_string(i) + " host=test body=");
    }
  }
}

}  // namespace ostler::test
