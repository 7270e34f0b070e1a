"""Deploys by a link that is switched: a reload follows it, and nothing else does."""

import json
import os
import shutil
import signal
import subprocess

import pytest

from ostler import shell
from processes import eventually

IN_THE_LINK = ["/bin/sh", "-c", 'cd "$0/current" && export PWD && exec "$1" --config ostler.yaml']


class Releases:
    """`current`, a link to one of two releases, and a manager that is started in it. CURRENT in a
    pool's settings is the link's path."""

    def __init__(self, manager, pools, **sections):
        self.one = manager(start=False)
        self.folder = self.one.directory
        self.one.prefix = [*IN_THE_LINK, str(self.folder)]
        for number in (1, 2):
            self.of(number, "conf.d").mkdir(parents=True)
            self.configure(number, pools, **sections)
            self.of(number, "conf.d/more.yaml").write_text(
                f"pools: {{more{number}: {{command: [sleep, '1000'], workers: 1}}}}")
            self.of(number, "app.env").write_text(f"RELEASE={number}\n")
            run = self.of(number, "run.sh")
            run.write_text(f'#!/bin/sh\necho "code {number}, RELEASE=$RELEASE, in $(pwd -P), '
                           f'PWD=$PWD"\nexec sleep 1000\n')
            run.chmod(0o755)
        self.switch(1)
        self.one.start()

    def configure(self, number, pools, **sections):
        text = json.dumps({**self.one.config, **sections, "pools": pools})
        self.of(number, "ostler.yaml").write_text(
            text.replace("CURRENT", str(self.folder / "current")))

    def of(self, number, name="."):
        return self.folder / "releases" / str(number) / name

    def switch(self, number):
        new = self.folder / "new"
        new.symlink_to(f"releases/{number}")
        new.rename(self.folder / "current")

    def said(self, pool="web"):
        """What the worker of a pool that is there now has said."""
        name = f"{pool}.0[{self.one.pids(pool)[0]}]: "
        eventually(lambda: name in self.one.log())
        return next(line.split(name)[1] for line in self.one.log().splitlines() if name in line)

    def crash(self, pool="web"):
        before = self.one.pids(pool)[0]
        os.kill(before, signal.SIGKILL)
        eventually(lambda: self.one.pids(pool, "ready") not in ([], [before]))

    def ran(self, number):
        real = self.of(number).resolve()
        return f"code {number}, RELEASE={number}, in {real}, PWD={real}"


POOLS = {"without a directory": {"command": ["./run.sh"]},
         "with a directory": {"command": ["./run.sh"], "directory": "."},
         "with the executable's path": {"command": ["CURRENT/run.sh"], "directory": "."},
         "with PATH": {"command": "run.sh", "env": {"PATH": "CURRENT:/usr/bin:/bin"}}}


@pytest.mark.parametrize("how", POOLS)
def test_a_crash_gets_the_old_release_and_a_reload_the_new_one(manager, how):
    releases = Releases(manager, {"web": {**POOLS[how], "env_file": "app.env", "workers": 1}})
    one = releases.one
    assert releases.said() == releases.ran(1)
    releases.switch(2)
    releases.crash()
    assert releases.said() == releases.ran(1)
    assert one.reload()["outcome"] == "reloaded"
    assert releases.said() == releases.ran(2)
    assert one.status()["config"] == str(one.directory / "current/ostler.yaml")


def test_a_release_that_is_gone_backs_off_and_is_named_until_a_reload(manager):
    releases = Releases(manager, {"web": {"command": "./run.sh", "env_file": "app.env",
                                          "workers": 1},
                                  "shell": shell("exec sleep 1000")})
    one = releases.one
    gone = releases.of(1).resolve()
    releases.switch(2)
    shutil.rmtree(gone)
    for pool in ("web", "shell"):
        os.kill(one.pids(pool)[0], signal.SIGKILL)
        reason = f"chdir {gone}: No such file or directory; the folder that this gen"
        eventually(lambda: reason in str(one.pool(pool)["last_error"]))
        assert one.pool(pool)["state"] == "degraded"
    assert one.reload()["outcome"] == "reloaded"
    assert releases.said() == releases.ran(2)


def test_the_included_files_are_those_of_the_release(manager):
    releases = Releases(manager, {}, include=["conf.d/*.yaml"])
    one = releases.one
    assert set(one.status()["pools"]) == {"more1"}
    releases.switch(2)
    assert one.reload()["outcome"] == "reloaded"
    eventually(lambda: set(one.status()["pools"]) == {"more2"})


@pytest.mark.skipif(not os.access("/usr/bin/python3", os.X_OK), reason="needs Python")
def test_a_virtual_environment_stays_that_of_its_release(manager):
    """Python finds its environment by the path that it is started with, which is a link."""
    show = "import sys, time; print('prefix', sys.prefix, flush=True); time.sleep(1000)"
    releases = Releases(manager, {})
    one = releases.one
    for number in (1, 2):
        subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip",
                        str(releases.of(number, "venv"))], check=True)
        releases.configure(number, {"web": {"command": ["CURRENT/venv/bin/python", "-c", show],
                                            "workers": 1}})
    assert one.reload()["outcome"] == "reloaded"
    assert releases.said() == f"prefix {releases.of(1, 'venv').resolve()}"
    releases.switch(2)
    releases.crash()
    assert releases.said() == f"prefix {releases.of(1, 'venv').resolve()}"
    assert one.reload()["outcome"] == "reloaded"
    assert releases.said() == f"prefix {releases.of(2, 'venv').resolve()}"
