#!/usr/bin/python3
"""What a stopped worker, killed ones and a burst do to the requests of the others.

- One of four workers is stopped (SIGSTOP) under a third of the load that they can bear: the 99th
  percentile of all requests against the same plan with nobody stopped, and how many were lost.
- Ten times a worker is killed (SIGKILL) that has requests of 50 ms in hand: how many were lost,
  against how many connections it had accepted, each with one request, and how many of these it was
  serving. It is stopped first, so that this can be counted.
- A pool of one worker, scaled by load, gets ten times what that worker can bear: when the decision
  came, when the first new worker was ready, counted from the first request of the burst, and how
  many decisions and workers it was until the end.

By the open-loop generator, for each model. Prints Markdown. Nothing here asserts: timings are no
tests.
"""

import argparse
import contextlib
import datetime
import json
import os
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from balance import available, spread
from sdk import BIN, Server, free_port, raise_limit

DEADLINE = 30.0
WORKERS = 4
KILLS = 10


class Pool(Server):
    """ostlerd with one pool of mixed workers; its events are collected."""

    def __init__(self, directory, model, kind, workers, more=""):
        port = free_port()
        user = "user: root," if os.geteuid() == 0 else ""
        config = directory / "ostler.yaml"
        config.write_text(
            f"control: {{socket: {directory}/control.sock}}\nlog: {{level: warning}}\n"
            f"pools:\n  web: {{command: [{BIN}/ostler-bench-mixed], {user} accept: {model},\n"
            f"        worker: {{class: {kind}}}, workers: {workers},\n"
            f"        {more} listen: ['tcp://127.0.0.1:{port}']}}\n")
        config.chmod(0o600)
        self.control = [BIN / "ostlerctl", "--socket", directory / "control.sock", "--json"]
        super().__init__(directory, [BIN / "ostlerd", "--config", config], port)
        self.until(lambda pool: pool["ready"] == pool["target"])
        self.events = []
        self.follower = subprocess.Popen([*self.control, "events", "--follow"], text=True,
                                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.reader = threading.Thread(target=self.collect)
        self.reader.start()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.follower.wait(10)
        self.reader.join()

    def collect(self):
        for line in self.follower.stdout:
            self.events.append(json.loads(line))

    def status(self):
        text = subprocess.run([*self.control, "status"], capture_output=True, text=True,
                              check=True).stdout
        return json.loads(text)["pools"]["web"]

    def until(self, true):
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            with contextlib.suppress(subprocess.CalledProcessError):
                if true(self.status()):
                    return
            time.sleep(0.05)
        raise RuntimeError(f"the pool did not come to what was awaited: {self.status()}")

    def load(self, rate, seconds, path="/short"):
        return subprocess.Popen(
            [BIN / "ostler-bench-load", "--address", f"tcp://127.0.0.1:{self.port}", "--target",
             path, "--rate", str(round(rate)), "--seconds", str(seconds)],
            stdout=subprocess.PIPE, text=True)


@contextlib.contextmanager
def pool(*arguments, **more):
    with tempfile.TemporaryDirectory(prefix="ostler-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        with Pool(directory, *arguments, **more) as server:
            yield server


def result(client):
    return json.loads(client.communicate(timeout=60)[0])


def stopped(model, kind, seconds, stop):
    """A third of the load, and, if `stop`, one worker that stands still from its middle on."""
    with pool(model, kind, WORKERS, "timeouts: {heartbeat: 1s},") as server:
        result(server.load(100, 0.5))
        client = server.load(0.3 * WORKERS / 0.001, seconds)
        time.sleep(seconds / 2)
        if stop:
            os.kill(server.status()["workers"][0]["pid"], signal.SIGSTOP)
        run = result(client)
        server.until(lambda now: now["ready"] == WORKERS)
    return {"p99": run["targets"]["/short"]["p99_ms"], "lost": run["lost"]}


def killed(model, kind, seconds):
    """Lost requests, and how many those who were killed had accepted, and were serving."""
    accepted, serving = 0, 0
    with pool(model, kind, WORKERS, "restart: {burst: 100},") as server:
        # As many in hand as a worker of one thread or some can have; of an event loop's, ten.
        rate = (40 if kind == "async" else 2) / 0.050
        client = server.load(rate, seconds, "/long")
        for _ in range(KILLS):
            time.sleep(seconds / (KILLS + 2))
            workers = [one for one in server.status()["workers"] if one["state"] == "ready"]
            pid = max(workers, key=lambda one: one["active"])["pid"]
            os.kill(pid, signal.SIGSTOP)
            victim = next(one for one in server.status()["workers"] if one["pid"] == pid)
            accepted += victim["connections"]
            serving += victim["active"]
            os.kill(pid, signal.SIGKILL)
        return {"lost": result(client)["lost"], "accepted": accepted, "serving": serving}


def burst(model, by, seconds):
    with pool(model, "sync", f"{{min: 1, max: 16, by: {by}}}") as server:
        result(server.load(10, 0.5))
        begin = datetime.datetime.now(datetime.timezone.utc)
        run = result(server.load(10 / 0.050, seconds, "/long"))
        most = len(server.status()["workers"])
    after = {"scaled": [], "ready": []}
    for event in server.events:
        what = event["event"].partition(".")[2]
        when = (datetime.datetime.fromisoformat(event["time"].replace("Z", "+00:00"))
                - begin).total_seconds()
        if what in after and event["event"] != "pool.ready" and when > 0:
            after[what].append(when)
    return {"decided": after["scaled"][0], "ready": after["ready"][0],
            "decisions": len(after["scaled"]), "workers": most, "lost": run["lost"]}


def row(*cells):
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def head(*cells):
    row(*cells)
    print("|" + " --- |" * len(cells))


def column(runs, key, digits=1):
    return spread([run[key] for run in runs], digits)


def report_stopped(models, options):
    samples = {}
    print(f"one of {WORKERS} workers stands still; p99 in ms, median (least to most)\n")
    head("model, class", "nobody stopped", "one stopped", "lost")
    for model in models:
        for kind in options.classes.split(","):
            runs = [[stopped(model, kind, options.seconds, stop) for _ in range(options.rounds)]
                    for stop in (False, True)]
            row(f"{model}, {kind}", *(column(some, "p99") for some in runs),
                statistics.median(run["lost"] for run in runs[1]))
            samples[f"{model}, {kind}"] = runs
    return samples


def report_killed(models, options):
    samples = {}
    print(f"\n{KILLS} workers are killed under load\n")
    head("model, class", "lost", "had been accepted", "were being served")
    for model in models:
        for kind in options.classes.split(","):
            run = killed(model, kind, options.seconds)
            row(f"{model}, {kind}", run["lost"], run["accepted"], run["serving"])
            samples[f"{model}, {kind}"] = run
    return samples


def report_burst(models, options):
    samples = {}
    print("\na burst of ten times what one worker can bear, `workers: {min: 1, max: 16}`; seconds\n")
    head("model, by", "decision", "first new worker ready", "decisions", "workers at the end", "lost")
    for model in models:
        for by in ("busy", "backlog"):
            runs = [burst(model, by, options.seconds) for _ in range(options.rounds)]
            row(f"{model}, {by}", column(runs, "decided", 2), column(runs, "ready", 2),
                column(runs, "decisions", 0), column(runs, "workers", 0),
                sum(run["lost"] for run in runs))
            samples[f"{model}, {by}"] = runs
    return samples


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="shared,reuseport,dispatch", help="of these, by commas")
    parser.add_argument("--classes", default="sync,threads,async", help="of these, by commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6, help="of each load")
    parser.add_argument("--parts", default="stopped,killed,burst", help="of these, by commas")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    raise_limit()
    models = available(options.models.split(","))
    reports = {"stopped": report_stopped, "killed": report_killed, "burst": report_burst}
    everything = {part: reports[part](models, options) for part in options.parts.split(",")}
    if options.json:
        options.json.write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()
