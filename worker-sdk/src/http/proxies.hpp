// Which peers may say on whose behalf they ask, and who the client is then.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <boost/asio/ip/address.hpp>
#include <boost/beast/http/fields.hpp>

namespace ostler::http {

class ProxyList {
 public:
  // Addresses, networks as ADDRESS/BITS, and "unix" for peers on unix sockets. Throws
  // std::invalid_argument, naming the entry, if one is none of these.
  explicit ProxyList(const std::vector<std::string>& entries = {});

  [[nodiscard]] bool empty() const { return networks_.empty() && !unix_; }

  // `address` as text, or "unix".
  [[nodiscard]] bool trusts(std::string_view address) const;

 private:
  struct Network {
    boost::asio::ip::address address;
    unsigned bits = 0;
  };
  std::vector<Network> networks_;
  bool unix_ = false;
};

// The client's address. It is the peer's, unless that is a trusted proxy: then it is the last
// address in X-Forwarded-For or Forwarded (RFC 7239) that is not a trusted proxy's itself, or the
// first one if they all are. What stands left of an entry that is no address was not said by
// anyone who is trusted, so there the walk ends. If both fields are there and disagree, one was
// not written by the proxy, and neither is believed.
std::string client_of(const boost::beast::http::fields& fields, const std::string& peer,
                      const ProxyList& trusted);

}  // namespace ostler::http
