"""Fixtures of the system tests: real managers with real workers, and nothing left behind.

    OSTLER_BIN=build/release/bin /usr/bin/python3 -m pytest tests/system

A test that fails leaves the directory of its managers where its report says.
"""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from load import Load  # noqa: E402
from ostler import BIN, Manager  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "root: needs root, and is skipped for everybody else")
    config.addinivalue_line("markers", "alone: measures; no other test may run at that time")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("root") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call":
        item.failed = report.failed


@pytest.fixture(scope="session", autouse=True)
def programs():
    missing = [name for name in ("ostlerd", "ostlerctl", "ostler-example-http",
                                 "ostler-test-worker", "ostler-load", "ostler-replay")
               if not (BIN / name).exists()]
    if missing:
        pytest.exit(f"not built in {BIN} (see OSTLER_BIN): {', '.join(missing)}", 2)


@pytest.fixture
def manager(request):
    """`manager(pools, …)` makes a Manager, starts it and waits for its workers; `start=False`
    only makes it."""
    made = []

    def make(pools=None, *, start=True, **options):
        made.append(Manager(pools, **options))
        return made[-1].start() if start else made[-1]

    yield make
    faults = [fault for one in made for fault in one.faults()]
    failed = getattr(request.node, "failed", False) or faults
    for one in made:
        if failed:
            print(f"kept: {one.directory}\n--- the end of its log\n" +
                  "\n".join(one.log().splitlines()[-40:]))
        else:
            one.remove()
    assert not faults, faults


@pytest.fixture
def load():
    """`load(address, …)` starts a Load; whatever still runs is ended with the test."""
    made = []

    def make(*arguments, **options):
        made.append(Load(*arguments, **options))
        return made[-1]

    yield make
    for one in made:
        one.kill()
