"""The manual pages: clean, in step with --help, and their examples are true."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from ostler import ANY_PORT, BIN, ROOT
from test_completion import all_commands, helped, options_of

PAGES = sorted((ROOT / "packaging" / "man").iterdir())


def named(page):
    return next(path for path in PAGES if path.name == page).read_text()


def plain(text):
    """A line of the source as it reads."""
    return text.replace("\\-", "-").replace("\\(aq", "'").replace("\\(dq", '"').replace("\\&", "") \
        .replace("\\e", "\\")


def section(text, name):
    return re.search(rf"^\.Sh {name}\n(.*?)(?=^\.Sh |\Z)", text, re.MULTILINE | re.DOTALL)[1]


def each_page(test):
    return pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in PAGES])(test)


def test_there_are_four():
    assert [page.name for page in PAGES] == ["ostler-worker.7", "ostler.yaml.5", "ostlerctl.1",
                                             "ostlerd.8"]


@each_page
def test_mandoc_finds_nothing(page):
    if shutil.which("mandoc") is None:
        pytest.skip("needs mandoc")
    done = subprocess.run(["mandoc", "-T", "lint", page], capture_output=True, text=True, timeout=60,
                          check=False)
    # Whose operating system this is, is asked of the BSDs' own pages; and the pages that these
    # refer to need not be installed where they are checked.
    found = [line for line in done.stdout.splitlines()
             if "operating system explicitly specified" not in line
             and "referenced manual not found" not in line]
    assert not found


@each_page
def test_man_warns_of_nothing(page):
    if shutil.which("man") is None or shutil.which("groff") is None:
        pytest.skip("needs man and groff")
    done = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page],
                          capture_output=True, text=True, timeout=60, check=False,
                          env={**os.environ, "LC_ALL": "C.UTF-8", "MANROFFSEQ": "",
                               "MANWIDTH": "80"})
    assert (done.returncode, done.stderr) == (0, "")


@each_page
def test_pages_that_are_referred_to_are_there(page):
    for name, number in re.findall(r"^\.Xr (\S+) (\d)", page.read_text(), re.MULTILINE):
        if name.startswith("ostler"):
            assert f"{name}.{number}" in [one.name for one in PAGES]


# ---- in step with --help

def flags(line):
    """--socket and --no-wait of `.It Fl \\-socket Ar path` and the like."""
    return set(re.findall(r"(?<=-)-[a-z][\w-]*", plain(re.sub(r"\bFl ", "-", line))))


def manual_options(text):
    found = set()
    for line in re.findall(r"^\.It (?:Fl .*)", text, re.MULTILINE):
        found |= flags(line)
    return {f"-{name}" for name in found}


def test_the_options_of_ostlerd_are_those_of_help():
    assert manual_options(named("ostlerd.8")) == options_of("ostlerd")


def test_the_synopsis_of_ostlerd_names_options_that_there_are():
    shown = {f"-{name}" for line in section(named("ostlerd.8"), "SYNOPSIS").splitlines()
             for name in flags(line)}
    assert shown and shown <= options_of("ostlerd")


def test_the_commands_and_options_of_ostlerctl_are_those_of_help():
    text = named("ostlerctl.1")
    common = manual_options(section(text, "DESCRIPTION"))
    assert common == options_of("ostlerctl")
    told = {}
    for line in re.findall(r"^\.It Ic (.*)", section(text, "COMMANDS"), re.MULTILINE):
        words = re.match(r"(?:[a-z]+ ?)+", line)[0].split()
        told[tuple(words)] = {f"-{name}" for name in flags(line)}
        told[tuple(words)] |= common - {"--version"}
    commands = {words for words in all_commands() if words != ("config",)}
    assert set(told) == commands
    for words in commands:
        assert told[words] == options_of("ostlerctl", *words), words


@pytest.mark.parametrize("program, page", [("ostlerd", "ostlerd.8"), ("ostlerctl", "ostlerctl.1")])
def test_the_exit_codes_are_those_of_help(program, page):
    _, _, said = helped(program).partition("Exit ")
    # "…: 0 done; 1 it was tried" and, of ostlerctl, "Ctrl-C ended: 130"
    codes = set(re.findall(r"(?:: |; |;\n|:\n)(\d+)\b", said))
    told = re.findall(r"^\.It (\d+)$", section(named(page), "EXIT STATUS"), re.MULTILINE)
    assert set(told) == codes and len(told) == len(codes)


def test_the_signals_are_those_of_help():
    said = re.search(r"Signals: (.*?)\.\n", helped("ostlerd"), re.DOTALL)[1]
    told = re.findall(r"^\.It Dv (.*)", section(named("ostlerd.8"), "SIGNALS"), re.MULTILINE)
    assert set(re.findall(r"\b[A-Z]{3,}\d?\b", said)) == \
        {name for line in told for name in re.findall(r"\w+", line)}


# ---- examples

def blocks(text):
    return [plain(block) for block in
            re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed", text, re.MULTILINE | re.DOTALL)]


def test_the_worker_of_the_manual_is_one(manager, tmp_path):
    source = next(block for block in blocks(named("ostler-worker.7")) if "import" in block)
    one = manager({"web": {"command": [sys.executable, "-c", source], "listen": [ANY_PORT],
                           "workers": 2, "ready": "notify"}})
    assert one.fetch()[:2] == (200, "hello\n")
    assert one.reload()["outcome"] == "reloaded"
    assert one.ctl("stop").returncode == 0
    assert one.wait() == 0


def test_the_configurations_of_the_manual_are_valid(tmp_path):
    shown = [block for block in blocks(named("ostler.yaml.5")) if block.startswith("pools:")]
    assert len(shown) == 2
    for block in shown:
        file = tmp_path / "ostler.yaml"
        file.write_text(block)
        file.chmod(0o600)
        done = subprocess.run([BIN / "ostlerd", "--check", "--config", file], capture_output=True,
                              text=True, timeout=20, check=False)
        faults = [line for line in done.stderr.splitlines() if line.startswith(str(file))]
        # The programs need not be there, nor this user be one that may switch to another.
        assert all(re.search(r"is in no folder|does not exist|No such file|may not switch", line)
                   for line in faults), faults


def test_waiting_for_a_manager_as_the_manual_says(manager):
    line = plain(re.search(r'^\.Dl "(until .*)"$', named("ostlerctl.1"), re.MULTILINE)[1])
    one = manager({"web": {"command": ["sleep", "1000"], "workers": 1}}, start=False).launch()
    done = subprocess.run(["/bin/sh", "-c", line], timeout=30, check=False, env={
        **os.environ, "OSTLER_SOCKET": one.socket, "PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True, text=True)
    assert done.returncode == 0
    assert one.settled()
