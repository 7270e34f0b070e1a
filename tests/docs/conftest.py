"""Tests of the documentation: its commands are typed, its files written, its links followed.

    OSTLER_BIN=build/release/bin /usr/bin/python3 -m pytest tests/docs
"""

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "system")]

from ostler import BIN  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def programs():
    missing = [name for name in ("ostlerd", "ostlerctl") if not (BIN / name).exists()]
    if missing:
        pytest.exit(f"not built in {BIN} (see OSTLER_BIN): {', '.join(missing)}", 2)
