#include "descriptors.hpp"

#include <fcntl.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <limits>

namespace ostler::descriptors {
namespace {

// For files and connections that handlers open, and for the manager's own connections.
constexpr std::size_t kReserve = 16;
// Clients that do not close their end have this many connections beyond the limit for a while;
// where room is short, this share of it.
constexpr std::size_t kMostOver = 64;
constexpr std::size_t kOverShare = 8;

// How many numbers below the limit are free, as far as `enough` are.
std::size_t count_free(std::size_t enough) noexcept {
  const auto end =
      static_cast<int>(std::min<unsigned long long>(limit(), std::numeric_limits<int>::max()));
  std::size_t free = 0;
  for (int fd = 0; fd < end && free < enough; ++fd) {
    if (::fcntl(fd, F_GETFD) < 0) ++free;
  }
  return free;
}

}  // namespace

bool raise_limit() noexcept {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return false;
  limit.rlim_cur = limit.rlim_max;
  return ::setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

unsigned long long limit() noexcept {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  return limit.rlim_cur;
}

Room room_for(std::size_t wanted, std::size_t open, std::size_t listeners) noexcept {
  const std::size_t reserve = kReserve + listeners;
  const std::size_t free = count_free(wanted + kMostOver + reserve) + open;
  const std::size_t room = free - std::min(reserve, free / 2);
  const std::size_t left = room > wanted ? room - wanted : 0;
  const std::size_t over = std::min(kMostOver, std::max(left, room / kOverShare));
  return {std::min(wanted, std::max<std::size_t>(room - over, 1)), over};
}

}  // namespace ostler::descriptors
