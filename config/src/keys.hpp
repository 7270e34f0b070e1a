// Every key a configuration knows, in one table for each kind of map: its name, its default, what
// it is for, whether this version has what stands behind it, and how it is read.
//
// The loader reads maps by these tables, the ad-hoc form makes its options from them, and a test
// holds the JSON schema against them. Nested keys bear dotted names ("timeouts.stop").
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/src/reader.hpp"

namespace ostler::config {

enum class Stage {
  kBuilt,
  kLater,  // not available yet
};

struct KeyInfo {
  std::string_view name;
  std::string_view fallback;  // the default as YAML; empty: none
  std::string_view help;
  Stage stage = Stage::kBuilt;
};

template <class T>
struct Key {
  KeyInfo info;
  void (*read)(Reader&, const At&, T&) = nullptr;  // null: info.stage says what is accepted
};

// A pool as far as it is read, with what the checks across keys need to say where a fault is.
struct PoolDraft {
  Pool pool;
  At at;                      // the pool's map, defaults merged in
  Place place;                // of the pool's name
  std::vector<At> listeners;  // where pool.listen[i] was written
  // The parts of pool.health->request, which may be written in any order; no method: not given.
  ProbeRequest health_request;
  std::vector<Fault> warnings;
};

// A whole document, pools and includes left for the loader.
struct FileDraft {
  Config config;
  At defaults;  // null nodes: not given
  At pools;
};

std::span<const Key<FileDraft>> file_keys();
std::span<const Key<Control>> control_keys();
std::span<const Key<Log>> log_keys();
std::span<const Key<PoolDraft>> pool_keys();
std::span<const Key<Listener>> listener_keys();

// A command line: a list, or one line of text that is split as a shell would.
bool read_command_words(Reader& reader, const At& at, std::vector<std::string>& out);

// Read MAP by the table; every unknown, mistyped and unavailable key is a fault.
void read_file_keys(Reader& reader, const At& map, FileDraft& out);
void read_pool_keys(Reader& reader, const At& map, PoolDraft& out);

}  // namespace ostler::config
