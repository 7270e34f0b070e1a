#include "config/src/reader.hpp"

#include <algorithm>
#include <utility>

#include "config/src/files.hpp"
#include "config/src/scalars.hpp"

namespace ostler::config {

bool is_off(const Node& node) {
  if (node.kind != NodeKind::kScalar) return false;
  if (node.text == "off") return true;
  return node.plain && (node.text == "Off" || node.text == "OFF" || node.text == "false" ||
                        node.text == "False" || node.text == "FALSE");
}

std::string found(const Node& node) {
  switch (node.kind) {
    case NodeKind::kNull:
      return node.text.empty() ? "left empty" : "null";
    case NodeKind::kScalar:
      return node.plain ? quote(node.text) : "the text " + quote(node.text);
    case NodeKind::kList:
      return "a list";
    case NodeKind::kMap:
      break;
  }
  // {fd}, written without quotes, is a map to YAML.
  const bool token = node.entries.size() == 1 && node.entries[0].value->kind == NodeKind::kNull;
  return token ? "a map (as text, {" + shown(node.entries[0].key) + "} needs quotes)" : "a map";
}

void Reader::wrong(const At& at, std::string_view what) {
  faults_.add(at, "must be " + std::string(what) + ", not " + found(*at.node));
}

void Reader::wrong_word(const At& at, std::span<const std::string_view> names,
                        std::string_view more) {
  const std::string what = any_of(names) + std::string(more);
  const bool scalar = at.node->kind == NodeKind::kScalar;
  faults_.add(at, "must be " + what + ", not " + found(*at.node) +
                      (scalar ? did_you_mean(at.node->text, names) : ""));
}

void Reader::later(const At& at, std::string_view what) {
  later(at.node->place, at.path, what);
}

void Reader::later(const Place& place, std::string_view path, std::string_view what) {
  faults_.add(place, path, quote(what) + " is not available in this version");
}

bool Reader::text(const At& at, std::string_view what, std::string& out) {
  if (at.node->kind != NodeKind::kScalar || at.node->text.empty()) {
    wrong(at, what);
    return false;
  }
  out = at.node->text;
  return true;
}

bool Reader::path(const At& at, std::string& out) {
  std::string written;
  if (!text(at, "a path", written)) return false;
  out = absolute_path(written, at.node->place.source->folder);
  return true;
}

bool Reader::boolean(const At& at, bool& out) {
  static constexpr std::array<std::string_view, 3> kTrue = {"true", "True", "TRUE"};
  static constexpr std::array<std::string_view, 3> kFalse = {"false", "False", "FALSE"};
  const Node& node = *at.node;
  if (node.kind == NodeKind::kScalar && node.plain) {
    const bool yes = std::find(kTrue.begin(), kTrue.end(), node.text) != kTrue.end();
    if (yes || std::find(kFalse.begin(), kFalse.end(), node.text) != kFalse.end()) {
      out = yes;
      return true;
    }
  }
  wrong(at, "true or false");
  return false;
}

bool Reader::whole(const At& at, std::int64_t least, std::int64_t most, int& out) {
  const Node& node = *at.node;
  if (node.kind == NodeKind::kScalar && node.plain) {
    const auto value = parse_whole(node.text);
    if (value && *value >= least && *value <= most) {
      out = static_cast<int>(*value);
      return true;
    }
  }
  wrong(at, "a whole number from " + std::to_string(least) + " to " + std::to_string(most));
  return false;
}

bool Reader::duration(const At& at, Duration least, Duration& out) {
  const auto value =
      at.node->kind == NodeKind::kScalar ? parse_duration(at.node->text) : std::nullopt;
  if (!value) {
    wrong(at, "a duration such as 250ms, 30s, 5m, 1h or 1d, or a number of seconds");
    return false;
  }
  if (*value < least || *value > kLongest) {
    wrong(at, "from " + duration_text(least) + " to " + duration_text(kLongest));
    return false;
  }
  out = *value;
  return true;
}

bool Reader::size(const At& at, std::uint64_t least, std::uint64_t most, std::uint64_t& out) {
  const auto value = at.node->kind == NodeKind::kScalar ? parse_size(at.node->text) : std::nullopt;
  if (!value) {
    wrong(at, "a size such as 512MiB, 64KiB or 2GiB, or a number of bytes");
    return false;
  }
  if (*value < least || *value > most) {
    wrong(at, "from " + size_text(least) + " to " + size_text(most));
    return false;
  }
  out = *value;
  return true;
}

bool Reader::mode(const At& at, unsigned& out) {
  const auto value = at.node->kind == NodeKind::kScalar ? parse_mode(at.node->text) : std::nullopt;
  if (!value) {
    wrong(at, "an octal mode from 0000 to 0777, such as \"0660\"");
    return false;
  }
  out = *value;
  return true;
}

bool Reader::account(const At& at, std::optional<std::string>& out) {
  std::string name;
  if (!text(at, "a name or a number", name)) return false;
  out = std::move(name);
  return true;
}

bool Reader::texts(const At& at, std::string_view what, std::vector<std::string>& out) {
  if (at.node->kind != NodeKind::kList) {
    wrong(at, what);
    return false;
  }
  std::vector<std::string> values;
  bool good = true;
  for (std::size_t i = 0; i < at.node->items.size(); ++i) {
    const At one = item(at, i);
    if (one.node->kind == NodeKind::kScalar) {
      values.push_back(one.node->text);
    } else {
      wrong(one, "text");
      good = false;
    }
  }
  if (good) out = std::move(values);
  return good;
}

}  // namespace ostler::config
