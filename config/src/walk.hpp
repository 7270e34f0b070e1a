// Reads a map by its table of keys. The one place that knows what an unknown key is.
#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/src/keys.hpp"

namespace ostler::config {

// "unknown key 'wrokers'; did you mean 'workers'?", or what there is if none is near.
std::string unknown_key(std::string_view key, std::span<const std::string_view> known,
                        std::span<const std::string_view> available);
// Reads a key that has no reader.
void read_unavailable(Reader& reader, const Entry& entry, const At& value, const KeyInfo& info);

// Which names there are below PREFIX ("timeouts."), each once.
template <class T>
std::vector<std::string_view> names_below(std::span<const Key<T>> keys, std::string_view prefix,
                                          bool built_only) {
  std::vector<std::string_view> names;
  for (const Key<T>& key : keys) {
    if (!key.info.name.starts_with(prefix)) continue;
    if (built_only && key.info.stage != Stage::kBuilt) continue;
    const std::string_view rest = key.info.name.substr(prefix.size());
    const std::string_view name = rest.substr(0, rest.find('.'));
    if (names.empty() || names.back() != name) names.push_back(name);
  }
  return names;
}

template <class T>
void walk(Reader& reader, const At& map, std::span<const Key<T>> keys, T& out,
          const std::string& prefix = {}) {
  const auto names = names_below(keys, prefix, false);
  for (const Entry& entry : map.node->entries) {
    const At value = child(map, entry);
    const std::string name = prefix + entry.key;
    // A dotted name is the table's way to write nested keys, and not the user's.
    const bool dotted = entry.key.find('.') != std::string::npos;
    const auto key = std::find_if(keys.begin(), keys.end(),
                                  [&](const Key<T>& k) { return !dotted && k.info.name == name; });
    const std::size_t before = reader.faults().added();
    if (key != keys.end() && key->read != nullptr) {
      key->read(reader, value, out);
    } else if (key != keys.end()) {
      read_unavailable(reader, entry, value, key->info);
    } else if (std::find(names.begin(), names.end(), entry.key) == names.end()) {
      reader.faults().add(entry.place, value.path,
                          unknown_key(entry.key, names, names_below(keys, prefix, true)));
    } else if (value.node->kind != NodeKind::kMap) {
      reader.wrong(value, "a map with " + any_of(names_below(keys, name + ".", true)));
    } else {
      walk(reader, value, keys, out, name + ".");
    }
    if (reader.faults().added() > before) reader.mark_faulty(value.path);
  }
}

}  // namespace ostler::config
