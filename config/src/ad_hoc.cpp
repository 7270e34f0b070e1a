// The ad-hoc form: options of a command line become the tree that a file would have been.
#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <utility>

#include "config/src/keys.hpp"
#include "config/src/load.hpp"
#include "config/src/loader.hpp"
#include "config/src/merge.hpp"
#include "config/src/scalars.hpp"
#include "config/src/text.hpp"

namespace ostler::config {
namespace {

struct Option {
  std::string name;  // "timeouts-stop"
  std::string path;  // "pools.app.timeouts.stop"
  KeyInfo info;
};

std::string option_name(std::string_view key) {
  std::string name(key);
  std::replace(name.begin(), name.end(), '.', '-');
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

template <class T>
void add_options(std::vector<Option>& out, const std::string& prefix, const std::string& path,
                 std::span<const Key<T>> keys) {
  for (const Key<T>& key : keys) {
    if (key.info.name == "command") continue;
    out.push_back(
        {prefix + option_name(key.info.name), path + std::string(key.info.name), key.info});
  }
}

// Those that are not available yet are in it, to be refused by name.
const std::vector<Option>& all_options() {
  static const std::vector<Option> kOptions = [] {
    std::vector<Option> out;
    add_options(out, "", "pools.app.", pool_keys());
    add_options(out, "", "control.", control_keys().first(1));  // the socket alone
    add_options(out, "log-", "log.", log_keys());
    return out;
  }();
  return kOptions;
}

std::string help_of(const KeyInfo& info) {
  std::string help(info.help);
  const bool empty = info.fallback.empty() || info.fallback == "{}" || info.fallback == "[]";
  return empty ? help : help + " (default " + std::string(info.fallback) + ")";
}

// Builds the tree, one option after the other.
class Builder {
 public:
  explicit Builder(const Host& host) : host_(host) {
    const Place place = place_of("", "");
    const std::array<std::string, 2> app = {"pools", "app"};
    root_ = with_value(empty_map(place), app, empty_map(place), place);
  }

  void add(const std::string& name, const std::string& value) {
    const auto& options = all_options();
    const auto option = std::find_if(options.begin(), options.end(),
                                     [&name](const Option& o) { return o.name == name; });
    if (option == options.end() || option->info.stage != Stage::kBuilt) return refuse(name);
    const Place place = place_of("--" + shown(name), option->path);
    if (first_invalid_utf8(value)) return faults_.add(place, option->path, "is not valid UTF-8");
    if (name == "listen" || name == "warmup") {
      Node& list = lists_[option->path];
      const std::string index = std::to_string(list.items.size());
      const Place place_in = place_of("--" + name, option->path + "[" + index + "]");
      list.items.push_back(scalar_node(place_in, value));
    } else if (name == "env" || name == "health-headers") {
      add_entry(name, option->path, value);
    } else if (!given_.insert(name).second) {
      faults_.add(place, option->path, "is given twice");
    } else if (const std::string other = contradicting(option->path); !other.empty()) {
      faults_.add(place, option->path, "contradicts " + other);
    } else {
      given_paths_.emplace(option->path, "--" + name);
      put(option->path, value_of(name, value, place), place);
    }
  }

  void add_command(const std::vector<std::string>& command) {
    const Place place = place_of("COMMAND", "pools.app.command");
    Node list;
    list.kind = NodeKind::kList;
    list.place = place;
    for (const std::string& word : command) {
      if (first_invalid_utf8(word)) faults_.add(place, "pools.app.command", "is not valid UTF-8");
      list.items.push_back(scalar_node(place, word));
    }
    put("pools.app.command", std::make_shared<const Node>(std::move(list)), place);
  }

  Loaded load(const LoadOptions& options) {
    for (auto& [path, list] : lists_) {
      list.kind = NodeKind::kList;
      list.place = list.items.front()->place;
      const Place place = list.place;
      put(path, std::make_shared<const Node>(std::move(list)), place);
    }
    return load_tree(host_, root_, place_of("", "").source, std::move(faults_), options);
  }

 private:
  [[nodiscard]] Place place_of(const std::string& option, const std::string& path) const {
    return {std::make_shared<const Source>(Source{{}, host_.folder, option, path}), 0, 0};
  }

  // An option that sets the whole of which PATH is a part, or a part of it: "--recycle" and
  // "--recycle-requests"; empty if there is none.
  [[nodiscard]] std::string contradicting(const std::string& path) const {
    for (const auto& [given, option] : given_paths_) {
      if (path.starts_with(given + ".") || given.starts_with(path + ".")) return option;
    }
    return {};
  }

  void refuse(const std::string& name) {
    const Place place = place_of("--" + shown(name), "");
    std::vector<std::string_view> known;
    for (const Option& option : all_options()) {
      const bool built = option.info.stage == Stage::kBuilt;
      if (built) known.push_back(option.name);
      if (!built && (name == option.name || name.starts_with(option.name + "-"))) {
        return faults_.add(place, "", quote(option.name) + " is not available in this version");
      }
    }
    faults_.add(place, "", "unknown option" + did_you_mean(name, known));
  }

  // "NAME=VALUE" of an option that is a map and may be repeated.
  void add_entry(const std::string& option, const std::string& map, const std::string& value) {
    const std::size_t equals = value.find('=');
    const std::string name = value.substr(0, equals);
    const Place place = place_of("--" + option, map + "." + path_part(name));
    if (equals == std::string::npos) {
      return faults_.add(place, "", "must be NAME=VALUE, not " + quote(value));
    }
    if (const std::string other = contradicting(map); !other.empty()) {
      return faults_.add(place, map, "contradicts " + other);
    }
    given_paths_.emplace(map, "--" + option);
    if (!given_.insert(option + " " + name).second) {
      return faults_.add(place, "", "sets " + quote(name) + " twice");
    }
    std::vector<std::string> path = parts_of(map);
    path.push_back(name);  // which may hold dots
    root_ = with_value(root_, path, scalar_node(place, value.substr(equals + 1)), place);
  }

  // What an option's text is in a file: mostly the same.
  static NodePtr value_of(const std::string& name, const std::string& value, const Place& place) {
    NodePtr scalar = scalar_node(place, value);
    if (name == "ready" && parse_duration(value)) {
      const std::array<std::string, 1> after = {"after"};
      return with_value(empty_map(place), after, scalar, place);
    }
    if (name == "worker-trusted-proxies" || name == "health-expect") return list_of(value, place);
    if (name != "inherit-env" || value == "true" || value == "false") return scalar;
    return list_of(value, place);
  }

  // "a,b"
  static NodePtr list_of(const std::string& value, const Place& place) {
    Node list;
    list.kind = NodeKind::kList;
    list.place = place;
    for (std::size_t from = 0; from <= value.size();) {
      const std::size_t comma = std::min(value.find(',', from), value.size());
      list.items.push_back(scalar_node(place, value.substr(from, comma - from)));
      from = comma + 1;
    }
    return std::make_shared<const Node>(std::move(list));
  }

  static std::vector<std::string> parts_of(std::string_view dotted) {
    std::vector<std::string> path;
    for (std::size_t from = 0; from <= dotted.size();) {
      const std::size_t dot = std::min(dotted.find('.', from), dotted.size());
      path.emplace_back(dotted.substr(from, dot - from));
      from = dot + 1;
    }
    return path;
  }

  void put(std::string_view dotted, const NodePtr& value, const Place& place) {
    root_ = with_value(root_, parts_of(dotted), value, place);
  }

  const Host& host_;
  Faults faults_;
  NodePtr root_;
  std::map<std::string, Node> lists_;  // by the path of the key: options that may be repeated
  std::set<std::string> given_;
  std::map<std::string, std::string> given_paths_;  // path to option
};

}  // namespace

const std::vector<AdHocOption>& ad_hoc_options() {
  static const std::vector<AdHocOption> kOptions = [] {
    std::vector<AdHocOption> out;
    for (const Option& option : all_options()) {
      if (option.info.stage == Stage::kBuilt) out.push_back({option.name, help_of(option.info)});
    }
    return out;
  }();
  return kOptions;
}

Loaded load_options(const Host& host, const std::vector<std::pair<std::string, std::string>>& keys,
                    const std::vector<std::string>& command, const LoadOptions& options) {
  Builder builder(host);
  for (const auto& [name, value] : keys) builder.add(name, value);
  builder.add_command(command);
  return builder.load(options);
}

}  // namespace ostler::config
