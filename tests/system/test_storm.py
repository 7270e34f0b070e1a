"""A storm: reloads, scales, recycles and deaths at random, all at once, under load.

OSTLER_STORM_SECONDS (10) says for how long, OSTLER_STORM_SEED with which dice; both are printed.
"""

import os
import random
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ostler import example, program
from processes import eventually

SECONDS = float(os.environ.get("OSTLER_STORM_SECONDS", "10"))
SEED = int(os.environ.get("OSTLER_STORM_SEED", str(int(time.time()))))
MOST = 6


def pick(one, dice):
    return dice.choice(one.pids(state="ready") or [0])


def signalled(one, pid, number):
    """Sends a signal to a worker, if it is still one: its pid may be anybody's by now."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:  # gone; or there was none to pick
        return False
    try:
        if pid not in one.pids():
            return False
        signal.pidfd_send_signal(handle, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)


def worker_request(action):
    def act(one, dice):
        assert one.post(f"/v1/workers/{pick(one, dice)}/{action}").status in (200, 404, 400)
    return act


def reload(one, _):
    assert one.reload().status == 200


def restart(one, _):
    assert one.post("/v1/restart").status == 200


def failing_reload(one, _):
    """The file is changed under a lock of its own: only one reload may find it so."""
    good = one.config["pools"]["web"]["command"]
    one.config["pools"]["web"]["command"] = ["/bin/false"]
    one.write()
    answer = one.reload("web")
    one.config["pools"]["web"]["command"] = good
    one.write()
    assert answer.status == 409 and answer["outcome"] == "rolled_back", answer


def scale(one, dice):
    assert one.post("/v1/pools/web/scale", {"workers": dice.randint(1, MOST)}).status == 200


def hang_up(one, _):
    one.signal(signal.SIGHUP)


# All of them graceful: whoever serves is asked to finish first. TERM from outside is not among
# them: it may come together with the manager's own, and twice means "at once" to the worker.
GRACEFUL = [worker_request("recycle"), worker_request("recycle"), worker_request("stop"), scale,
            scale, hang_up, restart]


def storm(one, dice, actions, reloads):
    """Three threads of random acts beside one that reloads; ends when the time is over."""
    end = time.monotonic() + SECONDS
    done = []

    def blow(seed, acts):
        own = random.Random(seed)
        while time.monotonic() < end:
            act = own.choice(acts)
            act(one, own)
            done.append(act.__name__)
            time.sleep(own.uniform(0, 0.05))

    with ThreadPoolExecutor() as threads:
        winds = [threads.submit(blow, dice.random(), actions) for _ in range(3)]
        winds.append(threads.submit(blow, dice.random(), reloads))
        for wind in winds:
            wind.result()
    return done


def aftermath(one):
    """The target is reached, by workers that all are of the newest generation."""
    assert one.post("/v1/pools/web/scale", {"workers": 4}).status == 200
    one.settle(30)
    assert one.reload()["outcome"] == "reloaded"
    one.settle(30)
    status = one.pool()
    assert status["target"] == status["ready"] == 4
    assert {worker["generation"] for worker in status["workers"]} == {status["generation"]}
    assert one.fetch()[0] == 200


@pytest.mark.parametrize("listen", ["tcp", "unix"])
def test_nothing_is_lost_in_a_storm_of_graceful_acts(manager, load, listen):
    print("seed", SEED)
    one = manager({"web": example(workers=3, restart={"burst": 1000},
                                  replace={"surge": "50%"})}, start=False)
    if listen == "unix":
        one.config["pools"]["web"]["listen"] = [f"unix://{one.directory}/web.sock"]
    trace = one.directory / "trace"
    one.args = ["--trace", str(trace)]
    one.write().start()
    clients = [load(one.address(), clients=4, keepalive=keepalive, echo=True, pause=0.0002)
               for keepalive in (False, True)]
    done = storm(one, random.Random(SEED), GRACEFUL, [reload, failing_reload])
    aftermath(one)
    for client in clients:
        tally = client.stop()
        print(tally)
        assert tally["lost"] == 0, tally
        assert tally["ok"] > 100
    assert len(done) > 20
    assert one.stop() == 0
    replayed = subprocess.run([program("ostler-replay"), str(trace)], capture_output=True,
                              text=True, check=False)
    assert replayed.returncode == 0, replayed.stdout


def test_only_what_a_killed_worker_had_in_hand_is_lost(manager, load):
    """SIGKILL takes with it the requests that the worker had accepted; there is no way to give
    them to another. A client here has one request at a time and no connection besides, so a kill
    can cost at most one request a client: connections that still queue belong to the socket, and
    the next worker gets them. Nothing may be refused or left waiting, and whoever comes later is
    served."""
    print("seed", SEED)
    one = manager({"web": example(workers=4, restart={"burst": 1000})})
    kills = []

    def kill(target, dice):
        if signalled(target, pick(target, dice), dice.choice([signal.SIGKILL, signal.SIGTERM])):
            kills.append(1)

    def kill_by_request(target, dice):
        if target.post(f"/v1/workers/{pick(target, dice)}/kill").status == 200:
            kills.append(1)

    clients = load(one.address(), clients=6, pause=0.0002)
    storm(one, random.Random(SEED), [*GRACEFUL, kill, kill, kill_by_request], [restart])
    aftermath(one)
    tally = clients.stop()
    print(tally, len(kills))
    assert set(tally["failed"]) <= {"closed", "reset"}, tally
    assert tally["lost"] <= len(kills) * 6, (tally, kills)
    assert tally["ok"] > 100 and kills
    eventually(lambda: one.pool()["draining"] == 0)
    assert one.fetch()[0] == 200
