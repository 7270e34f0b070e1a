"""`replace: {surge: 0}`: a program with a port of its own stops before its successor starts."""

import shutil
import socket

import pytest

from ostler import shell
from processes import eventually

redis = pytest.mark.skipif(not shutil.which("redis-server"), reason="needs redis-server")


def free_decade():
    """The first digits of two free ports that differ in the last."""
    for first in range(2100, 3200):
        try:
            for slot in range(2):
                with socket.socket() as sock:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    sock.bind(("127.0.0.1", first * 10 + slot))
            return first
        except OSError:
            continue
    raise AssertionError("no free ports")


def server(first, *more, workers=2, surge=0, **keys):
    """Redis, which opens its port itself: a second one on the same port ends at once."""
    return {"command": ["redis-server", "--bind", "127.0.0.1", "--port", f"{first}{{slot}}",
                        "--save", "", "--appendonly", "no", "--supervised", "systemd", *more],
            "workers": workers, "ready": "notify", "replace": {"surge": surge, "settle": "100ms"},
            **keys}


def ask(port, words="PING"):
    with socket.create_connection(("127.0.0.1", port), 5) as sock:
        sock.sendall(words.encode() + b"\r\n")
        return sock.recv(65536).decode()


def process_of(port):
    return int(ask(port, "INFO server").split("process_id:")[1].split()[0])


def one_at_a_time(events, workers):
    """No slot is without a worker while another one is, and nobody is beside his predecessor."""
    ready, present = workers, workers
    for event in events.seen:
        ready += {"worker.ready": 1, "worker.stopping": -1}.get(event["event"], 0)
        present += {"worker.starting": 1, "worker.exited": -1, "worker.failed": -1}.get(
            event["event"], 0)
        assert ready >= workers - 1, events.seen
        assert present <= workers, events.seen


@redis
def test_a_server_with_a_port_of_its_own_is_reloaded_restarted_and_recycled(manager):
    first = free_decade()
    ports = [first * 10, first * 10 + 1]
    one = manager({"db": server(first)})
    for change in (("reload",), ("restart", "db")):
        before = [process_of(port) for port in ports]
        assert before == one.pids("db")
        with one.events() as events:
            done = one.ctl(*change)
            assert done.returncode == 0, done.stderr
            events.wait("reload.finished", pool="db")
        one_at_a_time(events, 2)
        after = [process_of(port) for port in ports]
        assert after == one.pids("db") and not set(before) & set(after)
    done = one.ctl("recycle", "db.1")
    assert done.returncode == 0, done.stderr
    assert process_of(ports[0]) == after[0] and process_of(ports[1]) != after[1]


@redis
def test_the_old_server_is_started_again_if_the_new_one_fails(manager):
    first = free_decade()
    one = manager({"db": server(first)})
    before = one.pids("db")
    one.config["pools"]["db"] = server(first, "--maxmemory", "nonsense")
    with one.events() as events:
        done = one.write().ctl("reload")
        events.wait("reload.finished", pool="db")
    assert done.returncode == 1 and "rolled back" in done.stderr
    assert ask(first * 10) == ask(first * 10 + 1) == "+PONG\r\n"
    after = one.pids("db")
    assert after[0] != before[0] and after[1] == before[1]  # the second was not touched
    one_at_a_time(events, 2)
    # And the other way: what could not be reloaded with a surge can be without.
    one.config["pools"]["db"] = server(first, surge=1)
    assert one.write().ctl("reload").returncode == 0  # the old one has no surge: it stops first
    assert one.ctl("reload").returncode == 1
    one.config["pools"]["db"] = server(first)
    assert one.write().ctl("reload").returncode == 0


@redis
def test_a_server_that_fails_its_health_check_stops_before_its_successor_starts(manager):
    first = free_decade()
    one = manager({"db": server(
        first, workers=1, health={"exec": ["test", "!", "-e", "sick"], "interval": "500ms",
                                  "timeout": "500ms", "failures": 2})})
    with one.events() as events:
        (one.directory / "sick").touch()
        gone = events.wait("worker.exited")
        (one.directory / "sick").unlink()
        assert gone["cause"] == "unhealthy"
        events.wait("worker.ready")
    one_at_a_time(events, 1)
    eventually(lambda: ask(first * 10) == "+PONG\r\n")


def test_a_file_of_its_own_is_free_when_the_successor_starts(manager):
    script = ("set -C; echo $$ >lock-{slot} || exit 9; trap 'sleep 0.1; rm lock-{slot}; exit 0' TERM;"
              " while :; do sleep 0.02; done")
    one = manager({"jobs": shell(script, workers=3, ready={"after": "50ms"},
                                 replace={"surge": 0})})
    with one.events() as events:
        assert one.reload()["outcome"] == "reloaded"
        events.wait("reload.finished", pool="jobs")
    one_at_a_time(events, 3)
