"""The version stands in several files, and is the same in all."""

import re

from conftest import ROOT


def first(pattern, path):
    return re.search(pattern, (ROOT / path).read_text(), re.MULTILINE).group(1)


def test_all_files_have_the_same_version():
    version = first(r"^project\(ostler VERSION (\S+)", "CMakeLists.txt")
    assert first(r"^ostler \(([^-]+)-", "packaging/deb/changelog") == version
    assert first(r"^Version: +(\S+)", "packaging/rpm/ostler.spec") == version
    assert first(r"^\* .* - ([^-]+)-", "packaging/rpm/ostler.spec") == version
