#include "schema_check.hpp"

#include <algorithm>
#include <regex>
#include <set>
#include <stdexcept>

namespace ostler::config {
namespace {

using nlohmann::json;

bool matches(const json& pattern, const std::string& text) {
  return std::regex_search(text, std::regex(pattern.get<std::string>()));
}

bool has_type(const std::string& type, const json& value) {
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "number") return value.is_number();
  if (type == "integer") return value.is_number_integer();
  throw std::runtime_error("unknown type in the schema: " + type);
}

bool is_type(const json& types, const json& value) {
  if (types.is_string()) return has_type(types.get<std::string>(), value);
  return std::any_of(types.begin(), types.end(), [&value](const json& type) {
    return has_type(type.get<std::string>(), value);
  });
}

// The length of a string in characters.
std::size_t length(const std::string& text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

json plain_scalar(const std::string& text) {
  static const std::regex kInteger("[-+]?[0-9]+");
  static const std::regex kNumber("[-+]?(\\.[0-9]+|[0-9]+(\\.[0-9]*)?)([eE][-+]?[0-9]+)?");
  if (text == "true" || text == "True" || text == "TRUE") return true;
  if (text == "false" || text == "False" || text == "FALSE") return false;
  if (std::regex_match(text, kInteger) && text.size() < 18) return std::stoll(text);
  if (std::regex_match(text, kNumber)) return std::stod(text);
  return text;
}

}  // namespace

const json& SchemaCheck::resolved(const json& part) const {
  if (!part.contains("$ref")) return part;
  return schema_.at(json::json_pointer(part.at("$ref").get<std::string>().substr(1)));
}

bool SchemaCheck::valid(const json& part, const json& value) const {
  return std::all_of(part.items().begin(), part.items().end(), [&](const auto& item) {
    return keyword(part, item.key(), item.value(), value);
  });
}

bool SchemaCheck::keyword(const json& part, const std::string& name, const json& rule,
                          const json& value) const {
  // For people, and for docs/generate.py ("x-").
  static const std::set<std::string> kNotes = {"$schema", "$id",     "$defs",       "$comment",
                                               "title",   "default", "description", "examples"};
  if (kNotes.contains(name) || name.rfind("x-", 0) == 0) return true;
  if (name == "$ref") return valid(resolved(part), value);
  if (name == "anyOf") {
    return std::any_of(rule.begin(), rule.end(),
                       [&](const json& one) { return valid(one, value); });
  }
  if (name == "type") return is_type(rule, value);
  if (name == "enum") return std::find(rule.begin(), rule.end(), value) != rule.end();
  if (name == "const") return rule == value;
  if (name == "pattern") return !value.is_string() || matches(rule, value.get<std::string>());
  if (name == "minLength") {
    return !value.is_string() || length(value.get<std::string>()) >= rule.get<std::size_t>();
  }
  if (name == "minimum") return !value.is_number() || value >= rule;
  if (name == "maximum") return !value.is_number() || value <= rule;
  if (name == "minItems") return !value.is_array() || value.size() >= rule.get<std::size_t>();
  if (name == "maxItems") return !value.is_array() || value.size() <= rule.get<std::size_t>();
  if (name == "maxProperties") return !value.is_object() || value.size() <= rule.get<std::size_t>();
  if (name == "items") {
    return !value.is_array() || std::all_of(value.begin(), value.end(),
                                            [&](const json& one) { return valid(rule, one); });
  }
  if (name == "required") {
    return !value.is_object() || std::all_of(rule.begin(), rule.end(), [&value](const json& key) {
      return value.contains(key.get<std::string>());
    });
  }
  if (name == "properties" || name == "propertyNames" || name == "additionalProperties") {
    if (!value.is_object()) return true;
    const json known = part.value("properties", json::object());
    return std::all_of(value.items().begin(), value.items().end(), [&](const auto& item) {
      if (name == "propertyNames") return valid(rule, item.key());
      const bool is_known = known.contains(item.key());
      if (name == "properties") return !is_known || valid(known.at(item.key()), item.value());
      return is_known ||
             (rule.is_boolean() ? rule.template get<bool>() : valid(rule, item.value()));
    });
  }
  throw std::runtime_error("unknown keyword in the schema: " + name);
}

json to_json(const Node& node) {
  switch (node.kind) {
    case NodeKind::kNull:
      return nullptr;
    case NodeKind::kScalar:
      return node.plain ? plain_scalar(node.text) : json(node.text);
    case NodeKind::kList: {
      json out = json::array();
      for (const NodePtr& item : node.items) out.push_back(to_json(*item));
      return out;
    }
    case NodeKind::kMap: {
      json out = json::object();
      for (const Entry& entry : node.entries) out[entry.key] = to_json(*entry.value);
      return out;
    }
  }
  return {};
}

}  // namespace ostler::config
