"""The life of the .deb in a scratch system, as an administrator leads it: each test goes on where the
one before ended."""

import re
import stat
import subprocess

import pytest

from conftest import ROOT
from scratch import CHANGED, Clients, Service, ask, free_port, serve


# What dpkg, apt and the tools that they call leave behind, whatever the package.
BOOKKEEPING = re.compile(
    r"/var/lib/(dpkg|apt)/|/var/cache/|/var/log/|/etc/(passwd|group|shadow|gshadow|subuid|subgid)-?$"
    r"|/etc/\.pwd\.lock$|/etc/ld\.so\.cache$")


class Machine:
    """One scratch system, and what the tests know of it."""

    def __init__(self, root):
        self.root, self.port, self.service, self.before = root, free_port(), None, None


@pytest.fixture(scope="module")
def machine(make_root, packages):
    packages("ostler", ".deb")  # without it there is nothing to see
    made = Machine(make_root())
    made.root.apt("update")
    made.before = made.root.files()
    yield made
    if made.service is not None and made.service.process.poll() is None:
        made.service.stop()


@pytest.fixture(scope="module")
def next_version(packages, tmp_path_factory):
    """The same package with a higher version and another ostler.yaml."""
    work = tmp_path_factory.mktemp("next")
    subprocess.run(["dpkg-deb", "-R", packages("ostler", ".deb"), work / "tree"], check=True)
    control = work / "tree" / "DEBIAN" / "control"
    control.write_text(re.sub(r"^Version: .*", "Version: 9.0.0-1", control.read_text(),
                              flags=re.MULTILINE))
    with open(work / "tree/etc/ostler/ostler.yaml", "a", encoding="utf-8") as file:
        file.write("# new in this version\n")
    package = work / "ostler_9.0.0-1.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", work / "tree", package], check=True,
                   stdout=subprocess.DEVNULL)
    return package


def test_it_installs_with_nothing_but_what_it_declares(machine, packages):
    machine.root.apt("install", machine.root.put(packages("ostler", ".deb")))
    for program in ("ostlerd", "ostlerctl"):
        assert re.match(rf"{program} \d+\.\d+\.\d+", machine.root.run(program, "--version").stdout)


def test_its_files_are_roots_and_none_else_may_write_to_them(machine):
    for name in machine.root.run("dpkg", "-L", "ostler").stdout.splitlines():
        found = machine.root.path(name).lstat()
        assert (found.st_uid, found.st_gid) == (0, 0), name
        assert stat.S_ISLNK(found.st_mode) or not found.st_mode & 0o022, name


def test_the_configuration_it_brings_is_valid(machine):
    machine.root.run("ostlerd", "--check")


def test_it_makes_the_users_that_its_files_name(machine):
    for line in machine.root.path("/usr/lib/sysusers.d/ostler.conf").read_text().splitlines():
        kind, name = [*line.split(), "", ""][:2]
        if kind in ("u", "g"):
            machine.root.run("getent", {"u": "passwd", "g": "group"}[kind], name)


def test_it_serves_as_the_service_would_start_it(machine, worker):
    serve(machine, worker)
    answer = subprocess.run(["curl", "-sS", f"http://127.0.0.1:{machine.port}/"], text=True,
                            capture_output=True, check=True).stdout
    assert "hello" in answer


def test_an_upgrade_loses_no_request_and_leaves_the_manager_alone(machine, next_version):
    before = machine.service.status()
    package = machine.root.put(next_version)
    with Clients(machine.port) as clients:
        clients.wait_for_more()
        said = machine.root.apt("-o", "Dpkg::Options::=--force-confold", "install", package)
        # What is executed from now on is of the new version.
        machine.root.run("ostlerctl", "reload")
        clients.wait_for_more()
    assert not clients.lost
    assert clients.answered > 400
    after = machine.service.status()
    assert after["pid"] == before["pid"] == machine.service.process.pid
    assert after["pools"]["web"]["generation"] == before["pools"]["web"]["generation"] + 1
    assert f"ostlerd (pid {before['pid']}) goes on running in the previous version" in said


def test_an_upgrade_keeps_the_configuration_that_was_changed(machine):
    text = machine.root.path("/etc/ostler/ostler.yaml").read_text()
    assert CHANGED in text
    assert "new in this version" not in text
    assert machine.root.path("/etc/ostler/conf.d/web.yaml").exists()


def test_the_manager_of_the_new_version_takes_over_when_started_anew(machine):
    assert machine.service.stop() == 0
    machine.service = Service(machine.root)
    machine.service.wait_ready("web", 2)
    assert ask(machine.port)[0] == 200


def test_removing_keeps_the_configuration(machine):
    assert machine.service.stop() == 0
    machine.root.apt("remove", "ostler")
    assert CHANGED in machine.root.path("/etc/ostler/ostler.yaml").read_text()
    assert not machine.root.path("/usr/sbin/ostlerd").exists()


def test_purging_leaves_nothing_but_what_others_put_there(machine):
    machine.root.apt("purge", "ostler")
    assert machine.root.path("/etc/ostler/conf.d/web.yaml").exists()  # written by the administrator
    for name in ("/etc/ostler/conf.d/web.yaml", "/etc/ostler/conf.d", "/etc/ostler"):
        path = machine.root.path(name)
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
    machine.root.apt("autoremove", "--purge")
    left = {name for name in machine.root.files() - machine.before
            if not BOOKKEEPING.search(name) and not name.startswith("/srv/")}
    assert not left
    assert not {name for name in machine.before - machine.root.files()
                if not BOOKKEEPING.search(name)}


@pytest.mark.parametrize("kind", ["shared", "static", "pkg-config", "C"])
def test_a_worker_is_built_with_the_installed_sdk(kind, workshop):
    workshop(kind)


@pytest.fixture(scope="module")
def workshop(make_root, packages):
    """A function: builds a worker in a system that has compilers and libostler-worker-dev, asks it."""
    root = make_root("g++", "cmake", "make", "pkg-config")
    root.apt("update")
    root.apt("install", *[root.put(packages(name, ".deb"))
                          for name in ("libostler-worker0", "libostler-worker-dev", "ostler-doc")])
    subprocess.run(["cp", "-r", ROOT / "tests/installed/worker", root.path("/srv/worker")], check=True)
    flags = root.run("pkg-config", "--cflags", "--libs", "ostler-worker").stdout.split()
    root.run("cmake", "-S", "/srv/worker", "-B", "/srv/build", "-DCMAKE_BUILD_TYPE=Debug")

    def build(kind):
        program = "/srv/build/greeter-" + kind
        if kind == "pkg-config":
            root.run("g++", "-std=c++20", "/srv/worker/greeter.cpp", "-o", program, *flags)
        elif kind == "C":
            source = "/usr/share/doc/ostler/examples/c_worker/main.c"
            root.run("cc", "-std=c99", "-D_POSIX_C_SOURCE=200809L", source, "-o", program, *flags)
            assert "libostler-worker.so.0" in root.run("ldd", program).stdout
            return
        else:
            root.run("cmake", "--build", "/srv/build", "--target", f"greeter-{kind}")
        assert answer_of(root, program) == b"good day, /you\n"
    return build


def answer_of(root, program):
    """What a worker answers that runs by itself."""
    running = subprocess.Popen(root.command(program, "--listen", "tcp://127.0.0.1:0"), text=True,
                               stdout=subprocess.PIPE)
    try:
        port = int(re.search(r"(\d+)$", running.stdout.readline().strip()).group(1))
        return ask(port, "/you")[1]
    finally:
        running.terminate()
        assert running.wait(20) == 0
        running.stdout.close()


def test_lintian_finds_nothing(packages):
    changes = sorted(packages("ostler", ".deb").parent.glob("ostler_*.changes"))
    assert len(changes) == 1
    done = subprocess.run(["lintian", "--allow-root", "--fail-on", "error,warning", "--info",
                           changes[0]], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
