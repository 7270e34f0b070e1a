#include "config/src/load.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <set>
#include <utility>

#include "config/src/checks.hpp"
#include "config/src/files.hpp"
#include "config/src/keys.hpp"
#include "config/src/loader.hpp"
#include "config/src/merge.hpp"
#include "config/src/places.hpp"
#include "config/src/scalars.hpp"
#include "config/src/text.hpp"
#include "config/src/walk.hpp"
#include "config/src/yaml_reader.hpp"

namespace ostler::config {
namespace {

SourcePtr file_source(const std::string& file, const std::string& folder) {
  const std::string full = absolute_path(file, folder);
  return std::make_shared<const Source>(
      Source{file, std::filesystem::path(full).parent_path().string(), {}, {}});
}

// The one name of a file, however it is written.
std::string real_name(const std::string& file) {
  std::error_code error;
  const auto real = std::filesystem::canonical(file, error);
  return error ? file : real.string();
}

std::vector<std::string> split_key(std::string_view key) {
  std::vector<std::string> parts;
  for (std::size_t from = 0; from <= key.size();) {
    const std::size_t dot = std::min(key.find('.', from), key.size());
    parts.emplace_back(key.substr(from, dot - from));
    from = dot + 1;
  }
  return parts;
}

class Loader {
 public:
  Loader(const Host& host, const LoadOptions& options, Faults faults)
      : host_(host), options_(options), faults_(std::move(faults)), reader_(faults_, host_) {}

  Loaded run(const NodePtr& root, const SourcePtr& source) {
    if (root != nullptr) read(root, source);
    loaded_.faults = faults_.sorted();
    return std::move(loaded_);
  }

 private:
  void read(NodePtr root, const SourcePtr& source) {
    if (root->kind == NodeKind::kNull) {
      return faults_.add(root->place, "",
                         "the file is empty; the least it needs is: pools: {app: {command: […]}}");
    }
    if (root->kind != NodeKind::kMap) return reader_.wrong({root.get(), ""}, "a map with 'pools:'");
    const std::size_t before = faults_.added();
    root = with_includes(root, source);
    const bool all_included = faults_.added() == before;
    for (const Override& one : options_.overrides) root = with_override(root, one);
    FileDraft draft;
    reader_.running(options_.running);
    read_file_keys(reader_, {root.get(), ""}, draft);
    if (!draft.config.control.socket) reader_.expect_folder(options_.runtime_folder);
    if (root->find("pools") == nullptr && all_included) {
      faults_.add(root->place, "", "no pools; write 'pools:', and 'pools: {}' if there are none");
    }
    if (!source->file.empty()) draft.config.file = absolute_path(source->file, host_.folder);
    loaded_.config = std::move(draft.config);
    read_pools(draft, own_paths(reader_, {root.get(), ""}, loaded_.config, control_socket()));
  }

  // --- Included files
  // -----------------------------------------------------------------------------

  // ROOT with the pools of all included files added to its own.
  NodePtr with_includes(const NodePtr& root, const SourcePtr& source) {
    const Entry* include = root->find("include");
    if (include == nullptr || include->value->kind != NodeKind::kList) return root;
    const Entry* own = root->find("pools");
    const bool is_map = own != nullptr && own->value->kind == NodeKind::kMap;
    Node pools = is_map ? *own->value : *empty_map(include->place);
    seen_files_ = {real_name(absolute_path(source->file, host_.folder))};
    const At at{include->value.get(), "include"};
    for (std::size_t i = 0; i < at.node->items.size(); ++i) include_files(item(at, i), pools);
    if (!is_map && (own != nullptr || pools.entries.empty())) return root;
    Node out = *root;
    out.put({"pools", own == nullptr ? include->place : own->place,
             std::make_shared<const Node>(std::move(pools)), false});
    return std::make_shared<const Node>(std::move(out));
  }

  void include_files(const At& pattern, Node& pools) {
    std::string text;
    if (!reader_.text(pattern, "a file's path or a pattern such as conf.d/*.yaml", text)) return;
    const std::string& folder = pattern.node->place.source->folder;
    const bool wild = has_wildcard(text);
    Matches matches;
    if (wild) {
      matches = match_files(text, folder);
    } else {
      matches.files = {absolute_path(text, folder)};
    }
    if (!matches.problem.empty()) return faults_.add(pattern, matches.problem);
    for (const std::string& file : matches.files) {
      const bool is_new = seen_files_.insert(real_name(file)).second;
      if (seen_files_.size() > kMaxIncludedFiles) {
        return faults_.add(pattern,
                           "includes more than " + std::to_string(kMaxIncludedFiles) + " files");
      }
      if (is_new) {
        include_file(pattern, file, pools);
      } else if (!wild) {
        faults_.add(pattern, "is read already; a file is included once, and never by itself");
      }
    }
  }

  void include_file(const At& pattern, const std::string& file, Node& pools) {
    const FileText text = read_file(file, options_.trusted_file_only);
    if (!text.problem.empty()) return faults_.add(pattern, quote(file) + " " + text.problem);
    included_bytes_ += text.text.size();
    if (included_bytes_ > kMaxIncludedBytes) {
      return faults_.add(pattern, "includes more than 16 MiB in all");
    }
    const NodePtr root = read_yaml(text.text, file_source(file, host_.folder), faults_);
    if (root == nullptr) return;
    if (root->kind != NodeKind::kMap) {
      return faults_.add(root->place, "",
                         root->kind == NodeKind::kNull
                             ? "the file is empty; write 'pools: {}' for none"
                             : "must be a map with 'pools:'");
    }
    for (const Entry& entry : root->entries) {
      if (entry.key == "pools") {
        include_pools(child({root.get(), ""}, entry), pools);
      } else {
        faults_.add(entry.place, entry.key, not_in_included(entry.key));
      }
    }
    if (root->find("pools") == nullptr)
      faults_.add(root->place, "", "an included file holds 'pools:'");
  }

  static std::string not_in_included(const std::string& key) {
    static constexpr std::array<std::string_view, 1> kKnown = {"pools"};
    const auto keys = file_keys();
    const bool known = std::any_of(keys.begin(), keys.end(),
                                   [&key](const Key<FileDraft>& k) { return k.info.name == key; });
    if (!known) return unknown_key(key, kKnown, kKnown);
    return "an included file holds only 'pools:'; " + quote(key) + " belongs in the main file";
  }

  void include_pools(const At& from, Node& pools) {
    if (from.node->kind != NodeKind::kMap)
      return reader_.wrong(from, "a map of pools ({} for none)");
    for (const Entry& entry : from.node->entries) {
      const Entry* first = pools.find(entry.key);
      if (first == nullptr) {
        pools.put(entry);
      } else {
        faults_.add(
            entry.place, child(from, entry).path,
            "the pool " + quote(entry.key) + " is already defined at " + first->place.text());
      }
    }
  }

  // --- --set
  // --------------------------------------------------------------------------------------

  NodePtr with_override(const NodePtr& root, const Override& one) {
    const auto source = std::make_shared<const Source>(
        Source{{}, host_.folder, "--set " + path_part(one.key), path_part(one.key)});
    const Place place{source, 0, 0};
    const std::vector<std::string> path = split_key(one.key);
    const std::string problem = override_problem(*root, path);
    if (!problem.empty()) {
      faults_.add(place, one.key, problem);
      return root;
    }
    const NodePtr value = read_yaml(one.value, source, faults_, one.key);
    if (value == nullptr) return root;
    const NodePtr changed = with_value(root, path, value, place);
    if (changed == nullptr) faults_.add(place, one.key, "leads into a list; give the whole list");
    return changed == nullptr ? root : changed;
  }

  static std::string override_problem(const Node& root, const std::vector<std::string>& path) {
    if (std::find(path.begin(), path.end(), "") != path.end()) {
      return "must be KEY=VALUE with a key such as pools.web.workers";
    }
    if (path.front() == "include") return "can only be set in the file";
    if (path.front() != "pools") return {};
    if (path.size() < 2) return "must name a pool, as pools.web.workers";
    const Entry* pools = root.find("pools");
    if (pools != nullptr && pools->value->find(path[1]) != nullptr) return {};
    std::vector<std::string_view> names;
    if (pools != nullptr) {
      for (const Entry& entry : pools->value->entries) names.push_back(entry.key);
    }
    return "there is no pool " + quote(path[1]) + did_you_mean(path[1], names);
  }

  // --- Pools
  // --------------------------------------------------------------------------------------

  void read_pools(const FileDraft& draft, OwnPaths own) {
    if (draft.defaults.node != nullptr) {
      PoolDraft nobody;  // so that faults in the defaults are found even if no pool has them
      read_pool_keys(reader_, draft.defaults, nobody);
    }
    if (draft.pools.node == nullptr || too_much(draft)) return;
    std::vector<PoolDraft> drafts;
    drafts.reserve(draft.pools.node->entries.size());
    for (const Entry& entry : draft.pools.node->entries) {
      const At at = child(draft.pools, entry);
      if (at.node->kind != NodeKind::kMap) {
        reader_.wrong(at, "a map such as {command: [/usr/bin/app]}");
        continue;
      }
      trees_.push_back(draft.defaults.node == nullptr ? entry.value
                                                      : merged(entry.value, *draft.defaults.node));
      drafts.push_back(read_pool(entry, {trees_.back().get(), at.path, at.path.size()}));
    }
    check_listeners_apart(reader_, drafts);
    check_paths_apart(reader_, drafts, std::move(own));
    for (PoolDraft& one : drafts) {
      loaded_.config.pools.emplace(one.pool.name, std::move(one.pool));
    }
  }

  [[nodiscard]] std::string control_socket() const {
    const std::string& folder = options_.runtime_folder;
    const std::string usual = folder.empty() ? "" : folder + "/control.sock";
    return loaded_.config.control.socket.value_or(usual);
  }

  bool too_much(const FileDraft& draft) {
    const std::size_t shared = draft.defaults.node == nullptr ? 0 : draft.defaults.node->weight;
    std::size_t total = 0;
    for (const Entry& entry : draft.pools.node->entries) total += entry.value->weight + shared;
    const std::size_t count = draft.pools.node->entries.size();
    if (count > kMaxPools) {
      faults_.add(draft.pools, "holds more than " + std::to_string(kMaxPools) + " pools");
    } else if (total > kMaxTotalNodes) {
      faults_.add(draft.pools, "holds more than " + std::to_string(kMaxTotalNodes) +
                                   " values, the defaults merged in and aliases counted");
    }
    return count > kMaxPools || total > kMaxTotalNodes;
  }

  PoolDraft read_pool(const Entry& entry, const At& at) {
    PoolDraft draft;
    draft.pool.name = entry.key;
    draft.at = at;
    draft.place = entry.place;
    if (!is_pool_name(entry.key)) {
      faults_.add(
          entry.place, at.path,
          "a pool's name must be 1 to 63 of a-z, 0-9, '_' and '-', and begin with a letter");
    }
    read_pool_keys(reader_, at, draft);
    check_pool(reader_, draft, options_.trusted_file_only);
    for (const Fault& warning : draft.warnings) warn(warning.text());
    if (host_.uid == 0 && !draft.pool.user) {
      warn("pool " + quote(entry.key) +
           ": its workers run as root; set 'user:' (or 'user: root' to say so)");
    }
    return draft;
  }

  // Once, though many pools may have it from the defaults.
  void warn(std::string text) {
    if (std::ranges::count(loaded_.warnings, text) == 0) {
      loaded_.warnings.push_back(std::move(text));
    }
  }

  const Host& host_;
  const LoadOptions& options_;
  Faults faults_;
  Reader reader_;
  Loaded loaded_;
  std::set<std::string> seen_files_;
  std::size_t included_bytes_ = 0;
  std::vector<NodePtr> trees_;  // keeps what the drafts point into
};

Loaded one_fault(const std::string& file, std::string problem) {
  Loaded loaded;
  loaded.faults.push_back({file, 0, 0, "", std::move(problem)});
  return loaded;
}

}  // namespace

Loaded load_tree(const Host& host, const NodePtr& root, const SourcePtr& source, Faults faults,
                 const LoadOptions& options) {
  return Loader(host, options, std::move(faults)).run(root, source);
}

Loaded load_text(const Host& host, std::string_view text, const std::string& file,
                 const LoadOptions& options) {
  const SourcePtr source = file_source(file, host.folder);
  Faults faults;
  const NodePtr root = read_yaml(text, source, faults);
  return load_tree(host, root, source, std::move(faults), options);
}

Loaded load_file(const Host& host, const std::string& file, const LoadOptions& options) {
  const std::string full = absolute_path(file, host.folder);
  if (first_invalid_utf8(full)) return one_fault(shown(file), "the file's path is not valid UTF-8");
  const FileText text = read_file(full, options.trusted_file_only);
  if (!text.problem.empty()) return one_fault(file, text.problem);
  return load_text(host, text.text, file, options);
}

namespace {

Host host_for(const LoadOptions& options) {
  Host host = Host::current();
  if (!options.folder.empty()) host.folder = options.folder;
  return host;
}

}  // namespace

Loaded load(const std::string& file, const LoadOptions& options) {
  return load_file(host_for(options), file, options);
}

Loaded load_ad_hoc(const std::vector<std::pair<std::string, std::string>>& keys,
                   const std::vector<std::string>& command, const LoadOptions& options) {
  return load_options(host_for(options), keys, command, options);
}

}  // namespace ostler::config
