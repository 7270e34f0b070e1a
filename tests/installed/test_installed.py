"""The SDK as it is installed: workers that are built outside the tree, by CMake, by pkg-config and
by a C compiler, and then serve.

usage: test_installed.py BUILD_DIR
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

BUILD = Path(sys.argv[1]).resolve()
HERE = Path(__file__).resolve().parent


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], text=True, capture_output=True,
                          check=False, timeout=500, **options)
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


def answer_of(program, env, path="/you"):
    """What it answers when it runs by itself."""
    worker = subprocess.Popen([str(program), "--listen", "tcp://127.0.0.1:0"], env=env, text=True,
                              stdout=subprocess.PIPE)
    try:
        port = re.search(r"(\d+)$", worker.stdout.readline().strip()).group(1)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as reply:
            return reply.read().decode()
    finally:
        worker.terminate()
        assert worker.wait(20) == 0
        worker.stdout.close()


def answer_of_inherited(program, env):
    """What it answers on a listener that it inherits, as systemd hands it over."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        script = 'exec 3<&"$1"; LISTEN_FDS=1 LISTEN_PID=$$ exec "$0"'
        worker = subprocess.Popen(["/bin/sh", "-c", script, str(program), str(listener.fileno())],
                                  env=env, pass_fds=[listener.fileno()])
        try:
            port = listener.getsockname()[1]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as reply:
                return reply.read().decode()
        finally:
            worker.terminate()
            assert worker.wait(20) == 0


def main():
    with tempfile.TemporaryDirectory(prefix="ostler-installed-") as name:
        prefix, work = Path(name) / "moved", Path(name) / "work"
        # It is installed in one place and moved to another: nothing may remember the first.
        run("cmake", "--install", BUILD, "--prefix", Path(name) / "first")
        shutil.move(Path(name) / "first", prefix)
        libraries = next(prefix.glob("lib*/**/libostler-worker.so")).parent
        assert (libraries / "libostler-worker.so.0").exists()
        env = {**os.environ, "LD_LIBRARY_PATH": str(libraries),
               "PKG_CONFIG_PATH": str(libraries / "pkgconfig")}

        run("cmake", "-S", HERE / "worker", "-B", work, f"-DCMAKE_PREFIX_PATH={prefix}",
            "-DCMAKE_BUILD_TYPE=Debug")
        run("cmake", "--build", work)
        for kind in ("static", "shared"):
            assert answer_of(work / f"greeter-{kind}", env) == "good day, /you\n"
            print(f"find_package, {kind}: serves")
        assert "libostler-worker.so.0" in run("ldd", work / "greeter-shared", env=env)

        run(work / "greeter-test", work / "greeter-static")
        print("the fake manager: tests a worker")

        flags = run("pkg-config", "--cflags", "--libs", "ostler-worker", env=env).split()
        run("g++", "-std=c++20", HERE / "worker/greeter.cpp", "-o", work / "greeter-pc", *flags)
        assert answer_of(work / "greeter-pc", env) == "good day, /you\n"
        print("pkg-config: serves")

        example = prefix / "share/doc/ostler/examples/c_worker/main.c"
        run("cc", "-std=c99", "-D_POSIX_C_SOURCE=200809L", example, "-o", work / "c-worker", *flags)
        assert "hello" in answer_of_inherited(work / "c-worker", env)
        print("a C program by pkg-config: serves")

        for program in ("sbin/ostlerd", "bin/ostlerctl"):
            assert run(prefix / program, "--version", env=env).startswith(Path(program).name)
        print("the programs: run")
    print("6 passed, 0 failed")


main()
