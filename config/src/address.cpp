#include "config/src/address.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "config/src/scalars.hpp"
#include "config/src/text.hpp"

namespace ostler::config {
namespace {

constexpr std::string_view kForms =
    "must be tcp://HOST:PORT, tcp://[IPv6]:PORT, unix:///PATH, unix:@NAME or inherit:NAME";

ParsedAddress problem(std::string text) {
  return {std::nullopt, std::move(text)};
}

bool has_control(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; });
}

// The kernel's own spelling of a numeric address; empty if it is none.
std::string numeric(int family, const std::string& host) {
  std::array<unsigned char, sizeof(in6_addr)> bytes{};
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (inet_pton(family, host.c_str(), bytes.data()) != 1) return {};
  return inet_ntop(family, bytes.data(), text.data(), text.size());
}

// "[::1]:80" to "::1" and "80"; a zone (%eth0) stays with the host.
ParsedAddress parse_ipv6(std::string_view text) {
  const std::size_t close = text.find("]:");
  if (close == std::string_view::npos) return problem("must end in a port, as tcp://[::1]:8080");
  const std::string inside(text.substr(1, close - 1));
  const std::size_t percent = std::min(inside.find('%'), inside.size());
  const std::string host = numeric(AF_INET6, inside.substr(0, percent));
  const std::string zone = inside.substr(percent);
  if (host.empty() || zone == "%" || has_control(zone)) {
    return problem(quote(inside) + " is not an IPv6 address");
  }
  return {Address{AddressKind::kTcp, host + zone, 0, {}}, std::string(text.substr(close + 2))};
}

ParsedAddress parse_host(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) {
    return problem("must end in a port, as tcp://" + shown(text) + ":8080");
  }
  std::string host(text.substr(0, colon));
  if (host.find(':') != std::string::npos) {
    return problem("an IPv6 address needs brackets, as tcp://[::1]:8080");
  }
  std::transform(host.begin(), host.end(), host.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  if (host.empty()) host = "*";
  if (host == "localhost") host = "127.0.0.1";
  if (host.find_first_not_of("0123456789.") == std::string::npos) {
    if (numeric(AF_INET, host).empty()) return problem(quote(host) + " is not an IPv4 address");
  } else if (host != "*") {
    return problem(quote(host) +
                   " is not an address; names are not looked up, so give the address itself, as "
                   "tcp://127.0.0.1:8080");
  }
  return {Address{AddressKind::kTcp, host, 0, {}}, std::string(text.substr(colon + 1))};
}

ParsedAddress parse_tcp(std::string_view text) {
  ParsedAddress parsed = text.starts_with('[') ? parse_ipv6(text) : parse_host(text);
  if (!parsed.address) return parsed;
  const std::string port_text = std::move(parsed.problem);
  const auto port = parse_whole(port_text);
  if (!port || *port > 65535) {
    return problem("the port must be a whole number from 0 to 65535, not " + quote(port_text));
  }
  parsed.address->port = static_cast<std::uint16_t>(*port);
  parsed.problem.clear();
  return parsed;
}

ParsedAddress parse_unix(std::string_view text) {
  if (text.starts_with('@')) {
    text.remove_prefix(1);
    if (text.empty() || text.size() > kMaxUnixPath || has_control(text)) {
      return problem("an abstract socket's name must be 1 to 107 bytes of text");
    }
    return {Address{AddressKind::kUnixAbstract, {}, 0, std::string(text)}, {}};
  }
  if (!text.starts_with("///")) {
    return problem("a socket's path must be absolute: unix:///run/app.sock");
  }
  const std::string path = std::filesystem::path(text.substr(2)).lexically_normal().string();
  if (path.ends_with('/')) return problem("must name a file, as unix:///run/app.sock");
  if (has_control(path)) return problem("a socket's path must not hold control characters");
  if (path.size() > kMaxUnixPath) {
    return problem("a socket's path must be at most 107 bytes long, and this one has " +
                   std::to_string(path.size()));
  }
  return {Address{AddressKind::kUnixPath, {}, 0, path}, {}};
}

// For what people write by habit.
std::string_view hint(std::string_view text) {
  if (text.starts_with("http://"))
    return "; did you mean 'tcp://'? (what is spoken on it is up to the worker)";
  if (text.starts_with("unix:")) return "; a socket's path has three slashes: unix:///run/app.sock";
  if (text.starts_with('/')) return "; did you mean 'unix://' before it?";
  if (text.find(':') != std::string_view::npos || parse_whole(text)) {
    return "; did you mean 'tcp://' before it, as tcp://127.0.0.1:8080?";
  }
  return "";
}

constexpr unsigned kV4 = 1;
constexpr unsigned kV6 = 2;

// The address families in which a tcp listener takes its port, and whether for every address.
struct Reach {
  unsigned families = 0;
  bool any = false;
};

Reach reach(const Listener& listener) {
  const std::string_view host = bare_host(listener.address);
  if (host.empty() || host == "*") return {kV4 | kV6, true};
  if (host == "0.0.0.0") return {kV4, true};
  if (host == "::") return {listener.v6only.value_or(false) ? kV6 : kV4 | kV6, true};
  return {host.find(':') != std::string_view::npos ? kV6 : kV4, false};
}

}  // namespace

std::string Address::text() const {
  switch (kind) {
    case AddressKind::kTcp: {
      const std::string shown_host = host.empty() ? "*" : host;
      const bool v6 = host.find(':') != std::string::npos;
      return "tcp://" + (v6 ? "[" + host + "]" : shown_host) + ":" + std::to_string(port);
    }
    case AddressKind::kUnixPath:
      return "unix://" + path;
    case AddressKind::kUnixAbstract:
      return "unix:@" + path;
    case AddressKind::kInherit:
      return "inherit:" + path;
  }
  return {};
}

ParsedAddress parse_address(std::string_view text) {
  if (text.starts_with("tcp://")) return parse_tcp(text.substr(6));
  if (text.starts_with("unix:///") || text.starts_with("unix:@")) {
    return parse_unix(text.substr(5));
  }
  if (text.starts_with("inherit:")) {
    const std::string_view name = text.substr(8);
    if (is_listener_name(name))
      return {Address{AddressKind::kInherit, {}, 0, std::string(name)}, {}};
    return problem("inherit: needs the name of a socket, as inherit:http (FileDescriptorName=)");
  }
  return problem(std::string(kForms) + ", not " + quote(text) + std::string(hint(text)));
}

bool is_ipv6(const Address& address) {
  return address.kind == AddressKind::kTcp && address.host.find(':') != std::string::npos;
}

std::string_view bare_host(const Address& address) {
  std::string_view host = address.host;
  const bool mapped = host.starts_with("::ffff:") && host.find('.') != std::string_view::npos;
  if (mapped) host.remove_prefix(7);
  return host;
}

bool is_any_address(const Listener& listener) {
  return listener.address.kind == AddressKind::kTcp && reach(listener).any;
}

bool collide(const Listener& a, const Listener& b) {
  if (a.address.kind != b.address.kind) return false;
  if (a.address.kind != AddressKind::kTcp) return a.address.path == b.address.path;
  if (a.address.port == 0 || a.address.port != b.address.port) return false;
  const Reach one = reach(a);
  const Reach other = reach(b);
  if ((one.families & other.families) == 0) return false;
  return one.any || other.any || bare_host(a.address) == bare_host(b.address);
}

}  // namespace ostler::config
