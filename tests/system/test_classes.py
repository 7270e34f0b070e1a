"""Workers built on the SDK, in each of its classes, as a client, the manager and the kernel see
them."""

import os
import signal
import threading
import time

import pytest

from control import connect
from ostler import example
from processes import eventually

CLASSES = ["sync", "threads", "async"]


def in_class(kind, workers=2, **keys):
    worker = {"class": kind, **({"threads": 4} if kind == "threads" else {}),
              **keys.pop("worker", {})}
    flags = [] if kind == "async" else ["--blocking"]
    return example(workers, flags, worker=worker, **keys)


def attempt(one, path):
    """A request in the background whose fate does not matter."""
    def ask():
        try:
            one.fetch(path, timeout=60)
        except OSError:
            pass
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    return thread


def read_answer(stream):
    """Status, header lines and body of one answer on a buffered socket."""
    status = stream.readline().decode()
    assert status, "the connection was closed without an answer"
    fields = {}
    while (line := stream.readline().decode().strip()):
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip()
    if fields.get("transfer-encoding") == "chunked":
        body = b""
        while (size := int(stream.readline(), 16)):
            body += stream.read(size)
            assert stream.readline() == b"\r\n"
        assert stream.readline() == b"\r\n"
        return int(status.split()[1]), fields, body
    return int(status.split()[1]), fields, stream.read(int(fields["content-length"]))


class Awkward(threading.Thread):
    """A client that, until it is stopped, asks in one awkward way and counts what is lost."""

    def __init__(self, address, ask):
        super().__init__(daemon=True)
        self.address, self.ask = address, ask
        self.over = threading.Event()
        self.done, self.lost = 0, []
        self.start()

    def run(self):
        while not self.over.is_set():
            try:
                with connect(self.address, 30) as sock, sock.makefile("rb") as stream:
                    keeps = True
                    while keeps and not self.over.is_set():
                        keeps = self.ask(sock, stream)
                        self.done += 1
            except (OSError, AssertionError, ValueError, IndexError) as error:
                self.lost.append(repr(error))

    def stop(self):
        self.over.set()
        self.join(60)
        assert not self.is_alive()


def keeps(fields):
    return fields.get("connection", "keep-alive").lower() != "close"


def pipelined(sock, stream):
    """Three at once. One that is not answered because the answer before it said that the
    connection ends is not lost: the client knows that it was not served."""
    sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
    for _ in range(3):
        status, fields, _ = read_answer(stream)
        assert status == 200
        if not keeps(fields):
            return False
    return True


def half_sent(sock, stream):
    sock.sendall(b"GET /pid HTTP/1.1\r\nHo")
    time.sleep(0.02)
    sock.sendall(b"st: x\r\n\r\n")
    status, fields, _ = read_answer(stream)
    assert status == 200
    return keeps(fields)


def slow_body(sock, stream):
    sock.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\n")
    for _ in range(3):
        time.sleep(0.02)
        sock.sendall(b"0123456789")
    status, fields, body = read_answer(stream)
    assert (status, body) == (200, b"0123456789" * 3)
    return keeps(fields)


def long_response(sock, stream):
    sock.sendall(b"GET /stream?n=2000 HTTP/1.1\r\nHost: x\r\n\r\n")
    status, fields, body = read_answer(stream)
    assert status == 200 and body.count(b"\n") == 2000 and body.endswith(b"line 1999\n")
    return keeps(fields)


@pytest.mark.parametrize("kind", CLASSES)
def test_ten_restarts_under_awkward_load_lose_nothing(manager, load, kind):
    one = manager({"web": in_class(kind, 2)})
    steady = [load(one.address(), clients=2, keepalive=keepalive, echo=True)
              for keepalive in (True, False)]
    awkward = [Awkward(one.address(), ask)
               for ask in (pipelined, half_sent, slow_body, long_response)]
    for _ in range(10):
        assert one.post("/v1/pools/web/restart")["outcome"] == "reloaded"
    for client in awkward:
        client.stop()
    for client in steady:
        tally = client.stop()
        assert tally["lost"] == 0 and tally["ok"] > 50, tally
    assert [client.lost for client in awkward] == [[], [], [], []]
    assert all(client.done > 5 for client in awkward), [client.done for client in awkward]


@pytest.mark.alone
def test_sync_workers_accept_in_turn(manager):
    one = manager({"web": in_class("sync", 4)})
    address = one.address()
    over = threading.Event()

    def slow():
        while not over.is_set():
            one_fetch(address, "/slow?ms=1")

    dear = threading.Thread(target=slow)
    dear.start()
    for _ in range(4000):
        one_fetch(address, "/pid")
    over.set()
    dear.join(60)
    # Both kinds: which worker gets the dear ones is chance.
    served = [worker["requests"] for worker in one.workers()]
    assert len(served) == 4 and sum(served) > 4000
    assert max(served) - min(served) <= 0.15 * sum(served) / 4, served


def one_fetch(address, path):
    with connect(address, 30) as sock, sock.makefile("rb") as stream:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return read_answer(stream)[2].decode().strip()


@pytest.mark.parametrize("kind", CLASSES)
def test_a_stuck_handler_is_found_in_every_class(manager, kind):
    one = manager({"web": in_class(kind, 2, timeouts={"heartbeat": "1s"})})
    with one.events() as events:
        begin = time.monotonic()
        attempt(one, "/stuck?ms=60000")
        stopping = events.wait("worker.stopping")
        assert 0.9 < time.monotonic() - begin < 3
        assert "made no progress for" in stopping["reason"]
        assert "serving GET /stuck" in stopping["doing"]
        events.wait("worker.failed", pid=stopping["pid"])
    one.settle()
    assert one.fetch()[0] == 200


def test_one_of_64_threads_that_is_stuck_is_found_and_the_report_has_its_stack(manager):
    one = manager({"web": in_class("threads", 1, worker={"threads": 64},
                                   timeouts={"heartbeat": "3s"})})
    with one.events() as events:
        attempt(one, "/stuck?ms=60000")
        eventually(lambda: one.workers()[0]["active"] == 1)
        for _ in range(50):
            assert one.fetch()[0] == 200  # the other 63 serve on
        stopping = events.wait("worker.stopping")
        assert "its thread" in stopping["doing"] and "GET /stuck" in stopping["doing"]
        failed = events.wait("worker.failed", pid=stopping["pid"])
    report = "\n".join(failed["output"])
    assert "serving GET /stuck?ms=60000 for" in report
    assert "nanosleep" in report or "sleep" in report, report


@pytest.mark.parametrize("kind", CLASSES)
def test_a_request_past_its_limit_is_named_with_the_others_it_ends(manager, kind):
    one = manager({"web": in_class(kind, 1, timeouts={"request": "800ms"})})
    with one.events() as events:
        attempt(one, "/slow?ms=60000")
        eventually(lambda: one.workers()[0]["active"] == 1)
        assert [each["request"] for each in one.workers()[0]["serving"]] == ["GET /slow"]
        if kind != "sync":
            attempt(one, "/slow?ms=59999")
            eventually(lambda: one.workers()[0]["active"] == 2)
        stopping = events.wait("worker.stopping")
        assert "served one request for" in stopping["reason"]
        assert "(timeouts.request): GET /slow" in stopping["reason"]
        assert stopping["doing"].count("GET /slow") == (1 if kind == "sync" else 2)
        events.wait("worker.failed", pid=stopping["pid"])
    one.settle()


@pytest.mark.parametrize("kind", CLASSES)
def test_workers_are_warmed_up_and_checked_in_every_class(manager, kind):
    begin = time.monotonic()
    one = manager({"web": in_class(kind, 2, warmup=["GET /slow?ms=600", "GET /pid"],
                                   health={"request": "GET /pid", "interval": "1s",
                                           "timeout": "1s", "failures": 3})})
    assert time.monotonic() - begin > 0.6
    before = one.pids()
    assert all(worker["requests"] == 0 for worker in one.workers())
    time.sleep(2.5)  # that no check fails in a time needs that time
    assert one.pids() == before
    assert one.fetch()[0] == 200
    eventually(lambda: one.pool()["requests"] == 1)  # what is private does not count
    with one.events() as events:
        os.kill(before[0], signal.SIGSTOP)
        events.wait("health.failed", 2, pid=before[0])
        os.kill(before[0], signal.SIGCONT)
        failed = events.named("health.failed", pid=before[0])[0]
    assert "GET /pid: was not answered within 1000 ms" in failed["reason"]


@pytest.mark.parametrize("kind", ["threads", "async"])
def test_idle_keepalive_connections_hold_nobody_up(manager, kind):
    one = manager({"web": in_class(kind, 1, worker={"threads": 2} if kind == "threads" else {})})
    idle = [connect(one.address()) for _ in range(100)]
    try:
        for sock in idle:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        for sock in idle:
            with sock.makefile("rb") as stream:
                assert read_answer(stream)[0] == 200
        assert eventually(lambda: one.workers()[0]["connections"] == 100)
        assert one.fetch()[0] == 200
    finally:
        for sock in idle:
            sock.close()


def test_a_full_worker_leaves_connections_to_the_others(manager):
    one = manager({"web": in_class("async", 2, worker={"connections": 1})})
    first = connect(one.address())
    with first, first.makefile("rb") as stream:
        first.sendall(b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n")
        pid = read_answer(stream)[2]
        assert all(one.fetch("/pid")[1].encode() != pid for _ in range(5))


def test_the_pools_settings_reach_the_worker(manager):
    one = manager({"web": in_class("threads", 1, worker={
        "threads": 3, "access_log": "json", "body_limit": "1KiB", "keepalive": "0",
        "trusted_proxies": ["127.0.0.1"]})})
    with connect(one.address()) as sock, sock.makefile("rb") as stream:
        sock.sendall(b"GET /client HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n")
        status, fields, body = read_answer(stream)
    assert (status, body, keeps(fields)) == (200, b"192.0.2.7\n", False)
    with connect(one.address()) as sock, sock.makefile("rb") as stream:
        sock.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1025\r\n\r\n")
        assert read_answer(stream)[0] == 413
    assert one.workers()[0]["class"] == "threads"
    eventually(lambda: '"client":"192.0.2.7"' in one.log().replace("\\", ""))


def test_a_class_in_which_the_handler_cannot_run_is_refused(manager):
    one = manager({"web": example(1)})
    one.config["pools"]["web"]["worker"] = {"class": "sync"}
    answer = one.write().reload()
    assert answer.status == 409
    assert "cannot run in class sync" in "\n".join(answer["pools"]["web"]["output"])
