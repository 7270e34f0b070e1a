#include "http/proxies.hpp"

#include <cstddef>

#include <algorithm>
#include <charconv>
#include <optional>
#include <stdexcept>
#include <system_error>

#include <boost/beast/core/string.hpp>

namespace ostler::http {
namespace {

namespace beast = boost::beast;
using boost::asio::ip::address;
using boost::asio::ip::make_address;

constexpr std::string_view kUnix = "unix";
constexpr std::string_view kForwarded = "Forwarded";

// On a listener for both families an IPv4 client has an IPv6 address.
address plain(const address& any) {
  if (!any.is_v6() || !any.to_v6().is_v4_mapped()) return any;
  return make_address_v4(boost::asio::ip::v4_mapped, any.to_v6());
}

// Without a zone: that is a name of this machine's, which nobody else can know.
std::optional<address> parse(std::string_view text) {
  if (text.find('%') != std::string_view::npos) return std::nullopt;
  boost::system::error_code bad;
  const auto parsed = make_address(std::string(text), bad);
  if (bad) return std::nullopt;
  return plain(parsed);
}

template <class Bytes>
bool same_prefix(const Bytes& left, const Bytes& right, unsigned bits) {
  for (std::size_t i = 0; bits > 0; ++i) {
    const unsigned part = std::min(bits, 8U);
    if (((left[i] ^ right[i]) >> (8 - part)) != 0) return false;
    bits -= part;
  }
  return true;
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlanks = " \t";
  text.remove_prefix(std::min(text.find_first_not_of(kBlanks), text.size()));
  text.remove_suffix(text.size() - (text.find_last_not_of(kBlanks) + 1));
  return text;
}

// Cuts off what stands before the first separator; one between quotes is none.
std::string_view cut(std::string_view& rest, char separator, bool has_quotes) {
  bool quoted = false;
  std::size_t end = 0;
  for (; end < rest.size() && (quoted || rest[end] != separator); ++end) {
    if (!has_quotes) continue;
    if (rest[end] == '"') quoted = !quoted;
    if (quoted && rest[end] == '\\') ++end;
  }
  end = std::min(end, rest.size());
  // A quote without an end may have swallowed what the next one appended: it names nobody.
  const auto piece = quoted ? std::string_view("\"") : rest.substr(0, end);
  rest.remove_prefix(std::min(end + 1, rest.size()));
  return trimmed(piece);
}

// 192.0.2.1, 192.0.2.1:80, 2001:db8::1, [2001:db8::1], [2001:db8::1]:80.
std::optional<address> parse_node(std::string_view text) {
  if (text.starts_with('[')) {
    const auto end = text.find(']');
    if (end == std::string_view::npos) return std::nullopt;
    const auto rest = text.substr(end + 1);
    if (!rest.empty() && !rest.starts_with(':')) return std::nullopt;
    return parse(text.substr(1, end - 1));
  }
  const auto colon = text.find(':');
  const bool has_port =
      colon != std::string_view::npos && text.find(':', colon + 1) == std::string_view::npos;
  return parse(has_port ? text.substr(0, colon) : text);
}

// The node of `for=` in one element of Forwarded; empty if it has none.
std::string_view forwarded_for(std::string_view element) {
  while (!element.empty()) {
    const auto pair = cut(element, ';', true);
    const auto equals = pair.find('=');
    if (equals == std::string_view::npos || !beast::iequals(pair.substr(0, equals), "for")) {
      continue;
    }
    auto value = pair.substr(equals + 1);
    if (value.size() >= 2 && value.starts_with('"') && value.ends_with('"')) {
      value = value.substr(1, value.size() - 2);
    }
    return value;
  }
  return {};
}

// What the field says of who forwarded for whom, the nearest last. Nothing if there is no such
// field.
std::optional<std::string> client_in(const beast::http::fields& fields, std::string_view name,
                                     const std::string& peer, const ProxyList& trusted) {
  const bool in_pairs = name == kForwarded;
  std::vector<std::string_view> nodes;
  const auto [begin, end] = fields.equal_range(name);
  if (begin == end) return std::nullopt;
  for (auto line = begin; line != end; ++line) {
    std::string_view rest{line->value().data(), line->value().size()};
    while (!rest.empty()) {
      const auto element = cut(rest, ',', in_pairs);
      if (!element.empty()) nodes.push_back(in_pairs ? forwarded_for(element) : element);
    }
  }
  std::string client = peer;
  for (auto node = nodes.rbegin(); node != nodes.rend() && trusted.trusts(client); ++node) {
    const auto known = parse_node(*node);
    if (!known) break;
    client = known->to_string();
  }
  return client;
}

}  // namespace

ProxyList::ProxyList(const std::vector<std::string>& entries) {
  for (const auto& entry : entries) {
    if (entry == kUnix) {
      unix_ = true;
      continue;
    }
    const auto fault = [&] {
      return std::invalid_argument("trusted_proxies: '" + entry +
                                   "' is not an address, ADDRESS/BITS or unix");
    };
    const auto slash = entry.find('/');
    const auto network = parse(std::string_view(entry).substr(0, slash));
    if (!network) throw fault();
    unsigned bits = network->is_v4() ? 32 : 128;
    if (slash != std::string::npos) {
      const unsigned most = bits;
      const auto* const last = entry.data() + entry.size();
      const auto [rest, error] = std::from_chars(entry.data() + slash + 1, last, bits);
      if (error != std::errc{} || rest != last || bits > most) throw fault();
    }
    networks_.push_back({*network, bits});
  }
}

bool ProxyList::trusts(std::string_view address) const {
  if (address == kUnix) return unix_;
  if (networks_.empty()) return false;
  const auto asked = parse(address.substr(0, address.find('%')));
  if (!asked) return false;
  return std::any_of(networks_.begin(), networks_.end(), [&](const Network& network) {
    if (network.address.is_v4() != asked->is_v4()) return false;
    return asked->is_v4() ? same_prefix(network.address.to_v4().to_bytes(),
                                        asked->to_v4().to_bytes(), network.bits)
                          : same_prefix(network.address.to_v6().to_bytes(),
                                        asked->to_v6().to_bytes(), network.bits);
  });
}

std::string client_of(const beast::http::fields& fields, const std::string& peer,
                      const ProxyList& trusted) {
  if (trusted.empty() || !trusted.trusts(peer)) return peer;
  const auto listed = client_in(fields, "X-Forwarded-For", peer, trusted);
  const auto forwarded = client_in(fields, kForwarded, peer, trusted);
  if (listed && forwarded && *listed != *forwarded) return peer;
  return listed.value_or(forwarded.value_or(peer));
}

}  // namespace ostler::http
