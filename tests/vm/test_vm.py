"""ostlerd as a service of a real systemd, in a virtual machine that is booted once for all.

    /usr/bin/python3 -m pytest tests/vm

Each public function of guest/cases.py is a test here, run inside. What a failed one did and saw is
in its report.
"""

import ast
from pathlib import Path

import pytest

import machine
import root

TEXT = (Path(__file__).parent / "guest" / "cases.py").read_text(encoding="utf-8")
CASES = [node.name for node in ast.parse(TEXT).body if isinstance(node, ast.FunctionDef)
         and not node.name.startswith("_")]
WITHIN = 900  # seconds for all of them, boot included


@pytest.fixture(scope="module")
def booted(request):
    """The machine after it has run the cases that were selected."""
    chosen = [item.callspec.params["case"] for item in request.session.items
              if "case" in getattr(getattr(item, "callspec", None), "params", {})]
    try:
        return machine.Machine(chosen, WITHIN)
    except root.Unavailable as missing:
        pytest.skip(f"no virtual machine: {missing}")


@pytest.mark.parametrize("case", CASES)
def test_in_the_machine(booted, case):
    result = booted.results[case]
    if case.startswith("a_package_") and not booted.installed.endswith(".deb"):
        pytest.skip("needs the .deb: run ./dev package")
    if result.passed:
        print(f"{result.reason}, installed from {booted.installed}")
        return
    print(f"installed from: {booted.installed}")
    print("\n".join(result.output or booted.left_over))
    print(f"--- the end of the console\n{booted.end_of_console()}")
    pytest.fail(result.reason)


def test_the_machine_came_to_its_end(booted):
    assert booted.done, booted.end_of_console()
