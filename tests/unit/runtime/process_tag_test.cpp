// Tags are inherited, differ, and lie below the limit of whoever hands them out.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "runtime/process_tag.hpp"

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <set>

#include "runtime/procfs.hpp"
#include "runtime/watcher.hpp"

using namespace ostler::runtime;

namespace {

// Exit status 0 if `check` holds in a child.
template <class Check>
bool in_child(Check check) {
  const pid_t pid = fork();
  if (pid == 0) _exit(check() ? 0 : 1);
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool bear(Tag tag) {
  const rlimit limit{tag, tag};
  return setrlimit(RLIMIT_RTTIME, &limit) == 0;
}

}  // namespace

TEST_CASE("a tag is read from the process that bears it, and from its descendants") {
  const Tag tag = TagSpace::draw().make(7, 3);
  REQUIRE(tag != 0);
  CHECK(read_tag(getpid()) != tag);
  CHECK(in_child([&] {
    return bear(tag) && read_tag(getpid()) == tag && in_child([&] {
             return setsid() > 0 && in_child([&] { return read_tag(getpid()) == tag; });
           });
  }));
}

TEST_CASE("a process that does not exist bears none") {
  CHECK(read_tag(1 << 30) == 0);
}

TEST_CASE("two managers draw different spaces") {
  const TagSpace one = TagSpace::draw();
  const TagSpace two = TagSpace::draw();
  CHECK(one.contains(one.make(1, 2)));
  CHECK_FALSE(two.contains(one.make(1, 2)));
  CHECK(TagSpace::index(one.make(5, 77)) == 77);
  CHECK_FALSE(one.contains(0));
}

TEST_CASE("below another manager tags are lower than its own, so that they can be had") {
  const Tag outer = TagSpace::draw().make(1, 1);
  CHECK(in_child([&] {
    if (!bear(outer)) return false;
    const Tag inner = TagSpace::draw().make(1, 1);
    return inner != 0 && inner < outer;
  }));
}

TEST_CASE("with a limit that is a limit there are no tags") {
  CHECK(in_child([] { return bear(200'000) && TagSpace::draw().make(1, 1) == 0; }));
}

TEST_CASE("every process that is entered has a tag of its own, and many may come and go") {
  Watcher watcher;
  std::set<Tag> tags;
  for (int i = 0; i < 40'000; ++i) tags.insert(watcher.enter({SIGTERM, {}, false}));
  CHECK(tags.size() == 40'000);
  CHECK(watcher.made(*tags.rbegin()));
  CHECK_FALSE(watcher.made(*tags.begin()));  // more than the table holds
  for (const Tag tag : tags) watcher.leave(tag);
  const Tag again = watcher.enter({SIGTERM, {}, false});
  CHECK(watcher.made(again));
  CHECK_FALSE(tags.contains(again));
}

TEST_CASE("what /proc says of this process") {
  const auto stat = read_stat(getpid());
  REQUIRE(stat);
  CHECK(stat->name == "unit_runtime_pr");
  CHECK(stat->alive());
  CHECK(stat->parent == getppid());
  CHECK(stat->session == getsid(0));
  CHECK(stat->started <= ticks_now());
  CHECK(stat->started > 0);
  CHECK_FALSE(read_stat(1 << 30));
  CHECK(stop_signal_for(getpid(), SIGINT) == SIGINT);
  CHECK(stop_signal_for(getpid(), SIGUSR1) == SIGTERM);
  std::signal(SIGUSR1, [](int) {});
  CHECK(stop_signal_for(getpid(), SIGUSR1) == SIGUSR1);
}
