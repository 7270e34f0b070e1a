// Just enough of JSON Schema to hold the project's own against what the loader does. A keyword that
// it does not know throws: a schema that outgrows it must not pass unchecked.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "config/src/tree.hpp"

namespace ostler::config {

class SchemaCheck {
 public:
  explicit SchemaCheck(const nlohmann::json& schema) : schema_(schema) {}

  [[nodiscard]] bool accepts(const nlohmann::json& value) const { return valid(schema_, value); }
  // Against one part of the schema.
  [[nodiscard]] bool valid(const nlohmann::json& part, const nlohmann::json& value) const;
  // PART, or what its $ref stands for.
  [[nodiscard]] const nlohmann::json& resolved(const nlohmann::json& part) const;

 private:
  [[nodiscard]] bool keyword(const nlohmann::json& part, const std::string& name,
                             const nlohmann::json& rule, const nlohmann::json& value) const;

  const nlohmann::json& schema_;
};

// A tree as JSON, plain scalars understood as YAML 1.2 does.
nlohmann::json to_json(const Node& node);

}  // namespace ostler::config
