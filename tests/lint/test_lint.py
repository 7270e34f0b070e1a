"""The checkers checked: every rule catches a planted violation and lets its innocent twin be."""

import os
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]
sys.dont_write_bytecode = True

import check_sources  # noqa: E402
import summary  # noqa: E402

HEADER = "// What it is for.\n#pragma once\n"

# rule: [(path, what violates it, what looks like it and does not)]
PLANTED = {
    "core-includes": [
        ("manager/core/core.cpp", '#include "config/src/model.hpp"\n',
         '#include "core/event.hpp"\n'),
        ("manager/core/core.cpp", "#include <boost/asio.hpp>\n", "// #include <boost/asio.hpp>\n"),
        ("manager/core/core.cpp", "#include <unistd.h>\n", "#include <string_view>\n"),
        ("manager/core/core.cpp", "#include <random>\n", "#include <chrono>\n"),
    ],
    "core-pure": [
        ("manager/core/core.cpp", "auto t = std::chrono::steady_clock::now();\n",
         "const char* text = \"steady_clock::now\";\n"),
    ],
    "core-default": [
        ("manager/core/core.cpp", "switch (state) {\n  default: break;\n}\n",
         "Core(const Core&) = default;  // no default: here\n"),
    ],
    "config-includes": [
        ("config/src/load.cpp", '#include "core/plan.hpp"\n', '#include "config/src/model.hpp"\n'),
    ],
    "control-includes": [
        ("manager/control/codec.cpp", "#include <boost/asio/read.hpp>\n",
         '#include "core/ids.hpp"\n'),
        ("manager/control/codec.cpp", "#include <sys/socket.h>\n", "#include <system_error>\n"),
        ("manager/control/codec.cpp", '#include "runtime/runtime.hpp"\n',
         "#include <nlohmann/json.hpp>\n"),
    ],
    "ctl-includes": [
        ("manager/ctl/main.cpp", '#include "core/ids.hpp"\n', '#include "control/messages.hpp"\n'),
        ("manager/ctl/main.cpp", '#include "runtime/probes.hpp"\n', "#include <boost/asio.hpp>\n"),
    ],
    "sdk-includes": [
        ("worker-sdk/src/worker.cpp", '#include "core/ids.hpp"\n',
         "#include <ostler/worker.hpp>\n"),
        ("worker-sdk/src/worker.cpp", '#include "config/src/model.hpp"\n',
         "#include <sys/socket.h>\n"),
    ],
    "spawn": [
        ("manager/runtime/probes.cpp", "if (fork() == 0) {}\n", "io.fork(); value->clone(2);\n"),
        ("manager/daemon/main.cpp", "::execve(path, argv, envp);\n", "executor.execute(task);\n"),
        ("manager/daemon/main.cpp", "::posix_spawn(&pid, path);\n", "// never posix_spawn()\n"),
        ("manager/daemon/main.cpp", "clone(run, stack, 0);\n", "Sink clone() const {}\n"),
        ("manager/daemon/main.cpp", "syscall(SYS_clone3, &args);\n",
         "syscall(SYS_pidfd_open, pid);\n"),
    ],
    "reap": [
        ("manager/runtime/spawner.cpp", "waitpid( -1, &status, 0);\n",
         "waitpid(pid, &status, 0);\n"),
        ("manager/runtime/spawner.cpp", "waitid(P_ALL, 0, &info, WEXITED);\n",
         "waitid(P_PIDFD, fd);\n"),
    ],
    "shell": [
        ("tests/unit/a.cpp", 'std::system("true");\n', "std::system_error error;\n"),
        ("tests/unit/a.cpp", 'auto f = popen("true");\n', "stack.popen();\n"),
    ],
    "sleep": [
        ("tests/unit/a.cpp", "std::this_thread::sleep_for(1s);\n",
         "// sleep_for is no way to wait\n"),
        ("manager/daemon/main.cpp", "::usleep(5);\n", "asleep(5);\n"),
        ("tests/unit/a.cpp", "usleep(5);  // NO" "LINT(sleep)\n",
         "usleep(5);  // NO" "LINT(sleep): between two looks\n"),
    ],
    "detached": [
        ("manager/runtime/probes.cpp", "co_spawn(io, run(), detached);\n",
         "bool is_detached_now;\n"),
    ],
    "header-guard": [
        ("config/src/a.hpp", "// What it is for.\nint a();\n", HEADER),
    ],
    "header-comment": [
        ("config/src/a.hpp", "#pragma once\n// Late.\n", HEADER),
    ],
    "length": [
        ("docs/long.md", "line\n" * 701, "line\n" * 700),
    ],
    "local-paths": [
        ("docs/a.md", "Put it into /ho" "me/someone/src.\n", "Put it into /srv/home/someone.\n"),
    ],
    "leftovers": [
        ("docs/a.md", "TO" "DO: write this.\n", "/tmp/XXXXXX is a template.\n"),
    ],
    "silenced": [
        ("config/src/a.cpp", "int a;  // NO" "LINT\n", "int a;  // NO" "LINT(misc-x): a reason\n"),
    ],
}


def found(path, text):
    return {name for _, name, _ in check_sources.violations(check_sources.Source(path, text))}


class Rules(unittest.TestCase):
    def test_every_rule_has_a_planted_violation(self):
        self.assertEqual(set(PLANTED), set(check_sources.RULES))

    def test_every_rule_catches_it_and_nothing_else_does(self):
        for rule, cases in PLANTED.items():
            for path, guilty, innocent in cases:
                with self.subTest(rule=rule, text=guilty):
                    self.assertEqual(found(path, guilty), {rule})
                    self.assertEqual(found(path, innocent), set())

    def test_the_files_a_rule_is_about_may_do_it(self):
        for path, text in ((check_sources.SPAWNER, "vfork();\n"),
                           (check_sources.REAPER, "waitpid(-1, nullptr, 0);\n"),
                           (check_sources.SCHEMA, "{}\n" * 701),
                           (check_sources.DETACHER, HEADER + "co_spawn(io, run(), detached);\n")):
            self.assertEqual(found(path, text), set())

    def test_the_line_is_the_right_one(self):
        text = '/* a\n b */\nconst char* raw = R"x(\n"quoted\n)x";\nint a = system("b");\n'
        self.assertEqual([line for line, _, _ in check_sources.violations(
            check_sources.Source("tests/unit/a.cpp", text))], [6])


CTEST = """<testsuite>
  <testcase name="good" classname="good" status="run"/>
  <testcase name="bad" classname="bad" status="fail"><failure message=""/></testcase>
  <testcase name="gone" classname="gone" status="notrun">
    <skipped message="Unable to find executable"/></testcase>
  <testcase name="spared" classname="spared" status="notrun">
    <skipped message="SKIP_RETURN_CODE=77"/></testcase>
  <testcase name="off" classname="off" status="disabled"/>
</testsuite>"""
PYTEST = """<testsuites><testsuite>
  <testcase classname="a" name="good"/>
  <testcase classname="a" name="bad"><failure message="x"/></testcase>
  <testcase classname="a" name="torn"><error message="y"/></testcase>
  <testcase classname="a" name="spared"><skipped type="pytest.skip" message="not root"/></testcase>
</testsuite></testsuites>"""
GOOD = '<testsuite><testcase name="good" status="run"/></testsuite>'


class Summary(unittest.TestCase):
    def judge(self, status, text):
        with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
            file.write(text)
            file.flush()
            return {kind: len(tests) for kind, tests in summary.judge(status, file.name).items()}

    def test_a_test_that_ctest_could_not_start_has_failed(self):
        self.assertEqual(self.judge(8, CTEST), {"passed": 1, "failed": 2, "skipped": 2})

    def test_an_error_of_pytest_is_a_failure(self):
        self.assertEqual(self.judge(1, PYTEST), {"passed": 1, "failed": 2, "skipped": 1})

    def test_a_runner_that_failed_though_no_test_did(self):
        self.assertEqual(self.judge(0, GOOD), {"passed": 1, "failed": 0, "skipped": 0})
        self.assertEqual(self.judge(3, GOOD), {"passed": 1, "failed": 1, "skipped": 0})

    def test_a_runner_that_ran_nothing_or_left_nothing(self):
        self.assertEqual(self.judge(0, "<testsuite/>")["failed"], 1)
        self.assertEqual(self.judge(0, "<testsu")["failed"], 1)
        self.assertEqual(len(summary.judge(0, os.path.join(HERE, "none.xml"))["failed"]), 1)
        self.assertEqual(len(summary.judge(2, "")["failed"]), 1)

    def test_nothing_at_all_is_not_success(self):
        self.assertEqual(summary.main([]), 1)


if __name__ == "__main__":
    unittest.main(buffer=True)
