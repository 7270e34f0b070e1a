"""How a manager ends, and with which exit code."""

import os
import signal
import threading
import time

import pytest

from control import Connection
from ostler import example, scripted, shell
from processes import alive, eventually, halt


def slow_answer(one, path="/slow?ms=700"):
    """A request under way; `join()` it, then `status`."""
    thread = threading.Thread(target=lambda: setattr(thread, "status", one_answer(address, path)))
    address = one.address()
    thread.status = None
    thread.start()
    return thread


def one_answer(address, path):
    connection = Connection(address)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError as error:
        return error
    finally:
        connection.close()


def sockets(one):
    """How many sockets the workers hold; each connection that is accepted is one more."""
    return sum(os.readlink(f"/proc/{pid}/fd/{number}").startswith("socket:")
               for pid in one.pids() for number in os.listdir(f"/proc/{pid}/fd"))


def in_flight(one, count):
    """So many slow requests, all of them in the hands of a worker."""
    idle = sockets(one)
    clients = [slow_answer(one) for _ in range(count)]
    eventually(lambda: sockets(one) == idle + count, what="requests in the hands of workers")
    return clients


@pytest.mark.parametrize("pool", [
    scripted(timeouts={"stop": "25s"}),
    # its child outlives it, and is asked as an orphan
    shell('sleep 1000 & kill -STOP $!; exec sleep 1000', timeouts={"stop": "25s"})])
def test_what_is_stopped_hears_that_it_shall_end(manager, pool):
    one = manager({"web": pool})
    if "listen" in pool:
        halt(one.pids()[0])
    begin = time.monotonic()
    assert one.stop() == 0
    assert time.monotonic() - begin < 20
    assert "SIGKILL" not in one.log()


def test_term_lets_requests_in_flight_end(manager):
    one = manager({"web": example(workers=2)})
    clients = in_flight(one, 4)
    begin = time.monotonic()
    assert one.stop() == 0
    for client in clients:
        client.join()
    assert [client.status for client in clients] == [200] * 4
    assert time.monotonic() - begin < 15
    assert "exit code 0" in one.log()


def test_ostlerctl_stop_drains_and_returns_when_all_is_over(manager):
    one = manager({"web": example(workers=1)})
    client, = in_flight(one, 1)
    assert one.ctl("stop").returncode == 0
    assert one.wait(10) == 0
    client.join()
    assert client.status == 200


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_int_and_quit_stop_at_once(manager, number):
    one = manager({"web": scripted("--stop-slow", 20000, workers=2)})
    workers = one.pids()
    begin = time.monotonic()
    one.signal(number)
    assert one.wait() == 0
    assert time.monotonic() - begin < 10
    assert not any(alive(pid) for pid in workers)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_kills_what_is_left(manager, number):
    one = manager({"web": scripted("--stop-slow", 20000)})
    with one.events() as events:
        one.signal(signal.SIGTERM)
        events.wait("worker.stopping")
        assert one.status()["state"] == "stopping"
        assert one.reload().status == 503
        begin = time.monotonic()
        one.signal(number)
        assert one.wait() == 0
    assert time.monotonic() - begin < 10


def test_workers_that_do_not_stop_are_killed_when_their_time_is_over(manager):
    one = manager({"web": scripted("--ignore-term", workers=3, timeouts={"stop": "300ms"})})
    begin = time.monotonic()
    assert one.stop() == 0
    assert 0.3 <= time.monotonic() - begin < 10
    assert "timeouts.stop" in one.log()


def test_the_events_tell_of_the_end(manager):
    one = manager({"web": scripted()})
    with one.events() as events:
        one.signal(signal.SIGTERM)
        one.wait()
        eventually(lambda: events.ended, what="an end of the events")
    names = [event["event"] for event in events.seen]
    assert names[0] == "manager.stopping" and "worker.exited" in names


def test_exit_code_two_for_a_faulty_configuration(manager):
    one = manager({"web": {"command": ["/no/such/program"]}}, start=False).launch()
    assert one.wait() == 2
    assert "does not exist" in one.log() and "1 fault in the configuration" in one.log()
    one = manager({"web": scripted()}, start=False, args=["--no-such-option"]).launch()
    assert one.wait() == 2


def test_exit_code_four_when_every_pool_fails_at_first_start(manager):
    restart = {"backoff": "10ms", "backoff_max": "20ms"}
    one = manager({"a": scripted("--exit-code", 1, workers=2, restart=restart),
                   "b": scripted("--crash-before-ready", restart=restart)}, start=False).launch()
    assert one.wait() == 4
    tries = [one.log().count(f"error a.{slot}[") for slot in (0, 1)]
    assert max(tries) >= 5 and "cannot reach the database" in one.log()


def test_a_manager_that_gives_up_says_why_in_its_last_line(manager):
    quick = {"restart": {"backoff": "10ms", "backoff_max": "10ms"}}
    one = manager({"web": shell("exit 3", **quick),
                   "api": {"workers": 1, **quick}}, start=False)
    (one.directory / "api").write_text("no program\n")
    (one.directory / "api").chmod(0o755)
    one.config["pools"]["api"]["command"] = [str(one.directory / "api")]
    assert one.write().launch().wait() == 4
    last = one.log().splitlines()[-1]
    assert " error giving up: no pool got a worker ready in 5 tries each: " in last
    assert "web: exited with code 3 after" in last
    assert "api: could not be started: exec" in last
    assert last.endswith("(exit code 4)")


def test_workers_that_still_start_are_ended_when_the_manager_gives_up(manager):
    command = f"test {{slot}} = 0 && exit 1; exec {scripted()['command'][0]} --ready never"
    one = manager({"web": {**scripted(workers=2), "command": ["/bin/sh", "-c", command],
                           "restart": {"backoff": "10ms", "backoff_max": "20ms"}}},
                  start=False).launch()
    assert one.wait() == 4


def test_no_exit_while_one_pool_works(manager):
    restart = {"backoff": "10ms", "backoff_max": "20ms"}
    one = manager({"bad": scripted("--exit-code", 1, restart=restart), "good": scripted()},
                  start=False).launch()
    eventually(lambda: "good has all" in one.log() and one.pool("bad")["restarts"] > 10)
    assert one.pool("good")["ready"] == 1
    assert one.status()["state"] == "starting"
    assert one.get("/readyz").status == 503 and one.get("/livez").status == 200
    assert one.post("/v1/reload?wait=false").status == 202
    eventually(lambda: one.status()["state"] == "reloading" or "rolled back" in one.log())
    assert one.get("/readyz").status == 503  # a reload makes nothing ready that never was


def test_usr2_is_no_danger(manager):
    one = manager({"web": example(workers=1)})
    one.signal(signal.SIGUSR2)
    eventually(lambda: "not available in this version" in one.log())
    assert one.fetch()[0] == 200
