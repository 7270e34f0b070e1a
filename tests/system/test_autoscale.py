"""As many workers as the load asks for."""

import time

import pytest

from control import connect
from ostler import program
from processes import eventually
from test_classes import in_class
from test_sharing import status_line
from test_unmodified import start

import json
import subprocess


def by_load(kind="sync", **keys):
    scaling = {"min": 1, "max": 4, "up_after": "500ms", "down_after": "2s", **keys.pop("workers", {})}
    return in_class(kind, 1, **keys) | {"workers": scaling}


def test_a_busy_pool_grows_and_an_idle_one_shrinks_and_the_events_say_why(manager, load):
    one = manager({"web": by_load()})
    with one.events() as events:
        clients = load(one.address(), clients=3, path="/slow?ms=20")
        up = events.wait("pool.scaled")
        assert up["from"] == 1 and up["target"] > 1
        assert up["why"].startswith("busy ") and " of 0.70 for " in up["why"]
        eventually(lambda: one.pool()["ready"] == 4)
        assert clients.stop()["lost"] == 0
        eventually(lambda: one.pool()["target"] == 1)
        down = events.named("pool.scaled")[-1]
        assert down["target"] == 1
        assert "idle for " in down["why"] or "fewer were enough for " in down["why"]
    one.settle()


@pytest.mark.parametrize("model", ["shared", "reuseport", "dispatch"])
def test_the_first_connection_starts_a_worker_and_is_answered(manager, model):
    one = manager({"web": by_load("async", accept=model, workers={"min": 0, "down_after": "1s"})})
    for _ in range(2):
        assert one.pool()["ready"] == 0
        with one.events() as events:
            begin = time.monotonic()
            assert one.fetch(timeout=5)[0] == 200
            assert time.monotonic() - begin < 2
            events.wait("pool.scaled", target=1)
            assert "somebody waits" in events.named("pool.scaled")[0]["why"]
            events.wait("pool.scaled", target=0)
        one.settle()


def test_an_unmodified_program_is_started_by_demand_and_ended_when_idle(manager):
    one = start(manager, "uvicorn", workers=1)
    one.config["pools"]["web"]["workers"] = {"min": 0, "max": 2, "by": "backlog", "target": 2,
                                             "down_after": "2s"}
    assert one.write().reload()["outcome"] == "reloaded"
    eventually(lambda: one.pool()["target"] == 0)
    one.settle()
    assert one.fetch(timeout=10) == (200, "ok\n")
    eventually(lambda: one.pool()["target"] == 0)


def test_a_backlog_scales_up_by_its_length(manager, load):
    one = manager({"web": by_load(workers={"by": "backlog", "target": 1})})
    with one.events() as events:
        clients = load(one.address(), clients=12, path="/slow?ms=50")
        up = events.wait("pool.scaled")
        assert " waiting for 1 workers for " in up["why"]
        eventually(lambda: one.pool()["ready"] == 4)
    assert clients.stop()["lost"] == 0


def test_a_full_queue_scales_up_at_once(manager):
    pool = by_load(workers={"up_after": "1h"})
    pool["listen"] = [{"address": "tcp://127.0.0.1:0", "backlog": 4}]
    one = manager({"web": pool})
    with one.events() as events:
        waiting = [connect(one.address(), 30) for _ in range(5)]  # one is taken, the others wait
        for sock in waiting:
            sock.sendall(b"GET /slow?ms=1500 HTTP/1.1\r\nHost: x\r\n\r\n")
        more = connect(one.address(), 30)
        more.sendall(b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n")
        up = events.wait("pool.scaled")
        assert "the listen queue is full" in up["why"], up
        assert all(b"200" in status_line(sock) for sock in [*waiting, more])
    for sock in [*waiting, more]:
        sock.close()


def test_a_scale_by_hand_holds_until_it_is_reset(manager):
    one = manager({"web": by_load()})
    assert one.ctl("scale", "web", "3").returncode == 0
    one.settle()
    time.sleep(2.5)  # longer than down_after: nobody takes it back
    assert one.pool()["target"] == 3
    assert "scaled by hand; the configuration says 1 to 4 workers, by load" in one.ctl(
        "status").stdout
    assert one.ctl("scale", "web", "reset").returncode == 0
    eventually(lambda: one.pool()["target"] == 1)


def test_workers_auto_can_be_asked_for(manager):
    one = manager({"web": in_class("async", 1)})
    wanted = subprocess.run(
        [program("ostlerd"), "--print-config", "--listen", "tcp://127.0.0.1:0", "--", "true"],
        capture_output=True, text=True, check=True)
    assert "workers: auto" in wanted.stdout
    assert one.ctl("scale", "web", "auto").returncode == 0
    assert one.pool()["target"] > 1
    assert one.ctl("scale", "web", "reset").returncode == 0
    one.settle()
    assert one.pool()["target"] == 1
    assert json.loads(one.ctl("--json", "status").stdout)["pools"]["web"]["scaled"] is False
