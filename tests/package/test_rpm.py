"""The life of the .rpm in a scratch system that has glibc and no other library it could need, with a
database of its own; and what the bundled programs are linked with."""

import os
import re
import shutil
import subprocess

import pytest

from scratch import CHANGED, Clients, ask, free_port, serve

NAMES = ("ostler", "libostler-worker", "libostler-worker-devel", "ostler-doc")
GLIBC = re.compile(r"lib[cm]\.so\.6|ld-linux-x86-64\.so\.2|ld-linux-aarch64\.so\.1")
# What Debian 12 has, and GCC 12; Fedora 37 was the first with this glibc.
NEWEST = {"GLIBC": (2, 36), "GLIBCXX": (3, 4, 30), "CXXABI": (1, 3, 13), "GCC": (12, 0, 0)}


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], text=True, capture_output=True,
                          check=False, timeout=600, **options)
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def rpm_files(packages):
    if shutil.which("rpm") is None:
        pytest.skip("needs rpm")
    return {name: packages(name, ".rpm") for name in NAMES}


@pytest.fixture(scope="module")
def unpacked(rpm_files, tmp_path_factory):
    """What is in the packages, without installing them."""
    folder = tmp_path_factory.mktemp("unpacked")
    for file in rpm_files.values():
        run("sh", "-c", 'rpm2cpio "$0" | cpio --quiet -idm', file, cwd=folder)
    return folder


def needs(file):
    """The libraries that a program or library loads, and the newest version it asks of each kind."""
    headers = run("objdump", "-p", file)
    newest = {}
    for kind, version in re.findall(r"\b(GLIBC|GLIBCXX|CXXABI|GCC)_([\d.]+)", headers):
        newest[kind] = max(newest.get(kind, ()), tuple(int(part) for part in version.split(".")))
    return set(re.findall(r"NEEDED +(\S+)", headers)), newest


@pytest.mark.parametrize("name", ["usr/sbin/ostlerd", "usr/bin/ostlerctl"])
def test_a_program_needs_glibc_alone_and_none_newer_than_debian_12s(name, unpacked):
    libraries, newest = needs(unpacked / name)
    assert libraries and not [library for library in libraries if not GLIBC.fullmatch(library)]
    assert newest.keys() == {"GLIBC"}
    assert newest["GLIBC"] <= NEWEST["GLIBC"]


def test_the_library_needs_what_every_such_system_has(unpacked):
    libraries, newest = needs(unpacked / "usr/lib64/libostler-worker.so.0")
    assert {library for library in libraries if not GLIBC.fullmatch(library)} \
        == {"libstdc++.so.6", "libgcc_s.so.1"}
    assert not {kind: found for kind, found in newest.items() if found > NEWEST[kind]}


def test_the_headers_ask_for_the_boost_that_is_inside(rpm_files):
    asked = run("rpm", "-qp", "--requires", rpm_files["libostler-worker-devel"])
    assert re.search(r"^boost-devel >= 1\.\d+$", asked, re.MULTILINE)
    assert re.search(r"^boost-devel < 1\.\d+$", asked, re.MULTILINE)


THROWING = r'''
#include <ostler/http.hpp>
#include <stdexcept>

int main(int argc, char** argv) {
  return ostler::http::serve(argc, argv, [](const ostler::http::request& request) {
    if (request.target() == "/throw") throw std::runtime_error("thrown");
    return ostler::http::response{.body = std::string(request.target())};
  });
}
'''


def test_a_worker_may_throw_into_the_library(unpacked, tmp_path):
    if shutil.which("g++") is None or shutil.which("pkg-config") is None:
        pytest.skip("needs g++ and pkg-config")
    (tmp_path / "worker.cpp").write_text(THROWING)
    libraries = unpacked / "usr/lib64"
    flags = run("pkg-config", "--cflags", "--libs", "ostler-worker",
                env={**os.environ, "PKG_CONFIG_PATH": str(libraries / "pkgconfig")}).split()
    run("g++", "-std=c++20", tmp_path / "worker.cpp", "-o", tmp_path / "worker", *flags)
    assert "libstdc++" in run("objdump", "-p", tmp_path / "worker")
    worker = subprocess.Popen([tmp_path / "worker", "--listen", "tcp://127.0.0.1:0"], text=True,
                              stdout=subprocess.PIPE,
                              env={**os.environ, "LD_LIBRARY_PATH": str(libraries)})
    try:
        port = int(re.search(r"(\d+)$", worker.stdout.readline().strip()).group(1))
        for _ in range(3):
            assert ask(port, "/throw")[0] == 500
            assert ask(port, "/well") == (200, b"/well")
    finally:
        worker.terminate()
        assert worker.wait(20) == 0
        worker.stdout.close()


@pytest.fixture(scope="module")
def next_release(rpm_files, packages, tmp_path_factory):
    """The same files as the next release: the spec, with what is in the package for a build."""
    work = tmp_path_factory.mktemp("release")
    source = packages("ostler", ".src.rpm")
    run("sh", "-c", 'rpm2cpio "$0" | cpio --quiet -idm', source, cwd=work)
    spec = (work / "ostler.spec").read_text()
    unpack = " ".join(str(file) for file in rpm_files.values())
    spec = re.sub(r"^Release:.*", "Release: 9", spec, flags=re.MULTILINE)
    spec = re.sub(r"^%build\n.*?^%install\n.*?(?=^# An upgrade)",
                  f"%build\n%install\ncd %{{buildroot}}\nfor file in {unpack}; do\n"
                  "  rpm2cpio $file | cpio --quiet -idm\ndone\n", spec,
                  flags=re.MULTILINE | re.DOTALL)
    assert "rpm2cpio" in spec
    spec = spec.replace("%post\n", "%post\necho upgraded >/srv/upgraded\n", 1)
    (work / "ostler.spec").write_text(spec)
    run("rpmbuild", "-bb", "--nodeps", "--with", "bundled", "--define", f"_topdir {work}",
        "--define", f"_sourcedir {work}", "--define", f"_rpmdir {work}", "--define",
        "_build_name_fmt %%{NVRA}.rpm", "--define", "__os_install_post %{nil}",
        work / "ostler.spec")
    return {name: next(work.glob(f"{name}-[0-9]*.rpm")) for name in NAMES}


class Machine:
    """One scratch system with an rpm database, and what the tests know of it."""

    def __init__(self, root):
        self.root, self.port, self.service = root, free_port(), None
        self.before = root.files()

    def rpm(self, *words):
        return run("rpm", "--root", self.root.folder, "--dbpath", "/var/lib/rpm", *words)

    def change(self, *words):
        """Debian's packages do not count as dependencies."""
        return self.rpm("--nodeps", *words)


@pytest.fixture(scope="module")
def machine(make_root, rpm_files):
    assert rpm_files  # without them there is nothing to see
    made = Machine(make_root())
    yield made
    if made.service is not None and made.service.process.poll() is None:
        made.service.stop()


def test_it_installs(machine, rpm_files):
    machine.change("-i", *rpm_files.values())
    assert sorted(machine.rpm("-qa", "--qf", "%{NAME}\n").split()) == sorted(NAMES)
    for program in ("ostlerd", "ostlerctl"):
        assert re.match(rf"{program} \d+\.\d+\.\d+", machine.root.run(program, "--version").stdout)
    machine.root.run("ostlerd", "--check")


def test_it_serves_as_the_service_would_start_it(machine, worker):
    serve(machine, worker)
    assert ask(machine.port)[0] == 200


def test_an_upgrade_loses_no_request_and_leaves_the_manager_alone(machine, next_release):
    with Clients(machine.port) as clients:
        clients.wait_for_more()
        machine.change("-U", *next_release.values())
        machine.root.run("ostlerctl", "reload")
        clients.wait_for_more()
    assert not clients.lost
    assert machine.root.path("/srv/upgraded").exists()
    assert machine.rpm("-q", "--qf", "%{RELEASE}", "ostler") == "9"
    assert machine.service.status()["pid"] == machine.service.process.pid
    assert CHANGED in machine.root.path("/etc/ostler/ostler.yaml").read_text()


def test_erasing_leaves_the_configuration_that_was_changed_and_nothing_else(machine):
    assert machine.service.stop() == 0
    machine.change("-e", *NAMES)
    left = {name for name in machine.root.files() - machine.before
            if not re.match(r"/var/lib/rpm|/srv/|/run/ostler$|/etc/ld\.so\.cache$", name)}
    # Folders that Fedora's own packages bring.
    left = {name for name in left if not machine.root.path(name).is_dir() or "ostler" in name}
    assert left == {"/etc/ostler", "/etc/ostler/conf.d", "/etc/ostler/conf.d/web.yaml",
                    "/etc/ostler/ostler.yaml.rpmsave"}
    assert not machine.before - machine.root.files()


def test_rpmlint_finds_nothing(rpm_files, packages):
    if shutil.which("rpmlint") is None:
        pytest.skip("needs rpmlint")
    done = subprocess.run(["rpmlint", "--rpmlintrc", os.path.join(os.path.dirname(__file__),
                           "../../packaging/rpm/rpmlintrc"), *rpm_files.values(),
                           packages("ostler", ".src.rpm")],
                          text=True, capture_output=True, check=False)
    assert re.search(r" 0 errors, 0 warnings", done.stdout), done.stdout + done.stderr
