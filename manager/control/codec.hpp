// The control API's values as JSON text and complete responses, and request bodies back.
//
// Writing never throws on text: what is not UTF-8 is replaced. Reading is total: any bytes give a
// value or a problem that says what is wrong and what would be right.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <variant>

#include "control/messages.hpp"
#include "control/routes.hpp"

namespace ostler::control {

inline constexpr std::size_t kMaxBody = std::size_t{64} * 1024;
inline constexpr std::string_view kJson = "application/json";
inline constexpr std::string_view kJsonLines = "application/x-ndjson";
inline constexpr std::string_view kProblemJson = "application/problem+json";

// No line break at the end; none inside of an event.
std::string to_json(const StatusView& status);
std::string to_json(const PoolView& pool);
std::string to_json(const ReloadResult& result);
std::string to_json(const Done& done);
std::string to_json(const EventView& event);
std::string to_json(const Problem& problem);
std::string to_json(const Members& members);
std::string to_json(const Value& value);

// What an event says, in order, but for its time; of a line of the log too.
Members members_of(const EventView& event);

// 2026-01-31T12:34:56.123456Z
std::string rfc3339(WallTime time);

// Complete answers; each body ends with a line break.
Response respond(const StatusView& status);
Response respond(const PoolView& pool);
// 200 reloaded; else a problem document (409 rolled_back, 422 rejected) with the result's members.
Response respond(const ReloadResult& result);
Response respond(const Done& done, int status = 200);  // 202: asked for, not waited for
Response respond(const ReopenResult& result);          // 200; with errors: a problem document, 409
Response respond(const Problem& problem);
// /livez, /readyz: 200 {"status": "ok"}; not ready: 503 {"status": "starting"}, the manager's
// state.
Response respond_live();
Response respond_ready(bool ready, std::string_view manager_state);

// Bodies. A body is one flat JSON object; unknown and repeated members are refused.
struct ScaleBody {
  ScaleKind kind = ScaleKind::kSet;
  int value = 0;
};
std::variant<ScaleBody, Problem> parse_scale(std::string_view body);
std::variant<Stop, Problem> parse_stop(std::string_view body);
// For endpoints that take no body: empty, or an object without members.
std::variant<std::monostate, Problem> parse_nothing(std::string_view body);

}  // namespace ostler::control
