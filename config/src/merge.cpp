#include "config/src/merge.hpp"

#include <utility>

namespace ostler::config {

NodePtr empty_map(Place place) {
  Node node;
  node.kind = NodeKind::kMap;
  node.place = std::move(place);
  return std::make_shared<const Node>(std::move(node));
}

NodePtr merged(const NodePtr& over, const Node& under) {
  Node out = *over;
  for (const Entry& entry : under.entries) {
    const Entry* same = out.find(entry.key);
    if (same == nullptr) {
      out.put({entry.key, entry.place, entry.value, true});
    } else if (same->value->kind == NodeKind::kMap && entry.value->kind == NodeKind::kMap) {
      out.put({same->key, same->place, merged(same->value, *entry.value), same->from_defaults});
    }
  }
  return std::make_shared<const Node>(std::move(out));
}

NodePtr with_value(const NodePtr& map, std::span<const std::string> path, const NodePtr& value,
                   const Place& place) {
  if (path.empty()) return value;
  if (map->kind == NodeKind::kList) return nullptr;
  Node out = map->kind == NodeKind::kMap ? *map : *empty_map(place);
  const Entry* old = out.find(path.front());
  const NodePtr below =
      with_value(old == nullptr ? empty_map(place) : old->value, path.subspan(1), value, place);
  if (below == nullptr) return nullptr;
  const bool made = old == nullptr || path.size() == 1;
  out.put({path.front(), made ? place : old->place, below, false});
  return std::make_shared<const Node>(std::move(out));
}

}  // namespace ostler::config
