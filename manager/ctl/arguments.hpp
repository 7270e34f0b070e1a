// The command line of ostlerctl, from words to a value. Knows no manager and opens nothing.
#pragma once

#include <chrono>
#include <string>
#include <variant>
#include <vector>

#include "ctl/limits.hpp"

namespace ostler::ctl {

struct Status {
  std::string pool;  // "": all
};
struct Roll {
  bool restart = false;  // a reload otherwise
  std::string pool;      // "": all
  bool wait = true;
};
struct Scale {
  std::string pool;
  std::string workers;  // "8", "+2", "-1", "auto", "reset"
};
enum class WorkerAction { kRecycle, kDrain, kKill };
struct ForWorker {
  WorkerAction action = WorkerAction::kRecycle;
  std::string worker;  // "web.0" or "4243"
};
struct Stop {
  bool now = false;
};
struct Events {
  bool follow = false;
};
struct ConfigCheck {
  std::string file;
};
struct ConfigShow {};
struct ConfigInit {
  std::string file;  // "": standard output
};
struct Reopen {};
struct Version {};
using Command = std::variant<Status, Roll, Scale, ForWorker, Stop, Events, ConfigCheck, ConfigShow,
                             ConfigInit, Reopen, Version>;

struct Options {
  std::string socket;  // never empty
  bool json = false;
  std::chrono::milliseconds patience = limits::kPatience;  // no option: for tests
  Command command;
};

// What to say instead of doing anything: help, or what is wrong with the words.
struct Answer {
  int exit_code = 0;
  std::string out;
  std::string err;
};

// `words` without the program's name. Reads $OSTLER_SOCKET.
std::variant<Options, Answer> parse(std::vector<std::string> words);

}  // namespace ostler::ctl
