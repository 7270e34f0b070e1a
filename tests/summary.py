"""Sums up what several test runners said, and has the last word on whether all is well.

usage: summary.py [NAME STATUS RESULT]...

Each runner is named with its exit status and the JUnit file it was to write ("" for none). The
last line is `N passed, N failed, N skipped`. The exit status is 0 only if something passed,
nothing failed, and every runner ended well: one that failed without saying which test did so, or
left no readable result, counts as a failure of its own.
"""

import sys
import xml.etree.ElementTree as ElementTree


def outcome(case):
    """passed, failed or skipped, and why; to CTest, a test it could not start is skipped too."""
    for kind in ("failure", "error"):
        if case.find(kind) is not None:
            return "failed", case.find(kind).get("message", "")
    status = case.get("status", "run")
    skipped = case.find("skipped")
    reason = skipped.get("message", "") if skipped is not None else ""
    if status == "fail" or (status == "notrun" and not reason.startswith("SKIP_")):
        return "failed", reason
    if skipped is not None or status == "disabled":
        return "skipped", reason
    return "passed", ""


def read(path):
    """The tests of a JUnit file by outcome, each as one line."""
    tests = {"passed": [], "failed": [], "skipped": []}
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        names = [name for name in (case.get("classname"), case.get("name")) if name]
        kind, reason = outcome(case)
        line = ".".join(dict.fromkeys(names)) + (f": {reason}" if reason else "")
        tests[kind].append(line.splitlines()[0])
    return tests


def judge(status, path):
    """The tests of one runner, with a failed one added if the runner itself went wrong."""
    tests = {"passed": [], "failed": [], "skipped": []}
    problem = f"exit status {status}" if status != 0 else None
    if path:
        try:
            tests = read(path)
        except (OSError, ElementTree.ParseError) as error:
            problem = f"exit status {status}, no result: {error}"
        if problem is None and not any(tests.values()):
            problem = "it ran no test"
    if problem is not None and not tests["failed"]:
        tests["failed"].append(problem)
    return tests


def main(arguments):
    if len(arguments) % 3 != 0:
        sys.exit(__doc__)
    total = {"passed": 0, "failed": 0, "skipped": 0}
    print()
    for name, status, path in zip(arguments[0::3], arguments[1::3], arguments[2::3]):
        tests = judge(int(status), path)
        print(f"{name}: " + ", ".join(f"{len(tests[kind])} {kind}" for kind in total))
        for kind in ("failed", "skipped"):
            for test in tests[kind]:
                print(f"  {kind}: {test}")
        for kind in total:
            total[kind] += len(tests[kind])
    print(", ".join(f"{count} {kind}" for kind, count in total.items()))
    return 0 if total["passed"] > 0 and total["failed"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
