#include "ctl/arguments.hpp"

#include <doctest/doctest.h>

#include <cstdlib>

#include "control/socket_path.hpp"

namespace ostler::ctl {
namespace {

template <class T>
T command(std::vector<std::string> words) {
  const auto parsed = parse(std::move(words));
  REQUIRE(std::holds_alternative<Options>(parsed));
  const Command& said = std::get<Options>(parsed).command;
  REQUIRE(std::holds_alternative<T>(said));
  return std::get<T>(said);
}

Answer refused(std::vector<std::string> words) {
  const auto parsed = parse(std::move(words));
  REQUIRE(std::holds_alternative<Answer>(parsed));
  return std::get<Answer>(parsed);
}

void check_usage(std::vector<std::string> words, const std::string& err) {
  const Answer answer = refused(std::move(words));
  CHECK(answer.exit_code == 2);
  CHECK(answer.out.empty());
  CHECK(answer.err == err);
}

}  // namespace

TEST_CASE("every command and its arguments") {
  CHECK(command<Status>({"status"}).pool.empty());
  CHECK(command<Status>({"status", "web"}).pool == "web");
  CHECK(command<Status>({"status", "stop"}).pool == "stop");  // a pool's name, not a command
  CHECK(command<Roll>({"reload"}).wait);
  CHECK_FALSE(command<Roll>({"reload"}).restart);
  CHECK_FALSE(command<Roll>({"reload", "--no-wait", "web"}).wait);
  CHECK(command<Roll>({"reload", "--no-wait", "web"}).pool == "web");
  CHECK(command<Roll>({"restart"}).restart);
  CHECK(command<Roll>({"restart", "a-b_1"}).pool == "a-b_1");
  for (const char* workers : {"8", "0", "10000", "+2", "-2", "auto", "reset"})
    CHECK(command<Scale>({"scale", "web", workers}).workers == workers);
  CHECK(command<ForWorker>({"recycle", "web.0"}).action == WorkerAction::kRecycle);
  CHECK(command<ForWorker>({"drain", "web.12"}).action == WorkerAction::kDrain);
  CHECK(command<ForWorker>({"kill", "4243"}).action == WorkerAction::kKill);
  CHECK(command<ForWorker>({"kill", "4243"}).worker == "4243");
  CHECK_FALSE(command<Stop>({"stop"}).now);
  CHECK(command<Stop>({"stop", "--now"}).now);
  CHECK_FALSE(command<Events>({"events"}).follow);
  CHECK(command<Events>({"events", "--follow"}).follow);
  CHECK(command<ConfigCheck>({"config", "check", "a.yaml"}).file == "a.yaml");
  CHECK(command<ConfigInit>({"config", "init", "a.yaml"}).file == "a.yaml");
  CHECK(command<ConfigInit>({"config", "init"}).file.empty());
  command<ConfigShow>({"config", "show"});
  command<Reopen>({"reopen"});
  command<Version>({"version"});
}

TEST_CASE("--socket and --json stand before or after the command") {
  const std::vector<std::vector<std::string>> places = {
      {"--socket", "/s", "--json", "status", "web"},
      {"status", "web", "--json", "--socket", "/s"},
      {"status", "--json", "web", "--socket=/s"}};
  for (const auto& words : places) {
    const auto options = std::get<Options>(parse(words));
    CHECK(options.socket == "/s");
    CHECK(options.json);
  }
  CHECK(std::get<Options>(parse({"config", "show", "--socket", "/s"})).socket == "/s");
}

TEST_CASE("the socket: --socket, else OSTLER_SOCKET, else where ostlerd puts it") {
  setenv("OSTLER_SOCKET", "/from/environment", 1);
  CHECK(std::get<Options>(parse({"status"})).socket == "/from/environment");
  CHECK(std::get<Options>(parse({"status", "--socket", "/s"})).socket == "/s");
  setenv("OSTLER_SOCKET", "", 1);
  CHECK(std::get<Options>(parse({"status"})).socket == control::default_control_socket());
  unsetenv("OSTLER_SOCKET");
  CHECK(std::get<Options>(parse({"status"})).socket == control::default_control_socket());
}

TEST_CASE("wrong usage: exit code 2, what is wrong, where help is") {
  check_usage({}, "ostlerctl: a command is missing\nSee 'ostlerctl --help'.\n");
  check_usage({"staus"}, "ostlerctl: there is no command 'staus'\nSee 'ostlerctl --help'.\n");
  check_usage({"--bogus"}, "ostlerctl: there is no option '--bogus'\nSee 'ostlerctl --help'.\n");
  check_usage({"config"}, "ostlerctl: a command is missing\nSee 'ostlerctl config --help'.\n");
  check_usage({"config", "chek"},
              "ostlerctl: there is no command 'chek'\nSee 'ostlerctl config --help'.\n");
  check_usage({"scale", "web", "x\x1b"},
              "ostlerctl: WORKERS: 'x\\x1b' is not a number of workers, +N, -N, auto or reset\n"
              "See 'ostlerctl scale --help'.\n");
  check_usage({"status", "../stop"},
              "ostlerctl: POOL: '../stop' is not the name of a pool\n"
              "See 'ostlerctl status --help'.\n");
  check_usage({"kill", "web"},
              "ostlerctl: WORKER: 'web' is not a worker, as web.0, nor a process id\n"
              "See 'ostlerctl kill --help'.\n");
  const std::vector<std::vector<std::string>> others = {{"status", "a", "b"},
                                                        {"status", "--bogus"},
                                                        {"reload", "--wait"},
                                                        {"scale"},
                                                        {"scale", "web"},
                                                        {"scale", "web", ""},
                                                        {"scale", "web", "+"},
                                                        {"scale", "web", "1.5"},
                                                        {"scale", "web", "999999"},
                                                        {"kill"},
                                                        {"kill", "0"},
                                                        {"kill", "-1"},
                                                        {"kill", "web."},
                                                        {"kill", "web.x"},
                                                        {"kill", "12345678901"},
                                                        {"config", "check"},
                                                        {"stop", "now"},
                                                        {"status", "reload", "web"},
                                                        {"--socket"},
                                                        {"events", "web"}};
  for (const auto& words : others) {
    INFO(words.back());
    CHECK(refused(words).exit_code == 2);
  }
}

TEST_CASE("commands whose time has not come are refused by name and not in the help") {
  for (const char* name : {"why", "plan", "top"}) {
    check_usage({name}, "ostlerctl: '" + std::string(name) +
                            "' is not available in this version\nSee 'ostlerctl --help'.\n");
    CHECK(refused({name, "web", "--help"}).exit_code == 2);
    CHECK(refused({"--help"}).out.find("\n  " + std::string(name)) == std::string::npos);
  }
}

TEST_CASE("help names every command, and each command has its own") {
  const Answer help = refused({"--help"});
  CHECK(help.exit_code == 0);
  CHECK(help.err.empty());
  CHECK(help.out.find(control::default_control_socket()) != std::string::npos);
  for (const char* name : {"status", "reload", "restart", "scale", "recycle", "drain", "kill",
                           "stop", "events", "reopen", "version", "config"}) {
    INFO(name);
    CHECK(help.out.find("\n  " + std::string(name)) != std::string::npos);
    const Answer own = refused({name, "--help"});
    CHECK(own.exit_code == 0);
    CHECK(own.out.find("Usage: ostlerctl " + std::string(name)) != std::string::npos);
  }
  CHECK(refused({"reload", "-h"}).out.find("--no-wait") != std::string::npos);
  CHECK(refused({"config", "check", "--help"}).out.find("FILE") != std::string::npos);
  CHECK(refused({"--version"}).out == "ostlerctl " OSTLER_VERSION "\n");
}

}  // namespace ostler::ctl
