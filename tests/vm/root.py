"""The file system and the kernel of the virtual machine, made with apt alone.

What does not change from run to run (a minimal Debian with systemd and Python, the kernel) is kept
in build/vm, in folders named after what went into them. On top of it come ostler, from its .deb
package or from `cmake --install`, and the tests; the whole is packed as an initramfs.
"""

import hashlib
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2]
BUILT = Path(os.environ.get("OSTLER_BIN", SOURCES / "build/release/bin")).resolve().parent
CACHE = SOURCES / "build" / "vm"
KERNEL = "linux-image-cloud-amd64"
PACKAGES = ["systemd", "python3"]
# The tests find their own and the example workers here.
HOME = "opt/ostler-tests"
WORKERS = ["ostler-example-http", "ostler-test-worker"]
# Of no use to a machine without users, packages to install and a disk; memory it would cost.
SUPERFLUOUS = ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info",
               "usr/share/zoneinfo", "usr/lib/x86_64-linux-gnu/gconv", "usr/lib/udev",
               "var/lib/apt/lists", "var/cache/apt", "var/log", "boot"]
TOOLS = ["qemu-system-x86_64", "debootstrap", "cpio", "apt-get", "dpkg-deb"]


class Unavailable(Exception):
    """Why there can be no virtual machine here."""


def run(*command, **options):
    """The output of a command; its complaint is the error's if it fails."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False,
                          stdin=subprocess.DEVNULL, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{shlex.join(map(str, command))}: exit status {done.returncode}\n"
                           f"{done.stdout[-4000:]}")
    return done.stdout


def distribution():
    """The host's, as its binaries are to run in the machine."""
    fields = dict(line.split("=", 1) for line in
                  Path("/etc/os-release").read_text(encoding="utf-8").splitlines() if "=" in line)
    return fields.get("ID", "").strip('"'), fields.get("VERSION_CODENAME", "").strip('"')


def require():
    """Raises Unavailable, naming what is missing."""
    if os.geteuid() != 0:
        raise Unavailable("needs root (debootstrap)")
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        raise Unavailable(f"needs {', '.join(missing)}")
    if distribution()[0] != "debian" or os.uname().machine != "x86_64":
        raise Unavailable("needs Debian on amd64")


def mirror():
    """Where apt gets this distribution from."""
    listed = run("apt-get", "indextargets", "--format", "$(CODENAME) $(SITE)",
                 "Created-By: Packages", "Component: main")
    for line in listed.splitlines():
        codename, _, site = line.partition(" ")
        if codename == distribution()[1] and site.startswith("http"):
            return site.rstrip("/")
    raise Unavailable(f"apt-get knows no mirror of {distribution()[1]} (apt-get update?)")


def libraries():
    """The packages that the programs need at run time."""
    programs = [BUILT / "bin" / name for name in ("ostlerd", "ostlerctl", *WORKERS)]
    paths = set(re.findall(r"=> (/\S+)", run("ldd", *programs)))
    # dpkg knows the files by where they were installed; /lib is a link to /usr/lib by now.
    owners = set()
    for path in sorted(paths):
        real = os.path.realpath(path)
        for candidate in (real, real.removeprefix("/usr"), path):
            found = subprocess.run(["dpkg-query", "-S", candidate], capture_output=True, text=True,
                                   check=False)
            if found.returncode == 0:
                owners.add(found.stdout.split(":")[0])
                break
        else:
            raise Unavailable(f"{real} belongs to no package")
    return sorted(owners)


def kept(name, key, make):
    """The folder build/vm/NAME-HASH, made by `make(folder)` if it is not there yet."""
    digest = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
    folder = CACHE / f"{name}-{digest}"
    if not folder.exists():
        for old in CACHE.glob(f"{name}-*"):
            shutil.rmtree(old)
        partial = CACHE / f"{name}-partial-{digest}"
        partial.mkdir(parents=True)
        make(partial)
        partial.rename(folder)
    return folder


def proxies():
    settings = {}
    for scheme in ("http", "https"):
        value = run("apt-config", "shell", "value", f"Acquire::{scheme}::Proxy").strip()
        if value:
            settings[f"{scheme}_proxy"] = shlex.split(value)[0].partition("=")[2]
    return settings


def base():
    """A minimal Debian."""
    packages = sorted({*PACKAGES, *libraries()})

    def make(folder):
        run("debootstrap", "--variant=minbase", f"--include={','.join(packages)}",
            distribution()[1], folder, mirror(), env={**os.environ, **proxies()})
        for path in SUPERFLUOUS:
            shutil.rmtree(folder / path, ignore_errors=True)
        (folder / "var/log").mkdir()
    return kept("base", (distribution(), packages, SUPERFLUOUS), make)


def kernel():
    """The kernel image, of the package's newest version that apt knows."""
    depends = re.search(r"^\s+Depends: (linux-image-\S+)$",
                        run("apt-cache", "depends", KERNEL), re.MULTILINE)
    if not depends:
        raise Unavailable(f"apt knows no {KERNEL}")
    package = depends.group(1)
    version = run("apt-cache", "show", "--no-all-versions", package)
    version = re.search(r"^Version: (.*)$", version, re.MULTILINE).group(1)

    def make(folder):
        run("apt-get", "-o", "APT::Sandbox::User=root", "download", f"{package}={version}",
            cwd=folder)
        run("dpkg-deb", "-x", *folder.glob("*.deb"), folder / "x")
        image, = (folder / "x/boot").glob("vmlinuz-*")
        image.rename(folder / "vmlinuz")
        shutil.rmtree(folder / "x")
        for package_file in folder.glob("*.deb"):
            package_file.unlink()
    return kept("kernel", (package, version), make) / "vmlinuz"


def package():
    """The .deb to install, if there is one that is not older than the programs it is made of."""
    built = (BUILT / "bin/ostlerd").stat().st_mtime
    fresh = [path for path in (SOURCES / "build/package").glob("ostler_*.deb")
             if path.stat().st_mtime >= built]
    return max(fresh, key=lambda path: path.stat().st_mtime, default=None)


def install(root):
    """Installs ostler, and says from what."""
    deb = package()
    if deb:
        shutil.copy(deb, root / "tmp/ostler.deb")
        run("chroot", root, "dpkg", "-i", "/tmp/ostler.deb",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"})
        (root / HOME).mkdir(parents=True)
        (root / "tmp/ostler.deb").rename(root / HOME / "ostler.deb")
        return deb.name
    run("cmake", "--install", BUILT, "--prefix", "/usr", "--component", "ostler",
        env={**os.environ, "DESTDIR": str(root)})
    shutil.move(root / "usr/etc/ostler", root / "etc/ostler")
    run("chroot", root, "systemd-sysusers")
    return "cmake --install"


def add_tests(root):
    home = root / HOME
    home.mkdir(parents=True, exist_ok=True)
    for source in [*sorted((Path(__file__).parent / "guest").glob("*.py")),
                   SOURCES / "tests/system/processes.py"]:
        shutil.copy(source, home)
    for name in WORKERS:
        shutil.copy(BUILT / "bin" / name, home)
    shutil.copy(SOURCES / "docs/systemd.md", home)
    system = root / "etc/systemd/system"
    (system / "ostler-tests.service").write_text(
        "[Unit]\nDescription=the tests\n[Service]\nType=exec\n"
        f"ExecStart=/usr/bin/python3 -B /{HOME}/run.py\n", encoding="utf-8")
    wants = system / "multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "ostler-tests.service").symlink_to("../ostler-tests.service")


def image():
    """(kernel, initramfs, what was installed)."""
    require()
    CACHE.mkdir(parents=True, exist_ok=True)
    root = CACHE / "root"
    shutil.rmtree(root, ignore_errors=True)
    run("cp", "-a", "--reflink=auto", base(), root)
    try:
        installed = install(root)
        add_tests(root)
        initramfs = CACHE / "initramfs"
        with open(initramfs, "wb") as packed:
            found = subprocess.Popen(["find", ".", "-mindepth", "1", "-print0"], cwd=root,
                                     stdout=subprocess.PIPE)
            subprocess.run(["cpio", "--null", "--quiet", "-o", "-H", "newc"], cwd=root,
                           stdin=found.stdout, stdout=packed, check=True)
            found.wait()
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return kernel(), initramfs, installed
