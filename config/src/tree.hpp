// A configuration document as a tree that remembers where each part was written, and the list that
// faults are collected in.
//
// Nodes are immutable once built and shared: an alias, a default merged under many pools and an
// override all point at the same node. `Place` keeps its source alive. No kernel, no YAML library.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "config/src/load.hpp"

namespace ostler::config {

// Where text came from: a file, or an option of the command line.
struct Source {
  std::string file;         // as faults name it; empty for the command line
  std::string folder;       // absolute; what relative paths in it are relative to
  std::string option;       // "--set pools.web.workers", "--timeouts-stop"; empty for a file
  std::string option_path;  // the key path that the option sets
};
using SourcePtr = std::shared_ptr<const Source>;

struct Place {
  SourcePtr source;
  int line = 0;  // from 1; 0: none
  int column = 0;
  // "ostler.yaml:3:5", or the option
  [[nodiscard]] std::string text() const;
};

enum class NodeKind { kNull, kScalar, kList, kMap };

struct Node;
using NodePtr = std::shared_ptr<const Node>;

struct Entry {
  std::string key;
  Place place;  // of the key
  NodePtr value;
  bool from_defaults = false;  // merged in under a pool
};

struct Node {
  NodeKind kind = NodeKind::kNull;
  Place place;
  std::string text;            // kScalar; kNull: "null" if written out, "" if nothing was
  bool plain = true;           // kScalar: written without quotes
  std::vector<NodePtr> items;  // kList
  std::vector<Entry> entries;  // kMap, in the order written, no key twice; grows by put()
  std::map<std::string, std::size_t, std::less<>> index;  // key to its place in `entries`
  std::size_t weight = 1;  // nodes and text in it, what aliases stand for counted each time

  [[nodiscard]] const Entry* find(std::string_view key) const;
  // Adds an entry, or replaces the one with the same key.
  void put(Entry entry);
};

// What a scalar weighs: long texts as much as the nodes they could hide behind aliases.
constexpr std::size_t weight_of_text(std::size_t bytes) {
  return 1 + bytes / 32;
}

NodePtr scalar_node(Place place, std::string text);

// A value and the path it is known by in messages.
struct At {
  const Node* node = nullptr;
  std::string path;             // "pools.web.listen[0]"
  std::size_t pool_prefix = 0;  // the length of "pools.web" in `path`; 0: not within a pool
};
At child(const At& parent, const Entry& entry);
At item(const At& parent, std::size_t index);
// The value at a dotted path below PARENT; its node is null if there is none.
At descend(const At& parent, std::string_view path);

// One component of a key path, made fit for a message.
std::string path_part(std::string_view key);
// The path of KEY below PARENT, which may be empty.
std::string join_path(std::string_view parent, std::string_view key);

// A fault, or a warning, at a place.
Fault fault_at(const Place& place, std::string_view path, std::string message);

// All faults found so far; the same one is kept once, and their number is bounded.
class Faults {
 public:
  void add(const Place& place, std::string_view path, std::string message);
  void add(const At& at, std::string message) { add(at.node->place, at.path, std::move(message)); }
  // Counts every add(), repeated ones too.
  [[nodiscard]] std::size_t added() const { return added_; }
  // By file, line and column.
  [[nodiscard]] std::vector<Fault> sorted() const;

 private:
  struct Before {
    bool operator()(const Fault& a, const Fault& b) const;
  };
  std::set<Fault, Before> faults_;
  std::size_t added_ = 0;
  std::size_t left_out_ = 0;
};

}  // namespace ostler::config
