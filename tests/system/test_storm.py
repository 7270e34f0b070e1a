"""A storm: reloads, scales, recycles and deaths at random, all at once, under load.

OSTLER_STORM_SECONDS (10) says for how long, OSTLER_STORM_SEED with which dice; both are printed.
"""

import os
import random
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import datetime

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


def blamed(answer, *reasons):
    """Rolled back, for what the storm itself does to new workers."""
    return answer.status == 409 and \
        any(reason in answer["pools"]["web"]["reason"] for reason in reasons)


def restart(one, _):
    """It may be one with a reload that finds the bad file."""
    answer = one.post("/v1/restart")
    assert answer.status == 200 or blamed(answer, "exited with code 1 "), answer


def restart_among_kills(one, _):
    """A worker that gets SIGTERM from the storm ends with 0."""
    answer = one.post("/v1/restart")
    good = answer.status == 200 or blamed(answer, "was killed by SIG", "exited with code 0 after")
    assert good, answer


def failing_reload(one, _):
    """The file stays bad until the answer comes: whichever reload covers it, it reads that."""
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
    storm(one, random.Random(SEED),
          [*(act for act in GRACEFUL if act is not restart), restart_among_kills, kill, kill,
           kill_by_request], [restart_among_kills])
    aftermath(one)
    tally = clients.stop()
    print(tally, len(kills))
    assert set(tally["failed"]) <= {"closed", "reset"}, tally
    assert tally["lost"] <= len(kills) * 6, (tally, kills)
    assert tally["ok"] > 100 and kills
    eventually(lambda: one.pool()["draining"] == 0)
    assert one.fetch()[0] == 200


# ---- versions that die

SETTLE = 0.8


class Version:
    """What a reload deploys: workers that are good, or that die so long after they were ready."""

    def __init__(self, number, dice):
        self.number = number
        self.dies = dice.choice([None, None, "all", "all", "one slot", "before ready"])
        self.after = dice.choice([dice.uniform(0, SETTLE / 2), dice.uniform(0, 3 * SETTLE)])
        self.slot = dice.randrange(MOST)
        self.code = dice.choice([1, 3, 255])

    @property
    def dies_early(self):
        """Every worker is gone well before it has stayed for long enough."""
        return self.dies == "before ready" or self.dies == "all" and self.after <= SETTLE / 2

    @property
    def pool(self):
        worker = program("ostler-test-worker")
        doomed = f"--exit-code {self.code} --exit-after {int(self.after * 1000)}"
        flags = {"all": doomed, "before ready": "--crash-before-ready",
                 "one slot": f"$(test {{slot}} = {self.slot} && echo {doomed})"}.get(self.dies, "")
        return {"command": ["/bin/sh", "-c", f"exec {worker} {flags}"],
                "listen": ["tcp://127.0.0.1:0"], "env": {"VERSION": str(self.number)},
                "workers": 4, "restart": {"burst": 1000},
                "replace": {"surge": 2, "settle": f"{SETTLE}s"}}

    def __str__(self):
        return f"version {self.number}: {self.dies or 'good'}, after {self.after:.2f}s"


class Round:
    """One reload to a version, with acts beside it until its outcome is known."""

    def __init__(self, one, version, dice):
        self.version = version
        self.killed = False
        one.config["pools"]["web"] = version.pool
        one.write()
        with ThreadPoolExecutor(1) as threads:
            answer = threads.submit(one.reload, "web")
            kills = [self.kill, self.kill] if dice.random() < 0.7 else []
            while not answer.done():
                wait([answer], dice.uniform(0, SETTLE))
                if not answer.done():
                    dice.choice([*kills, scale, hang_up])(one, dice)
            self.answer = answer.result()
        self.outcome = self.answer["outcome"]
        self.generation = self.answer["pools"]["web"]["generation"]

    def kill(self, one, dice):
        pids = one.pids()
        self.killed = signalled(one, dice.choice(pids or [0]), signal.SIGKILL) or self.killed

    def judge(self, events):
        """No worker of a generation that is called good died before, or had not stayed yet."""
        assert self.outcome in ("reloaded", "rolled_back"), self.answer
        if self.outcome == "rolled_back":
            assert self.version.dies or self.killed, self.answer
            return
        end = events.wait("reload.finished", pool="web", generation=self.generation,
                          outcome="reloaded")["time"]
        mine = [event for event in list(events.seen) if event.get("pool") == "web"
                and event.get("generation") == self.generation]
        ready = {event["pid"]: event["time"] for event in mine if event["event"] == "worker.ready"}
        for event in mine:
            if event["event"] != "worker.failed":
                continue
            assert event["time"] > end, f"it died before the outcome: {event}"
            if event["pid"] in ready and ready[event["pid"]] < end:
                stayed = moment(event["time"]) - moment(ready[event["pid"]])
                assert stayed > SETTLE, f"it was taken for good after {stayed}s: {event}"


def moment(time_of_event):
    return datetime.fromisoformat(time_of_event.replace("Z", "+00:00")).timestamp()


def busy(one):
    status = one.status()
    return status["state"] == "reloading" or status["pools"]["web"]["rollout"] is not None


def test_no_generation_is_called_good_that_cannot_hold_its_target(manager):
    """Reloads to versions whose workers die at random moments after they were ready, with kills,
    other reloads and scaling beside them. `reloaded` is said only of a generation none of whose
    workers died before, and all of which had stayed for `settle`; after a rollback a version
    serves that does not die so early, with all its workers."""
    print("seed", SEED)
    dice = random.Random(SEED)
    first = Version(0, dice)
    first.dies = None
    one = manager({"web": first.pool})
    bad = set()
    outcomes = []
    end = time.monotonic() + SECONDS
    with one.events() as events:
        while time.monotonic() < end or len(set(outcomes)) < 2:
            version = Version(len(outcomes) + 1, dice)
            this = Round(one, version, dice)
            print(version, this.outcome, "killed" if this.killed else "")
            outcomes.append(this.outcome)
            if version.dies_early:
                assert this.outcome == "rolled_back"
                bad.add(str(version.number))
            eventually(lambda: not busy(one), 30, "no reload under way")
            this.judge(events)
            if this.outcome == "rolled_back" or not version.dies:
                one.settle(30)
                status = one.pool()
                assert {each["generation"] for each in status["workers"]} == {status["generation"]}
                assert one.worker_view()["env"]["VERSION"] not in bad
    one.config["pools"]["web"] = first.pool
    assert one.write().reload()["outcome"] == "reloaded"
    one.settle(30)
    assert one.stop() == 0
