"""The private channel and the scoreboard, as a worker in plain Python uses them."""

import contextlib
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from ostler import ANY_PORT, program, shell
from processes import eventually

PLAIN = str(Path(__file__).with_name("plain_worker.py"))


def plain(workers=1, **keys):
    return {"command": ["/usr/bin/python3", "-I", "-u", PLAIN], "listen": [ANY_PORT],
            "workers": workers, **keys}


def in_background(function, *args):
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread


def attempt(one, path):
    """A request whose fate does not matter."""
    def ask():
        try:
            one.fetch(path, timeout=30)
        except OSError:
            pass
    return in_background(ask)


def test_status_shows_what_a_worker_counts(manager):
    one = manager({"web": plain()})
    for _ in range(3):
        assert one.fetch()[0] == 200
    worker = eventually(lambda: [each for each in one.workers() if each["requests"] == 3])[0]
    assert worker["class"] == "sync"
    assert (worker["active"], worker["busy"], worker["serving"]) == (0, None, [])
    assert one.pool()["requests"] == 3
    asking = attempt(one, "/slow?1500")
    busy = eventually(lambda: [each for each in one.workers()
                                if each["active"] == 1 and each["serving"]])[0]
    assert busy["serving"][0]["request"] == "GET /slow"
    assert 0 <= busy["serving"][0]["seconds"] <= busy["busy"] + 0.1 < 5
    assert busy["connections"] == 1
    table = one.ctl("status").stdout
    assert "GET /slow" in table
    asking.join(10)
    eventually(lambda: one.pool()["requests"] == 4)


def test_the_requests_of_a_pool_never_go_backwards(manager):
    one = manager({"web": plain()})
    for _ in range(5):
        one.fetch()
    eventually(lambda: one.pool()["requests"] == 5)
    assert one.post("/v1/pools/web/restart")["outcome"] == "reloaded"
    assert one.pool()["requests"] == 5
    one.fetch()
    eventually(lambda: one.pool()["requests"] == 6)


def test_what_is_not_built_on_an_sdk_has_no_figures(manager):
    one = manager({"web": shell("exec sleep 1000")})
    worker = one.workers()[0]
    assert (worker["class"], worker["requests"], worker["active"]) == (None, None, None)
    assert one.pool()["requests"] is None


def test_a_worker_stuck_in_a_request_is_aborted_and_replaced(manager):
    one = manager({"web": plain(timeouts={"heartbeat": "1s"})})
    worker = one.pids()[0]
    with one.events() as events:
        begin = time.monotonic()
        attempt(one, "/slow?60000")
        stopping = events.wait("worker.stopping", pid=worker)
        took = time.monotonic() - begin
        assert 0.95 < took < 3
        assert "made no progress for 1" in stopping["reason"]
        assert "serving GET /slow for 1." in stopping["doing"]
        assert "in the system call" in stopping["doing"]
        failed = events.wait("worker.failed", pid=worker)
        assert failed["reason"].startswith("had work and made no progress")
        events.wait("worker.ready")
    assert one.fetch()[0] == 200


def test_a_request_past_its_limit_has_its_worker_replaced(manager):
    one = manager({"web": plain(2, timeouts={"request": "700ms"})})
    with one.events() as events:
        assert one.fetch("/slow?300")[0] == 200
        attempt(one, "/slow?60000")
        stopping = events.wait("worker.stopping")
        assert "served one request for" in stopping["reason"]
        assert "(timeouts.request): GET /slow" in stopping["reason"]
        events.wait("worker.failed", pid=stopping["pid"])
        events.wait("worker.ready")
    one.settle()


def test_a_handler_may_ask_for_more_time(manager):
    one = manager({"web": plain(timeouts={"request": "500ms", "heartbeat": "500ms"})})
    worker = one.pids()[0]
    assert one.fetch("/stuck?1500") == (200, f"web.0 {worker}")
    assert one.pids() == [worker]


def test_an_idle_worker_is_not_taken_for_hung(manager):
    one = manager({"web": plain(timeouts={"heartbeat": "200ms", "request": "200ms"})})
    worker = one.pids()[0]
    for _ in range(4):
        assert one.fetch()[1].endswith(str(worker))
        time.sleep(0.4)  # that nothing happens in a time needs that time
    assert one.pids() == [worker]


def test_rubbish_on_a_scoreboard_harms_nobody(manager):
    one = manager({"web": plain(), "other": plain()})
    other = one.pids("other")
    one.fetch("/rubbish")
    pool = one.pool()
    worker = pool["workers"][0]
    assert worker["state"] == "ready"
    assert worker["class"] == "other"
    assert worker["requests"] <= 2**53 and worker["active"] <= 10**6
    assert worker["connections"] <= 10**6
    assert len(worker["serving"]) <= 8
    assert pool["requests"] <= 2**53
    assert one.pids("other") == other
    assert one.fetch(pool="other")[0] == 200
    # And when it ends, its numbers are not carried on beyond what is possible.
    one.post(f"/v1/workers/{worker['pid']}/kill")
    one.settle()
    assert one.pool()["requests"] <= 2**53


def test_who_needs_a_channel_and_garbles_it_is_replaced(manager):
    one = manager({"web": plain(workers=2, warmup=["GET /"])})
    before = set(one.pids())
    with one.events() as events:
        with contextlib.suppress(OSError):  # it may not live to answer
            one.fetch("/babble")
        failed = events.wait("worker.failed")
    assert failed["pid"] in before
    assert failed["reason"].startswith("sent what is no message on its channel")
    one.settle()
    assert set(one.pids()) & before == before - {failed["pid"]} and len(one.pids()) == 2


def test_rubbish_on_a_channel_closes_it_and_nothing_else(manager):
    one = manager({"web": plain()})
    worker = one.pids()[0]
    assert one.fetch("/babble")[0] == 200
    eventually(lambda: "on its channel, which is closed now" in one.log())
    assert one.pids() == [worker]
    assert one.fetch()[0] == 200


def test_a_worker_is_ready_and_accepts_only_when_it_is_warmed_up(manager):
    one = manager({"web": plain(warmup=["GET /slow?300", "GET /one", "GET /one"])})
    counts = json.loads(one.fetch("/count")[1])
    assert counts == {"/slow?300": 1, "/one": 2, "/count": 1}
    assert one.workers()[0]["requests"] == 1  # what is private does not count


def test_a_warmup_that_fails_rolls_a_reload_back(manager):
    one = manager({"web": plain(2)})
    before = one.pids()
    flag = one.directory / "unhealthy"
    flag.touch()
    one.config["pools"]["web"].update(warmup=["GET /health"], env={"FLAG_UNHEALTHY": str(flag)})
    one.write()
    answer = one.reload()
    assert answer.status == 409
    assert answer["pools"]["web"]["outcome"] == "rolled_back"
    assert "failed its warm-up: GET /health was answered with 500" in \
        answer["pools"]["web"]["reason"]
    assert one.pids() == before
    flag.unlink()
    assert one.reload()["outcome"] == "reloaded"


def test_warmup_of_a_program_without_the_channel_is_refused(manager):
    one = manager({"web": plain()})
    one.config["pools"]["web"]["warmup"] = ["GET /"]
    one.config["pools"]["web"]["command"] = [program("ostler-test-worker")]
    one.write()
    answer = one.reload()
    assert answer.status == 409
    assert "does not speak the worker channel" in answer["pools"]["web"]["reason"]


def test_an_unhealthy_worker_is_replaced_by_a_healthy_one(manager):
    one = manager(start=False)
    flag = one.directory / "unhealthy"
    one.write({**one.config, "pools": {"web": plain(
        2, env={"FLAG_UNHEALTHY": str(flag)},
        health={"request": "GET /health", "interval": "200ms", "timeout": "200ms",
                "failures": 3})}})
    one.start()
    before = one.pids()
    with one.events() as events:
        flag.touch()
        events.wait("health.failed", 3, worker="web.0")
        for count, failed in enumerate(events.named("health.failed", worker="web.0")[:3], 1):
            assert failed["failures"] == count
            assert "GET /health was answered with 500" in failed["reason"]
        flag.unlink()
        gone = events.wait("worker.exited", pid=before[0])
        assert gone["cause"] == "unhealthy"
    one.settle()
    assert all(pid not in before for pid in one.pids()) or before[1] in one.pids()
    assert one.fetch("/health")[0] == 200


def test_a_stopped_worker_is_found_by_its_health_check(manager):
    one = manager({"web": plain(2, health={"request": "GET /health", "interval": "300ms",
                                           "timeout": "200ms", "failures": 2},
                                timeouts={"stop": "1s"})})
    worker = one.workers()[0]
    with one.events() as events:
        os.kill(worker["pid"], signal.SIGSTOP)
        failed = events.wait("health.failed", pid=worker["pid"])
        assert "was not answered within 200 ms" in failed["reason"]
        events.wait("worker.exited", pid=worker["pid"])
    one.settle()
    assert worker["pid"] not in one.pids()


def test_a_sync_worker_that_serves_a_long_request_is_not_unhealthy(manager):
    one = manager({"web": plain(health={"request": "GET /health", "interval": "200ms",
                                        "timeout": "100ms", "failures": 1})})
    worker = one.pids()[0]
    assert one.fetch("/slow?1500") == (200, f"web.0 {worker}")
    assert "health check" not in one.log()
    assert one.pids() == [worker]


def test_a_check_may_be_a_program(manager):
    one = manager(start=False)
    flag = one.directory / "unhealthy"
    one.write({**one.config, "pools": {"web": plain(
        health={"exec": ["/bin/sh", "-c",
                         f"echo pid $OSTLER_WORKER_PID slot $0; test ! -e {flag}", "{slot}"],
                "interval": "200ms", "timeout": "200ms", "failures": 2})}})
    one.start()
    worker = one.pids()[0]
    with one.events() as events:
        flag.touch()
        failed = events.wait("health.failed")
        assert failed["reason"] == ("failed a health check: the check exited with code 1: "
                                    f"pid {worker} slot 0")
        flag.unlink()
    one.settle()


def test_a_check_that_does_not_end_is_killed_and_counts_as_failed(manager):
    one = manager({"web": plain(health={"exec": ["/bin/sleep", "1000"], "interval": "300ms",
                                        "timeout": "200ms", "failures": 1000})})
    with one.events() as events:
        failed = events.wait("health.failed")
        assert "the check did not end within 200 ms" in failed["reason"]
        events.wait("health.failed")


def test_a_worker_is_recycled_after_its_requests(manager):
    one = manager({"web": plain(2, recycle={"requests": 20, "requests_jitter": 10})})
    before = set(one.pids())
    with one.events() as events:
        served = [one.fetch() for _ in range(100)]
        assert all(status == 200 for status, _ in served)
        recycling = events.wait("worker.recycling")
        assert recycling["why"] == "requests"
        assert events.wait("worker.exited")["cause"] == "recycled"
    one.settle()
    assert set(one.pids()) != before
    assert one.pool()["requests"] == 100


@pytest.mark.parametrize(("recycle", "why"), [({"lifetime": "500ms", "lifetime_jitter": "200ms"},
                                               "lifetime"),
                                              ({"memory": "1KiB"}, "memory")])
def test_workers_are_recycled_one_after_the_other(manager, recycle, why):
    one = manager({"web": plain(3, recycle=recycle)})
    with one.events() as events:
        recycling = events.wait("worker.recycling", within=40)
        assert recycling["why"] == why
        ready = {recycling["worker"]}
        while len(ready) < 3:  # the pool is never below its target meanwhile
            pool = one.pool()
            assert pool["ready"] >= 3 and len(pool["workers"]) <= 4
            ready.add(events.wait("worker.exited", within=40)["worker"])



def test_the_memory_of_a_ready_worker_is_not_what_it_used_when_it_started(manager):
    one = manager({"web": {**plain(), "command": [
        "/bin/sh", "-c", f"while [ ! -e go ]; do sleep 0.05; done; exec python3 -I -u {PLAIN}"]}},
        start=False)
    one.config["pools"]["web"]["directory"] = str(one.directory)
    one.write().launch()
    eventually(lambda: (one.directory / "control.sock").exists())
    small = eventually(lambda: one.workers() and one.workers()[0]["memory"])
    assert small < 3_000_000
    (one.directory / "go").touch()
    one.settle()
    assert one.workers()[0]["memory"] > 3_000_000


def test_who_is_seen_to_accept_has_been_heard_to_speak_before(manager):
    """A worker that said HELLO and then waited for connections was seen to wait before it was heard, and
    aborted as one that does not speak the channel: of 600 such starts about seven."""
    one = manager({"web": {"command": [program("ostler-example-hello")], "listen": [ANY_PORT],
                           "workers": 8, "health": {"request": "GET /"},
                           "replace": {"surge": "100%"}}})
    for _ in range(60):
        answer = one.reload()
        assert answer["outcome"] == "reloaded", answer
