#include "runtime/process_tag.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <charconv>
#include <random>
#include <string_view>

#include "runtime/procfs.hpp"

namespace ostler::runtime {
namespace {

constexpr std::uint64_t kHighest = std::uint64_t{1} << 30U;  // of prefixes: tags are below 2^62
constexpr std::uint64_t kLowest = std::uint64_t{1} << 20U;   // 142 years are no limit either

}  // namespace

TagSpace TagSpace::draw() {
  TagSpace space;
  rlimit own{};
  if (::getrlimit(RLIMIT_RTTIME, &own) != 0) return space;
  const std::uint64_t end = std::min<std::uint64_t>(own.rlim_max >> 32U, kHighest);
  if (end < kLowest) return space;
  std::random_device random;
  space.prefix_ = end / 2 + random() % (end / 2);
  return space;
}

Tag TagSpace::make(std::uint32_t serial, std::uint32_t index) const {
  if (prefix_ == 0) return 0;
  return prefix_ << 32U | static_cast<std::uint32_t>(serial << kIndexBits) | index;
}

// "Max realtime timeout      SOFT                 HARD                 us"
Tag read_tag(pid_t pid) {
  constexpr std::string_view kName = "Max realtime timeout";
  ProcFile file(pid, "limits");
  std::string_view text = file.text();
  const auto line = text.find(kName);
  if (line == std::string_view::npos) return 0;
  text.remove_prefix(line + kName.size());
  for (int field = 0; field < 2; ++field) {
    text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
    if (field == 0) text.remove_prefix(std::min(text.find(' '), text.size()));
  }
  Tag tag = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), tag);
  return error == std::errc{} ? tag : ~Tag{0};
}

}  // namespace ostler::runtime
