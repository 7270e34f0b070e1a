#!/usr/bin/python3
"""How evenly requests and connections spread over eight workers, for each `accept` model.

First: 99 of 100 requests take 1 ms and one 50 ms (they sleep), in open loop at 9, 37 and 69 % of
what eight workers can do that serve one at a time; the 99th percentile of the short ones, which
rises when they queue behind a long one while another worker is idle. Beside it Gunicorn with the
same application. A round starts every subject once; rounds are interleaved, figures are medians
with the least and the most. Then: 800 connections held on eight event loops, the busiest against
the mean. Prints Markdown. Nothing here asserts: timings are no tests. On a machine that does other
things meanwhile, `chrt --rr 1` before it puts generator and servers first.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from sdk import BIN, Server, free_port, raise_limit

HERE = Path(__file__).resolve().parent
MODELS = ("shared", "reuseport", "dispatch")
WORKERS = 8
LOADS = (9, 37, 69)  # per cent
MEAN_SECONDS = 0.99 * 0.001 + 0.01 * 0.05
DEADLINE = 30.0


def configuration(directory, model, kind, port):
    """The file of one pool of eight mixed workers."""
    user = "user: root," if os.geteuid() == 0 else ""
    accept = "" if model == "shared" else f"accept: {model},"  # the default needs no word
    config = directory / "ostler.yaml"
    config.write_text(
        f"control: {{socket: {directory}/control.sock}}\nlog: {{level: warning}}\n"
        f"pools:\n  web: {{command: [{BIN}/ostler-bench-mixed], {user} {accept}\n"
        f"        worker: {{class: {kind}, keepalive: 1h}}, workers: {WORKERS},\n"
        f"        listen: ['tcp://127.0.0.1:{port}']}}\n")
    config.chmod(0o600)
    return config


def refusal(model):
    """Why this ostlerd does not take `model`, or nothing."""
    with tempfile.TemporaryDirectory(prefix="ostler-bench-") as name:
        config = configuration(Path(name), model, "sync", free_port())
        run = subprocess.run([BIN / "ostlerd", "--config", config, "--check"], text=True,
                             capture_output=True, check=False)
    if run.returncode == 0:
        return ""
    return run.stderr.partition("pools.web.accept: ")[2].partition("\n")[0] or run.stderr


def status(directory):
    text = subprocess.run([BIN / "ostlerctl", "--socket", directory / "control.sock", "--json",
                           "status"], capture_output=True, text=True, check=True).stdout
    return json.loads(text)["pools"]["web"]


def managed(model, kind):
    def start(directory):
        port = free_port()
        server = Server(directory, [BIN / "ostlerd", "--config",
                                    configuration(directory, model, kind, port)], port)
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            with contextlib.suppress(subprocess.CalledProcessError):
                if status(directory)["ready"] == WORKERS:
                    return server
            time.sleep(0.05)
        raise RuntimeError(f"the workers did not become ready: see {directory}")
    return start


def gunicorn(*flags):
    def start(directory):
        port = free_port()
        server = Server(directory, ["gunicorn", "--bind", f"127.0.0.1:{port}", "--log-level",
                                    "critical", "--pythonpath", HERE, *flags, "mixed_wsgi:app"],
                        port)
        time.sleep(1)  # it listens before its workers are there, and does not say when they are
        return server
    return start


def load(port, *options):
    command = [BIN / "ostler-bench-load", "--address", f"tcp://127.0.0.1:{port}", *options]
    text = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          check=True).stdout
    return json.loads(text)


def mixed(port, per_cent, seconds, seed):
    rate = per_cent / 100 * WORKERS / MEAN_SECONDS
    return load(port, "--target", "/short:99", "--target", "/long:1", "--rate", f"{rate:.0f}",
                "--seconds", seconds, "--seed", seed)


def measure(subjects, rounds, seconds):
    """{subject: {load: [what the generator said, each round]}}"""
    samples = {name: {per_cent: [] for per_cent in LOADS} for name in subjects}
    with tempfile.TemporaryDirectory(prefix="ostler-bench-") as name:
        for turn in range(rounds):
            for subject, start in subjects.items():
                directory = Path(tempfile.mkdtemp(dir=name))
                directory.chmod(0o755)
                with start(directory) as server:
                    mixed(server.port, LOADS[0], 0.5, 0)  # warm
                    for per_cent in LOADS:
                        # Of one round all subjects have the same arrivals.
                        samples[subject][per_cent].append(
                            mixed(server.port, per_cent, seconds, turn + 1))
    return samples


def spread(values, digits=1):
    return (f"{statistics.median(values):.{digits}f} "
            f"({min(values):.{digits}f} to {max(values):.{digits}f})")


def cell(runs):
    """The figure, and how late the generator was itself: where that is much of it, the machine was
    busy with something else, and nothing is said about the subject."""
    p99 = [run["targets"]["/short"]["p99_ms"] for run in runs]
    return f"{spread(p99)}; {statistics.median(run['late_ms']['p99'] for run in runs):.1f}"


def table(samples):
    print(f"p99 of the short requests in ms, {WORKERS} workers, median (least to most); p99 of how "
          "late the generator was\n")
    print("| | " + " | ".join(f"{per_cent} %" for per_cent in LOADS) + " | lost |")
    print("| --- |" + " --- |" * (len(LOADS) + 1))
    for subject, by_load in samples.items():
        cells = [cell(by_load[per_cent]) for per_cent in LOADS]
        lost = sum(run["lost"] for some in by_load.values() for run in some)
        print(f"| {subject} | " + " | ".join(cells) + f" | {lost} |")


def held(model, connections, rate):
    """Busiest against mean of so many connections on eight event loops."""
    with tempfile.TemporaryDirectory(prefix="ostler-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        with managed(model, "async")(directory) as server:
            client = subprocess.Popen(
                [BIN / "ostler-bench-load", "--address", f"tcp://127.0.0.1:{server.port}",
                 "--target", "/pid", "--hold", str(connections), "--rate", str(rate),
                 "--seconds", "600"], stdout=subprocess.PIPE, text=True)
            try:
                if client.stdout.readline() != "holding\n":
                    raise RuntimeError("the connections were not served")
                each = [worker["connections"] for worker in status(directory)["workers"]]
            finally:
                client.terminate()
                client.communicate()
    return {"each": each, "ratio": max(each) / statistics.mean(each) if any(each) else 0.0}


def held_table(models, rounds, connections, rate):
    samples = {model: [] for model in models}
    for _ in range(rounds):
        for model in models:
            samples[model].append(held(model, connections, rate))
    print(f"\n{connections} connections held by {WORKERS} event loops, opened at {rate}/s: busiest "
          "against mean, median (least to most)\n")
    print("| | busiest / mean | the last round |\n| --- | --- | --- |")
    for model, runs in samples.items():
        print(f"| ostler {model} | {spread([run['ratio'] for run in runs], 2)} | "
              f"{' '.join(map(str, runs[-1]['each']))} |")
    return samples


def available(models):
    """Those that this ostlerd takes; the others are named."""
    taken = []
    for model in models:
        why = refusal(model)
        if why:
            print(f"ostler {model} is left out: {why}\n")
        else:
            taken.append(model)
    return taken


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(MODELS), help="of these, by commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="of each load")
    parser.add_argument("--no-peers", action="store_true", help="without Gunicorn")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 1 second")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 2, 1
    raise_limit()
    models = available(options.models.split(","))
    subjects = {f"ostler {model}": managed(model, "sync") for model in models}
    if shutil.which("gunicorn") and not options.no_peers:
        subjects["gunicorn sync, 8"] = gunicorn("--workers", WORKERS)
        # Eight of one thread each would be sync by another name: 4 x 2 is as many at once.
        subjects["gunicorn gthread, 4 x 2"] = gunicorn(
            "--workers", WORKERS // 2, "--worker-class", "gthread", "--threads", 2)
    result = {"load_before": os.getloadavg()}
    result["mixed"] = measure(subjects, options.rounds, options.seconds)
    table(result["mixed"])
    result["held"] = held_table(models, options.rounds, 800, 2000)
    result["load_after"] = os.getloadavg()
    print(f"\nload of the machine: {result['load_before'][0]:.2f} before, "
          f"{result['load_after'][0]:.2f} after")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
