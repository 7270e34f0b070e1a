"""Who asks for a reload while another runs: one follows, for all of them, with the newest file."""

import os
import signal
import subprocess
import time

import pytest

from ostler import example, program, scripted
from processes import eventually


def gated(version=0):
    """A worker that starts once there is a file `gate`, and says which version it is."""
    script = (f"until [ -e gate ]; do sleep 0.02; done; "
              f"exec {program('ostler-test-worker')} --print version-{version}.")
    return scripted() | {"command": ["/bin/sh", "-c", script]}


@pytest.fixture
def one(manager):
    """A manager whose reloads of `web` last until there is a gate."""
    made = manager({"web": gated(), "api": scripted()}, start=False)
    (made.directory / "gate").touch()
    made.start()
    (made.directory / "gate").unlink()
    return made


def open_gate(one):
    (one.directory / "gate").touch()


def ctl(one, *args):
    return subprocess.Popen([program("ostlerctl"), "--socket", one.socket, *args],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_of_many_hups_during_a_reload_one_more_follows_and_the_last_version_runs(one):
    with one.events() as events:
        one.signal(signal.SIGHUP)
        events.wait("reload.started")
        for version in range(1, 25):
            one.config["pools"]["web"] = gated(version)
            one.write()
            one.signal(signal.SIGHUP)
            time.sleep(0.01)  # signals that nobody has taken yet are one
        events.wait("reload.queued")
        open_gate(one)
        events.wait("reload.finished", count=2, pool="web")
        eventually(one.settled)
        assert len(events.named("reload.started")) == 2
    assert "version-24." in one.log()
    assert sum(one.log().count(f"version-{version}.") for version in range(1, 24)) == 0
    assert one.pool()["generation"] == 3


def test_everybody_who_asked_gets_the_outcome_of_the_pools_that_they_named(one):
    with one.events() as events:
        first = ctl(one, "reload", "web")
        events.wait("reload.started", pool="web")
        one.config["pools"]["api"] = scripted("--exit-code", 3)
        one.config["pools"]["new"] = example(workers=1)
        one.write()
        others = {name: ctl(one, "--json", "reload", name) for name in ("web", "api", "new", "no")}
        events.wait("reload.queued", count=4)
        everything = ctl(one, "reload")
        events.wait("reload.queued", count=5)
        open_gate(one)
        answers = {name: asked.communicate(timeout=60) for name, asked in others.items()}
        assert first.wait(60) == 0
    assert {name: asked.returncode for name, asked in others.items()} == {
        "web": 0, "api": 1, "new": 0, "no": 4}
    assert '"web"' in answers["web"][0] and '"api"' not in answers["web"][0]
    assert '"rolled_back"' in answers["api"][0] and '"web"' not in answers["api"][0]
    assert everything.wait(60) == 1
    out, err = everything.communicate()
    assert "web: reloaded" in out and "api: rolled back" in err
    first.communicate()
    assert len(events.named("reload.started")) == 2


def test_a_client_that_waits_is_told_so_and_for_whom(one):
    with one.events() as events:
        first = ctl(one, "reload", "web")
        events.wait("reload.started", pool="web")
        second = ctl(one, "restart", "api")
        events.wait("reload.queued", pool="api", pid=second.pid)
        # One that does not wait is answered nevertheless.
        assert one.post("/v1/reload?wait=false").status == 202
        open_gate(one)
        told = second.communicate(timeout=60)[0]
    assert second.returncode == 0
    assert (f"waiting for the reload of web that uid {os.getuid()} (pid {first.pid}) began\n"
            in told), told
    assert "waiting" not in first.communicate(timeout=60)[0]


def test_a_restart_does_not_fail_because_of_a_faulty_file_that_others_wanted_read(one):
    with one.events() as events:
        first = ctl(one, "reload", "web")
        events.wait("reload.started", pool="web")
        one.file.write_text("pools: {web: {wrokers: 4}}\n")
        reload, restart = ctl(one, "reload"), ctl(one, "restart", "api")
        events.wait("reload.queued", count=2)
        open_gate(one)
        err = reload.communicate(timeout=60)[1]
        restart.communicate(timeout=60)
        first.communicate(timeout=60)
    assert (first.returncode, reload.returncode, restart.returncode) == (0, 1, 0)
    assert "unknown key 'wrokers'" in err
    assert one.pool("api")["generation"] == 2


def test_a_hup_that_is_rejected_logs_every_fault(manager):
    one = manager({"web": example(workers=1)})
    one.file.write_text("pools: {web: {command: sleep 1, wrokers: 4, wokrers: 5}}\n")
    with one.events() as events:
        one.signal(signal.SIGHUP)
        assert events.wait("reload.finished")["outcome"] == "rejected"
    lines = [line for line in one.log().splitlines() if "reload rejected" in line]
    assert len(lines) == 2 and all("error" in line for line in lines)
    assert "wrokers" in lines[0] and "wokrers" in lines[1]


def test_a_hup_that_is_refused_is_logged(manager):
    one = manager({"web": scripted("--stop-slow", 1000)})
    with one.events() as events:
        one.signal(signal.SIGTERM)
        events.wait("manager.stopping")
        one.signal(signal.SIGHUP)
        assert one.wait() == 0
    assert "error reload refused: the manager is stopping" in one.log()
