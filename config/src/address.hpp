// Listener addresses: from text to `Address`, and which of them cannot be open at the same time.
// Of names only `localhost` is known; no system call is made.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "config/src/model.hpp"

namespace ostler::config {

// What sun_path holds, its terminating NUL counted.
constexpr std::size_t kMaxUnixPath = 107;

struct ParsedAddress {
  std::optional<Address> address;
  std::string problem;  // what would be right, if there is no address
};
// Hosts are brought into their shortest form, `localhost` to 127.0.0.1, so that equal addresses
// have equal texts.
ParsedAddress parse_address(std::string_view text);

bool is_ipv6(const Address& address);

// The host of a tcp address. An IPv4 address written as an IPv6 one is the IPv4 address to the
// kernel, and comes as that.
std::string_view bare_host(const Address& address);

// Whether a tcp listener takes its port on every address of a family.
bool is_any_address(const Listener& listener);

// Whether binding one keeps the other from being bound: the same address, or the same port where
// one of them is any address of a family they share. Port 0 never collides.
bool collide(const Listener& a, const Listener& b);

}  // namespace ostler::config
