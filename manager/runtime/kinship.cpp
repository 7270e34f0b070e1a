#include "runtime/kinship.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <string>
#include <string_view>

#include "runtime/unique_fd.hpp"

namespace ostler::runtime {
namespace {

constexpr int kAncestors = 64;
constexpr int kTries = 3;

struct Kin {
  char state = 0;
  pid_t parent = 0;
  pid_t session = 0;
};

// "4242 (any name) S PARENT GROUP SESSION …": the name may hold anything, brackets too.
std::optional<Kin> kin_of(pid_t pid) {
  const std::string path = "/proc/" + std::to_string(pid) + "/stat";
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 512> text{};
  const ssize_t size = file ? read(file.get(), text.data(), text.size()) : -1;
  if (size <= 0) return std::nullopt;
  std::string_view rest(text.data(), static_cast<std::size_t>(size));
  const std::size_t name_end = rest.rfind(')');
  if (name_end == std::string_view::npos) return std::nullopt;
  rest.remove_prefix(name_end + 1);
  Kin kin;
  std::array<pid_t, 4> fields{};  // state (no number), parent, group, session
  for (pid_t& field : fields) {
    rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
    const std::string_view word = rest.substr(0, rest.find(' '));
    if (kin.state == 0 && !word.empty()) kin.state = word.front();
    std::from_chars(word.data(), word.data() + word.size(), field);
    rest.remove_prefix(word.size());
  }
  kin.parent = fields[1];
  kin.session = fields[3];
  return kin;
}

// False: an ancestor ended while it was looked for; those below it have another one by now.
bool climb(pid_t pid, const std::function<core::WorkerId(pid_t)>& worker_of, Kinship& found) {
  const pid_t self = getpid();
  pid_t session = 0;
  for (int i = 0; i < kAncestors && pid > 1; ++i) {
    if (pid == self) {
      found.is_there = true;
      found.is_orphan = i > 0;
      break;
    }
    found.worker = worker_of(pid);
    const auto kin = kin_of(pid);
    if (!kin && i > 0) return false;
    if (!kin) {
      found.is_there = static_cast<bool>(found.worker);  // it has not been waited for
      return true;
    }
    if (i == 0) {
      found.is_there = true;
      found.is_zombie = kin->state == 'Z' || kin->state == 'X';
      session = kin->session;
    }
    if (found.worker) return true;
    pid = kin->parent;
  }
  if (session > 1 && session != self) found.worker = worker_of(session);
  return true;
}

}  // namespace

Kinship kinship_of(pid_t pid, const std::function<core::WorkerId(pid_t)>& worker_of) {
  for (int i = 0; i < kTries; ++i) {
    Kinship found;
    if (climb(pid, worker_of, found)) return found;
  }
  return {};
}

}  // namespace ostler::runtime
