"""The control API: what it answers, to whom, and what rubbish does to it."""

import json
import os
import random
import signal
import socket
import stat
import subprocess
import time

import pytest

from control import Connection, connect
from ostler import example, program, scripted
from processes import alive, descriptors, eventually

PROBLEM = "application/problem+json"


def slowest_answer(one, count=30):
    """The slowest of so many status requests, in seconds.

    Of three rounds the best counts: the machine may be busy, and a manager that blocks is slow in
    all of them."""
    rounds = []
    for _ in range(3):
        times = []
        for _ in range(count):
            begin = time.monotonic()
            assert one.get("/v1/status").status == 200
            times.append(time.monotonic() - begin)
        rounds.append(max(times))
    return min(rounds)


def test_the_status_says_all_that_is_promised(manager):
    one = manager({"web": example(workers=2)})
    status = one.status()
    assert status["pid"] == one.pid and status["state"] == "running"
    assert status["config"] == str(one.file) and status["uptime"] > 0
    pool = status["pools"]["web"]
    expected = {"state": "running", "generation": 1, "accept": "shared", "spawn": "exec",
                "target": 2, "ready": 2, "starting": 0, "draining": 0, "restarts": 0,
                "reloads": 0, "last_error": None}
    assert expected.items() <= pool.items()
    assert pool["listeners"][0]["backlog"] == 0
    assert pool["listeners"][0]["backlog_limit"] == min(
        2048, int(open("/proc/sys/net/core/somaxconn", encoding="ascii").read()))
    assert [worker["worker"] for worker in pool["workers"]] == ["web.0", "web.1"]
    for worker in pool["workers"]:
        assert alive(worker["pid"]) and worker["state"] == "ready"
        assert worker["uptime"] > 0 and worker["memory"] > 100_000 and worker["cpu"] >= 0
    assert one.get("/v1/pools/web").json["workers"][0]["worker"] == "web.0"
    assert one.get("/livez").status == one.get("/readyz").status == 200


def test_requests_that_make_no_sense_are_told_so(manager):
    one = manager({"web": example(workers=1)})
    pid = one.pids()[0]
    cases = [
        ("GET", "/", None, 404), ("GET", "/v1/nothing", None, 404),
        ("GET", "/v1/pools/nothing", None, 404), ("POST", "/v1/pools/nothing/reload", None, 404),
        ("POST", "/v1/pools/nothing/scale", {"workers": 1}, 404),
        ("POST", "/v1/workers/1/kill", None, 404), ("POST", f"/v1/workers/{pid}/eat", None, 404),
        ("GET", "/v1/reload", None, 405), ("DELETE", "/v1/status", None, 405),
        ("POST", "/v1/pools/web/scale", {"workers": -1}, 400),
        ("POST", "/v1/pools/web/scale", {"workers": 10001}, 400),
        ("POST", "/v1/pools/web/scale", {"workers": [1]}, 400),
        ("POST", "/v1/pools/web/scale", {"wrokers": 1}, 400),
        ("POST", "/v1/pools/web/scale", None, 400), ("POST", "/v1/stop", {"now": "yes"}, 400),
        ("POST", "/v1/workers/abc/kill", None, 400), ("GET", "/v1/status?a=b", None, 400),
        ("GET", "/v1/plan", None, 501), ("GET", "/metrics", None, 501)]
    for method, path, body, status in cases:
        answer = one.ask(method, path, body)
        assert answer.status == status, (method, path, body, answer)
        assert answer.headers["Content-Type"] == PROBLEM
        assert answer["status"] == status and answer["title"] and answer["detail"]
        assert answer["type"].startswith("urn:ostler:problem:")
    assert one.ask("GET", "/v1/reload").headers["Allow"] == "POST"
    assert one.pids() == [pid]


def test_rubbish_does_no_harm(manager):
    one = manager({"web": example(workers=1)})
    dice = random.Random(1)
    pieces = [b"\0" * 100, b"\r\n" * 5000, b"GET", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01" * 50,
              b"GET /v1/status HTTP/1.1\r\n" + b"a: b\r\n" * 5000, b"G" * 100_000,
              b"POST /v1/stop HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
              b"POST /v1/stop HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
              b"POST /v1/stop HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n",
              b"POST /v1/stop HTTP/1.1\r\nContent-Length: 5\r\n\r\n{nope",
              b"POST /v1/pools/web/scale HTTP/1.1\r\nContent-Length: 40000\r\n\r\n" + b"[" * 40_000]
    pieces += [dice.randbytes(dice.randrange(1, 3000)) for _ in range(100)]
    for piece in pieces:
        with connect(f"unix://{one.socket}", timeout=5) as sock:
            try:
                sock.sendall(piece)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass
            except (BrokenPipeError, ConnectionResetError):
                pass  # it had read enough
    assert one.status()["state"] == "running"
    assert one.pool()["ready"] == 1 and one.pool()["restarts"] == 0


@pytest.mark.parametrize("size", [65 * 1024, 50 << 20])
def test_a_huge_body_is_refused(manager, size):
    one = manager({"web": example(workers=1)})
    with connect(f"unix://{one.socket}") as sock:
        sock.sendall(f"POST /v1/stop HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
                     .encode())
        try:
            for _ in range(size // 65536):
                sock.sendall(b" " * 65536)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert sock.recv(64).startswith(b"HTTP/1.1 413 ")
    assert one.status()["state"] == "running"


@pytest.mark.alone
def test_others_are_answered_while_a_hundred_clients_are_slow(manager):
    one = manager({"web": example(workers=1)})
    before = descriptors(one.pid)
    starts = [b"", b"G", b"GET /v1/status HTTP/1.1\r\nHost: ", b"POST /v1/reload HTTP/1.1\r\n"
              b"Content-Length: 1000\r\n\r\n{", b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n"]
    slow = [connect(f"unix://{one.socket}") for _ in range(100)]
    for number, sock in enumerate(slow):
        sock.sendall(starts[number % len(starts)])
    assert slowest_answer(one) < 0.1
    assert one.reload()["outcome"] == "reloaded"
    for sock in slow:  # a byte more, as slow clients do
        sock.sendall(b"x")
    assert slowest_answer(one) < 0.1
    for sock in slow:
        sock.close()
    eventually(lambda: descriptors(one.pid) <= before, what="no descriptor too many")


@pytest.mark.alone
def test_others_are_answered_when_more_come_than_may(manager):
    one = manager({"web": example(workers=1)})
    crowd = []
    while len(crowd) < 600:
        try:
            crowd.append(connect(f"unix://{one.socket}"))
        except BlockingIOError:
            pass  # the queue is full: others come and go meanwhile
    assert slowest_answer(one) < 0.1
    for sock in crowd:
        sock.close()


@pytest.mark.alone
def test_who_follows_the_events_and_never_reads_is_no_burden(manager):
    one = manager({"web": example(workers=1)})
    with connect(f"unix://{one.socket}") as sock:
        sock.sendall(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sock.recv(1)
        for number in range(300):
            assert one.post("/v1/pools/web/scale", {"workers": 1 + number % 2}).status == 200
        assert slowest_answer(one) < 0.1


def test_several_requests_on_one_connection(manager):
    one = manager({"web": example(workers=1)})
    connection = Connection(f"unix://{one.socket}")
    for _ in range(3):
        connection.request("GET", "/v1/pools/web")
        assert json.loads(connection.getresponse().read())["ready"] == 1
    connection.close()


def test_the_configuration_is_shown_without_the_values_of_env(manager):
    one = manager({"web": example(workers=1, env={"PASSWORD": "hunter2"})})
    answer = one.get("/v1/config")
    assert answer.status == 200
    assert "PASSWORD" in answer.text and "hunter2" not in answer.text
    shown = one.ctl("config", "show").stdout
    assert "ostler-example-http" in shown and "hunter2" not in shown


def test_changes_are_logged_with_who_made_them(manager):
    one = manager({"web": example(workers=1)})
    one.post("/v1/pools/web/scale", {"workers": 2})
    eventually(lambda: f"scale web to 2 by uid {os.geteuid()} pid {os.getpid()}" in one.log())


def test_a_second_manager_at_the_same_socket_is_refused(manager):
    one = manager({"web": example(workers=1)})
    before = one.pids()
    done = subprocess.run([program("ostlerd"), "--config", str(one.file)], capture_output=True,
                          text=True, timeout=10, check=False)
    assert done.returncode == 3
    assert one.socket in done.stderr
    assert one.pids() == before and one.fetch()[0] == 200
    assert one.reload()["outcome"] == "reloaded"


def test_a_living_manager_is_known_even_if_its_lock_file_is_gone(manager):
    one = manager({"web": example(workers=1)})
    for path in one.directory.glob("control.sock*lock*"):
        path.unlink()
    done = subprocess.run([program("ostlerd"), "--config", str(one.file)], capture_output=True,
                          text=True, timeout=10, check=False)
    assert done.returncode == 3
    assert one.fetch()[0] == 200 and one.status()["pid"] == one.pid


def test_a_stale_socket_is_replaced(manager):
    one = manager({"web": example(workers=1)})
    one.process.kill()
    one.process.wait()
    assert os.path.exists(one.socket)
    one.start()
    assert one.fetch()[0] == 200


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_manager_takes_its_socket_along(manager, stop):
    one = manager({"web": example(workers=1)})
    one.signal(stop)
    one.wait()
    assert not os.path.exists(one.socket) and not os.path.exists(one.socket + ".notify")


def test_something_else_at_the_socket_path_is_left_alone(manager):
    one = manager({"web": example(workers=1)}, start=False)
    with open(one.socket, "w", encoding="ascii") as file:
        file.write("precious")
    assert one.launch().wait() == 2  # a fault of the configuration, as --check says
    with open(one.socket, encoding="ascii") as file:
        assert file.read() == "precious"
    assert "control.sock" in one.log()


def test_the_mode_of_the_socket(manager):
    one = manager({"web": example(workers=1)})
    mode = stat.S_IMODE(os.stat(one.socket).st_mode)
    assert mode == (0o660 if os.geteuid() == 0 else 0o600)
    one = manager({"web": example(workers=1)}, start=False)
    one.config["control"]["mode"] = "0640"
    one.write().start()
    assert stat.S_IMODE(os.stat(one.socket).st_mode) == 0o640


@pytest.mark.root
def test_who_may_not_connect_is_told_so(manager):
    one = manager({"web": example(workers=1)})
    done = subprocess.run([program("ostlerctl"), "--socket", one.socket, "status"], user=65534,
                          group=65534, extra_groups=[], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 5
    assert one.socket in done.stderr


def test_the_exit_codes_of_ostlerctl(manager):
    one = manager({"web": scripted()})
    assert one.ctl("status").returncode == 0
    assert one.ctl("reload", "nothing").returncode == 4
    assert one.ctl("kill", "web.7").returncode == 4
    assert one.ctl("scale", "nothing", "1").returncode == 4
    assert one.ctl("scale", "web", "many").returncode == 2
    assert one.ctl("dance").returncode == 2
    assert one.ctl("reload", "nothing", "--no-wait").returncode == 4
    assert one.post("/v1/pools/nothing/restart?wait=false").status == 404
    assert one.ctl("reload", "--no-wait").returncode == 0
    one.settle()
    assert one.ctl("stop").returncode == 0
    assert one.ctl("status").returncode == 3
    assert one.wait() == 0


def test_ostlerctl_finds_the_socket_by_its_variable(manager):
    one = manager({"web": example(workers=1)})
    done = subprocess.run([program("ostlerctl"), "--json", "status"], capture_output=True,
                          text=True, env={**os.environ, "OSTLER_SOCKET": one.socket}, check=False)
    assert json.loads(done.stdout)["pid"] == one.pid
