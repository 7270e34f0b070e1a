"""When a reload is called good, an end a crash, and a successor a cure."""

import os
import shutil
from pathlib import Path

import pytest

from ostler import ANY_PORT, example, shell
from processes import eventually

PLAIN = str(Path(__file__).with_name("plain_worker.py"))

# Ready as soon as it listens; says READY=1 and serves, and ends or fails as the script goes on.
SERVER = """
import os, signal, socket, sys, threading, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
listener = socket.socket(fileno=3)
def serve():
    while True:
        connection, _ = listener.accept()
        connection.recv(4096)
        connection.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n" + VERSION)
        connection.close()
VERSION = b"%s"
threading.Thread(target=serve, daemon=True).start()
%s
"""
# Ends with 0 after three requests.
LIMITED = """
import socket
listener = socket.socket(fileno=3)
for _ in range(3):
    connection, _ = listener.accept()
    connection.recv(4096)
    connection.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\nserved")
    connection.close()
"""
THROWING = """
require("http").createServer((request, response) => response.end("new\\n")).listen({fd: 3});
setTimeout(() => { throw new Error("no database"); }, 400);
"""


def program_of(one, name, then, version="old"):
    path = one.directory / f"{name}.py"
    path.write_text(SERVER % (version, then))
    return {"command": ["/usr/bin/python3", "-S", str(path)]}


def server(manager, *, then="time.sleep(1000)", **keys):
    one = manager(start=False)
    one.config["pools"] = {"web": {**program_of(one, "app", then),
                                   "listen": [ANY_PORT], "workers": 1, **keys}}
    return one.write().start()


def deploy(one, keys):
    one.config["pools"]["web"].update(keys)
    return one.write().ctl("reload")


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
def test_a_version_that_throws_soon_after_it_listens_is_rolled_back(manager, load):
    one = manager({"web": example(workers=4, replace={"settle": "2s"})})
    clients = load(one.address(), clients=2, pause=0.002)
    before = one.pids()
    app = one.directory / "app.js"
    app.write_text(THROWING)

    done = deploy(one, {"command": ["node", str(app)]})

    assert done.returncode == 1, done
    assert "rolled back" in done.stderr and "exited with code" in done.stdout + done.stderr
    assert one.pids() == before  # the first new worker was not relied upon
    assert one.pool()["generation"] == 1
    assert one.fetch()[0] == 200
    assert clients.stop()["ok"] > 10


def test_a_version_found_bad_when_no_old_worker_is_left_is_rolled_back(manager):
    one = server(manager, workers=2, replace={"settle": "1s"})
    # The last of them fails, soon after the others have replaced every old worker.
    marker = one.directory / "fails"
    fails = f"""
while not os.path.exists({str(marker)!r}): time.sleep(0.02)
sys.exit("no database")
"""
    (one.directory / "new.py").write_text(SERVER % ("new", fails))
    old = set(one.pids())
    with one.events() as events:
        one.config["pools"]["web"].update(command=["/usr/bin/python3", "-S",
                                                   str(one.directory / "new.py")])
        one.write()
        answer = one.post("/v1/reload?wait=false")
        assert answer.status == 202
        eventually(lambda: not old & set(one.pids()) and one.pool()["ready"] == 2,
                   what="new workers alone")
        marker.touch()
        finished = events.wait("reload.finished")
    assert finished["outcome"] == "rolled_back", finished
    assert "exited with code 1" in finished["reason"]
    one.settle()
    assert one.pool()["generation"] == 1
    assert one.fetch()[1] == "old"


def test_a_new_worker_that_ends_with_0_at_once_fails_the_reload(manager):
    one = server(manager, replace={"settle": "1s"})
    before = one.pids()
    done = deploy(one, program_of(one, "new", "time.sleep(0.3)", "new"))
    assert done.returncode == 1, done
    assert "exited with code 0" in done.stdout + done.stderr
    assert one.pids() == before


def test_a_new_worker_that_ends_with_0_before_it_passed_a_check_fails_the_reload(manager):
    one = server(manager, health={"exec": ["/usr/bin/test", "{generation}", "=", "1"],
                                  "interval": "1s", "timeout": "500ms", "failures": 3})
    before = one.pids()
    done = deploy(one, program_of(one, "new", "time.sleep(1.2)", "new"))
    assert done.returncode == 1, done
    assert one.pids() == before


def test_a_worker_that_ends_with_0_after_a_second_is_replaced_at_once(manager):
    one = server(manager, then="time.sleep(1.2)", restart={"burst": 0, "backoff": "30s"})
    first = one.pids()
    with one.events() as events:
        gone = events.wait("worker.exited", pid=first[0])
        assert gone["cause"] == "itself" and "exited with code 0" in gone["reason"]
        events.wait("worker.ready", 2)
        assert not events.named("worker.failed")
    assert one.pool()["restarts"] == 0 and one.pool()["last_error"] is None
    assert "ended by itself: exited with code 0" in one.log()


def test_a_worker_that_has_answered_may_end_with_0_at_any_time(manager):
    one = manager({"web": {"command": ["/usr/bin/python3", "-I", "-u", PLAIN],
                           "listen": [ANY_PORT], "restart": {"burst": 0, "backoff": "30s"}}})
    for _ in range(4):
        assert one.fetch("/exit")[0] == 200
    one.settle()
    assert one.pool()["restarts"] == 0


def test_the_managers_own_requests_do_not_make_an_end_one_in_order(manager):
    """It has answered nobody but the manager, which warms it up by that request."""
    one = manager({"web": {"command": ["/usr/bin/python3", "-I", "-u", PLAIN], "workers": 1,
                           "listen": [ANY_PORT], "warmup": ["GET /exit"],
                           "restart": {"backoff": "100ms"}},
                   "idle": shell("sleep 1000", ready={"after": "10ms"})}, start=False).launch()
    eventually(lambda: os.path.exists(one.socket), what="an API")
    eventually(lambda: one.pool()["restarts"] > 0, what="a crash")
    assert "exited with code 0" in one.pool()["last_error"]["message"]


def test_a_program_that_is_ready_and_ends_at_once_does_not_spin(manager):
    one = server(manager, then="time.sleep(0.1)", restart={"burst": 1, "backoff": "30s"})
    eventually(lambda: one.pool()["restarts"] == 2, what="two crashes")
    eventually(lambda: "next try in" in one.log(), what="a wait")
    assert "exited with code 0" in one.pool()["last_error"]["message"]


def test_a_worker_that_ends_with_0_after_few_requests_waits_for_a_second_at_most(manager):
    """Nobody sees that it answered, and it lives for milliseconds only."""
    one = manager(start=False)
    path = one.directory / "limited.py"
    path.write_text(LIMITED)
    one.config["pools"] = {"web": {"command": ["/usr/bin/python3", "-S", str(path)], "workers": 1,
                                   "listen": [ANY_PORT],
                                   "restart": {"burst": 0, "backoff": "400ms"}}}
    one.write().start()
    with one.events() as events:
        for _ in range(4 * 3):
            assert one.fetch()[0] == 200
        events.wait("worker.failed", 4)
        waits = [event["retry_in"] for event in events.named("worker.failed")]
    assert all(0.3 < wait <= 1 for wait in waits), waits


def test_a_worker_that_is_never_healthy_waits_longer_each_time_and_serves_on(manager):
    one = server(manager, health={"exec": ["/bin/false"], "interval": "200ms", "timeout": "200ms",
                         "failures": 2},
                 restart={"backoff": "300ms"})
    with one.events() as events:
        waits = []
        while len(waits) < 3:
            unfit = events.wait("worker.unfit", len(waits) + 1)
            waits.append(unfit["retry_in"])
            assert one.fetch()[0] == 200
        assert waits[0] < waits[1] < waits[2], waits
        assert waits[2] > 3 * waits[0], waits
    pool = one.pool()
    assert pool["state"] == "degraded" and pool["restarts"] >= 3
    assert "failed a health check" in pool["last_error"]["message"]
    assert pool["ready"] >= 1


def test_a_version_that_is_never_healthy_is_rolled_back(manager):
    one = server(manager)
    before = one.pids()
    done = deploy(one, {"health": {"exec": ["/bin/false"], "interval": "200ms", "timeout": "200ms",
                         "failures": 2}})
    assert done.returncode == 1, done
    assert "failed a health check" in done.stdout + done.stderr
    assert one.pids() == before
