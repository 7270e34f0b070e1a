#!/usr/bin/python3
"""What the SDK's workers serve, against their peers, by wrk on loopback: A B A B in one run.

Rates are medians over the rounds, with the least and the most. Nothing here asserts: timings are no
tests. A peer that is not installed is left out by name.
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
BIN = Path(os.environ.get("OSTLER_BIN", HERE.parent.parent / "build/release/bin"))
LUA = 'wrk.headers["Connection"] = "close"\n'


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, within=15):
    end = time.monotonic() + within
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"nothing listens on port {port}")


class Server:
    """A program that serves on 127.0.0.1, stopped at the end."""

    def __init__(self, directory, command, port, env=None):
        self.port = port
        self.log = open(directory / "server.log", "ab")
        self.process = subprocess.Popen([str(word) for word in command], cwd=directory,
                                        stdout=self.log, stderr=self.log,
                                        env={**os.environ, **(env or {})})
        wait_for(port)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def alone(kind, threads=1):
    """The hello worker by itself."""
    def start(directory):
        port = free_port()
        options = f"class={kind} connections=10000" + (f" threads={threads}"
                                                       if kind == "threads" else "")
        return Server(directory, [BIN / "ostler-example-hello", "--listen",
                                  f"tcp://127.0.0.1:{port}"], port,
                      {"OSTLER_WORKER_OPTIONS": options})
    return start


def managed(kind):
    """The same under ostlerd."""
    def start(directory):
        port = free_port()
        user = "user: root," if os.geteuid() == 0 else ""
        config = directory / "ostler.yaml"
        config.write_text(
            f"control: {{socket: {directory}/control.sock}}\nlog: {{level: warning}}\n"
            f"pools:\n  web: {{command: [{BIN}/ostler-example-hello], {user} workers: 1,\n"
            f"        worker: {{class: {kind}, connections: 10000}},\n"
            f"        listen: ['tcp://127.0.0.1:{port}']}}\n")
        config.chmod(0o600)
        return Server(directory, [BIN / "ostlerd", "--config", config], port)
    return start


def beast(directory):
    port = free_port()
    return Server(directory, [BIN / "bench-beast-hello", port], port)


def nginx(directory):
    port = free_port()
    config = directory / "nginx.conf"
    config.write_text(
        f"daemon off; master_process off; pid {directory}/nginx.pid; error_log stderr crit;\n"
        "events { worker_connections 1024; }\n"
        "http { access_log off; keepalive_requests 100000000; server {\n"
        f"listen 127.0.0.1:{port}; location / {{ return 200 'hello\\n'; }} }} }}\n")
    return Server(directory, ["nginx", "-p", directory, "-c", config], port)


def gunicorn(*flags):
    def start(directory):
        port = free_port()
        (directory / "wsgi.py").write_text(
            "def app(environ, start):\n"
            "    start('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', '6')])\n"
            "    return [b'hello\\n']\n")
        return Server(directory, ["gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", 1,
                                  "--log-level", "critical", *flags, "wsgi:app"], port)
    return start


def wrk(port, seconds, connections, close, directory):
    """Requests per second, p99 in ms, errors."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    if close:
        script = directory / "close.lua"
        script.write_text(LUA)
        command += ["-s", str(script)]
    text = subprocess.run([*command, f"http://127.0.0.1:{port}/"], capture_output=True, text=True,
                          check=True, timeout=seconds + 60).stdout
    number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", text).groups()
    errors = re.search(r"Socket errors: (.*)", text)
    return {"rate": float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1)),
            "p99_ms": float(number) * {"us": 1e-3, "ms": 1, "s": 1e3}[unit],
            "errors": errors.group(1) if errors else ""}


def compare(title, subjects, rounds, seconds, close=False, connections=32):
    samples = {name: [] for name in subjects}
    with tempfile.TemporaryDirectory(prefix="ostler-bench-") as name:
        for _ in range(rounds):
            for subject, start in subjects.items():
                directory = Path(tempfile.mkdtemp(dir=name))
                directory.chmod(0o755)
                with start(directory) as server:
                    wrk(server.port, 1, connections, close, directory)  # warm
                    samples[subject].append(
                        wrk(server.port, seconds, connections, close, directory))
    print(f"{title} ({connections} connections{', one request each' if close else ''}):")
    result = {}
    for subject, runs in samples.items():
        rates = [run["rate"] for run in runs]
        p99 = statistics.median(run["p99_ms"] for run in runs)
        result[subject] = statistics.median(rates)
        first = next(iter(result.values()))
        print(f"  {subject:28} {result[subject]:9.0f}/s ({min(rates):.0f} to {max(rates):.0f}), "
              f"p99 {p99:6.2f} ms, ratio to the first {result[subject] / first:.2f}"
              + (f", errors: {runs[-1]['errors']}" if runs[-1]["errors"] else ""))
    return samples


def rss_kib(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    return 0


def idle_connections(kind, count):
    """Memory of a worker for each idle keep-alive connection."""
    with tempfile.TemporaryDirectory(prefix="ostler-bench-") as name:
        with alone(kind, 4)(Path(name)) as server:
            sockets = []
            before = rss_kib(server.process.pid)
            begin = time.monotonic()
            for number in range(count):
                sock = socket.socket()
                # A source address takes 28 000 ports at most.
                sock.bind((f"127.0.0.{1 + number // 5000}", 0))
                sock.connect(("127.0.0.1", server.port))
                sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert sock.recv(4096).startswith(b"HTTP/1.1 200")
                sockets.append(sock)
            took = time.monotonic() - begin
            each = (rss_kib(server.process.pid) - before) / count
            for sock in sockets:
                sock.close()
    print(f"{count} idle keep-alive connections on one {kind} worker: {each:.2f} KiB each "
          f"(accepted and answered in {took:.1f} s)")
    return {"kib_each": each, "seconds": took}


def raise_limit():
    import resource
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    options = parser.parse_args()
    raise_limit()
    rounds, seconds = options.rounds, options.seconds
    peers = {"nginx": nginx} if shutil.which("nginx") else {}
    if not peers:
        print("nginx is not installed, and left out")
    result = {"load_before": os.getloadavg()}
    result["async"] = compare("hello, one worker", {
        "bare Beast": beast, "ostler async": alone("async"),
        "ostler async, managed": managed("async"), **peers}, rounds, seconds)
    result["managed"] = compare("one request a connection", {
        "ostler sync": alone("sync"), "ostler sync, managed": managed("sync")}, rounds, seconds,
        close=True)
    if shutil.which("gunicorn"):
        result["threads"] = compare("threads", {
            "gunicorn gthread, 4 threads": gunicorn("--worker-class", "gthread", "--threads", 4),
            "ostler threads, 4": alone("threads", 4)}, rounds, seconds)
        result["sync"] = compare("sync", {
            "gunicorn sync": gunicorn(), "ostler sync": alone("sync")}, rounds, seconds, close=True)
    result["idle"] = {kind: idle_connections(kind, 10000) for kind in ("async", "threads")}
    result["count"] = subprocess.run([BIN / "bench-count"], capture_output=True, text=True,
                                     check=True).stdout
    print(result["count"], end="")
    result["load_after"] = os.getloadavg()
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
