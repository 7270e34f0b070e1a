"""Packages that are built again, elsewhere and later, are the same byte for byte."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import PACKAGES, ROOT, SUITE


def again(kind, folder, cache):
    """Builds in another folder, with a compiler cache that has nothing of the first build, in another
    time zone and language."""
    env = {**os.environ, "CCACHE_DIR": str(cache), "TZ": "Asia/Tokyo", "LANG": "de_DE.UTF-8"}
    done = subprocess.run([ROOT / "packaging" / "build", kind, folder], env=env, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, done.stdout[-5000:]


@pytest.fixture(scope="module", autouse=True)
def same_system():
    if f"VERSION_CODENAME={SUITE}\n" not in Path("/etc/os-release").read_text():
        pytest.skip(f"builds for the Debian that runs, which is not {SUITE}")


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    return tmp_path_factory.mktemp("a-much-longer-name-than-that-of-the-first-folder")


@pytest.mark.parametrize("kind, patterns, tool", [
    ("sources", ["ostler-*.tar.xz"], "xz"),
    ("deb", ["*.deb", "*.dsc", "*.debian.tar.xz", "*.orig.tar.xz"], "dpkg-buildpackage"),
    ("rpm", ["*.rpm"], "rpmbuild")])
def test_a_second_build_is_the_same(kind, patterns, tool, twice):
    if shutil.which(tool) is None:
        pytest.skip(f"needs {tool}")
    first = sorted(path for pattern in patterns for path in PACKAGES.glob(pattern))
    if not first:
        pytest.skip(f"no {patterns[0]} in {PACKAGES}: run ./dev package")
    again(kind, twice, twice / "ccache")
    different = [path.name for path in first
                 if not (twice / path.name).exists()
                 or path.read_bytes() != (twice / path.name).read_bytes()]
    assert not different
