"""What README.md and docs/*.md say to do is done, in order, and gives what they show."""

import json
import os
import re
import shlex
import shutil
import subprocess

import pytest

import page as pages
from ostler import ANY_PORT, BIN, Manager, program
from page import PAGES, ROOT
from reader import Reader

READ = {path: pages.read(path) for path in PAGES}
BLOCKS = [block for page in READ.values() for block in page.blocks]
NOT_RUN = [block for block in BLOCKS if block.not_run is not None]


def identified(blocks):
    return [pytest.param(block, id=block.where) for block in blocks]


@pytest.mark.parametrize("page", [pytest.param(page, id=path.name) for path, page in READ.items()
                                  if page.to_run])
def test_a_reader_gets_what_the_page_shows(page):
    leave_out, missing = page.cannot(shutil.which)
    why = f"needs {', '.join(missing)}: {len(leave_out)} of {len(page.blocks)} blocks left out"
    if all(block in leave_out for block in page.to_run):
        pytest.skip(why)
    if page.builds and not os.access(BIN.parent, os.W_OK):
        pytest.skip(f"needs to write to {BIN.parent}, as `cmake --install` does")
    reader = Reader(page)
    faults = ["not read to the end"]
    try:
        reader.read(leave_out)
        faults = []
    finally:
        faults += reader.close()
        if faults:
            print(reader.report())
        else:
            reader.remove()
    assert not faults, faults
    if missing:
        pytest.skip(why)


def test_most_blocks_are_run():
    assert sum(len(block.commands) for page in READ.values() for block in page.to_run) >= 60


@pytest.mark.parametrize("block", identified(NOT_RUN))
def test_what_is_not_run_says_why(block):
    print(f"{block.where}: {block.not_run}")
    assert len(block.not_run.split()) >= 2, "a reason in words, such as `needs systemd`"
    assert block.commands or block.kind != "console"


@pytest.mark.parametrize("block", identified(
    block for block in BLOCKS if block.kind in ("sh", "bash", "shell", "shell-session")))
def test_commands_are_in_console_blocks(block):
    assert block.name or block.not_run, "```console with `$ `, or a file that names itself"


# ---- what no command of the page uses

# What an example may lack on the machine that runs the tests: the application itself, its user, or
# root to become it.
ABSENT = re.compile(r"no such|not found|does not exist|in no folder of PATH"
                    r"|there is no (?:user|group)|are for root|may not switch", re.IGNORECASE)
# What a page shows of a pool alone, indented as in one, is tried in this.
POOL = 'pools:\n  web:\n    command: /usr/lib/shop/web\n    listen: ["tcp://127.0.0.1:8080"]\n'


# A file is tried by the commands that use it, where the page has commands.
@pytest.mark.parametrize("block", identified(
    block for block in BLOCKS if block.kind == "yaml" and block.not_run is None
    and not (block.name and READ[block.page].to_run)))
def test_every_configuration_is_valid(block, tmp_path):
    config = tmp_path / "ostler.yaml"
    sections = set(re.findall(r"^([a-z]+):", block.text, re.MULTILINE))
    before = "" if sections else POOL
    after = "\npools: {}\n" if sections and "pools" not in sections else ""
    config.write_text(before + block.text + after)
    config.chmod(0o600)
    check = subprocess.run([BIN / "ostlerd", "--check", "--config", config],
                           capture_output=True, text=True, timeout=20)
    faults = [line for line in check.stderr.splitlines()
              if line.startswith(str(config)) and not ABSENT.search(line)]
    assert check.returncode in (0, 2), check.stderr
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("block", identified(
    block for block in BLOCKS if block.kind == "json" and "…" not in block.text))
def test_json_is_json(block):
    json.loads(block.text)


UNTYPED = sorted({command.text for block in NOT_RUN if block.kind == "console"
                  for command in block.commands
                  if command.text.startswith("ostlerctl ")
                  and not re.search(r"[$|&;<>]", command.text)})


@pytest.mark.parametrize("line", UNTYPED)
def test_a_command_that_is_not_run_is_one(line, tmp_path):
    _, *arguments = shlex.split(line, comments=True)
    done = subprocess.run([BIN / "ostlerctl", "--socket", tmp_path / "nobody.sock", *arguments],
                          capture_output=True, text=True, timeout=20)
    assert done.returncode != 2, done.stderr  # 3: no manager answers; 2 would be wrong usage


# Programs whose source the build compiles.
EXAMPLES = {path.read_text().strip() for path in (ROOT / "worker-sdk/examples").glob("*/main.c*")}


def test_a_program_is_an_example_word_for_word_or_a_file_that_the_page_builds():
    programs = [block for block in BLOCKS
                if block.kind in ("cpp", "c") and "int main" in block.text]
    assert programs
    assert not [block.where for block in programs
                if not block.name and block.text.strip() not in EXAMPLES]


def test_the_status_that_is_shown_has_the_members_of_a_real_one():
    shown = [json.loads(block.text) for block in READ[ROOT / "docs/control-api.md"].blocks
             if block.kind == "json"]
    one = Manager({"web": {"command": [program("ostler-example-hello")], "listen": [ANY_PORT],
                           "workers": 1, "ready": "notify"}})

    def parts(status):
        pool = status["pools"]["web"]
        return [set(part) for part in (status, pool, pool["listeners"][0], pool["workers"][0])]

    try:
        one.start()
        assert one.fetch()[:2] == (200, "hello\n")
        assert [parts(status) for status in shown] == [parts(one.status())]
    finally:
        faults = one.faults()
    assert not faults, faults
    one.remove()


# ---- links

LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")


def without_blocks(text):
    return re.sub(r"^( *)```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(path):
    """The anchors of a page's headings, as GitHub makes them."""
    found = {}
    for title in re.findall(r"^#+ +(.+?)\s*$", without_blocks(path.read_text()), re.MULTILINE):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "")
        anchor = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        count = found.get(anchor, 0)
        found[anchor] = count + 1
        if count:
            found[f"{anchor}-{count}"] = 1
    found |= {name: 1 for name in re.findall(r'<a (?:id|name)="([^"]+)"', path.read_text())}
    return set(found)


@pytest.mark.parametrize("path", [pytest.param(path, id=path.name) for path in PAGES])
def test_every_link_inside_the_project_leads_somewhere(path):
    broken = []
    for target in LINK.findall(without_blocks(path.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        if not there.exists() or anchor and there.suffix == ".md" and anchor not in anchors(there):
            broken.append(target)
    assert not broken
