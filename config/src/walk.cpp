#include "config/src/walk.hpp"

#include "config/src/text.hpp"

namespace ostler::config {

std::string unknown_key(std::string_view key, std::span<const std::string_view> known,
                        std::span<const std::string_view> available) {
  const std::string unknown = "unknown key " + quote(key);
  const std::string guess = did_you_mean(key, known);
  if (!guess.empty()) return unknown + guess;
  std::string all;
  for (const std::string_view name : available)
    all += (all.empty() ? "" : ", ") + std::string(name);
  return unknown + "; known here: " + all;
}

void read_unavailable(Reader& reader, const Entry& entry, const At& value, const KeyInfo& info) {
  reader.later(entry.place, value.path, info.name);
}

}  // namespace ostler::config
