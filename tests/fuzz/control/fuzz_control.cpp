// Requests as they come out of the HTTP parser: "METHOD TARGET\n" and the body. Whatever they are,
// there is an answer, it is valid JSON, and a command holds only values that the manager can trust.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>
#include <variant>

#include "control/codec.hpp"
#include "control/problems.hpp"
#include "control/routes.hpp"

using namespace ostler::control;

namespace {

void must(bool holds) {
  if (!holds) std::abort();
}

bool is_pool(std::string_view name) {
  return !name.empty() && name.size() <= 63 && name[0] >= 'a' && name[0] <= 'z' &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_-") == std::string_view::npos;
}

void check(const Problem& problem) {
  must(problem.status >= 400 && problem.status <= 599);
  must(!problem.detail.empty() && problem.detail.size() < 2000);
  must((problem.status == 405) == !problem.allow.empty());
  must(nlohmann::json::parse(to_json(problem))["status"] == problem.status);
}

void check(const ScaleBody& scale) {
  must(scale.value >= -10000 && scale.value <= 10000);
  must(scale.kind == ScaleKind::kAdd || scale.value >= 0);
}

struct CheckCommand {
  void operator()(const GetPool& get) const { must(is_pool(get.name)); }
  void operator()(const Events& events) const { pool_or_all(events.pool); }
  void operator()(const Reload& reload) const { pool_or_all(reload.pool); }
  void operator()(const Restart& restart) const { pool_or_all(restart.pool); }
  void operator()(const Scale& scale) const {
    must(is_pool(scale.pool));
    check(ScaleBody{scale.kind, scale.value});
  }
  void operator()(const WorkerCommand& worker) const { must(worker.pid > 0); }
  template <class Other>
  void operator()(const Other&) const {}
  static void pool_or_all(std::string_view pool) { must(pool.empty() || is_pool(pool)); }
};

template <class T>
void check_body(const std::variant<T, Problem>& parsed) {
  if (const auto* problem = std::get_if<Problem>(&parsed)) check(*problem);
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): the name libFuzzer calls
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::string_view line = input.substr(0, input.find('\n'));
  const std::string_view body = input.substr(std::min(line.size() + 1, input.size()));
  const std::size_t space = std::min(line.find(' '), line.size());
  const std::string_view target = line.substr(std::min(space + 1, line.size()));

  const auto routed = route(line.substr(0, space), target, body);
  if (const auto* command = std::get_if<Command>(&routed)) {
    std::visit(CheckCommand{}, *command);
    must(!describe(*command).empty());
    must(role_of(*command) == Role::kView || line.starts_with("POST "));
  } else {
    check(std::get<Problem>(routed));
  }

  const auto scale = parse_scale(input);
  check_body(scale);
  if (const auto* value = std::get_if<ScaleBody>(&scale)) check(*value);
  check_body(parse_stop(input));
  check_body(parse_nothing(input));

  // Text of a worker's in an event: one line of JSON, whatever it is.
  EventView event;
  event.event = "worker.failed";
  event.members = {{"output", Lines{std::string(input)}}};
  const std::string json = to_json(event);
  must(json.find('\n') == std::string::npos);
  must(nlohmann::json::parse(json)["output"].size() == 1);
  return 0;
}
