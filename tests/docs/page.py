"""A page of the documentation, taken apart: its blocks, and what each console block says to type.

The convention is told in CONTRIBUTING.md, under "Documentation".
"""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")])

FENCE = re.compile(r"^(?P<indent> *)(?P<mark>```+)(?P<kind>[\w+-]*)\s*$")
NOT_RUN = re.compile(r"<!--\s*not run:(?P<reason>.*?)-->", re.DOTALL)
NEEDS = re.compile(r"<!--\s*needs:(?P<names>.*?)-->", re.DOTALL)
# A file is named alone in a comment on its first line, or on its second if the first is `#!`.
NAME = re.compile(r"^\s*(?:<\?php\s+)?(?:#|//|--|;|/\*|<!--)\s*"
                  r"(?P<name>(?:[\w.@+-]*/)*[\w@+-]*\.?[\w.]+)\s*(?:\*/|-->)?\s*$")
HEREDOC = re.compile(r"<<-?\s*['\"]?(?P<word>\w+)['\"]?")


@dataclass
class Command:
    """What follows one `$`, and the output that is shown below it."""
    text: str
    line: int
    shown: list = field(default_factory=list)


@dataclass
class Block:
    """A fenced block. `not_run`: the reason that a comment right above it gives."""
    page: Path
    line: int
    kind: str
    text: str
    not_run: str | None = None

    @property
    def where(self):
        return f"{self.page.name}:{self.line}"

    @property
    def name(self):
        """The file that this is, or None."""
        lines = self.text.split("\n")
        first = lines[1] if lines[0].startswith("#!") and len(lines) > 1 else lines[0]
        match = NAME.match(first)
        return match["name"] if match and re.search(r"[./]", match["name"]) else None

    @property
    def commands(self):
        """The commands of a console block; an error if it does not begin with one."""
        commands, until = [], None
        for number, line in enumerate(self.text.split("\n"), self.line + 1):
            if until is not None:
                commands[-1].text += "\n" + line
                if line.strip() == until:
                    until = None
                elif until == "\\" and not line.endswith("\\"):
                    until = None
                continue
            if line.startswith("$ "):
                commands.append(Command(line[2:], number))
                here = HEREDOC.search(line)
                until = here["word"] if here else "\\" if line.endswith("\\") else None
            elif not commands:
                raise AssertionError(f"{self.page.name}:{number}: a console block begins with `$ `")
            else:
                commands[-1].shown.append(line)
        for command in commands:
            while command.shown and not command.shown[-1].strip():
                command.shown.pop()
        return commands


@dataclass
class Need:
    """From one line to another a page is of use only to those who have these programs."""
    begin: int
    end: float
    names: list


@dataclass
class Page:
    path: Path
    blocks: list
    needs: list

    @property
    def builds(self):
        """Whether its reader builds a worker, and so needs the SDK as it is installed."""
        return any(re.search(r"pkg-config|find_package\(ostler-worker", block.text)
                   for block in self.blocks if block.not_run is None)

    def cannot(self, has):
        """The blocks that need a program which is not there, and the names of those programs."""
        missing = [(need, name) for need in self.needs for name in need.names if not has(name)]
        return ([block for block in self.blocks
                 if any(need.begin < block.line < need.end for need, _ in missing)],
                sorted({name for _, name in missing}))

    @property
    def to_run(self):
        return [block for block in self.blocks if block.kind == "console" and not block.not_run]


def blocks_of(path):
    """The fenced blocks in the order of the page, those inside comments (`<!-- unseen`) too."""
    blocks, above, inside = [], "", None
    for number, line in enumerate(path.read_text().split("\n"), 1):
        fence = FENCE.match(line)
        if inside is not None:
            block, indent, mark = inside
            if fence and fence["mark"] == mark and not fence["kind"]:
                block.text = block.text.removesuffix("\n")
                blocks.append(block)
                inside, above = None, ""
            else:
                assert not fence or fence["mark"] != mark, \
                    f"{path.name}:{number}: a block in a block"
                block.text += line[min(indent, len(line) - len(line.lstrip())):] + "\n"
        elif fence:
            last = None
            for last in NOT_RUN.finditer(above):
                pass
            reason = last["reason"] if last and not above[last.end():].strip() else None
            inside = (Block(path, number, fence["kind"], "",
                            None if reason is None else " ".join(reason.split())),
                      len(fence["indent"]), fence["mark"])
        else:
            above += line + "\n"
    assert inside is None, f"{path.name}: a block that is not closed"
    return blocks


def read(path):
    text = path.read_text()
    headings = [number for number, line in enumerate(text.split("\n"), 1) if line.startswith("## ")]
    needs = []
    for match in NEEDS.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        end = next((number for number in headings if number > line), math.inf)
        needs.append(Need(line, math.inf if line < min(headings, default=math.inf) else end,
                          [name for name in re.split(r"[\s,]+", match["names"].strip()) if name]))
    return Page(path, blocks_of(path), needs)


# ---- Shapes

UNIT = r"(?:(?:ns|µs|us|ms|[smhd])\b| ?[KMG]iB\b)"
NUMBER = re.compile(rf"\d[\d.]*{UNIT}?")


def shape_of_line(line):
    """A pattern for one line: numbers with their units may differ, `…` is anything."""
    pattern, end = "", 0
    line = " ".join(line.split())
    for match in re.finditer(rf"…|{NUMBER.pattern}", line):
        pattern += re.escape(line[end:match.start()])
        pattern += r"[^\n]*" if match[0] == "…" else NUMBER.pattern
        end = match.end()
    return pattern + re.escape(line[end:])


def shape(lines):
    """A pattern for output as it is shown; a line `…` alone stands for any number of lines."""
    return "".join(r"(?:[^\n]*\n)*?" if line.strip() == "…" else shape_of_line(line) + "\n"
                   for line in lines)


def plain(text):
    """Output without colours, carriage returns and alignment, as `shape` expects it."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.replace("\r\n", "\n"))
    lines = [" ".join(line.rstrip("\r").split("\r")[-1].split()) for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return "".join(line + "\n" for line in lines)


def matches(shown, output):
    """Whether the whole output looks as shown."""
    return re.fullmatch(shape(shown), plain(output)) is not None


def contains(shown, output):
    """Whether what is shown stands, line for line, somewhere in the output."""
    return re.search("^" + shape(shown), plain(output), re.MULTILINE) is not None
