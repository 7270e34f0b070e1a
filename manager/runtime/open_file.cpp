#include "runtime/open_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <string_view>
#include <system_error>
#include <utility>

#include "config/src/access.hpp"

namespace ostler::runtime {
namespace {

// The system's reason says little of what is there (ELOOP, ENXIO), or is none of the file's own
// (EACCES by fs.protected_regular): what is wrong with the file comes first.
std::string why_not(const std::string& path, int error) {
  const UniqueFd node(::open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  const std::string problem = node ? config::own_file_problem(node.get()) : "";
  return problem.empty() ? std::generic_category().message(error) : "it " + problem;
}

}  // namespace

OpenedFile open_own_file(const std::string& path) {
  const int flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
  UniqueFd opened(::open(path.c_str(), flags, 0640));
  if (!opened) return {UniqueFd(), why_not(path, errno)};
  const std::string problem = config::own_file_problem(opened.get());
  if (!problem.empty()) return {UniqueFd(), "it " + problem};
  return {std::move(opened), ""};
}

int write_whole(int fd, const std::string& text) {
  std::string_view rest = text;
  while (!rest.empty()) {
    const ssize_t written = ::write(fd, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    rest.remove_prefix(static_cast<std::size_t>(written));
  }
  return 0;
}

}  // namespace ostler::runtime
