// From a request line and a body to a command: which endpoints there are, and what each asks for.
//
// Pure and total: any bytes give a Command or a Problem. What is not in the table is refused, and
// each entry of the table names the role that a peer needs for it.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "control/messages.hpp"
#include "core/event.hpp"

namespace ostler::control {

struct GetStatus {};
struct GetPool {
  std::string name;
};
struct GetConfig {};
struct Events {
  bool follow = true;
  std::string pool = {};  // "": of all pools
};
struct Reload {
  std::string pool = {};  // "": all
  bool wait = true;
};
struct Restart {
  std::string pool = {};  // "": all
  bool wait = true;
};
enum class ScaleKind { kSet, kAdd, kAutomatic, kReset };
struct Scale {
  std::string pool;
  ScaleKind kind = ScaleKind::kSet;
  int value = 0;  // kSet: 0 to 10000; kAdd: -10000 to 10000
};
struct WorkerCommand {
  int pid = 0;  // > 0
  core::WorkerRequest request = core::WorkerRequest::kRecycle;
};
struct Stop {
  bool now = false;
};
struct Reopen {};
struct Livez {};
struct Readyz {};

using Command = std::variant<GetStatus, GetPool, GetConfig, Events, Reload, Restart, Scale,
                             WorkerCommand, Stop, Reopen, Livez, Readyz>;

// `target` as in the request line: origin-form or absolute-form. HEAD is answered as GET.
std::variant<Command, Problem> route(std::string_view method, std::string_view target,
                                     std::string_view body);

// kView asks; kOperate changes something.
enum class Role { kView, kOperate };
Role role_of(const Command& command);

// For the log: "scale web to 8". Only words of ours and validated names.
std::string describe(const Command& command);

// The table, for those who check or print it.
struct Endpoint {
  std::string_view method;
  std::string_view path;  // "/v1/pools/{pool}/scale"
  Role role;
};
std::vector<Endpoint> endpoints();

}  // namespace ostler::control
