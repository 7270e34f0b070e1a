#include "ctl/commands.hpp"

#include <unistd.h>

#include <exception>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "ctl/config_check.hpp"
#include "ctl/config_init.hpp"
#include "ctl/failed.hpp"
#include "ctl/render.hpp"
#include "ctl/session.hpp"

namespace ostler::ctl {
namespace {

Json parse_json(std::string_view text) {
  return Json::parse(text, nullptr, false);
}

ExitCode code_of(unsigned status) {
  return status == 404 ? kNotFound : status == 403 ? kNotPermitted : kNotDone;
}

// A problem document as sentences; its extra members say which worker failed and why.
std::string problem_text(unsigned status, const Json& problem) {
  std::string result = text_of(problem, "title");
  if (result.empty()) result = "the manager answered with HTTP status " + std::to_string(status);
  if (const auto detail = text_of(problem, "detail"); !detail.empty()) result += ": " + detail;
  const std::string reason = text_of(problem, "reason");
  if (!reason.empty() && result.find(reason) == std::string::npos) result += ": " + reason;
  if (const std::string output = output_lines(problem); !output.empty())
    result += "\n" + output.substr(0, output.size() - 1);
  return result;
}

std::string with_newline(std::string_view text) {
  return std::string(text) + (text.empty() || text.back() != '\n' ? "\n" : "");
}

// What a worker action is called while it goes on, in a sentence and in the API.
struct ActionWords {
  const char* target;
  const char* doing;
  const char* goes_on;
};

ActionWords words_of(WorkerAction action) {
  switch (action) {
    case WorkerAction::kRecycle:
      return {"recycle", "while it replaced the worker", "the worker is still being replaced"};
    case WorkerAction::kDrain:
      return {"stop", "while it drained the worker", "the worker goes on draining"};
    case WorkerAction::kKill:
      break;
  }
  return {"kill", "while it killed the worker", "the worker is still being killed"};
}

class Runner {
 public:
  Runner(const Options& options, const Terminal& terminal)
      : options_(options), terminal_(terminal), session_(options.socket, options.patience) {}

  // What to say if Ctrl-C ends the wait.
  [[nodiscard]] const std::string& goes_on() const { return goes_on_; }

  int operator()(const Status& command) {
    if (!command.pool.empty()) {
      const Json pool = ask({"GET", "/v1/pools/" + command.pool, ""});
      if (!options_.json) print_pool(terminal_, command.pool, pool);
      return kDone;
    }
    const Json manager = ask({"GET", "/v1/status", ""});
    require_pools(manager);
    if (!options_.json) print_status(terminal_, manager);
    return kDone;
  }

  int operator()(const Roll& command) {
    const std::string word = command.restart ? "restart" : "reload";
    Request request{"POST", "/v1/" + word, ""};
    if (!command.pool.empty()) request.target = "/v1/pools/" + command.pool + "/" + word;
    if (!command.wait) request.target += "?wait=false";
    if (command.wait) wait_interruptibly("the " + word + " goes on in the manager");
    if (command.wait && !options_.json) watch_roll(command.pool);
    const Response response =
        session_.wait(request, command.restart ? "while it restarted" : "while it reloaded");
    const Json answer = parse_json(response.body);
    const std::string outcome = text_of(answer, "outcome");
    if (outcome.empty()) accept(response);
    if (response.status == 202) {
      if (options_.json) terminal_.out << with_newline(response.body);
      say("the " + word + " has begun");
      return kDone;
    }
    if (options_.json) {
      terminal_.out << with_newline(response.body);
    } else {
      print_outcome(terminal_, answer, command.restart ? "restarted" : "reloaded");
    }
    if (outcome == "reloaded") return kDone;
    if (outcome == "rolled_back") throw Failed(kNotDone, "the " + word + " was rolled back");
    if (outcome == "rejected")
      throw Failed(kNotDone, "the " + word + " was rejected; nothing was changed");
    throw Failed(kNotDone, problem_text(response.status, answer));
  }

  int operator()(const Scale& command) {
    const bool absolute = command.workers.find_first_not_of("0123456789") == std::string::npos;
    Json body;
    if (absolute) {
      body["workers"] = std::stoi(command.workers);
    } else {
      body["workers"] = command.workers;
    }
    const Json pool = ask({"POST", "/v1/pools/" + command.pool + "/scale", body.dump()});
    say(command.pool + ": target " + count_of(pool, "target") + ", ready " +
        count_of(pool, "ready"));
    return kDone;
  }

  int operator()(const ForWorker& command) {
    const std::string pid = pid_of(command.worker);
    const ActionWords words = words_of(command.action);
    wait_interruptibly(words.goes_on);
    const Json answer =
        accept(session_.wait({"POST", "/v1/workers/" + pid + "/" + words.target, ""}, words.doing));
    const std::string worker = text_of(answer, "worker");
    std::string line = (worker.empty() ? command.worker : worker) + ": " +
                       text_of(answer, "outcome") + ", pid " + pid;
    if (command.action == WorkerAction::kRecycle) line += " replaced by " + count_of(answer, "pid");
    say(line);
    return kDone;
  }

  int operator()(const Stop& command) {
    wait_interruptibly("the manager goes on stopping");
    watch("", "");
    ask({"POST", "/v1/stop", Json{{"now", command.now}}.dump()});
    session_.until_gone();
    say("stopped");
    return kDone;
  }

  int operator()(const Events& command) {
    const auto tell = [this](std::string_view line) {
      const Json event = parse_json(line);
      if (!event.is_object()) throw not_json();
      if (options_.json) {
        terminal_.out << line << "\n" << std::flush;
      } else {
        terminal_.out << event_line(event) << "\n" << output_lines(event) << std::flush;
      }
      if (!terminal_.out) throw Failed(kNotDone, "cannot write to standard output");
    };
    const std::string target = command.follow ? "/v1/events" : "/v1/events?follow=false";
    const Response response = session_.follow(target, command.follow, tell);
    if (response.status != 200) accept(response);
    return kDone;
  }

  int operator()(const ConfigCheck& command) {
    return check_config(command.file, options_.json, terminal_);
  }

  int operator()(const ConfigInit& command) { return init_config(command.file, terminal_); }

  int operator()(const ConfigShow&) {
    const Response response = session_.ask({"GET", "/v1/config", ""});
    refuse_problem(response);
    terminal_.out << with_newline(response.body);
    return kDone;
  }

  int operator()(const Reopen&) {
    const Response response = session_.ask({"POST", "/v1/reopen", ""});
    const Json said = parse_json(response.body);
    const Json& errors = member(said, "errors");
    if (errors.is_array() && errors.size() > 1 && !options_.json) {
      for (const Json& error : errors) terminal_.err << reopen_fault_text(error) << "\n";
    }
    const Json answer = accept(response);
    say("files reopened: " + count_of(answer, "reopened"));
    return kDone;
  }

  int operator()(const Version&) {
    std::string manager;
    std::string line;
    try {
      const Response response = session_.ask({"GET", "/v1/status", ""});
      const Json status = parse_json(response.body);
      manager = text_of(status, "version");
      line = manager.empty() ? not_json().what()
                             : "ostlerd " + manager + ", pid " + count_of(status, "pid");
    } catch (const Failed& failed) {
      line = failed.what();
    }
    if (options_.json) {
      Json answer = {{"ostlerctl", OSTLER_VERSION}, {"ostlerd", nullptr}};
      if (!manager.empty()) answer["ostlerd"] = manager;
      terminal_.out << answer << "\n";
    } else {
      terminal_.out << "ostlerctl " << OSTLER_VERSION << "\n" << line << "\n";
    }
    return kDone;
  }

 private:
  void say(const std::string& line) {
    if (!options_.json) terminal_.out << line << "\n" << std::flush;
  }

  [[nodiscard]] Failed not_json() const {
    return {kNotDone,
            "the answer from " + printable(options_.socket) + " is not the control API's JSON"};
  }

  void refuse_problem(const Response& response) {
    if (response.status >= 200 && response.status < 300) return;
    const Json problem = parse_json(response.body);
    if (options_.json && problem.is_object()) terminal_.out << with_newline(response.body);
    throw Failed(code_of(response.status), problem_text(response.status, problem));
  }

  // An answer that says yes; printed as it is with --json.
  Json accept(const Response& response) {
    refuse_problem(response);
    Json answer = parse_json(response.body);
    if (!answer.is_object()) throw not_json();
    if (options_.json) terminal_.out << with_newline(response.body) << std::flush;
    return answer;
  }

  Json ask(const Request& request) { return accept(session_.ask(request)); }

  void require_pools(const Json& manager) const {
    if (!member(manager, "pools").is_object()) throw not_json();
  }

  void wait_interruptibly(const std::string& goes_on) {
    goes_on_ = goes_on;
    session_.catch_interrupt();
  }

  // Tells what workers do, of one pool or of all; and that the reload has to wait.
  void watch_roll(const std::string& pool) {
    session_.watch([this, pool](std::string_view line) {
      const Json event = parse_json(line);
      const std::string name = text_of(event, "event");
      if (name == "reload.queued" && count_of(event, "pid") == std::to_string(::getpid())) {
        return say("waiting for " + text_of(event, "waits_for"));
      }
      if (name.rfind("worker.", 0) != 0) return;
      if (pool.empty() || text_of(event, "pool") == pool) say(event_text(event));
    });
  }

  // Tells the events whose name begins so, of one pool or of all.
  void watch(const std::string& kind, const std::string& pool) {
    session_.watch([this, kind, pool](std::string_view line) {
      const Json event = parse_json(line);
      if (text_of(event, "event").rfind(kind, 0) != 0) return;
      if (!pool.empty() && text_of(event, "pool") != pool) return;
      say(event_text(event));
    });
  }

  // "4243" is taken as it is; "web.0" is looked up.
  std::string pid_of(const std::string& worker) {
    const auto dot = worker.find('.');
    if (dot == std::string::npos) return std::to_string(std::stoll(worker));
    const std::string pool = worker.substr(0, dot);
    const Response response = session_.ask({"GET", "/v1/status", ""});
    refuse_problem(response);
    const Json manager = parse_json(response.body);
    require_pools(manager);
    const Json& pools = member(manager, "pools");
    if (!pools.contains(pool)) throw Failed(kNotFound, "no such pool: " + pool);
    return pick(worker, std::stoi(worker.substr(dot + 1)), member(pools[pool], "workers"));
  }

  static std::string pick(const std::string& name, int slot, const Json& workers) {
    std::vector<std::string> all;
    std::vector<std::string> ready;
    std::string told;
    for (const Json& worker : workers) {
      const Json& place = member(worker, "slot");
      const std::string pid = count_of(worker, "pid");
      if (!place.is_number_integer() || place != slot || pid == "-") continue;
      const std::string state = text_of(worker, "state");
      all.push_back(pid);
      if (state == "ready") ready.push_back(pid);
      told.append(told.empty() ? "pid " : ", pid ").append(pid).append(" (" + state + ")");
    }
    if (all.empty()) throw Failed(kNotFound, "no such worker: " + name);
    if (all.size() == 1) return all.front();
    if (ready.size() == 1) return ready.front();
    throw Failed(kNotDone, name + " is " + std::to_string(all.size()) + " workers just now, " +
                               told + ": name one by its process id");
  }

  const Options& options_;
  const Terminal& terminal_;
  Session session_;
  std::string goes_on_;
};

}  // namespace

int run(const Options& options, const Terminal& terminal) {
  Runner runner(options, terminal);
  try {
    return std::visit(runner, options.command);
  } catch (const Failed& failed) {
    terminal.out << std::flush;
    terminal.err << "ostlerctl: " << failed.what() << "\n";
    return failed.code();
  } catch (const Interrupted&) {
    terminal.out << std::flush;
    terminal.err << "ostlerctl: interrupted; " << runner.goes_on() << "\n";
    return kInterrupted;
  }
}

}  // namespace ostler::ctl
