#include "daemon/arguments.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <map>
#include <memory>

namespace ostler::daemon {
namespace {

constexpr const char* kDescription =
    "ostlerd looks after a stable of worker processes: it opens the listening sockets, starts\n"
    "worker programs, hands them the sockets, and keeps the right number of healthy ones running.";

constexpr const char* kUsage =
    "ostlerd [--config FILE]                        run the pools of a configuration file\n"
    "       ostlerd [--listen ADDRESS]... [--workers N|auto] [OPTIONS] -- COMMAND [ARG]...\n"
    "                                                      run one pool, named `app`, with no "
    "file\n"
    "       ostlerd --check [--config FILE]                say every fault, start nothing\n"
    "       ostlerd --print-config [--config FILE]         print the effective configuration\n"
    "       ostlerd --version | --help";

constexpr const char* kFooter =
    "Signals: TERM drain and exit; INT, QUIT stop at once; HUP reload; USR1 reopen logs;\n"
    "TTIN, TTOU one worker more or fewer in every pool.\n"
    "Exit codes: 0 stopped as asked; 1 unexpected failure; 2 wrong usage or a faulty\n"
    "configuration; 3 a socket could not be opened or the control socket is in use; 4 at first\n"
    "start every pool failed.";

// The usage is four forms, which CLI11 cannot make up by itself.
class UsageFormatter : public CLI::Formatter {
 public:
  std::string make_usage(const CLI::App*, std::string) const override {
    return std::string("Usage: ") + kUsage + "\n";
  }
};

// What follows "--" is the command, and none of ostlerd's business.
std::vector<std::string> take_command(int& argc, char** argv, bool& separated) {
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]) != "--") continue;
    separated = true;
    std::vector<std::string> command(argv + i + 1, argv + argc);
    argc = i;
    return command;
  }
  return {};
}

int usage_error(const std::string& message) {
  std::cerr << "ostlerd: " << message << "\nTry 'ostlerd --help'.\n";
  return 2;
}

// Options that are unknown, or not available yet, join KEYS: the configuration knows which is
// which, and says it. What is left that is no option comes back.
std::vector<std::string> take_options(const std::vector<std::string>& extras,
                                      std::vector<std::pair<std::string, std::string>>& keys) {
  std::vector<std::string> rest;
  bool wants_value = false;
  for (const std::string& extra : extras) {
    const bool option = extra.size() > 2 && extra.starts_with("--");
    if (option) {
      const auto equals = std::min(extra.find('='), extra.size());
      keys.emplace_back(extra.substr(2, equals - 2), "");
      wants_value = equals == extra.size();
    } else {
      if (!wants_value || extra.starts_with('-')) rest.push_back(extra);
      wants_value = false;
    }
  }
  return rest;
}

// "KEY=VALUE" as given to --set; empty key: not of that form.
config::Override override_of(const std::string& text) {
  const auto equals = text.find('=');
  if (equals == std::string::npos) return {};
  return {text.substr(0, equals), text.substr(equals + 1)};
}

}  // namespace

Parsed parse_arguments(int argc, char** argv) {
  Arguments arguments;
  bool separated = false;
  arguments.command = take_command(argc, argv, separated);

  CLI::App app{kDescription, "ostlerd"};
  app.formatter(std::make_shared<UsageFormatter>());
  app.footer(kFooter);
  app.set_version_flag("--version", std::string("ostlerd ") + OSTLER_VERSION);
  auto* config = app.add_option("--config,-c", arguments.config, "The configuration file")
                     ->type_name("FILE")
                     ->capture_default_str();
  bool check = false;
  bool print = false;
  app.add_flag("--check", check, "Read the configuration, say every fault, start nothing");
  app.add_flag("--print-config", print, "Print the effective configuration, defaults filled in");
  std::vector<std::string> sets;
  app.add_option("--set", sets, "Override one value of the file; may be repeated")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  app.add_option("--trace", arguments.trace, "Record every decision in a file, for bug reports")
      ->type_name("FILE");
  std::map<std::string, std::vector<std::string>> values;
  for (const config::AdHocOption& option : config::ad_hoc_options()) {
    const bool repeatable =
        option.name == "listen" || option.name == "env" || option.name == "warmup";
    app.add_option("--" + option.name, values[option.name], option.help)
        ->type_name("VALUE")
        ->group("One pool without a file")
        ->expected(1, repeatable ? 1 << 20 : 1)
        ->allow_extra_args(false);
  }
  app.allow_extras(separated);
  try {
    app.parse(argc, argv);
    auto rest = take_options(app.remaining(), arguments.keys);
    if (!rest.empty()) throw CLI::ExtrasError(std::move(rest));
  } catch (const CLI::Success& success) {
    return {std::nullopt, app.exit(success)};
  } catch (const CLI::ParseError& error) {
    return {std::nullopt, usage_error(error.what())};
  }

  for (const std::string& set : sets) {
    arguments.overrides.push_back(override_of(set));
    if (arguments.overrides.back().key.empty()) {
      return {std::nullopt, usage_error("--set " + set + ": expected KEY=VALUE")};
    }
  }
  if (check && print) {
    return {std::nullopt, usage_error("--check and --print-config exclude each other")};
  }
  arguments.mode = check ? Mode::kCheck : print ? Mode::kPrintConfig : Mode::kRun;
  for (const config::AdHocOption& option : config::ad_hoc_options()) {
    for (const std::string& value : values[option.name]) {
      arguments.keys.emplace_back(option.name, value);
    }
  }
  arguments.ad_hoc = separated;
  if (separated && config->count() > 0) {
    return {std::nullopt, usage_error("--config and a command after -- exclude each other")};
  }
  if (separated && arguments.command.empty()) {
    return {std::nullopt, usage_error("no command after --")};
  }
  if (!separated) {
    // Beside a file only the place of the control socket is taken from the command line.
    for (const auto& [key, value] : arguments.keys) {
      if (key != "socket") {
        return {std::nullopt, usage_error("--" + key +
                                          " needs a command after --; for a value of "
                                          "the file, say --set KEY=VALUE")};
      }
      arguments.overrides.push_back({"control.socket", value});
    }
  }
  return {arguments, 0};
}

}  // namespace ostler::daemon
