"""A recording of what the core was told, replayed: the same events must give the same actions."""

import os
import pwd
import subprocess

import pytest

from ostler import example, program, scripted
from processes import eventually, kill_all
from test_rollback import change


def replay(path):
    return subprocess.run([program("ostler-replay"), str(path)], capture_output=True, text=True,
                          check=False, timeout=60)


def busy(manager, path):
    """A run with something of everything in it, recorded."""
    one = manager({"web": example(workers=3, restart={"backoff": "20ms"}),
                   "beating": scripted("--heartbeat-ms", 20, workers=2),
                   "late": scripted("--notify", "EXTEND_TIMEOUT_USEC=900000"),
                   "deaf": scripted("--ignore-term", timeouts={"stop": "100ms"})},
                  args=["--trace", str(path)])
    assert one.reload()["outcome"] == "reloaded"
    kill_all(one.pids("web"))
    for target in (5, "+1", "-3", "reset"):
        assert one.post("/v1/pools/web/scale", {"workers": target}).status == 200
    one.settle()
    for action in ("recycle", "stop", "kill"):
        assert one.post(f"/v1/workers/{one.pids('web')[0]}/{action}").status == 200
        one.settle()
    good = one.config["pools"]["web"]["command"]
    change(one, scripted("--exit-code", 1))
    assert one.reload()["outcome"] == "rolled_back"
    one.config["pools"]["web"]["command"] = good
    del one.config["pools"]["late"]
    one.config["pools"]["new"] = example(workers=1)
    assert one.write().reload()["outcome"] == "reloaded"
    assert one.post("/v1/restart").status == 200
    assert one.stop() == 0


def test_a_recorded_run_replays_to_the_same_actions(manager, tmp_path):
    path = tmp_path / "trace"
    busy(manager, path)
    lines = path.read_text().splitlines()
    assert lines[0].startswith("ostler-trace 4 ")
    assert sum(line.startswith("A ") for line in lines) > 100
    done = replay(path)
    assert done.returncode == 0, done.stdout


def test_a_recording_that_was_changed_does_not_replay(manager, tmp_path):
    path = tmp_path / "trace"
    one = manager({"web": example(workers=2)}, args=["--trace", str(path)])
    assert one.reload()["outcome"] == "reloaded"
    one.stop()
    lines = path.read_text().splitlines(keepends=True)
    actions = [index for index, line in enumerate(lines) if line.startswith("A ")]
    lost = actions[len(actions) // 2]
    path.write_text("".join(lines[:lost] + lines[lost + 1:]))
    done = replay(path)
    assert done.returncode == 1 and done.stdout.strip()


def test_a_recording_that_was_cut_off_replays_as_far_as_it_goes(manager, tmp_path):
    path = tmp_path / "trace"
    one = manager({"web": example(workers=2)}, args=["--trace", str(path)])
    eventually(lambda: path.stat().st_size > 500)
    one.process.kill()
    one.process.wait()
    text = path.read_text()
    path.write_text(text[:-10])
    assert replay(path).returncode == 0


def test_a_trace_that_cannot_be_written_is_told_at_once(manager):
    one = manager({"web": scripted()}, args=["--trace", "/no/such/folder/trace"],
                  start=False).launch()
    assert one.wait() == 1
    assert "/no/such/folder/trace" in one.log()


@pytest.mark.parametrize("link", ["symbolic", "hard"])
def test_a_trace_is_not_written_through_a_link(manager, tmp_path, link):
    victim, path = tmp_path / "victim", tmp_path / "trace"
    victim.write_text("precious")
    if link == "hard":
        path.hardlink_to(victim)
    else:
        path.symlink_to(victim)
    one = manager({"web": scripted()}, args=["--trace", str(path)], start=False).launch()
    assert one.wait() == 1
    why = "it has 2 names (hard links)" if link == "hard" else "it is a symbolic link"
    assert f"open {path}: {why}" in one.log()
    assert victim.read_text() == "precious"


def test_a_trace_begins_anew_with_each_start(manager, tmp_path):
    path = tmp_path / "trace"
    path.write_text("no trace, and longer than its first line" * 100)
    one = manager({"web": scripted()}, args=["--trace", str(path)])
    assert one.stop() == 0
    assert replay(path).returncode == 0


@pytest.mark.root
def test_a_trace_does_not_replace_a_file_of_another_user(manager, tmp_path):
    path = tmp_path / "trace"
    path.write_text("precious")
    os.chown(path, pwd.getpwnam("nobody").pw_uid, -1)
    one = manager({"web": scripted()}, args=["--trace", str(path)], start=False).launch()
    assert one.wait() == 1
    assert f"open {path}: it belongs to 'nobody', not to 'root'" in one.log()
    assert path.read_text() == "precious"
