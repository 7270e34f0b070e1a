#!/usr/bin/python3
"""What ostlerd costs, as ratios against a bare vfork + exec + wait loop in the same run.

Every comparison is made A B A B with the same worker; figures are medians with their spread
(first and third quartile). Prints a table and, with --json FILE, the raw numbers beside the load of
the machine. Nothing here asserts: timings are no tests.
"""

import argparse
import contextlib
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
BIN = Path(os.environ.get("OSTLER_BIN", HERE.parent.parent / "build/release/bin"))
DEADLINE = 60.0


def answer(port):
    """One request on a fresh connection; returns the body, as soon as there is one."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"GET /pid HTTP/1.0\r\n\r\n")
        reply = b""
        while chunk := client.recv(4096):
            reply += chunk
            head, separator, body = reply.partition(b"\r\n\r\n")
            if separator and body:
                return int(body)
    raise RuntimeError(f"no answer on port {port}: {reply!r}")


class BareLoop:
    """The floor: `workers` processes, restarted by waitpid and vfork."""

    def __init__(self, directory, workers):
        path = str(directory / "bare.notify")
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(path)
        self.notify.settimeout(DEADLINE)
        self.process = subprocess.Popen(
            [BIN / "bench-bare-loop", str(workers), BIN / "ostler-example-http"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={"NOTIFY_SOCKET": path})
        self.workers = workers
        self.port = int(self.process.stdout.readline())
        self.pids = [int(self.process.stdout.readline()) for _ in range(workers)]
        self.wait_ready(workers)

    def wait_ready(self, count):
        while count > 0:
            count -= b"READY=1" in self.notify.recv(4096)

    def kill_one(self):
        os.kill(self.pids[0], signal.SIGKILL)

    def kill_all(self):
        """SIGKILL to every worker; returns when as many have said that they are ready."""
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
        self.wait_ready(self.workers)

    def settle(self):
        """Everything after the measured moment: learn the new pids."""
        self.pids = [int(self.process.stdout.readline()) for _ in range(self.workers)]
        if self.workers == 1:
            self.wait_ready(1)

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.notify.close()
        os.unlink(self.notify_path())

    def notify_path(self):
        return self.notify.getsockname() if self.notify.fileno() >= 0 else self._path

    def __enter__(self):
        self._path = self.notify.getsockname()
        return self

    def __exit__(self, *_):
        self.close()


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("ostler", timeout=DEADLINE)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(DEADLINE)
        self.sock.connect(self.path)


class Manager:
    """ostlerd with one pool of the example worker."""

    def __init__(self, directory, workers, wait=True):
        self.workers = workers
        self.control = str(directory / "control.sock")
        config = directory / "ostler.yaml"
        user = "user: root," if os.geteuid() == 0 else ""
        config.write_text(
            f"control: {{socket: {self.control}}}\nlog: {{level: warning}}\n"
            f"pools:\n  web: {{command: [{BIN / 'ostler-example-http'}], {user}"
            f" listen: ['tcp://127.0.0.1:0'], workers: {workers},\n"
            "        restart: {burst: 10000}}\n")  # no back-off: the bare loop has none
        config.chmod(0o600)
        self.started = time.monotonic()
        self.process = subprocess.Popen([BIN / "ostlerd", "--config", config],
                                        stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        if wait:
            self.wait_target()

    def get(self, target):
        connection = UnixConnection(self.control)
        connection.request("GET", target)
        body = connection.getresponse().read()
        connection.close()
        return body

    def pool(self):
        return json.loads(self.get("/v1/pools/web"))

    def wait_target(self):
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            with contextlib.suppress(OSError, http.client.HTTPException):
                pool = self.pool()
                if pool["ready"] == self.workers:
                    self.learn(pool)
                    return
        raise RuntimeError("the workers did not become ready")

    def learn(self, pool):
        self.port = int(pool["listeners"][0]["address"].rsplit(":", 1)[1])
        self.pids = [worker["pid"] for worker in pool["workers"]]

    def kill_one(self):
        os.kill(self.pids[0], signal.SIGKILL)

    def kill_all(self):
        """SIGKILL to every worker; returns when as many are ready again, by the events."""
        stream = UnixConnection(self.control)
        stream.request("GET", "/v1/events")
        events = stream.getresponse()
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
        left = self.workers
        while left > 0:
            left -= b'"worker.ready"' in events.readline()
        stream.close()

    def settle(self):
        self.wait_target()

    def close(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=DEADLINE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def figures(samples, scale=1e3):
    quartiles = statistics.quantiles(samples, n=4)
    return {"median": statistics.median(samples) * scale, "q1": quartiles[0] * scale,
            "q3": quartiles[2] * scale, "raw": [round(s * scale, 3) for s in samples]}


def compare(directory, workers, rounds, measure):
    """A B A B: two blocks of `rounds` each, of the bare loop and of ostlerd."""
    samples = {BareLoop: [], Manager: []}
    for _ in range(2):
        for kind in (BareLoop, Manager):
            with kind(directory, workers) as subject:
                for _ in range(rounds):
                    samples[kind].append(measure(subject))
                    subject.settle()
    bare, managed = figures(samples[BareLoop]), figures(samples[Manager])
    return {"bare_ms": bare, "ostlerd_ms": managed, "ratio": managed["median"] / bare["median"]}


def time_of(action):
    begin = time.monotonic()
    action()
    return time.monotonic() - begin


def kill_to_answer(subject):
    def act():
        subject.kill_one()
        while True:
            try:
                return answer(subject.port)
            except (ConnectionResetError, RuntimeError):
                pass  # the one that was killed had still accepted it
    return time_of(act)


def context_switches(pid):
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                total += int(line.split()[1])
    return total




def settle_down():
    """Until nothing is left of what was asked for before: the time-out of the last client (30 s
    without a request) wakes the manager once, though that client has long gone."""
    threading.Event().wait(31)


def memory_and_idle(directory, seconds):
    with Manager(directory, 8) as manager:
        settle_down()
        pids = [manager.process.pid, *manager.pids]
        rss = next(int(line.split()[1]) for line in
                   Path(f"/proc/{manager.process.pid}/status").read_text().splitlines()
                   if line.startswith("VmRSS"))
        before = {pid: context_switches(pid) for pid in pids}
        threading.Event().wait(seconds)  # nothing to wait for: that nothing happens is the point
        after = {pid: context_switches(pid) for pid in pids}
        woken = [after[pid] - before[pid] for pid in pids]
        return {"rss_kib": rss, "idle_seconds": seconds, "manager_wakeups": woken[0],
                "worker_wakeups": sum(woken[1:])}


def thousand(directory, workers):
    with Manager(directory, workers, wait=False) as manager:
        manager.wait_target()
        started = time.monotonic() - manager.started
        status = [time_of(lambda: manager.get("/v1/status")) for _ in range(21)]
        settle_down()
        before = context_switches(manager.process.pid)
        threading.Event().wait(5)
        idle = context_switches(manager.process.pid) - before
        turn = json.loads(manager.get("/v1/status"))["loop_turn_max"]
        return {"workers": workers, "start_s": started, "status_ms": figures(status),
                "manager_wakeups_5s": idle, "longest_turn_ms": turn * 1e3}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    options = parser.parse_args()
    rounds = 5 if options.quick else 25
    result = {"load_before": os.getloadavg()}
    with tempfile.TemporaryDirectory(prefix="ostler-bench-") as name:
        directory = Path(name)
        result["kill_to_answer"] = compare(directory, 1, rounds, kill_to_answer)
        result["kill_200"] = compare(directory, 200, 3 if options.quick else 5,
                                     lambda subject: time_of(subject.kill_all))
        result["memory_and_idle"] = memory_and_idle(directory, 10)
        result["thousand"] = thousand(directory, 1000)
    result["load_after"] = os.getloadavg()
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    report(result)


def report(result):
    for name, title, most in (("kill_to_answer", "SIGKILL of the only worker to the next answer", 1.5),
                              ("kill_200", "200 workers killed, until 200 are ready", 3.0)):
        row = result[name]
        bare, managed = row["bare_ms"], row["ostlerd_ms"]
        print(f"{title}: bare {bare['median']:.2f} ms ({bare['q1']:.2f} to {bare['q3']:.2f}), "
              f"ostlerd {managed['median']:.2f} ms ({managed['q1']:.2f} to {managed['q3']:.2f}), "
              f"ratio {row['ratio']:.2f} (at most {most})")
    idle = result["memory_and_idle"]
    print(f"8 workers: manager {idle['rss_kib'] / 1024:.1f} MiB RSS (at most 8); idle for "
          f"{idle['idle_seconds']} s: {idle['manager_wakeups']} wake-ups in the manager, "
          f"{idle['worker_wakeups']} in the workers (0 and 0)")
    many = result["thousand"]
    print(f"{many['workers']} workers: ready after {many['start_s']:.2f} s (under 5); status "
          f"{many['status_ms']['median']:.1f} ms (under 50); {many['manager_wakeups_5s']} wake-ups "
          f"in 5 idle seconds; longest turn of the loop {many['longest_turn_ms']:.1f} ms")
    print(f"load of the machine: {result['load_before'][0]:.2f} before, "
          f"{result['load_after'][0]:.2f} after")


if __name__ == "__main__":
    main()
