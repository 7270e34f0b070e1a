// What the manager's JSON says, for people. Every text in it is taken for hostile, every member for
// missing or of the wrong type: what is not there is shown as `-`.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "ctl/text.hpp"

namespace ostler::ctl {

using Json = nlohmann::json;

// The member, or null if there is none.
const Json& member(const Json& object, std::string_view key);
// Its text made printable, or "".
std::string text_of(const Json& object, std::string_view key);
// A whole number, or "-".
std::string count_of(const Json& object, std::string_view key);

// GET /v1/status
void print_status(const Terminal& terminal, const Json& manager);
// GET /v1/pools/{pool}
void print_pool(const Terminal& terminal, const std::string& name, const Json& pool);

// "web.0 ready (pid 123, generation 2)"; with its time in front.
std::string event_text(const Json& event);
std::string event_line(const Json& event);
// A worker's last lines, indented; nothing if there are none.
std::string output_lines(const Json& holder);

// Answers of reload and restart; `done` is the word for success ("reloaded"). What went well is
// printed to `out`, what did not to `err`.
void print_outcome(const Terminal& terminal, const Json& answer, std::string_view done);
// "file:line:column: key: message", leaving out what is not known.
std::string fault_text(const Json& fault);
// "open /var/log/web.log: Permission denied"
std::string reopen_fault_text(const Json& fault);

}  // namespace ostler::ctl
