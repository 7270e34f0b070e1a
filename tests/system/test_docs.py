"""The configurations that the documentation shows are configurations, its commands are commands,
and its programs are built."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from ostler import ANY_PORT, BIN, program

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What a page shows of a pool alone, indented as in one, is tried in this.
POOL = 'pools:\n  web:\n    command: /usr/lib/shop/web\n    listen: ["tcp://127.0.0.1:8080"]\n'
EXAMPLES = [pytest.param(block if re.search(r"^pools:", block, re.MULTILINE) else POOL + block,
                         id=f"{page.name}-{number}")
            for page in PAGES
            for number, block in enumerate(BLOCK.findall(page.read_text()))]

# What an example may lack on the machine that runs the tests: the application itself.
ABSENT = re.compile(r"no such|not found|does not exist|No such file", re.IGNORECASE)


@pytest.mark.parametrize("block", EXAMPLES)
def test_every_configuration_in_the_documentation_is_valid(block, tmp_path):
    config = tmp_path / "ostler.yaml"
    config.write_text(block)
    config.chmod(0o600)
    check = subprocess.run([BIN / "ostlerd", "--check", "--config", config],
                           capture_output=True, text=True, timeout=20)
    faults = [line for line in check.stderr.splitlines()
              if line.startswith(str(config)) and not ABSENT.search(line)]
    assert check.returncode in (0, 2), check.stderr
    assert not faults, "\n".join(faults)


def test_the_documentation_shows_configurations():
    assert len(EXAMPLES) >= 10
    assert any(example.id.startswith("sharing.md") for example in EXAMPLES)


COMMANDS = sorted({line for page in PAGES
                   for line in re.findall(r"^\$ (ostlerctl .*)", page.read_text(), re.MULTILINE)})


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_in_the_documentation_is_one(line, tmp_path):
    _, *arguments = shlex.split(line, comments=True)
    done = subprocess.run([BIN / "ostlerctl", "--socket", tmp_path / "nobody.sock", *arguments],
                          capture_output=True, text=True, timeout=20)
    assert done.returncode == 3, done.stderr  # no manager answers; 2 would be wrong usage


def test_the_documentation_shows_commands():
    assert len(COMMANDS) >= 15


# Programs whose source the build compiles.
BUILT = {path.read_text(): path for path in (ROOT / "worker-sdk" / "examples").glob("*/main.cpp")}
PROGRAMS = [pytest.param(block, id=f"{page.name}-{number}")
            for page in PAGES
            for number, block in enumerate(re.findall(r"^```cpp\n(.*?)^```", page.read_text(),
                                                      re.MULTILINE | re.DOTALL))
            if "int main" in block]


@pytest.mark.parametrize("block", PROGRAMS)
def test_every_program_in_the_documentation_is_an_example_word_for_word(block):
    assert block in BUILT


def test_the_documentation_shows_a_program():
    assert PROGRAMS


def test_the_ten_lines_are_a_worker(manager):
    one = manager({"web": {"command": [program("ostler-example-hello")], "listen": [ANY_PORT],
                           "workers": 2, "ready": "notify"}})
    status, body = one.fetch()[:2]
    assert (status, body) == (200, "hello\n")


def test_the_status_that_the_documentation_shows_has_the_members_of_a_real_one(manager):
    shown = [json.loads(block) for block in re.findall(
        r"^```json\n(.*?)^```", (ROOT / "docs" / "control-api.md").read_text(),
        re.MULTILINE | re.DOTALL)]
    one = manager({"web": {"command": [program("ostler-example-hello")], "listen": [ANY_PORT],
                           "workers": 1, "ready": "notify"}})

    def parts(status):
        pool = status["pools"]["web"]
        return [set(part) for part in (status, pool, pool["listeners"][0], pool["workers"][0])]

    assert [parts(status) for status in shown] == [parts(one.status())]
