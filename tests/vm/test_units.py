"""The units, and what docs/systemd.md shows of units, as systemd-analyze sees them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[2]
UNITS = SOURCES / "packaging" / "systemd"
PAGE = (SOURCES / "docs" / "systemd.md").read_text(encoding="utf-8")
SERVICES = ["ostler.service", "ostler@.service"]
# Each names the file it is to be, in its first line.
SNIPPETS = re.findall(r"^```ini\n# /etc/systemd/system/(\S+)\n(.*?)^```", PAGE,
                      re.MULTILINE | re.DOTALL)
NEEDS_SYSTEMD = pytest.mark.skipif(not shutil.which("systemd-analyze"),
                                   reason="needs systemd-analyze")


@pytest.fixture
def folder(tmp_path):
    """The units, with programs that are there on any machine."""
    for unit in [*SERVICES, "ostler.socket"]:
        text = (UNITS / unit).read_text(encoding="utf-8")
        (tmp_path / unit).write_text(re.sub(r"/usr/s?bin/ostler(d|ctl)", "/bin/true", text),
                                     encoding="utf-8")
    return tmp_path


def analyze(*arguments):
    done = subprocess.run(["systemd-analyze", *map(str, arguments)], capture_output=True, text=True,
                          check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


def faults(folder):
    """What `verify` says of these units; it also complains of others that they need."""
    units = [folder / "ostler.service", folder / "ostler@shop.service", folder / "ostler.socket"]
    (folder / "ostler@shop.service").write_bytes((folder / "ostler@.service").read_bytes())
    _, text = analyze("verify", "--man=no", *units)
    return [line for line in text.splitlines() if "ostler" in line or str(folder) in line]


@NEEDS_SYSTEMD
def test_the_units_are_right(folder):
    assert faults(folder) == []


@NEEDS_SYSTEMD
def test_a_unit_that_is_wrong_would_be_found(folder):
    with open(folder / "ostler.service", "a", encoding="utf-8") as unit:
        unit.write("[Service]\nNoSuchKey=1\n")
    assert any("NoSuchKey" in fault for fault in faults(folder))


@NEEDS_SYSTEMD
@pytest.mark.parametrize("unit", SERVICES)
def test_the_exposure_is_below_four(folder, unit):
    target = folder / unit.replace("@.", "@shop.")
    if not target.exists():
        target.write_bytes((folder / unit).read_bytes())
    assert analyze("security", "--offline=true", "--threshold=40", "--no-pager", target)[0] == 0


def test_an_instance_is_the_service_but_for_its_names():
    one, instance = ((UNITS / unit).read_text(encoding="utf-8") for unit in SERVICES)
    expected = (one.replace("/etc/ostler/ostler.yaml", "/etc/ostler/%i.yaml")
                .replace("RuntimeDirectory=ostler\n", "RuntimeDirectory=ostler-%i\n")
                .replace("manager\n", "manager, instance %i\n", 1))
    after = [text[text.index("[Unit]"):] for text in (expected, instance)]
    assert after[0] == after[1]


@NEEDS_SYSTEMD
@pytest.mark.parametrize("path, text", SNIPPETS, ids=[path for path, _ in SNIPPETS])
def test_what_the_page_shows_is_right(folder, path, text):
    unit = path.partition(".d/")[0]
    assert (folder / unit).exists(), f"no unit {unit}"
    (folder / path).parent.mkdir(exist_ok=True)
    (folder / path).write_text(text, encoding="utf-8")
    assert faults(folder) == []


def test_the_page_shows_drop_ins():
    assert len(SNIPPETS) >= 5
    assert len(SNIPPETS) == PAGE.count("```ini")
