// ostlerd: read the flags and the configuration, open the control socket, run, say how it ended.
#include <malloc.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <exception>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>

#include "config/src/host.hpp"
#include "config/src/load.hpp"
#include "control/socket_path.hpp"
#include "daemon/arguments.hpp"
#include "daemon/process.hpp"
#include "runtime/control_socket.hpp"
#include "runtime/listeners.hpp"
#include "runtime/log.hpp"
#include "runtime/memory_reserve.hpp"
#include "runtime/runtime.hpp"
#include "runtime/watcher.hpp"

namespace ostler::daemon {
namespace {

constexpr int kUnexpected = 1;
constexpr int kFaulty = 2;
constexpr int kNoSocket = 3;

config::Loaded load(const Arguments& arguments, const std::string& folder, bool running) {
  config::LoadOptions options;
  options.folder = folder;
  options.running = running;
  options.runtime_folder = control::runtime_directory();
  options.overrides = arguments.overrides;
  options.trusted_file_only = ::geteuid() == 0;
  return arguments.ad_hoc ? config::load_ad_hoc(arguments.keys, arguments.command, options)
                          : config::load(arguments.config, options);
}

int report_faults(const config::Loaded& loaded) {
  for (const config::Fault& fault : loaded.faults) std::cerr << fault.text() << "\n";
  const auto count = loaded.faults.size();
  std::cerr << "ostlerd: " << count << (count == 1 ? " fault" : " faults")
            << " in the configuration\n";
  return kFaulty;
}

runtime::ControlSocketOptions control_options(const config::Control& control) {
  runtime::ControlSocketOptions options;
  options.default_directory = !control.socket;
  options.path = control.socket ? *control.socket : control::default_control_socket();
  options.mode = static_cast<mode_t>(control.mode.value_or(::geteuid() == 0 ? 0660 : 0600));
  if (control.group) {
    options.group = config::find_group(*control.group);
    if (!options.group) throw std::runtime_error("control.group: no group " + *control.group);
  }
  return options;
}

// What becomes of the watcher is told when there is a log.
struct Watched {
  std::shared_ptr<runtime::Watcher> watcher = std::make_shared<runtime::Watcher>();
  int error = 0;
};

int run(const Arguments& arguments, const std::string& folder, const config::Loaded& loaded,
        Inheritance inheritance, const Watched& watched) {
  runtime::RuntimeOptions options;
  options.load = [arguments, folder] { return load(arguments, folder, true); };
  const std::string unused = sockets_of_another();
  options.inherited = runtime::take_inherited_sockets();
  options.environment = std::move(inheritance.environment);
  options.open_files = inheritance.open_files;
  options.umask = inheritance.umask;
  options.trace = arguments.trace;
  options.watcher = watched.watcher;
  auto opened = runtime::open_control_socket(control_options(loaded.config.control));
  if (!opened.socket) {
    std::cerr << "ostlerd: " << opened.error << "\n";
    return kNoSocket;
  }
  runtime::open_log(loaded.config.log);
  spdlog::info("ostlerd {} (pid {}), control socket {}", OSTLER_VERSION, ::getpid(),
               opened.socket->path());
  if (!unused.empty()) spdlog::warn("{}", runtime::printable(unused));
  for (const std::string& warning : loaded.warnings) spdlog::warn("{}", warning);
  boost::asio::io_context context{1};  // outlives the log thread, which posts to it
  if (watched.error != 0) {
    spdlog::error(
        "start the watcher: {}; if this manager is killed, what its workers have started "
        "lives on",
        std::generic_category().message(watched.error));
  }
  runtime::keep_memory_reserve();
  int code = kUnexpected;
  std::string why;
  try {
    runtime::Runtime manager(context, loaded.config, std::move(*opened.socket), std::move(options));
    ::malloc_trim(0);  // what reading the configuration took is not needed again soon
    code = manager.run();
    why = manager.exit_text();
    watched.watcher->over();
  } catch (const std::exception& error) {
    why = std::string("unexpected failure: ") + error.what();
  }
  if (code == 0) {
    spdlog::info("exit code 0");
  } else {
    spdlog::error("{} (exit code {})", why, code);
  }
  if (!runtime::close_log()) ::_exit(code);
  return code;
}

int main(int argc, char** argv) {
  const Parsed parsed = parse_arguments(argc, argv);
  if (!parsed.arguments) return parsed.exit_code;
  const Arguments& arguments = *parsed.arguments;
  Inheritance inheritance = prepare_process();
  Watched watched;
  if (arguments.mode == Mode::kRun) watched.error = watched.watcher->start(argc, argv);
  take_orphans();
  // Once: a link in $PWD that is switched later is followed by a reload.
  const std::string folder = config::working_folder();
  const config::Loaded loaded = load(arguments, folder, false);
  if (!loaded.ok()) return report_faults(loaded);
  switch (arguments.mode) {
    case Mode::kCheck:
      for (const std::string& warning : loaded.warnings) {
        std::cerr << "ostlerd: warning: " << warning << "\n";
      }
      std::cout << (arguments.ad_hoc ? "the command line" : arguments.config) << " is good\n";
      return 0;
    case Mode::kPrintConfig:
      std::cout << config::print(loaded.config);
      return 0;
    case Mode::kRun:
      break;
  }
  return run(arguments, folder, loaded, std::move(inheritance), watched);
}

}  // namespace
}  // namespace ostler::daemon

// NOLINTNEXTLINE(bugprone-exception-escape): what escapes is caught below
int main(int argc, char** argv) {
  try {
    return ostler::daemon::main(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "ostlerd: " << error.what() << "\n";
    return ostler::daemon::kUnexpected;
  }
}
