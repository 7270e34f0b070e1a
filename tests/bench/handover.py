#!/usr/bin/python3
"""What handing connections over costs: `accept: dispatch` against `shared` with the same worker.

With one request a connection every request is handed over; with keep-alive hardly any, and the
manager should not be seen. In every class of worker, by wrk on loopback, A B A B: each round
measures both, one after the other, and gives one ratio; medians with the least and the most. Beside
it the CPU time of the manager for each request, and the longest that its loop was busy at a stretch,
with what a request for `status` took meanwhile: the rest of its work waits that long. Prints
Markdown. Nothing here asserts: timings are no tests.
"""

import argparse
import json
import os
import socket
import statistics
import tempfile
import threading
import time
from pathlib import Path

from balance import available, spread
from sdk import BIN, Server, free_port, raise_limit, wrk

TICK = os.sysconf("SC_CLK_TCK")


def start(directory, model, kind, workers):
    port = free_port()
    user = "user: root," if os.geteuid() == 0 else ""
    accept = "" if model == "shared" else f"accept: {model},"
    config = directory / "ostler.yaml"
    config.write_text(
        f"control: {{socket: {directory}/control.sock}}\nlog: {{level: warning}}\n"
        f"pools:\n  web: {{command: [{BIN}/ostler-example-hello], {user} {accept}\n"
        f"        worker: {{class: {kind}, connections: 10000}}, workers: {workers},\n"
        f"        listen: ['tcp://127.0.0.1:{port}']}}\n")
    config.chmod(0o600)
    return Server(directory, [BIN / "ostlerd", "--config", config], port)


def cpu_seconds(pid):
    """User and system time of a process, of all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


class Asking(threading.Thread):
    """Asks for `status` all the time, twenty times a second."""

    def __init__(self, path):
        super().__init__()
        self.path = str(path)
        self.took = []  # seconds
        self.turn = 0.0  # the longest, in seconds
        self.over = threading.Event()

    def run(self):
        while not self.over.wait(0.05):
            begin = time.monotonic()
            with socket.socket(socket.AF_UNIX) as asking:
                asking.connect(self.path)
                asking.sendall(b"GET /v1/status HTTP/1.1\r\nHost: o\r\nConnection: close\r\n\r\n")
                answer = b"".join(iter(lambda: asking.recv(65536), b""))
            self.took.append(time.monotonic() - begin)
            self.turn = json.loads(answer.partition(b"\r\n\r\n")[2])["loop_turn_max"]

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()


def measure(model, kind, options, close):
    with tempfile.TemporaryDirectory(prefix="ostler-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        with start(directory, model, kind, options.workers) as server:
            wrk(server.port, 1, options.connections, close, directory)  # warm
            before = cpu_seconds(server.process.pid)
            with Asking(directory / "control.sock") as asking:
                run = wrk(server.port, options.seconds, options.connections, close, directory)
            cpu = cpu_seconds(server.process.pid) - before
    return {**run, "manager_us": cpu / (run["rate"] * options.seconds) * 1e6,
            "turn_ms": asking.turn * 1e3, "status_ms": max(asking.took) * 1e3}


def compare(model, kind, options, close):
    shared, other = [], []
    for _ in range(options.rounds):
        shared.append(measure("shared", kind, options, close))
        other.append(measure(model, kind, options, close))
    return {"shared": shared, "other": other}


def row(kind, close, shared, other):
    rates = [[run["rate"] for run in runs] for runs in (shared, other)]
    cells = [kind, "one" if close else "many", spread(rates[0], 0), spread(rates[1], 0),
             spread([b / a for a, b in zip(*rates)], 2),
             spread([run["manager_us"] for run in other]),
             spread([run["turn_ms"] for run in other], 2),
             spread([run["status_ms"] for run in other]),
             "; ".join(run["errors"] for run in shared + other if run["errors"])]
    print(f"| {' | '.join(cells)} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="dispatch",
                        help="what is compared with shared; shared itself shows the noise")
    parser.add_argument("--classes", default="sync,threads,async")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="2 rounds of 1 second")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 2, 1
    if not available([options.model]):
        return
    raise_limit()
    result = {"load_before": os.getloadavg()}
    print(f"requests per second, {options.workers} worker(s), {options.connections} clients, "
          "median (least to most)\n")
    print(f"| class | requests a connection | shared | {options.model} | ratio | manager's CPU, "
          "us a request | its longest turn, ms | slowest `status`, ms | errors |")
    print("| --- |" + " --- |" * 8)
    for kind in options.classes.split(","):
        # A worker of class sync closes after each answer, asked or not.
        for close in (True,) if kind == "sync" else (True, False):
            samples = compare(options.model, kind, options, close)
            result[f"{kind}, {'one' if close else 'many'}"] = samples
            row(kind, close, **samples)
    result["load_after"] = os.getloadavg()
    print(f"\nload of the machine: {result['load_before'][0]:.2f} before, "
          f"{result['load_after'][0]:.2f} after")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
