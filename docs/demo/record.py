#!/usr/bin/env python3
"""Types the commands of demo.md and draws what the terminal showed as demo.svg.

    OSTLER_BIN=build/release/bin /usr/bin/python3 docs/demo/record.py

Nothing in the picture is written by hand: the outputs are the run's, with its pids and times.
Ports are mapped back to those of the page, and the scratch directory is left out.
"""

import re
import sys
from html import escape
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "tests" / name) for name in ("docs", "system")]

import page as pages  # noqa: E402
from reader import Reader  # noqa: E402

COLUMNS = 106
ADVANCE, LINE, MARGIN = 7.23, 17, 14  # of a monospaced font of 12 px
SGR = re.compile(r"\x1b\[([0-9;]*)m")
CLASSES = {"1": "b", "2": "d", "31": "r", "32": "g", "33": "y"}
PAUSES = {"command": 0.9, "output": 0.12}  # how long a line is the last one, in seconds

STYLE = """
svg { --paper: #ffffff; --ink: #24292f; --dim: #57606a; --g: #116329; --r: #a40e26; --y: #7d4e00; }
@media (prefers-color-scheme: dark) {
  svg { --paper: #161b22; --ink: #e6edf3; --dim: #8b949e;
        --g: #56d364; --r: #ff7b72; --y: #e3b341; }
}
rect { fill: var(--paper); stroke: var(--dim); stroke-opacity: .4; }
text { fill: var(--ink); white-space: pre;
       font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.b { font-weight: bold; } .d { fill: var(--dim); }
.g { fill: var(--g); } .r { fill: var(--r); } .y { fill: var(--y); }
.l { animation: appear .01s both; }
@keyframes appear { from { opacity: 0; } to { opacity: 1; } }
@media (prefers-reduced-motion: reduce) { .l { animation: none; } }
"""


class Recorder(Reader):
    """A reader who writes down what it typed and saw, in colour."""

    terminal_kind = "xterm"

    def __init__(self, page):
        super().__init__(page)
        self.seen = []  # (command, output)

    def run(self, command, may_fail):
        begin = len(self.terminal.text)
        super().run(command, may_fail)
        last = self.terminal.text[begin:]
        last = re.sub(r"\r?\n[0-9a-f]{32} \d+\r?\n$", "", last.replace("\r\n", "\n"))
        # What only looks may have been tried again.
        last = re.split(r"\n[0-9a-f]{32} \d+\n", last)[-1]
        self.seen.append((command.text, self.written(last)))


def lines_of(seen):
    """(kind, text) of each line, as they came."""
    for command, output in seen:
        yield "command", f"$ {command}"
        for line in output.rstrip("\n").split("\n") if output.strip() else []:
            yield "output", line.split("\r")[-1]


def spans(line):
    """The line's pieces, each with its classes."""
    styles, end, left = [], 0, COLUMNS
    for match in [*SGR.finditer(line), None]:
        piece = line[end:match.start() if match else len(line)][:left]
        left -= len(piece)
        if piece:
            kind = " ".join(styles)
            text = escape(piece)
            yield f'<tspan class="{kind}">{text}</tspan>' if kind else text
        if match:
            end = match.end()
            for code in match[1].split(";"):
                styles = [] if code in ("", "0") else [*styles, *filter(None, [CLASSES.get(code)])]


def draw(lines):
    lines = list(lines)
    width = COLUMNS * ADVANCE + 2 * MARGIN
    height = len(lines) * LINE + 2 * MARGIN
    rows, time = [], 0.3
    for number, (kind, line) in enumerate(lines):
        shown = "".join(spans(line))
        if kind == "command":
            shown = f'<tspan class="d">$</tspan><tspan class="b">{escape(line[1:])}</tspan>'
            time += PAUSES["command"]
        else:
            time += PAUSES["output"]
        if line.strip():
            rows.append(f'<text class="l" style="animation-delay:{time:.1f}s" x="{MARGIN}" '
                        f'y="{MARGIN + number * LINE + 12}">{shown}</text>')
    return ('<svg xmlns="http://www.w3.org/2000/svg" xml:space="preserve" '
            f'viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" height="{height}" role="img" '
            'aria-label="A terminal: status, a reload, and a bad deploy that is rolled back">\n'
            f"<style>{STYLE}</style>\n"
            f'<rect x=".5" y=".5" width="{width - 1:.0f}" height="{height - 1}" rx="6"/>\n' +
            "\n".join(rows) + "\n</svg>\n")


def main():
    page = pages.read(HERE / "demo.md")
    recorder = Recorder(page)
    try:
        recorder.read()
    finally:
        faults = recorder.close()
    assert not faults, faults
    recorder.remove()
    (HERE / "demo.svg").write_text(draw(lines_of(recorder.seen)))


main()
