"""What waits in the listen queue when a pool ends: it is served, and nobody new gets in."""

import os
import signal
import threading
import time

import pytest

from control import Connection, connect
from ostler import ANY_PORT, example, scripted, shell
from processes import alive, eventually
from test_classes import in_class
from test_unmodified import WEB, start



class Client(threading.Thread):
    """One request; `result` is its status, or the error."""

    def __init__(self, address, path):
        super().__init__()
        self.address, self.path = address, path
        self.result = None
        self.connected = threading.Event()
        self.start()

    def run(self):
        connection = Connection(self.address)
        try:
            connection.connect()
            self.connected.set()
            connection.request("GET", self.path)
            self.result = connection.getresponse().status
        except OSError as error:
            self.result = error
        finally:
            connection.close()


def address_of(one, kind):
    return {"tcp": ANY_PORT, "path": f"unix://{one.directory}/web.sock",
            "abstract": f"unix:@{one.directory.name}"}[kind]


def backlog(one):
    return one.pool()["listeners"][0]["backlog"]


def crowd(one, count, path="/slow?ms=300"):
    """So many clients of a worker that takes one at a time: all but one or two of them wait."""
    clients = [Client(one.address(), path) for _ in range(count)]
    assert all(client.connected.wait(10) for client in clients)
    eventually(lambda: backlog(one) >= count - 2, what="connections in the queue")
    return clients


def is_refused(address):
    try:
        connect(address, timeout=5).close()
        return False
    except (ConnectionRefusedError, FileNotFoundError):
        return True


def results(clients):
    for client in clients:
        client.join(30)
    return [client.result for client in clients]


@pytest.mark.parametrize("accept,kind", [
    ("shared", "tcp"), ("shared", "path"), ("shared", "abstract"), ("reuseport", "tcp"),
    ("dispatch", "tcp"), ("dispatch", "path")])
def test_what_waits_at_the_stop_is_served_and_nobody_new_gets_in(manager, accept, kind):
    one = manager(start=False)
    one.config["pools"]["web"] = in_class(
        "sync", 1, accept=accept, listen=[address_of(one, kind)])
    one.write().start()
    address = one.address()
    clients = crowd(one, 5)
    one.signal(signal.SIGTERM)
    if kind != "abstract":  # the kernel finds that one until it is closed
        eventually(lambda: is_refused(address), what="a client that is turned away")
        assert backlog(one) > 0 and one.pids(state="ready")
    assert one.wait() == 0
    assert results(clients) == [200] * 5
    assert "cut" not in one.log()


@pytest.mark.parametrize("name", WEB)
def test_unmodified_programs_serve_what_waits_at_the_stop(manager, name):
    one = start(manager, name, workers=1)
    group = one.pids()[0]
    os.killpg(group, signal.SIGSTOP)  # so that they wait
    clients = [Client(one.address(), "/") for _ in range(6)]
    eventually(lambda: backlog(one) == 6, what="connections in the queue")
    one.signal(signal.SIGTERM)
    eventually(lambda: "stopping" in one.log())
    os.killpg(group, signal.SIGCONT)
    assert one.wait() == 0
    assert results(clients) == [200] * 6


def test_a_stop_with_an_empty_queue_waits_for_nothing(manager):
    one = manager({"web": example(workers=2, timeouts={"stop": "20s"})})
    begin = time.monotonic()
    assert one.stop() == 0
    assert time.monotonic() - begin < 5


def test_the_backlog_is_part_of_the_stop_time_and_what_is_cut_is_counted(manager):
    one = manager({"web": shell("trap '' TERM; while :; do sleep 0.1; done", listen=[ANY_PORT],
                                ready={"after": "50ms"}, timeouts={"stop": "2s"})})
    clients = [Client(one.address(), "/") for _ in range(3)]
    eventually(lambda: backlog(one) == 3)
    begin = time.monotonic()
    assert one.stop() == 0
    assert 1.9 < time.monotonic() - begin < 8
    assert all(isinstance(result, OSError) for result in results(clients))
    assert "3 waiting connections were cut" in one.log()


def test_a_stop_at_once_says_how_many_it_cut(manager):
    one = manager({"web": scripted()})
    worker = one.pids()[0]
    os.kill(worker, signal.SIGSTOP)
    clients = [Client(one.address(), "/") for _ in range(3)]
    eventually(lambda: backlog(one) == 3)
    one.signal(signal.SIGINT)
    assert one.wait() == 0
    assert all(isinstance(result, OSError) for result in results(clients))
    assert "3 waiting connections were cut" in one.log() and not alive(worker)


def test_nobody_is_waited_for_when_no_worker_is_ready(manager):
    one = manager({"web": scripted("--ready", "never", timeouts={"stop": "20s"})},
                  start=False).launch()
    eventually(lambda: "listening on" in one.log())
    clients = [Client(one.address(), "/") for _ in range(2)]
    eventually(lambda: backlog(one) == 2)
    begin = time.monotonic()
    assert one.stop() == 0
    assert time.monotonic() - begin < 10
    results(clients)
    assert "2 waiting connections were cut" in one.log()


def test_a_pool_that_is_removed_serves_what_waits_for_it(manager):
    one = manager({"web": in_class("sync", 1), "other": scripted()})
    address = one.address()
    clients = crowd(one, 5)
    del one.config["pools"]["web"]
    one.write()
    assert one.reload()["outcome"] == "reloaded"
    assert results(clients) == [200] * 5
    assert is_refused(address)


def test_a_pool_that_comes_back_while_it_is_removed_has_its_listener(manager):
    one = manager(start=False)
    one.config["pools"] = {
        "web": in_class("sync", 1, listen=[f"unix://{one.directory}/web.sock"]),
        "other": scripted()}
    one.write().start()
    clients = crowd(one, 5)
    web = one.config["pools"].pop("web")
    one.write()
    assert one.post("/v1/reload?wait=false").status == 202
    eventually(lambda: "web" not in one.status()["pools"] or one.pool()["state"] == "stopping")
    one.config["pools"]["web"] = web
    one.write()
    assert one.reload()["outcome"] == "reloaded"
    assert one.fetch()[0] == 200
    assert results(clients) == [200] * 5
