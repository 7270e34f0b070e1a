"""The three ways to share a listener: nothing is lost when workers come and go, whoever dies takes
only what it was serving along, and whoever stands still is found."""

import os
import select
import signal
import socket
import threading
import time

import pytest

from control import connect
from ostler import ANY_PORT, example, scripted
from processes import eventually, halt, read
from test_classes import CLASSES, attempt, in_class, keeps, read_answer
from test_unmodified import PROGRAMS, start

MODELS = ["shared", "reuseport", "dispatch"]
OWN = ["reuseport", "dispatch"]


def sockets_of(port):
    """How many sockets listen on a port of 127.0.0.1."""
    wanted = f"0100007F:{port:04X}"
    with open("/proc/net/tcp", encoding="ascii") as lines:
        return sum(line.split()[1] == wanted and line.split()[3] == "0A" for line in lines)


def port_of(one, pool="web"):
    return int(one.address(pool).rsplit(":", 1)[1])


def status_line(sock):
    with sock.makefile("rb") as stream:
        return stream.readline()


# --- Nothing is lost -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("model", ["shared", *OWN])
def test_ten_reloads_and_ten_scale_changes_under_load_lose_nothing(manager, load, model, kind):
    unix = {"listen": [ANY_PORT, "unix:///{}/web.sock"]} if model != "reuseport" else {}
    one = manager(start=False)
    pool = in_class(kind, 3, accept=model, **unix)
    pool["listen"] = [text.format(one.directory) for text in pool["listen"]]
    one.config["pools"]["web"] = pool
    one.write().start()
    addresses = [one.address(name=each["name"]) for each in one.pool()["listeners"]]
    clients = [load(address, clients=3, keepalive=keepalive, echo=True)
               for address in addresses for keepalive in (True, False)]
    for number in (5, 2, 4, 1, 3) * 2:
        assert one.reload()["outcome"] == "reloaded"
        assert one.post("/v1/pools/web/scale", {"workers": number}).status == 200
    one.settle()
    for client in clients:
        tally = client.stop()
        assert tally["lost"] == 0 and tally["ok"] > 100, tally
    assert one.pool()["restarts"] == 0


@pytest.mark.parametrize("name", ["uvicorn", "gunicorn by LISTEN_FDS", "node"])
def test_unmodified_programs_lose_nothing_with_sockets_of_their_own(manager, load, name):
    one = start(manager, name)
    one.config["pools"]["web"]["accept"] = "reuseport"  # from shared, under way
    assert one.write().reload()["outcome"] == "reloaded"
    clients = load(one.address(), clients=6)
    for number in (3, 1, 2):
        answer = one.reload()
        assert answer["outcome"] == "reloaded", answer
        assert one.post("/v1/pools/web/scale", {"workers": number}).status == 200
        one.settle()
    tally = clients.stop()
    assert tally["lost"] == 0 and tally["ok"] > 100, tally


@pytest.mark.parametrize("before, after", [
    ("shared", "reuseport"), ("reuseport", "shared"), ("shared", "dispatch"),
    ("dispatch", "shared"), ("reuseport", "dispatch"), ("dispatch", "reuseport")])
def test_a_pool_changes_its_way_under_load_and_loses_nothing(manager, load, before, after):
    one = manager({"web": in_class("threads", 3, accept=before)})
    port = port_of(one)
    clients = [load(one.address(), clients=3, keepalive=keepalive) for keepalive in (True, False)]
    one.config["pools"]["web"]["accept"] = after
    assert one.write().reload()["outcome"] == "reloaded"
    one.settle()
    assert one.pool()["accept"] == after
    assert port_of(one) == port
    for client in clients:
        tally = client.stop()
        assert tally["lost"] == 0 and tally["ok"] > 20, tally
    if after != "reuseport":
        eventually(lambda: sockets_of(port) == 1)
    assert one.fetch()[0] == 200


@pytest.mark.parametrize("change", [
    {"accept": "shared"}, {"accept": "reuseport"},
    {"listen": [ANY_PORT, {"address": ANY_PORT, "name": "second"}]}])
def test_the_generation_that_serves_goes_on_until_another_has_come_up(manager, change):
    one = manager({"web": in_class("threads", 2, accept="dispatch")})
    first = set(one.pids())
    pool = one.config["pools"]["web"]
    pool |= {**change, "warmup": ["GET /slow?ms=2000"], "timeouts": {"start": "1s"},
             "replace": {"attempts": 1}}
    one.write()
    answers = []

    def ask_for_the_new():
        answers.append(one.reload())

    for outcome in ("rolled_back", "reloaded"):
        reloading = threading.Thread(target=ask_for_the_new)
        with one.events() as events:
            reloading.start()
            events.wait("worker.starting")
            served = [one.fetch("/pid", timeout=1) for _ in range(20)]
            assert {int(body) for _, body in served} <= first
            assert one.pool()["state"] == "reloading"
        reloading.join()
        assert answers.pop()["outcome"] == outcome
        assert one.fetch()[0] == 200
        pool["timeouts"] = {"start": "20s"}
        one.write()
    assert not set(one.pids()) & first


@pytest.mark.parametrize("model", MODELS)
def test_a_pool_is_removed_under_load_and_the_others_go_on(manager, load, model):
    one = manager({"web": in_class("threads", 2), "old": in_class("async", 2, accept=model)})
    clients = load(one.address(), clients=2)
    slow = threading.Thread(target=one.fetch, args=("/slow?ms=500", "old"))
    slow.start()
    eventually(lambda: sum(each["active"] for each in one.workers("old")) == 1)
    del one.config["pools"]["old"]
    assert one.write().reload()["outcome"] == "reloaded"
    slow.join()
    eventually(lambda: "old" not in one.status()["pools"])
    assert one.reload()["outcome"] == "reloaded"
    assert clients.stop()["lost"] == 0


# Leaves a process behind that has the listening socket, and makes it wait in accept(2) all the time.
MEDDLER = """
import fcntl, os, signal
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open("meddles", "w").close()
    while True:
        fcntl.fcntl(3, fcntl.F_SETFL, 0)
signal.pause()
"""


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_who_has_the_socket_still_cannot_hold_the_manager_up(manager, kind):
    one = manager(start=False)
    address = ANY_PORT if kind == "tcp" else f"unix://{one.directory}/web.sock"
    one.config["pools"]["web"] = {
        "command": ["/usr/bin/python3", "-c", MEDDLER], "listen": [address], "workers": 1,
        "ready": {"after": "10ms"}, "timeouts": {"stop": "4s"}}
    one.write().start()
    eventually((one.directory / "meddles").exists)
    one.config["pools"]["web"] = example(1, listen=[address], accept="dispatch",
                                         timeouts={"stop": "4s"})
    one.write()
    one.signal(signal.SIGHUP)
    for _ in range(5):
        assert one.fetch()[0] == 200
        assert one.status()["state"] in ("running", "reloading")
    eventually(one.settled)


def test_nobody_sees_a_close_while_workers_are_replaced(manager):
    one = manager({"web": in_class("async", 2, accept="dispatch")})
    clients = [connect(one.address()) for _ in range(8)]
    streams = [client.makefile("rb") for client in clients]
    first = set()
    for round_ in range(4):
        pids = set()
        for client, stream in zip(clients, streams):
            client.sendall(b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n")
            status, fields, body = read_answer(stream)
            assert status == 200 and keeps(fields)
            pids.add(int(body))
        assert pids <= set(one.pids())
        assert not pids & first
        first = pids
        if round_ < 3:
            assert one.reload()["outcome"] == "reloaded"
    for stream, client in zip(streams, clients):
        stream.close()
        client.close()


def test_without_workers_connections_wait_for_the_next(manager):
    for model in OWN:
        one = manager({"web": in_class("async", 1, accept=model)})
        assert one.post("/v1/pools/web/scale", {"workers": 0}).status == 200
        one.settle()
        with connect(one.address()) as sock:
            sock.sendall(b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n")
            assert one.post("/v1/pools/web/scale", {"workers": 1}).status == 200
            assert b"200" in status_line(sock)


# --- Deaths --------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", OWN)
def test_a_death_takes_only_what_was_being_served(manager, load, model):
    one = manager({"web": in_class("sync", 4, accept=model)})
    clients = load(one.address(), clients=12, path="/slow?ms=5")
    kills = 10
    for _ in range(kills):
        before = one.pool()["restarts"]
        os.kill(one.pids(state="ready")[0], signal.SIGKILL)
        eventually(lambda: one.pool()["restarts"] > before)
        one.settle()
    tally = clients.stop()
    # A sync worker has one request in flight, and may have accepted the next connection.
    assert tally["lost"] <= 2 * kills, tally
    assert set(tally["failed"]) <= {"reset", "closed"}, tally
    assert tally["ok"] > 200, tally


def test_what_waits_on_the_socket_of_a_dead_worker_is_served_by_its_successor(manager):
    one = manager({"web": in_class("sync", 1, accept="reuseport")})
    pid = one.pids()[0]
    halt(pid)
    waiting = [connect(one.address()) for _ in range(5)]
    for sock in waiting:
        sock.sendall(b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n")
    eventually(lambda: one.pool()["listeners"][0]["backlog"] == 5)
    os.kill(pid, signal.SIGKILL)
    assert all(b"200" in status_line(sock) for sock in waiting)
    for sock in waiting:
        sock.close()


def test_connections_that_a_dead_worker_had_not_taken_go_to_another(manager):
    one = manager({"web": in_class("async", 1, accept="dispatch")})
    pid = one.pids()[0]
    halt(pid)
    waiting = [connect(one.address()) for _ in range(5)]
    for sock in waiting:
        sock.sendall(b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n")
    # Handed over: they are in its channel, and no longer in the kernel's queue.
    eventually(lambda: one.pool()["listeners"][0]["backlog"] == 0)
    os.kill(pid, signal.SIGKILL)
    assert all(b"200" in status_line(sock) for sock in waiting)
    for sock in waiting:
        sock.close()


# --- Standing still ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["uvicorn", "sync worker"])
def test_a_worker_that_accepts_nothing_is_found_by_its_queue(manager, load, name):
    if name == "uvicorn":
        one = start(manager, name, workers=4)
        one.config["pools"]["web"] |= {"accept": "reuseport", "timeouts": {"heartbeat": "2s"}}
        assert one.write().reload()["outcome"] == "reloaded"
    else:
        one = manager({"web": in_class("sync", 4, accept="reuseport",
                                       timeouts={"heartbeat": "2s"})})
    clients = load(one.address(), clients=8)
    with one.events() as events:
        pid = one.pids(state="ready")[1]
        begin = time.monotonic()
        halt(pid)
        stopping = events.wait("worker.stopping", pid=pid)
        events.wait("worker.ready")
        took = time.monotonic() - begin
        events.wait("worker.failed", pid=pid)
    assert "did not accept what waited for it" in stopping["reason"] or name == "sync worker"
    assert 1.9 < took < 3 + (3 if name == "uvicorn" else 0), took  # python takes its time to start
    tally = clients.stop()
    # What it was serving: an event loop, something of each client at most.
    assert tally["lost"] <= (8 if name == "uvicorn" else 1), tally


def test_what_waits_in_one_pool_is_no_fault_of_anothers_workers(manager):
    one = manager({"web": in_class("async", 1, accept="reuseport"),
                   "api": in_class("threads", 2, timeouts={"heartbeat": "1s"})})
    pids = one.pids("api")
    assert one.post("/v1/pools/web/scale", {"workers": 0}).status == 200
    one.settle()
    with connect(one.address()) as waiting:
        waiting.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(4):  # it works, so it is looked after
            assert one.fetch("/slow?ms=600", "api")[0] == 200
    assert one.pids("api") == pids


def test_a_worker_that_takes_nothing_gets_no_more(manager, load):
    one = manager({"web": in_class("async", 4, accept="dispatch", timeouts={"heartbeat": "3s"})})
    load(one.address(), clients=2).stop()
    pid = one.pids()[0]
    with one.events() as events:
        halt(pid)
        clients = load(one.address(), clients=4, pause=0.001, wait=False)
        events.wait("worker.stopping", pid=pid)
        events.wait("worker.failed", pid=pid)
        tally = clients.stop()
    # Each client was held up once at most; what is not taken is not lost but given to another.
    assert tally["lost"] == 0, tally
    assert tally["milliseconds"]["p50"] < 500, tally


# --- Requests of the manager's own ---------------------------------------------------------------


def test_an_unmodified_program_is_warmed_up_before_it_gets_traffic(manager, load):
    one = start(manager, "uvicorn")
    seen = one.directory / "seen"
    (one.directory / "app.py").write_text(f"""
import os
served = 0
async def app(scope, receive, send):
    global served
    if scope["type"] != "http":
        return
    served += 1
    with open({str(seen)!r}, "a") as file:
        file.write(f"{{os.getpid()}} {{served}} {{scope['path']}}\\n")
    await send({{"type": "http.response.start", "status": 200,
                 "headers": [(b"content-length", b"3")]}})
    await send({{"type": "http.response.body", "body": b"ok\\n"}})
""")
    one.config["pools"]["web"] |= {"accept": "reuseport", "warmup": ["GET /warm", "GET /warmer"]}
    assert one.write().reload()["outcome"] == "reloaded"
    # Not before: uvicorn closes what it has accepted and not read yet when it is told to go.
    clients = load(one.address(), clients=4)
    for _ in range(2):
        assert one.reload()["outcome"] == "reloaded"
    assert clients.stop()["lost"] == 0
    of = {}
    for line in seen.read_text().splitlines():
        pid, _, path = line.split()
        of.setdefault(pid, []).append(path)
    new = [paths for pid, paths in of.items() if "/warm" in paths]
    assert len(new) == 6
    assert all(paths[:2] == ["/warm", "/warmer"] and "/warm" not in paths[1:] for paths in new)


def test_one_sick_worker_among_unmodified_ones_is_found_and_replaced(manager):
    one = start(manager, "uvicorn", workers=4)
    (one.directory / "app.py").write_text("""
import os
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    sick = os.path.exists(f"sick-{os.getpid()}")
    await send({"type": "http.response.start", "status": 500 if sick else 200,
                "headers": [(b"content-length", b"3")]})
    await send({"type": "http.response.body", "body": b"ok\\n"})
""")
    one.config["pools"]["web"] |= {"accept": "reuseport", "health": {
        "request": "GET /health", "interval": "500ms", "timeout": "500ms", "failures": 2}}
    assert one.write().reload()["outcome"] == "reloaded"
    pids = set(one.pids())
    sick = min(pids)
    with one.events() as events:
        (one.directory / f"sick-{sick}").touch()
        events.wait("health.failed", 2, pid=sick)
        events.wait("worker.exited", pid=sick)
        assert not [each for each in events.named("health.failed") if each["pid"] != sick]
    one.settle()
    assert set(one.pids()) & pids == pids - {sick}


def test_a_program_that_does_not_speak_the_channel_is_reported_when_it_is_to_be_dispatched_to(
        manager):
    one = manager({"web": in_class("async", 1), "other": scripted("--ready=notify")})
    one.config["pools"]["other"]["accept"] = "dispatch"
    answer = one.write().reload()
    assert answer.status == 409
    assert "`accept: dispatch` needs" in answer["pools"]["other"]["reason"]


# --- Balance -------------------------------------------------------------------------------------


def test_long_lived_connections_are_spread_evenly_by_dispatch(manager):
    one = manager({"web": in_class("async", 4, accept="dispatch")})
    clients = []
    for count in range(4, 84, 4):  # who does not take what he is given would be passed over
        clients += [connect(one.address()) for _ in range(4)]
        eventually(lambda n=count: sum(each["connections"] for each in one.workers()) == n)
    assert [each["connections"] for each in one.workers()] == [20, 20, 20, 20]
    for client in clients:
        client.close()


def test_a_full_pool_leaves_connections_in_the_kernels_queue(manager):
    one = manager({"web": in_class("sync", 2, accept="dispatch")})
    busy = [attempt(one, "/slow?ms=1500") for _ in range(2)]
    eventually(lambda: sum(each["active"] for each in one.workers()) == 2)
    waiting = [connect(one.address()) for _ in range(4)]
    for sock in waiting:
        sock.sendall(b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n")
    eventually(lambda: one.pool()["listeners"][0]["backlog"] >= 3)
    assert all(b"200" in status_line(sock) for sock in waiting)
    for thread in busy:
        thread.join()
    for sock in waiting:
        sock.close()


def answered(clients, within):
    """How many of these connections, which stay open, have got an answer."""
    waiting = {one.fileno(): one for one in clients}
    poll = select.poll()
    for number in waiting:
        poll.register(number, select.POLLIN)
    end = time.monotonic() + within
    while waiting and time.monotonic() < end:
        for number, _ in poll.poll(100):
            assert waiting[number].recv(4096).startswith(b"HTTP/1.1 200"), "closed, or refused"
            poll.unregister(number)
            del waiting[number]
    return len(clients) - len(waiting)


@pytest.mark.parametrize("kind, policy", [
    ("async", "least_connections"), ("async", "round_robin"), ("async", "random"),
    ("threads", "least_connections")])
@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_a_burst_of_clients_that_stay_is_served_though_none_leaves(manager, family, kind, policy):
    one = manager(start=False)
    pool = in_class(kind, 2, accept="dispatch", dispatch=policy)
    path = str(one.directory / "web.sock")
    pool["listen"] = [ANY_PORT if family == "tcp" else f"unix://{path}"]
    one.config["pools"]["web"] = pool
    one.write().start()
    to = ("127.0.0.1", port_of(one)) if family == "tcp" else path
    clients = []
    try:
        for _ in range(400):
            clients.append(socket.socket(socket.AF_INET if family == "tcp" else socket.AF_UNIX))
            clients[-1].connect(to)
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answered(clients, 20) == len(clients)
    finally:
        for client in clients:
            client.close()


@pytest.mark.parametrize("policy", ["round_robin", "random"])
def test_the_other_policies_serve(manager, load, policy):
    one = manager({"web": in_class("async", 3, accept="dispatch", dispatch=policy)})
    pids = [one.fetch("/pid")[1].strip() for _ in range(30)]
    assert set(pids) == {str(pid) for pid in one.pids()}
    if policy == "round_robin":
        assert all(pids.count(pid) == 10 for pid in set(pids))
    assert load(one.address(), clients=4).stop()["lost"] == 0


# --- Nothing runs while nothing happens ----------------------------------------------------------


@pytest.mark.parametrize("model", OWN)
def test_an_idle_pool_causes_no_wakeups(manager, model):
    one = manager({"web": in_class("async", 2, accept=model)})
    assert one.fetch()[0] == 200

    def switches():
        total = 0
        for thread in os.listdir(f"/proc/{one.pid}/task"):
            for line in read(one.pid, f"task/{thread}/status").decode().splitlines():
                total += int(line.split()[1]) if "ctxt_switches" in line else 0
        return total

    def quiet():
        before = switches()
        time.sleep(1)  # that nothing happens in a time needs that time
        return switches() == before

    eventually(quiet, 20, "a second without a wake-up")


# --- Sockets -------------------------------------------------------------------------------------


def test_nobody_else_can_have_the_address_of_a_group(manager):
    one = manager({"web": in_class("async", 2, accept="reuseport")})
    port = port_of(one)
    assert sockets_of(port) == 2
    other = manager({"web": in_class("async", 1, accept="reuseport")}, start=False)
    other.config["pools"]["web"]["listen"] = [f"tcp://127.0.0.1:{port}"]
    other.write().launch()
    assert other.wait() == 3
    assert "Address already in use" in other.log()
    other.process = None


def test_sockets_come_and_go_with_the_workers(manager):
    one = manager({"web": in_class("async", 2, accept="reuseport")})
    port = port_of(one)
    for workers in (5, 1, 3):
        assert one.post("/v1/pools/web/scale", {"workers": workers}).status == 200
        one.settle()
        eventually(lambda n=workers: sockets_of(port) == n)
        assert one.fetch()[0] == 200


def test_a_worker_can_listen_on_ipv6_too(manager, load):
    if not socket.has_ipv6:
        pytest.skip("needs IPv6")
    one = manager({"web": in_class("async", 2, accept="reuseport", warmup=["GET /pid"])},
                  start=False)
    one.config["pools"]["web"]["listen"] = ["tcp://[::]:0"]
    one.write().start()
    port = port_of(one)
    clients = load(f"tcp://127.0.0.1:{port}", clients=3)
    assert one.reload()["outcome"] == "reloaded"
    assert clients.stop()["lost"] == 0
