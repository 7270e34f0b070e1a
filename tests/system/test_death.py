"""Workers that die, hang or leave children behind, and a manager that is killed."""

import os
import signal
import time

import pytest

from ostler import example, program, scripted, shell
from processes import alive, children, cpu_seconds, descriptors, eventually, kill_all, zombies
from test_rollback import free_port


def test_two_hundred_workers_killed_at_once_are_all_replaced_five_times(manager):
    one = manager({"web": scripted(workers=200, restart={"burst": 1000})})
    pid = one.pid
    address = one.address()
    assert one.fetch()[0] == 200
    open_before = descriptors(pid)
    for _ in range(5):
        before = one.pids(state="ready")
        assert len(before) == 200
        kill_all(before)
        assert one.fetch()[0] == 200  # the next request is answered
        eventually(lambda gone=set(before): one.settled() and not gone & set(one.pids()),
                   what="200 new workers")
    assert one.address() == address
    assert one.pool()["restarts"] == 1000
    assert not zombies(pid)
    assert len(children(pid)) == 200
    assert one.process.poll() is None
    eventually(lambda: descriptors(pid) <= open_before,
               what=f"{open_before} descriptors, as before the 1000 kills")


def test_a_connection_made_while_no_worker_lives_is_answered(manager):
    one = manager({"web": scripted("--start-delay", 300, workers=1)})
    address = one.address()
    old = one.pids()
    kill_all(old)
    assert one.fetch("/pid")[1].strip() != str(old[0])
    assert one.address() == address


def offspring(one):
    """The worker, its children and a grandchild whose parent is gone: all deaf to TERM."""
    view = one.worker_view()
    assert len(view["children"]) == 3
    everybody = [view["pid"], *view["children"]]
    assert all(alive(pid) for pid in everybody)
    return everybody


DEAF = ("--ignore-term", "--fork-children", 2, "--double-fork-child")


@pytest.mark.parametrize("action", ["reload", "scale", "recycle", "stop"])
def test_a_worker_that_ignores_term_and_its_children_are_gone_after_the_stop_timeout(
        manager, action):
    one = manager({"web": scripted(*DEAF, timeouts={"stop": "400ms"})})
    everybody = offspring(one)
    begin = time.monotonic()
    if action == "reload":
        assert one.reload()["pools"]["web"]["replaced"] == 1
    elif action == "scale":
        one.post("/v1/pools/web/scale", {"workers": 0})
    elif action == "recycle":
        assert one.ctl("recycle", "web.0").returncode == 0
    else:
        assert one.ctl("stop").returncode == 0
        assert one.wait() == 0
    eventually(lambda: not any(alive(pid) for pid in everybody), what="an end of all")
    assert time.monotonic() - begin >= 0.4


def test_the_children_of_a_killed_worker_are_gone_after_the_stop_timeout(manager):
    one = manager({"web": scripted(*DEAF, timeouts={"stop": "400ms"})})
    everybody = offspring(one)
    os.kill(everybody[0], signal.SIGKILL)
    eventually(lambda: not any(alive(pid) for pid in everybody), what="an end of all")
    one.settle()


def test_stop_now_takes_the_children_along(manager):
    one = manager({"web": scripted(*DEAF)})
    everybody = offspring(one)
    begin = time.monotonic()
    assert one.ctl("stop", "--now").returncode == 0
    assert one.wait() == 0
    eventually(lambda: not any(alive(pid) for pid in everybody), what="an end of all")
    assert time.monotonic() - begin < 15  # and not timeouts.stop


def test_a_child_that_outlives_its_wrapper_is_stopped(manager):
    worker = program("ostler-test-worker")
    one = manager({"web": {**scripted(), "command": ["/bin/sh", "-c", f"{worker} & wait"]}})
    wrapper = one.pids()[0]
    child = int(one.fetch("/pid")[1])
    assert child != wrapper
    one.post("/v1/pools/web/scale", {"workers": 0})
    eventually(lambda: not alive(wrapper) and not alive(child), what="an end of both")


def test_a_child_that_outlives_its_wrapper_gets_the_stop_signal_it_catches(manager):
    script = ("import signal, sys\n"
              "def stop(number, _):\n"
              "    open('stopped', 'w').write(signal.Signals(number).name)\n"
              "    sys.exit()\n"
              "for one in (signal.SIGTERM, signal.SIGWINCH): signal.signal(one, stop)\n"
              "open('up', 'w').close()\n"
              "while True: signal.pause()\n")
    one = manager(start=False)
    (one.directory / "app.py").write_text(script)
    one.write({**one.config, "pools": {"web": {
        **shell("/usr/bin/python3 app.py & wait", ready={"after": "50ms"}, stop_signal="WINCH"),
        "directory": str(one.directory)}}}).start()
    eventually((one.directory / "up").exists)
    assert one.stop() == 0
    assert (one.directory / "stopped").read_text() == "SIGWINCH"


def test_orphans_are_reaped(manager):
    one = manager({"web": shell("(sleep 0.05 & sleep 0.05 &); exec sleep 1000", workers=3,
                                ready={"after": "10ms"}, stop_signal="TERM")})
    eventually(lambda: len(children(one.pid)) == 3, what="nobody but the workers")
    eventually(lambda: not zombies(one.pid), what="no zombies")


def crashing(one):
    """A pool whose workers die at once as long as a file is there."""
    flag = one.directory / "broken"
    return flag, {**scripted(), "command": [
        "/bin/sh", "-c",
        f"test -e {flag} && echo out of order && exit 7; exec {program('ostler-test-worker')}"]}


@pytest.mark.alone
def test_a_crash_loop_backs_off_and_costs_next_to_nothing(manager):
    one = manager({"good": example(workers=1)}, start=False)
    flag, pool = crashing(one)
    one.config["pools"]["bad"] = {**pool, "restart": {
        "backoff": "100ms", "backoff_max": "800ms", "burst": 2, "reset_after": "10s"}}
    one.write().start()
    good = one.pids("good")
    with one.events() as events:
        flag.touch()
        kill_all(one.pids("bad"))
        events.wait("worker.failed", pool="bad", count=3)
        used, begin = cpu_seconds(one.pid), time.monotonic()
        events.wait("worker.failed", pool="bad", count=9, within=15)
        used, took = cpu_seconds(one.pid) - used, time.monotonic() - begin
        status = one.pool("bad")
    waits = [event["retry_in"] for event in events.named("worker.failed", pool="bad")]
    assert waits[0] == 0  # it had been ready
    expected = [0.1, 0.2, 0.4, 0.8, 0.8, 0.8, 0.8, 0.8]
    for wait, wanted in zip(waits[1:], expected):
        assert 0.9 * wanted - 0.002 <= wait <= 1.1 * wanted and wait <= 0.8, waits
    failures = [stamp(event) for event in events.named("worker.failed", pool="bad")]
    starts = [stamp(event) for event in events.named("worker.starting", pool="bad")]
    for failed, started, wait in zip(failures, starts, waits):
        assert -0.002 <= started - failed - wait < 2
    # Two clock ticks are the least that can be told.
    assert used <= 0.01 * took + 2 / os.sysconf("SC_CLK_TCK"), (used, took)
    assert status["state"] == "degraded"
    assert "exited with code 7" in status["last_error"]["message"]
    assert status["last_error"]["output"] == ["out of order"]
    assert one.pids("good") == good and one.pool("good")["state"] == "running"
    assert one.fetch(pool="good")[0] == 200


def stamp(event):
    """The time of an event, in seconds of its minute and hour."""
    hours, minutes, seconds = event["time"].split("T")[1].rstrip("Z").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def test_a_reload_ends_a_crash_loop_at_once_when_the_cause_is_mended(manager):
    one = manager(start=False)
    flag, pool = crashing(one)
    one.config["pools"]["web"] = {**pool, "workers": 3, "restart": {"backoff": "60s",
                                                                    "backoff_max": "60s"}}
    one.write().start()
    flag.touch()
    kill_all(one.pids())
    eventually(lambda: one.pool()["backing_off"] and not one.pids(), what="three slots waiting")
    assert one.pool()["state"] == "degraded"
    flag.unlink()
    begin = time.monotonic()
    answer = one.reload()
    assert answer["outcome"] == "reloaded", answer
    assert time.monotonic() - begin < 20
    assert one.pool()["ready"] == 3 and one.pool()["last_error"] is None


def test_deaths_within_the_burst_are_answered_at_once(manager):
    one = manager({"web": scripted(restart={"burst": 3, "backoff": "60s", "backoff_max": "60s"})})
    with one.events() as events:
        for deaths in range(1, 4):
            kill_all(one.pids())
            assert events.wait("worker.failed", count=deaths)["retry_in"] == 0
            events.wait("worker.ready", count=deaths)
        kill_all(one.pids())
        assert events.wait("worker.failed", count=4)["retry_in"] > 50


def test_no_worker_is_orphaned_when_the_manager_is_killed(manager):
    port = free_port()
    pool = scripted("--stop-slow", 300, workers=5, listen=[f"tcp://127.0.0.1:{port}"])
    one = manager({"web": pool})
    workers = one.pids()
    one.process.kill()
    one.process.wait()
    two = manager({"web": pool}, directory=one.directory)  # at once: same socket, same port
    assert two.socket == one.socket
    assert two.fetch()[0] == 200
    eventually(lambda: not any(alive(pid) for pid in workers), what="an end of the old workers")
    assert len(two.pids(state="ready")) == 5


@pytest.mark.alone
def test_after_a_standstill_of_the_machine_every_deadline_has_some_grace(manager):
    """As after a suspend: manager and workers stood still, and the manager is the first to wake."""
    one = manager({"web": scripted("--heartbeat-ms", 100, workers=3,
                                   timeouts={"heartbeat": "1s"})})
    eventually(lambda: all(worker["heartbeat_age"] is not None for worker in one.workers()),
               what="heartbeats")
    before = one.pids()
    kill_all([one.pid, *before], signal.SIGSTOP)
    time.sleep(2.5)  # more than twice what a worker may be silent
    one.signal(signal.SIGCONT)
    eventually(lambda: "stood still" in one.log(), what="a manager that noticed")
    kill_all(before, signal.SIGCONT)
    eventually(lambda: all(worker["heartbeat_age"] < 0.5 for worker in one.workers()),
               what="heartbeats")
    assert one.pids() == before and one.pool()["restarts"] == 0


def test_a_back_off_that_is_over_is_not_told_any_more(manager):
    one = manager(start=False)
    flag = one.directory / "broken"
    script = f"test -e {flag} && exit 3; exec {program('ostler-example-http')}"
    one.config["pools"]["web"] = {**example(workers=1), "command": ["/bin/sh", "-c", script],
                                  "restart": {"backoff": "100ms"}}
    one.write().start()
    pid, = one.pids()
    flag.touch()
    assert one.post(f"/v1/workers/{pid}/recycle").status == 409  # its successor did not come up
    eventually(lambda: one.pool()["backing_off"] is None)
    assert one.pids() == [pid]
