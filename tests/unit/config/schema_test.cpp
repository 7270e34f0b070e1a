// The JSON schema and the loader's tables say the same: every key, every default, and, tried value
// by value, what is accepted.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>

#include "config/src/keys.hpp"
#include "config/src/yaml_reader.hpp"
#include "schema_check.hpp"
#include "stable.hpp"

namespace ostler::config {
namespace {

using nlohmann::json;

json load_schema() {
  return json::parse(read_text(OSTLER_CONFIG_FOLDER "/schema/ostler.schema.json"));
}

NodePtr yaml(std::string_view text) {
  Faults faults;
  const auto source = std::make_shared<const Source>(Source{"f", "/", {}, {}});
  NodePtr root = read_yaml(text, source, faults);
  CAPTURE(text);
  REQUIRE(texts(faults.sorted()) == Lines{});
  return root;
}

// Notes every property below PART under its dotted name, but for what `ready` and the like hold in
// their map form, which is part of the one key.
void collect(const SchemaCheck& check, const json& part, const std::string& prefix,
             std::set<std::string>& out) {
  for (const auto& [name, property] : part.at("properties").items()) {
    const json& target = check.resolved(property);
    const bool map = target.contains("properties") && !property.contains("$ref");
    // One that can be off as a whole is a key of its own as well.
    const bool may_be_off = property.value("default", json()) == "off";
    if (map && (may_be_off || !property.contains("default"))) {
      collect(check, target, prefix + name + ".", out);
    }
    if (!map || property.contains("default")) out.insert(prefix + name);
  }
}

// The property at a dotted name; null if there is none.
json property_at(const json& part, std::string_view name) {
  const std::size_t dot = name.find('.');
  const std::string first(name.substr(0, dot));
  const json properties = part.value("properties", json::object());
  if (!properties.contains(first)) return nullptr;
  return dot == std::string_view::npos ? properties.at(first)
                                       : property_at(properties.at(first), name.substr(dot + 1));
}

// Whether NAME is part of one that is a key itself: "health.interval" of "health".
template <class T>
bool below_another_key(std::string_view name, std::span<const Key<T>> keys) {
  const std::string_view parent = name.substr(0, name.find('.'));
  return parent != name && std::any_of(keys.begin(), keys.end(), [parent](const Key<T>& key) {
           return key.info.name == parent;
         });
}

template <class T>
void hold_against(const SchemaCheck& check, const json& part, std::span<const Key<T>> keys) {
  std::set<std::string> in_schema;
  collect(check, part, "", in_schema);
  for (const Key<T>& key : keys) {
    CAPTURE(key.info.name);
    const json property = property_at(part, key.info.name);
    in_schema.erase(std::string(key.info.name));
    if (key.info.stage == Stage::kLater) {
      CHECK(property.is_null());
      continue;
    }
    REQUIRE(!property.is_null());
    CHECK(property.value("title", "") == key.info.help);
    CHECK(property.value("description", "").size() > 5);
    if (key.info.fallback.empty()) {
      // What holds only once the map above is given has its default there alone.
      CHECK((!property.contains("default") || below_another_key(key.info.name, keys)));
    } else {
      // A mode is quoted in JSON, which has no octal numbers.
      const NodePtr fallback = yaml(key.info.fallback);
      const bool octal = key.info.fallback == "0666";
      CHECK(property.at("default") == (octal ? json("0666") : to_json(*fallback)));
      CHECK(check.valid(property, property.at("default")));
    }
    const json examples = property.value("examples", json::array());
    CHECK(!examples.empty());
    for (const json& example : examples) {
      CAPTURE(example);
      CHECK(check.valid(property, example));
    }
  }
  CHECK(in_schema.empty());
}

// Whether the tables take LINES, with no look at the machine.
bool tables_accept(const Host& host, const Node& root) {
  Faults faults;
  Reader reader(faults, host);
  FileDraft draft;
  read_file_keys(reader, {&root, ""}, draft);
  if (draft.pools.node != nullptr) {
    for (const Entry& entry : draft.pools.node->entries) {
      PoolDraft pool;
      if (entry.value->kind != NodeKind::kMap) return false;
      read_pool_keys(reader, {entry.value.get(), "pool"}, pool);
    }
  }
  return faults.added() == 0;
}

constexpr std::array<std::string_view, 72> kValues = {"",
                                                      "~",
                                                      "null",
                                                      "\"null\"",
                                                      "true",
                                                      "false",
                                                      "yes",
                                                      "no",
                                                      "on",
                                                      "off",
                                                      "\"off\"",
                                                      "0",
                                                      "1",
                                                      "2",
                                                      "7",
                                                      "100",
                                                      "660",
                                                      "0660",
                                                      "\"0660\"",
                                                      "\"660\"",
                                                      "999",
                                                      "1000",
                                                      "1001",
                                                      "10000",
                                                      "10001",
                                                      "65536",
                                                      "1000001",
                                                      "-1",
                                                      "1.5",
                                                      "1e3",
                                                      "0x10",
                                                      "1_000",
                                                      "\"1\"",
                                                      "auto",
                                                      "notify",
                                                      "listening",
                                                      "exec",
                                                      "template",
                                                      "shared",
                                                      "reuseport",
                                                      "systemd",
                                                      "fastcgi",
                                                      "forward",
                                                      "inherit",
                                                      "info",
                                                      "loud",
                                                      "json",
                                                      "stderr",
                                                      "TERM",
                                                      "SIGHUP",
                                                      "KILL",
                                                      "30s",
                                                      "250ms",
                                                      "\"30s\"",
                                                      "5 s",
                                                      "50%",
                                                      "101%",
                                                      "[]",
                                                      "[a]",
                                                      "{}",
                                                      "{after: 1s}",
                                                      "{a: b}",
                                                      "/tmp/x",
                                                      "dispatch",
                                                      "random",
                                                      "busy",
                                                      "backlog",
                                                      "0.7",
                                                      "1.500",
                                                      "100000",
                                                      "100001",
                                                      "{min: 0, max: 1}"};

// Where the schema takes more than the loader: for these keys it is a coarser net, and of these
// spellings JSON has only the value.
bool is_coarse(std::string_view key, std::string_view value) {
  static const std::set<std::string_view> kKeys = {"umask",
                                                   "control.mode",
                                                   "listen.mode",
                                                   "control.group",
                                                   "command",
                                                   "listen.v6only",
                                                   "worker.header_limit",
                                                   "worker.body_limit",
                                                   "worker.trusted_proxies",
                                                   "recycle.memory",
                                                   "health.exec"};
  return kKeys.contains(key) || value == "0660" || value == "1e3" ||
         (key == "output" && value.empty());
}

// Where the loader takes more: text that happens to look like a number or a truth value, which the
// schema wants in quotes.
bool needs_quotes(std::string_view name, const json& value) {
  static const std::set<std::string_view> kTexts = {
      "directory", "env_file", "socket", "command",     "name",
      "user",      "group",    "exec",   "health.exec", "health.host"};
  return kTexts.contains(name) && value.is_primitive() && !value.is_string();
}

// The YAML of a document with VALUE at the dotted NAME below the lines of PREFIX.
std::string document(std::string_view prefix, std::string_view name, std::string_view value) {
  std::string out(prefix);
  std::string indent(4, ' ');
  for (std::size_t dot = name.find('.'); dot != std::string_view::npos; dot = name.find('.')) {
    out += indent + std::string(name.substr(0, dot)) + ":\n";
    indent += "  ";
    name.remove_prefix(dot + 1);
  }
  return out + indent + std::string(name) + ": " + std::string(value) + "\n";
}

template <class T>
void try_all(const SchemaCheck& check, std::string_view prefix, std::string_view place,
             std::span<const Key<T>> keys, const std::string& suffix) {
  const Host host = privileged(Host::current());
  for (const Key<T>& key : keys) {
    if (key.info.name == "pools" || key.info.name == "defaults") continue;
    const std::string full = std::string(place) + std::string(key.info.name);
    for (const std::string_view value : kValues) {
      const std::string text = document(prefix, key.info.name, value) + suffix;
      CAPTURE(text);
      const NodePtr root = yaml(text);
      const bool loader = tables_accept(host, *root);
      const bool schema = check.accepts(to_json(*root));
      const json json_value = to_json(*yaml("a: " + std::string(value))).at("a");
      if (loader && !needs_quotes(key.info.name, json_value)) CHECK(schema);
      if (schema && !is_coarse(full, value)) CHECK(loader);
    }
  }
}

}  // namespace

TEST_CASE("the schema knows the tables' keys and defaults, and no others") {
  const json schema = load_schema();
  const SchemaCheck check(schema);
  CHECK(schema.at("$schema") == "https://json-schema.org/draft/2020-12/schema");
  hold_against(check, schema, file_keys());
  hold_against(check, schema.at("properties").at("control"), control_keys());
  hold_against(check, schema.at("properties").at("log"), log_keys());
  hold_against(check, schema.at("$defs").at("pool"), pool_keys());
  hold_against(check, schema.at("$defs").at("listener"), listener_keys());
}

TEST_CASE("value by value, schema and loader agree on every key") {
  const json schema = load_schema();
  const SchemaCheck check(schema);
  try_all(check, "pools:\n  app:\n    command: app\n", "", pool_keys().subspan(1), "");
  try_all(check, "pools:\n  app:\n", "", pool_keys().first(1), "");
  try_all(check, "log:\n", "log.", log_keys(), "pools: {}\n");
  try_all(check, "control:\n", "control.", control_keys(), "pools: {}\n");
  try_all(check, "pools:\n  app:\n   command: app\n   listen:\n   -\n    address: unix:///x\n",
          "listen.", listener_keys().subspan(1), "");
}

TEST_CASE("the schema refuses what is unknown, misplaced or not available yet") {
  const json schema = load_schema();
  const SchemaCheck check(schema);
  const auto accepts = [&](const char* text) { return check.accepts(to_json(*yaml(text))); };
  CHECK(accepts("pools: {}"));
  CHECK(
      accepts("pools: {web: {command: [a, 1, true], listen: [tcp://:80, {address: unix:///a}]}}"));
  CHECK(!accepts("[]"));
  CHECK(!accepts("pool: {}"));
  CHECK(!accepts("pools: {Web: {}}"));
  CHECK(!accepts("pools: {web: {wrokers: 1}}"));
  CHECK(!accepts("defaults: {wrokers: 1}"));
  CHECK(!accepts("pools: {web: {timeouts: {strat: 1s}}}"));
  CHECK(!accepts("pools: {web: {listen: [{adress: tcp://:80}]}}"));
  CHECK(!accepts("pools: {web: {listen: [\"8080\"]}}"));
  for (const char* good :
       {"tcp://localhost:80", "tcp://*:80", "tcp://127.0.0.1:80", "tcp://[::1]:80"}) {
    CAPTURE(good);
    CHECK(accepts(("pools: {web: {listen: [\"" + std::string(good) + "\"]}}").c_str()));
  }
  CHECK(!accepts("pools: {web: {listen: [\"tcp://www.example.com:80\"]}}"));
  CHECK(!accepts("pools: {web: {spawn: template}}"));
  CHECK(accepts("pools: {web: {accept: dispatch, dispatch: round_robin, workers: {max: 8}}}"));
  CHECK(!accepts("pools: {web: {workers: {maxx: 8}}}"));
  CHECK(!accepts("pools: {web: {workers: {max: 8, target: 0}}}"));
  CHECK(!accepts("pools: {web: {limits: {}}}"));
  CHECK(!accepts("pools: {web: {env: {A: [1]}}}"));
  CHECK(!accepts("metrics: {}"));
}

}  // namespace ostler::config
