#include "runtime/unique_fd.hpp"

#include <cerrno>

namespace ostler::runtime {

void UniqueFd::reset() {
  if (fd_ < 0) return;
  const int saved = errno;
  ::close(std::exchange(fd_, -1));
  errno = saved;
}

}  // namespace ostler::runtime
