"""The packages as `./dev package` left them, and scratch systems to install them into.

OSTLER_PACKAGES   the folder with the packages; build/package unless set
OSTLER_SUITE      the Debian they are for; bookworm unless set
OSTLER_BIN        programs of the build that serve as workers; build/release/bin unless set
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from scratch import Root

ROOT = Path(__file__).resolve().parents[2]
SUITE = os.environ.get("OSTLER_SUITE", "bookworm")
PACKAGES = Path(os.environ.get("OSTLER_PACKAGES", ROOT / "build" / "package"))
WORKER = Path(os.environ.get("OSTLER_BIN", ROOT / "build/release/bin")) / "ostler-example-http"


@pytest.fixture(scope="session")
def packages():
    """A function: the one package with that name and ending."""
    def find(name, ending):
        found = [path for path in PACKAGES.glob(f"{name}[-_]*{ending}")
                 if not path.name.endswith(".src.rpm") or ending == ".src.rpm"]
        separator = "_" if ending == ".deb" else "-"
        found = [path for path in found if path.name[len(name)] == separator
                 and path.name[len(name) + 1].isdigit()]
        if not found:
            pytest.skip(f"no {ending} of {name} in {PACKAGES}: run ./dev package")
        assert len(found) == 1, found
        return found[0]
    return find


@pytest.fixture(scope="session")
def make_root(tmp_path_factory):
    """A function: a fresh system with these packages of Debian; the bare one is made but once."""
    roots = []

    def make(*tools):
        if os.geteuid() != 0:
            pytest.skip("needs root, for chroot")
        name = "-".join([SUITE, *(["tools"] if tools else [])])
        bare = ROOT / "build" / "roots" / name
        if not bare.is_dir():
            if shutil.which("debootstrap") is None:
                pytest.skip("needs debootstrap")
            made = subprocess.run([ROOT / "packaging" / "root", SUITE, bare, *tools], text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
            assert made.returncode == 0, made.stdout[-3000:]
        folder = tmp_path_factory.mktemp("root") / "root"
        subprocess.run(["cp", "-a", "--reflink=auto", bare, folder], check=True)
        root = Root(folder)
        roots.append(root)
        return root
    yield make
    for root in roots:
        root.close()


@pytest.fixture(scope="session")
def worker():
    """A program that needs nothing but glibc and answers HTTP."""
    if not WORKER.exists():
        pytest.skip(f"no {WORKER}: run ./dev build")
    return WORKER
