#include "ctl/arguments.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <functional>
#include <utility>

#include "control/socket_path.hpp"
#include "ctl/failed.hpp"
#include "ctl/text.hpp"

namespace ostler::ctl {
namespace {

constexpr const char* kFooter =
    "Exit status: 0 done; 1 it was tried and failed, as a reload that was rolled back or\n"
    "rejected; 2 wrong usage; 3 no manager answers at the socket; 4 no such pool or worker;\n"
    "5 not permitted. A wait that Ctrl-C ended: 130; what was asked goes on in the manager.";

constexpr const char* kCommonFooter =
    "--socket PATH and --json may stand here too; see 'ostlerctl --help'.";

bool digits(const std::string& text, std::size_t most) {
  return !text.empty() && text.size() <= most &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

bool pool_name(const std::string& text) {
  return !text.empty() && text.size() <= 63 && text[0] >= 'a' && text[0] <= 'z' &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
         });
}

// What is wrong, or "" (as CLI11 has it).
std::string check_pool(const std::string& text) {
  return pool_name(text) ? "" : "'" + printable(text) + "' is not the name of a pool";
}

std::string check_workers(const std::string& text) {
  const bool relative = !text.empty() && (text[0] == '+' || text[0] == '-');
  if (text == "auto" || text == "reset" || digits(text.substr(relative ? 1 : 0), 5)) return "";
  return "'" + printable(text) + "' is not a number of workers, +N, -N, auto or reset";
}

std::string check_worker(const std::string& text) {
  const auto dot = text.find('.');
  if (dot != std::string::npos && pool_name(text.substr(0, dot)) && digits(text.substr(dot + 1), 5))
    return "";
  if (digits(text, 10) && text.find_first_not_of('0') != std::string::npos) return "";
  return "'" + printable(text) + "' is not a worker, as web.0, nor a process id";
}

// Builds the command line; `options` is filled in while CLI11 parses.
class Grammar {
 public:
  explicit Grammar(Options& options) : options_(options) {
    app_.footer(kFooter);
    app_.require_subcommand(1);
    app_.set_version_flag("--version", "ostlerctl " OSTLER_VERSION, "print the version");
    app_.set_help_flag("-h,--help", "print this help");
    app_.add_option("--socket", options_.socket,
                    "the manager's control socket (default: $OSTLER_SOCKET, else " +
                        control::default_control_socket() + ")")
        ->type_name("PATH");
    app_.add_flag("--json", options_.json, "print what the control API answers, as it is");
    const auto formatter = app_.get_formatter();
    formatter->label("REQUIRED", "");
    formatter->label("SUBCOMMAND", "COMMAND");
    formatter->label("Positionals", "Arguments");
    formatter->column_width(20);
    pools();
    workers();
    manager();
    config();
    for (const char* name : {"why", "plan", "top"}) later(app_, name);
  }

  CLI::App& app() { return app_; }

 private:
  CLI::App& command(CLI::App& parent, const char* name, const char* description,
                    const std::function<Command()>& result) {
    CLI::App& sub = *parent.add_subcommand(name, description);
    sub.fallthrough();
    sub.group("Commands");
    sub.footer(kCommonFooter);
    if (result) sub.final_callback([this, result] { options_.command = result(); });
    return sub;
  }

  CLI::Option& pool(CLI::App& sub, const char* description) {
    return *sub.add_option("POOL", pool_, description)->type_name("")->check(check_pool);
  }

  // Refused by name, and not in --help.
  static void later(CLI::App& parent, const std::string& name) {
    CLI::App& sub = *parent.add_subcommand(name, "")->group("");
    sub.allow_extras();
    sub.set_help_flag();
    sub.preparse_callback([name](std::size_t) {
      throw CLI::ParseError("'" + name + "' is not available in this version", kUsage);
    });
  }

  void pools() {
    pool(command(app_, "status", "a table of pools and workers", [this] { return Status{pool_}; }),
         "only this pool");
    CLI::App& reload = command(
        app_, "reload", "read the configuration again and replace the workers; waits", [this] {
          return Roll{false, pool_, !no_wait_};
        });
    pool(reload, "only this pool");
    reload.add_flag("--no-wait", no_wait_, "do not wait for the outcome");
    pool(command(app_, "restart", "replace the workers without reading the configuration; waits",
                 [this] {
                   return Roll{true, pool_, true};
                 }),
         "only this pool");
    CLI::App& scale = command(app_, "scale", "change how many workers a pool should have", [this] {
      return Scale{pool_, workers_};
    });
    pool(scale, "the pool").required();
    scale
        .add_option("WORKERS", workers_,
                    "N; +N or -N: so many more or fewer; auto: by the number of CPUs; reset: as "
                    "configured")
        ->type_name("")
        ->required()
        ->check(check_workers);
  }

  void workers() {
    worker("recycle", "replace one worker, its successor ready first", WorkerAction::kRecycle);
    worker("drain", "stop one worker when it has finished what is in flight; another is started",
           WorkerAction::kDrain);
    worker("kill", "SIGKILL one worker; another is started", WorkerAction::kKill);
  }

  void worker(const char* name, const char* description, WorkerAction action) {
    command(app_, name, description,
            [this, action] {
              return ForWorker{action, worker_};
            })
        .add_option("WORKER", worker_,
                    "a process id, or POOL.SLOT as web.0: of two in that slot, the one that is "
                    "ready")
        ->type_name("")
        ->required()
        ->check(check_worker);
  }

  void manager() {
    command(app_, "stop", "stop the manager when all workers have drained; waits until it is gone",
            [this] { return Stop{now_}; })
        .add_flag("--now", now_, "kill the workers");
    command(app_, "events", "what happened of late", [this] {
      return Events{follow_};
    }).add_flag("--follow", follow_, "what happens from now on, as it happens, until Ctrl-C");
    command(app_, "reopen", "open the manager's log files anew", [] { return Reopen{}; });
    command(app_, "version", "the versions of ostlerctl and of the manager, if there is one",
            [] { return Version{}; });
  }

  void config() {
    CLI::App& config = command(app_, "config", "look at configurations", nullptr);
    config.require_subcommand(1);
    command(config, "check", "read a configuration file and say every fault; needs no manager",
            [this] { return ConfigCheck{file_}; })
        .add_option("FILE", file_, "the file")
        ->type_name("")
        ->required();
    command(config, "show", "the manager's effective configuration, the values of env left out",
            [] { return ConfigShow{}; });
    command(config, "init", "write a commented configuration to start from; needs no manager",
            [this] { return ConfigInit{file_}; })
        .add_option("FILE", file_,
                    "the file, which must not be there yet (default: standard output)")
        ->type_name("");
  }

  Options& options_;
  CLI::App app_{"Steers ostlerd, the process manager, over its control socket.", "ostlerctl"};
  std::string pool_;
  std::string workers_;
  std::string worker_;
  std::string file_;
  bool follow_ = false;
  bool no_wait_ = false;
  bool now_ = false;
};

// The command that the words are about.
const CLI::App& chosen(const CLI::App& app) {
  const auto commands = app.get_subcommands();
  return commands.empty() || commands.front()->get_group().empty() ? app
                                                                   : chosen(*commands.front());
}

std::string path_of(const CLI::App& app) {
  return app.get_parent() == nullptr ? app.get_name()
                                     : path_of(*app.get_parent()) + " " + app.get_name();
}

// CLI11 speaks of subcommands, and does not say which one it does not know.
std::string sentence(const CLI::App& app, const CLI::App& about, const CLI::ParseError& error) {
  const bool needs_command = about.get_require_subcommand_min() > 0;
  if (!needs_command || error.get_name() != "RequiredError") return error.what();
  const auto unknown = app.remaining(true);
  if (unknown.empty()) return "a command is missing";
  const char* kind = unknown.front()[0] == '-' ? "option" : "command";
  return std::string("there is no ") + kind + " '" + unknown.front() + "'";
}

}  // namespace

std::variant<Options, Answer> parse(std::vector<std::string> words) {
  Options options;
  Grammar grammar(options);
  std::reverse(words.begin(), words.end());
  try {
    grammar.app().parse(std::move(words));
  } catch (const CLI::CallForHelp&) {
    return Answer{kDone, grammar.app().help(), ""};
  } catch (const CLI::CallForVersion& version) {
    return Answer{kDone, version.what() + std::string("\n"), ""};
  } catch (const CLI::ParseError& error) {
    const CLI::App& about = chosen(grammar.app());
    return Answer{kUsage, "",
                  "ostlerctl: " + printable(sentence(grammar.app(), about, error)) + "\nSee '" +
                      path_of(about) + " --help'.\n"};
  }
  if (options.socket.empty()) {
    const char* variable = std::getenv("OSTLER_SOCKET");
    options.socket = variable != nullptr ? variable : "";
  }
  if (options.socket.empty()) options.socket = control::default_control_socket();
  return options;
}

}  // namespace ostler::ctl
