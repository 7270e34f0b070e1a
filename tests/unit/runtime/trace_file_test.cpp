// The file of `--trace`.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "runtime/trace_file.hpp"

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>

namespace ostler::runtime {
namespace {

struct Scratch {
  Scratch() : path(std::filesystem::temp_directory_path() / "ostler-trace-XXXXXX") {
    path = ::mkdtemp(path.data());
  }
  ~Scratch() { std::filesystem::remove_all(path); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  std::string path;
};

std::string text_of(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

}  // namespace

TEST_CASE("a trace begins anew, and each line is there at once") {
  const Scratch scratch;
  const std::string path = scratch.path + "/trace";
  std::ofstream(path) << "an earlier trace, which is longer";
  TraceFile trace;
  CHECK_FALSE(trace.is_open());
  trace.record("nowhere\n");
  trace.open(path);
  CHECK(trace.is_open());
  CHECK(text_of(path).empty());
  trace.record("one\n");
  CHECK(text_of(path) == "one\n");
  trace.record("two\n");
  CHECK(text_of(path) == "one\ntwo\n");
}

TEST_CASE("what is behind a link is neither written nor cut") {
  const Scratch scratch;
  const std::string victim = scratch.path + "/victim";
  std::ofstream(victim) << "precious";
  std::filesystem::create_symlink(victim, scratch.path + "/soft");
  std::filesystem::create_hard_link(victim, scratch.path + "/hard");
  for (const char* name : {"/soft", "/hard"}) {
    TraceFile trace;
    CHECK_THROWS_AS(trace.open(scratch.path + name), std::runtime_error);
    CHECK_FALSE(trace.is_open());
  }
  CHECK(text_of(victim) == "precious");
}

TEST_CASE("a trace ends with the first line that cannot be written") {
  const Scratch scratch;
  const std::string path = scratch.path + "/trace";
  TraceFile trace;
  trace.open(path);
  trace.record("one\n");
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit whole{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &whole) == 0);
  const rlimit little{4, whole.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &little) == 0);
  trace.record("two\n");
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &whole) == 0);
  CHECK_FALSE(trace.is_open());
  trace.record("three\n");
  CHECK(text_of(path) == "one\n");
}

}  // namespace ostler::runtime
