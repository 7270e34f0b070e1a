#include "runtime/socket_holder.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <system_error>
#include <vector>

#include "runtime/clock.hpp"

namespace ostler::runtime {
namespace {

using config::Address;
using config::AddressKind;

std::vector<std::string> fields_of(const std::string& line) {
  std::istringstream stream(line);
  std::vector<std::string> fields;
  for (std::string field; stream >> field;) fields.push_back(field);
  return fields;
}

// Inodes of the sockets that listen at this port, at whatever address.
void add_tcp(const char* table, std::uint16_t port, std::set<std::string>& inodes) {
  std::ifstream file(table);
  for (std::string line; std::getline(file, line);) {
    const std::vector<std::string> fields = fields_of(line);
    if (fields.size() < 10 || fields[3] != "0A") continue;
    const auto colon = fields[1].rfind(':');
    if (colon == std::string::npos) continue;
    unsigned number = 0;
    const char* const end = fields[1].data() + fields[1].size();
    std::from_chars(fields[1].data() + colon + 1, end, number, 16);
    if (number == port) inodes.insert("socket:[" + fields[9] + "]");
  }
}

void add_unix(const std::string& path, std::set<std::string>& inodes) {
  std::ifstream file("/proc/net/unix");
  for (std::string line; std::getline(file, line);) {
    const std::vector<std::string> fields = fields_of(line);
    if (fields.size() > 7 && fields[7] == path) inodes.insert("socket:[" + fields[6] + "]");
  }
}

bool holds(const std::filesystem::path& process, const std::set<std::string>& inodes) {
  std::error_code error;
  std::filesystem::directory_iterator descriptors(process / "fd", error);
  for (; !error && descriptors != std::filesystem::directory_iterator();
       descriptors.increment(error)) {
    std::error_code gone;
    if (inodes.contains(std::filesystem::read_symlink(descriptors->path(), gone).string())) {
      return true;
    }
  }
  return false;
}

// A process may call itself anything.
std::string name_of_process(const std::filesystem::path& process) {
  std::ifstream file(process / "comm");
  std::string name;
  std::getline(file, name);
  std::ranges::replace_if(
      name, [](unsigned char c) { return std::isprint(c) == 0; }, '?');
  return name;
}

std::vector<pid_t> all_processes() {
  std::vector<pid_t> pids;
  std::error_code error;
  std::filesystem::directory_iterator entries("/proc", error);
  for (; !error && entries != std::filesystem::directory_iterator(); entries.increment(error)) {
    const std::string name = entries->path().filename().string();
    pid_t pid = 0;
    const char* const end = name.data() + name.size();
    const auto [stop, fault] = std::from_chars(name.data(), end, pid);
    if (fault == std::errc{} && stop == end && pid != ::getpid()) pids.push_back(pid);
  }
  std::ranges::sort(pids);  // a master before its workers
  return pids;
}

}  // namespace

std::string holder_of(const Address& address, core::Duration most) {
  const core::Time begin = now();
  std::set<std::string> inodes;
  switch (address.kind) {
    case AddressKind::kTcp:
      add_tcp("/proc/net/tcp", address.port, inodes);
      add_tcp("/proc/net/tcp6", address.port, inodes);
      break;
    case AddressKind::kUnixPath:
      add_unix(address.path, inodes);
      break;
    case AddressKind::kUnixAbstract:
      add_unix("@" + address.path, inodes);
      break;
    case AddressKind::kInherit:
      break;
  }
  if (inodes.empty()) return {};
  for (const pid_t pid : all_processes()) {
    if (now() - begin >= most) return {};
    const std::filesystem::path process = "/proc/" + std::to_string(pid);
    if (holds(process, inodes)) return name_of_process(process) + ", pid " + std::to_string(pid);
  }
  return {};
}

}  // namespace ostler::runtime
