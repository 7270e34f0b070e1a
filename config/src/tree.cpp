#include "config/src/tree.hpp"

#include <algorithm>
#include <utility>

#include "config/src/text.hpp"

namespace ostler::config {
namespace {

constexpr std::size_t kMaxFaults = 1000;  // a file of rubbish must not become a report of gigabytes

// What the option stands for is not repeated: "--set pools.web.timeouts.strt", "--timeouts-stop".
std::string key_of(const Source& source, std::string_view path) {
  if (source.option.empty()) return std::string(path);
  const bool below = path.starts_with(source.option_path);
  return source.option + std::string(below ? path.substr(source.option_path.size()) : "");
}

}  // namespace

std::string Fault::text() const {
  std::string out = file;
  if (line > 0) out += ":" + std::to_string(line);
  if (line > 0 && column > 0) out += ":" + std::to_string(column);
  if (!out.empty()) out += ": ";
  if (!key.empty()) out += key + ": ";
  return out + message;
}

std::string Place::text() const {
  if (!source->option.empty()) return source->option;
  if (line == 0) return source->file;
  return source->file + ":" + std::to_string(line) + ":" + std::to_string(column);
}

const Entry* Node::find(std::string_view key) const {
  const auto found = index.find(key);
  return found == index.end() ? nullptr : &entries[found->second];
}

void Node::put(Entry entry) {
  const auto [place_in, is_new] = index.emplace(entry.key, entries.size());
  if (is_new) {
    entries.push_back(std::move(entry));
  } else {
    entries[place_in->second] = std::move(entry);
  }
}

NodePtr scalar_node(Place place, std::string text) {
  Node node;
  node.kind = NodeKind::kScalar;
  node.place = std::move(place);
  node.text = std::move(text);
  return std::make_shared<const Node>(std::move(node));
}

std::string path_part(std::string_view key) {
  return shown(key);
}

std::string join_path(std::string_view parent, std::string_view key) {
  return parent.empty() ? path_part(key) : std::string(parent) + "." + path_part(key);
}

At child(const At& parent, const Entry& entry) {
  if (!entry.from_defaults || parent.pool_prefix == 0) {
    return {entry.value.get(), join_path(parent.path, entry.key), parent.pool_prefix};
  }
  const std::string below = parent.path.substr(parent.pool_prefix);
  return {entry.value.get(), join_path("defaults" + below, entry.key), 0};
}

At item(const At& parent, std::size_t index) {
  return {parent.node->items[index].get(), parent.path + "[" + std::to_string(index) + "]",
          parent.pool_prefix};
}

At descend(const At& parent, std::string_view path) {
  At at = parent;
  while (at.node != nullptr && !path.empty()) {
    const std::size_t dot = std::min(path.find('.'), path.size());
    const Entry* entry = at.node->find(path.substr(0, dot));
    at = entry == nullptr ? At{} : child(at, *entry);
    path.remove_prefix(std::min(dot + 1, path.size()));
  }
  return at;
}

bool Faults::Before::operator()(const Fault& a, const Fault& b) const {
  return std::tie(a.file, a.line, a.column, a.key, a.message) <
         std::tie(b.file, b.line, b.column, b.key, b.message);
}

Fault fault_at(const Place& place, std::string_view path, std::string message) {
  return {place.source->file, place.line, place.column, key_of(*place.source, path),
          std::move(message)};
}

void Faults::add(const Place& place, std::string_view path, std::string message) {
  ++added_;
  Fault fault = fault_at(place, path, std::move(message));
  if (faults_.size() < kMaxFaults) {
    faults_.insert(std::move(fault));
  } else if (!faults_.contains(fault)) {
    ++left_out_;
  }
}

std::vector<Fault> Faults::sorted() const {
  std::vector<Fault> out(faults_.begin(), faults_.end());
  if (left_out_ > 0) {
    out.push_back({"", 0, 0, "", "and " + std::to_string(left_out_) + " more faults, not shown"});
  }
  return out;
}

}  // namespace ostler::config
