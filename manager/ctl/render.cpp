#include "ctl/render.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <ostream>
#include <utility>
#include <vector>

namespace ostler::ctl {
namespace {

double number_of(const Json& object, std::string_view key) {
  const Json& value = member(object, key);
  return value.is_number() ? value.get<double>() : std::nan("");
}

std::string or_dash(const std::string& text) {
  return text.empty() ? "-" : text;
}

// Any value in one line. Lists and objects are left out: dumping them would follow a nesting that
// knows no bound.
std::string any_text(const Json& value) {
  if (value.is_structured()) return "…";
  return printable(value.is_string() ? value.get_ref<const std::string&>() : value.dump());
}

// "1 worker", "4 workers", "- workers"
std::string counted(const Json& object, std::string_view key, const std::string& thing) {
  const std::string count = count_of(object, key);
  return count + " " + thing + (count == "1" ? "" : "s");
}

Style state_style(std::string_view state) {
  if (state == "running" || state == "ready") return Style::kGood;
  if (state == "degraded") return Style::kBad;
  return Style::kWarn;
}

Table::Cell state_cell(const Json& object) {
  const std::string state = text_of(object, "state");
  return {or_dash(state), state.empty() ? Style::kPlain : state_style(state)};
}

std::string addresses(const Json& pool) {
  std::string result;
  const Json& listeners = member(pool, "listeners");
  if (!listeners.is_array()) return "-";
  for (const Json& listener : listeners) {
    if (!result.empty()) result += ' ';
    result += or_dash(text_of(listener, "address"));
  }
  return or_dash(result);
}

using Pools = std::vector<std::pair<std::string, const Json*>>;

void print_pools(const Terminal& terminal, const Pools& pools) {
  Table table({{"POOL"},
               {"STATE"},
               {"READY/TARGET", true},
               {"STARTING", true},
               {"DRAINING", true},
               {"GEN", true},
               {"RESTARTS", true},
               {"RELOADS", true},
               {"LISTEN"}});
  for (const auto& [name, pool] : pools)
    table.row({{printable(name), Style::kStrong},
               state_cell(*pool),
               {count_of(*pool, "ready") + "/" + count_of(*pool, "target")},
               {count_of(*pool, "starting")},
               {count_of(*pool, "draining")},
               {count_of(*pool, "generation")},
               {count_of(*pool, "restarts")},
               {count_of(*pool, "reloads")},
               {addresses(*pool)}});
  table.print(terminal);
}

// "pid 4243, generation 1, …": what is known of these, or "".
std::string details_of(const Json& object, const std::vector<std::string>& keys) {
  std::string result;
  for (const std::string& key : keys)
    if (const Json& value = member(object, key); !value.is_null())
      result += (result.empty() ? "" : ", ") + printable(key) + " " + any_text(value);
  return result;
}

std::string error_text(const std::string& pool, const Json& error) {
  const std::string result = pool + ": last error: ";
  if (!error.is_object()) return result + any_text(error);
  const std::string details = details_of(error, {"pid", "generation", "time"});
  return result + or_dash(text_of(error, "message")) +
         (details.empty() ? "" : " (" + details + ")");
}

// "3 workers", or "1 to 8 workers, by load".
std::string configured(const Json& pool) {
  const Json& scaling = member(pool, "scaling");
  if (!scaling.is_object()) return counted(pool, "workers_configured", "worker");
  return count_of(scaling, "min") + " to " + counted(scaling, "max", "worker") + ", by load";
}

// What the table has no column for: a roll-out in progress, waiting after failures, a target set by
// hand, the last error.
void print_notes(const Terminal& terminal, const std::string& name, const Json& pool) {
  if (const Json& rollout = member(pool, "rollout"); rollout.is_object()) {
    const bool back = member(rollout, "rolling_back") == true;
    terminal.out << name << (back ? ": rolling back generation " : ": rolling out generation ")
                 << count_of(rollout, "generation") << ", "
                 << counted(rollout, "replaced", "worker") << " replaced\n";
  }
  if (member(pool, "scaled") == true)
    terminal.out << name << ": scaled by hand; the configuration says " << configured(pool) << "\n";
  if (const double wait = number_of(pool, "backing_off"); wait >= 0)
    terminal.out << terminal.paint(Style::kBad, name + ": next try in " + duration(wait)) << "\n";
  if (const Json& error = member(pool, "last_error"); !error.is_null())
    terminal.out << terminal.paint(Style::kBad, error_text(name, error)) << "\n"
                 << output_lines(error);
}

// The request that has been served for longest: "GET /slow 1.2s +3", with the number of others.
std::string serving_text(const Json& worker) {
  const Json& serving = member(worker, "serving");
  if (!serving.is_array() || serving.empty()) return "-";
  const Json& oldest = serving.front();
  const std::string text =
      or_dash(text_of(oldest, "request")) + " " + duration(number_of(oldest, "seconds"));
  const double others = number_of(worker, "active") - 1;
  return others >= 1 ? text + " +" + std::to_string(std::lround(others)) : text;
}

// What it said of itself, or why it is not ready.
std::string word_of(const Json& worker) {
  const std::string status = text_of(worker, "status");
  return status.empty() ? text_of(worker, "not_ready") : status;
}

void print_workers(const Terminal& terminal, const Pools& pools) {
  Table table({{"WORKER"},
               {"PID", true},
               {"GEN", true},
               {"STATE"},
               {"UPTIME", true},
               {"CPU", true},
               {"MEMORY", true},
               {"REQUESTS", true},
               {"CONNS", true},
               {"SERVING"},
               {"STATUS"}});
  bool any = false;
  for (const auto& [name, pool] : pools) {
    const Json& workers = member(*pool, "workers");
    if (!workers.is_array()) continue;
    for (const Json& worker : workers) {
      any = true;
      table.row({{or_dash(text_of(worker, "worker")), Style::kStrong},
                 {count_of(worker, "pid")},
                 {count_of(worker, "generation")},
                 state_cell(worker),
                 {duration(number_of(worker, "uptime"))},
                 {duration(number_of(worker, "cpu"))},
                 {size(number_of(worker, "memory"))},
                 {count_of(worker, "requests")},
                 {count_of(worker, "connections")},
                 {serving_text(worker)},
                 {or_dash(word_of(worker))}});
    }
  }
  if (!any) return;
  terminal.out << "\n";
  table.print(terminal);
}

void print_pools_and_workers(const Terminal& terminal, const Pools& pools) {
  print_pools(terminal, pools);
  for (const auto& [name, pool] : pools) print_notes(terminal, printable(name), *pool);
  print_workers(terminal, pools);
}

std::string event_name(const Json& event, const std::string& pool) {
  const std::string name = text_of(event, "event");
  const auto dot = name.find('.');
  if (dot == std::string::npos) return or_dash(name);
  const std::string kind = name.substr(0, dot);
  const std::string verb = name.substr(dot + 1);
  const bool said = !pool.empty() && (kind == "worker" || kind == "pool" || kind == "manager");
  return said ? verb : kind + " " + verb;
}

std::string pool_outcome(const std::string& name, const Json& pool, std::string_view done) {
  const std::string outcome = text_of(pool, "outcome");
  const std::string generation = count_of(pool, "generation");
  const std::string took = duration(number_of(pool, "took"));
  if (outcome == "reloaded")
    return name + ": " + std::string(done) + " in " + took + ": generation " + generation + ", " +
           counted(pool, "replaced", "worker") + " replaced, " +
           (member(pool, "cut").is_null() ? "requests cut: not known"
                                          : counted(pool, "cut", "request") + " cut");
  std::string words = outcome;
  std::replace(words.begin(), words.end(), '_', ' ');
  std::string result = name + ": " + or_dash(words);
  if (outcome == "removed") return result + " in " + took + ": it is no longer in the file";
  if (outcome == "kept")
    return result + " at generation " + generation +
           ": it is no longer in the file, but a pool that got one of its listeners was rolled "
           "back";
  if (outcome == "rolled_back" && member(pool, "generation").is_null())
    result += " after " + took + ", and taken out again";
  else if (outcome == "rolled_back")
    result += " to generation " + generation + " after " + took;
  const std::string reason = text_of(pool, "reason");
  return reason.empty() ? result : result + ": " + reason;
}

}  // namespace

const Json& member(const Json& object, std::string_view key) {
  static const Json kNull;
  if (!object.is_object()) return kNull;
  const auto found = object.find(key);
  return found == object.end() ? kNull : *found;
}

std::string text_of(const Json& object, std::string_view key) {
  const Json& value = member(object, key);
  return value.is_string() ? printable(value.get_ref<const std::string&>()) : "";
}

std::string count_of(const Json& object, std::string_view key) {
  const Json& value = member(object, key);
  return value.is_number_integer() ? value.dump() : "-";
}

void print_status(const Terminal& terminal, const Json& manager) {
  const std::string state = text_of(manager, "state");
  terminal.out << "ostlerd " << or_dash(text_of(manager, "version")) << " "
               << terminal.paint(state_style(state), or_dash(state)) << ", pid "
               << count_of(manager, "pid") << ", up " << duration(number_of(manager, "uptime"));
  if (const std::string file = text_of(manager, "config"); !file.empty())
    terminal.out << ", " << file;
  terminal.out << "\n";
  if (const std::string error = text_of(member(manager, "last_error"), "message"); !error.empty())
    terminal.out << terminal.paint(Style::kBad, "last error: " + error) << "\n";
  terminal.out << "\n";
  Pools pools;
  const Json& all = member(manager, "pools");
  if (all.is_object())
    for (const auto& [name, pool] : all.items()) pools.emplace_back(name, &pool);
  print_pools_and_workers(terminal, pools);
}

void print_pool(const Terminal& terminal, const std::string& name, const Json& pool) {
  print_pools_and_workers(terminal, {{name, &pool}});
}

std::string event_text(const Json& event) {
  const std::string pool = text_of(event, "pool");
  const std::string slot = count_of(event, "slot");
  std::string result = pool + (pool.empty() || slot == "-" ? "" : "." + slot);
  if (!result.empty()) result += " ";
  result += event_name(event, pool);
  std::vector<std::string> keys = {"pid", "generation"};
  constexpr std::array<std::string_view, 9> kSaid = {
      "time", "event", "pool", "slot", "worker", "pid", "generation", "reason", "output"};
  if (event.is_object())
    for (const auto& [key, value] : event.items())
      if (std::find(kSaid.begin(), kSaid.end(), key) == kSaid.end()) keys.push_back(key);
  if (const auto details = details_of(event, keys); !details.empty())
    result += " (" + details + ")";
  const std::string reason = text_of(event, "reason");
  return reason.empty() ? result : result + ": " + reason;
}

std::string event_line(const Json& event) {
  return or_dash(text_of(event, "time")) + "  " + event_text(event);
}

std::string output_lines(const Json& holder) {
  std::string result;
  const Json& lines = member(holder, "output");
  if (!lines.is_array()) return result;
  for (const Json& line : lines) result += "    " + any_text(line) + "\n";
  return result;
}

std::string fault_text(const Json& fault) {
  std::string result = text_of(fault, "file");
  for (const char* key : {"line", "column"})
    if (const std::string count = count_of(fault, key); count != "-" && count != "0")
      result += (result.empty() ? "" : ":") + count;
  for (const char* key : {"key", "message"})
    if (const std::string text = text_of(fault, key); !text.empty())
      result += (result.empty() ? "" : ": ") + text;
  return or_dash(result);
}

std::string reopen_fault_text(const Json& fault) {
  return or_dash(text_of(fault, "operation")) + " " + or_dash(text_of(fault, "file")) + ": " +
         or_dash(text_of(fault, "reason"));
}

void print_outcome(const Terminal& terminal, const Json& answer, std::string_view done) {
  const Json& pools = member(answer, "pools");
  if (pools.is_object())
    for (const auto& [name, pool] : pools.items()) {
      const std::string outcome = text_of(pool, "outcome");
      const bool well = outcome == "reloaded" || outcome == "removed";
      (well ? terminal.out : terminal.err) << pool_outcome(printable(name), pool, done) << "\n"
                                           << output_lines(pool);
    }
  const Json& errors = member(answer, "errors");
  if (errors.is_array())
    for (const Json& fault : errors) terminal.err << fault_text(fault) << "\n";
}

}  // namespace ostler::ctl
