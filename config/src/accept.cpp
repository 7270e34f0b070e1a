// How workers share the listeners: `accept`, `dispatch`, and `workers` as far as load decides.
#include <string_view>

#include "config/src/model.hpp"

namespace ostler::config {

std::string_view word(Accept accept) {
  switch (accept) {
    case Accept::kShared:
      return "shared";
    case Accept::kReuseport:
      return "reuseport";
    case Accept::kDispatch:
      return "dispatch";
  }
  return {};
}

std::string_view word(DispatchPolicy policy) {
  switch (policy) {
    case DispatchPolicy::kLeastConnections:
      return "least_connections";
    case DispatchPolicy::kRoundRobin:
      return "round_robin";
    case DispatchPolicy::kRandom:
      return "random";
  }
  return {};
}

}  // namespace ostler::config
