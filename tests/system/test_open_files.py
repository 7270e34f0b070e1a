"""Workers that may open few files: no client is turned away, whoever accepts, and in each class."""

import resource
import selectors
import time

import pytest

from control import connect
from ostler import ANY_PORT, program
from processes import eventually
from test_classes import CLASSES, in_class

REQUEST = b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n"
HARD = "ulimit -Sn 64; ulimit -Hn 64"


def pool_of(kind, limits=":", **keys):
    """Two workers of a class, or in C, that are started after a shell's `limits`."""
    if kind == "c":
        pool = {"command": [program("ostler-example-c")], "listen": [ANY_PORT], "workers": 2, **keys}
    else:
        pool = in_class(kind, 2, **keys)
    pool["command"] = ["/bin/sh", "-c", limits + '; exec "$@"', "sh", *pool["command"]]
    return pool


class Clients:
    """Clients that have asked, and wait for their answers."""

    def __init__(self, address, count):
        self.selector = selectors.DefaultSelector()
        self.answered, self.closed = set(), set()
        self.open = {}
        for number in range(count):
            self.open[number] = sock = connect(address)
            sock.sendall(REQUEST)
            self.selector.register(sock, selectors.EVENT_READ, number)

    def leave(self, number):
        sock = self.open.pop(number, None)
        if sock is not None:
            self.selector.unregister(sock)
            sock.close()

    def wait_for(self, count, within=30, stay=True):
        """Until so many are answered; then they stay, or leave as soon as they are."""
        deadline = time.monotonic() + within
        while len(self.answered) < count:
            assert not self.closed, f"closed without an answer: {len(self.closed)}"
            left = deadline - time.monotonic()
            assert left > 0, f"only {len(self.answered)} of {count} were answered"
            for key, _ in self.selector.select(left):
                self.read(key.fileobj, key.data, stay)

    def read(self, sock, number, stay):
        try:
            data = sock.recv(4096)
        except ConnectionError:
            data = b""
        if data:
            self.answered.add(number)
        elif number not in self.answered:
            self.closed.add(number)
        if not data or not stay:
            self.leave(number)

    def hears_nothing_for(self, seconds):
        return not self.selector.select(seconds)

    def end(self):
        for number in list(self.open):
            self.leave(number)
        self.selector.close()


@pytest.fixture
def clients():
    made = []

    def make(address, count):
        made.append(Clients(address, count))
        return made[-1]
    yield make
    for one in made:
        one.end()


@pytest.mark.parametrize("kind", [*CLASSES, "c"])
@pytest.mark.parametrize("model", ["shared", "reuseport", "dispatch"])
def test_a_low_soft_limit_costs_no_client_its_answer(manager, clients, model, kind):
    one = manager({"web": pool_of(kind, "ulimit -Sn 64", accept=model)})
    clients(one.address(), 200).wait_for(200)
    assert one.pool()["restarts"] == 0
    assert "open files" not in one.log() and "descriptor" not in one.log()


@pytest.mark.parametrize("kind", [*CLASSES, "c"])
@pytest.mark.parametrize("model", ["shared", "reuseport", "dispatch"])
def test_with_a_low_hard_limit_clients_wait_until_others_have_left(manager, clients, model, kind):
    one = manager({"web": pool_of(kind, HARD, accept=model)})
    waiting = clients(one.address(), 200)
    waiting.wait_for(40)
    waiting.wait_for(200, stay=False)
    assert one.pool()["restarts"] == 0
    assert "Too many open files" not in one.log()
    # A connection counts as closed before its descriptor is: what comes then goes to the other.
    assert model == "dispatch" or "descriptor" not in one.log()
    told = one.log().count("serve 1000 connections at a time: the limit of 64 open files allows")
    assert told == (2 if kind in ("threads", "async") else 0)  # once each


def limit(pid, soft):
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("kind", [*CLASSES, "c"])
def test_what_a_worker_has_no_descriptor_for_goes_to_another(manager, clients, kind):
    one = manager({"web": pool_of(kind, accept="dispatch")})
    poor, _ = one.pids()
    limit(poor, 3)
    clients(one.address(), 30).wait_for(30, stay=False)
    assert "no descriptor is free" in one.log()
    assert one.pool()["restarts"] == 0
    assert one.workers()[0]["requests"] == 0


@pytest.mark.parametrize("kind", [*CLASSES, "c"])
def test_where_no_worker_has_a_descriptor_clients_wait_for_one(manager, clients, kind):
    one = manager({"web": pool_of(kind, accept="dispatch")})
    before = resource.prlimit(one.pids()[0], resource.RLIMIT_NOFILE)[0]
    for pid in one.pids():
        limit(pid, 3)
    waiting = clients(one.address(), 30)
    eventually(lambda: one.log().count("no descriptor is free") == 2)
    assert waiting.hears_nothing_for(0.5)
    limit(one.pids()[1], before)
    waiting.wait_for(30, stay=False)
    assert one.log().count("no descriptor is free") == 2
    assert one.pool()["restarts"] == 0


def test_what_a_worker_has_no_descriptor_for_is_not_lost_when_it_dies(manager, clients):
    one = manager({"web": pool_of("async", accept="dispatch")})
    for pid in one.pids():
        limit(pid, 3)
    waiting = clients(one.address(), 30)
    eventually(lambda: one.log().count("no descriptor is free") == 2)
    assert one.post("/v1/pools/web/restart").status == 200
    waiting.wait_for(30, stay=False)
