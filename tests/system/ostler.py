"""A manager in a directory of its own, for one test."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from pathlib import Path

import yaml

from control import Events, ask, fetch
from processes import alive, eventually, kill_all, marked, zombies

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("OSTLER_BIN", ROOT / "build/release/bin")).resolve()
ANY_PORT = "tcp://127.0.0.1:0"


def program(name):
    return str(BIN / name)


def example(workers=2, flags=(), **keys):
    """A pool of the example worker, which drains without losing a request."""
    return {"command": [program("ostler-example-http"), *map(str, flags)], "listen": [ANY_PORT],
            "workers": workers, **keys}


def scripted(*flags, workers=1, **keys):
    """A pool of the worker that behaves, and misbehaves, as its flags say."""
    return {"command": [program("ostler-test-worker"), *map(str, flags)], "listen": [ANY_PORT],
            "workers": workers, **keys}


def shell(script, **keys):
    """A pool whose workers are a shell script."""
    return {"command": ["/bin/sh", "-c", script], "workers": 1, **keys}


def quick(config):
    """The same, with a reload that is judged at once unless the test says how long it takes."""
    defaults = config.get("defaults", {})
    replace = {"settle": "20ms", **defaults.get("replace", {})}
    rest = {name: part for name, part in config.items() if name not in ("defaults", "pools")}
    return {**rest, "defaults": {**defaults, "replace": replace}, "pools": config["pools"]}


class Manager:
    """`ostlerd` with a configuration that tests change in place (`config`, then `write()`).

    What it started is told by a variable in the environment, whoever its parent may be by then.
    """

    def __init__(self, pools=None, *, args=(), env=None, prefix=(), pass_fds=(), directory=None,
                 wrapped=False, **sections):
        self.owns_directory = directory is None
        self.directory = Path(directory or tempfile.mkdtemp(prefix="ostler-"))
        self.directory.chmod(0o755)  # workers of other users have to find the notify socket
        self.file = self.directory / "ostler.yaml"
        self.socket = str(self.directory / "control.sock")
        self.log_file = self.directory / "ostlerd.log"
        self.marker = f"TEST_OF_OSTLER={uuid.uuid4().hex}"
        self.config = {"control": {"socket": self.socket}, **sections, "pools": pools or {}}
        self.args = list(args)
        self.prefix = list(prefix)  # put before ostlerd; `wrapped`: it stays, and is the parent
        self.wrapped = wrapped
        self.pass_fds = pass_fds
        self.env = {**os.environ, **(env or {}), **dict([self.marker.split("=")])}
        self.process = None
        self.write()

    # ---- life

    def write(self, config=None):
        """Puts the configuration into the file; returns self."""
        if config is not None:
            self.config = config
        text = yaml.safe_dump(quick(self.config), sort_keys=False, allow_unicode=True)
        self.file.write_text(text)
        self.file.chmod(0o644)
        return self

    def launch(self):
        """Starts ostlerd and returns at once."""
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, program("ostlerd"), "--config", str(self.file), *self.args],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env, cwd=self.directory,
                pass_fds=self.pass_fds)
        return self

    def start(self, within=40):
        """Starts ostlerd and waits until every pool has its workers."""
        self.launch()
        eventually(self.settled, within, "a manager with all its workers")
        return self

    def settled(self):
        """Whether all that was asked for is there; an error if the manager has ended."""
        code = self.process.poll()
        assert code is None, f"ostlerd ended with exit code {code}:\n{self.log()}"
        try:
            status = self.status()
        except (OSError, ValueError):
            return False
        return status["state"] == "running" and all(
            pool["state"] == "running" and pool["ready"] == pool["target"]
            and pool["draining"] == 0 and pool["starting"] == 0
            for pool in status["pools"].values())

    def settle(self, within=40):
        eventually(self.settled, within, "calm")
        return self

    @property
    def pid(self):
        return self.process.pid

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, within=30):
        return self.process.wait(within)

    def stop(self, within=30):
        self.signal(signal.SIGTERM)
        return self.wait(within)

    def log(self):
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    # ---- the API

    def ask(self, method, path, body=None, timeout=60):
        return ask(self.socket, method, path, body, timeout)

    def get(self, path):
        return self.ask("GET", path)

    def post(self, path, body=None):
        return self.ask("POST", path, body)

    def status(self):
        return ask(self.socket, "GET", "/v1/status", timeout=10).json

    def pool(self, name="web"):
        return self.status()["pools"][name]

    def workers(self, pool="web", state=None):
        return [one for one in self.pool(pool)["workers"] if state in (None, one["state"])]

    def pids(self, pool="web", state=None):
        return [one["pid"] for one in self.workers(pool, state)]

    def notify_socket(self, pid):
        """The path of a worker's notify socket."""
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        return dict(each.split(b"=", 1) for each in environment if each)[b"NOTIFY_SOCKET"].decode()

    def address(self, pool="web", name=None):
        return next(one["address"] for one in self.pool(pool)["listeners"]
                    if name in (None, one["name"]))

    def reload(self, pool=None):
        return self.post(f"/v1/pools/{pool}/reload" if pool else "/v1/reload")

    def events(self, path="/v1/events"):
        return Events(self.socket, path)

    def ctl(self, *args, timeout=60):
        return subprocess.run([program("ostlerctl"), "--socket", self.socket, *map(str, args)],
                              capture_output=True, text=True, timeout=timeout, check=False)

    # ---- the workers

    def fetch(self, path="/", pool="web", timeout=10):
        return fetch(self.address(pool), path, timeout)

    def worker_view(self, pool="web"):
        """What a worker of `scripted` says of itself."""
        status, text = self.fetch("/env", pool)
        assert status == 200, text
        return json.loads(text)

    def processes(self):
        """All that came from this manager and lives, the manager included."""
        return marked(self.marker)

    # ---- the end

    def faults(self):
        """Ends all there is, and says what was not as it must be."""
        found = []
        if self.process is not None and self.process.poll() is None:
            if not self.wrapped and not _comes_true(lambda: not zombies(self.pid)):
                found.append(f"zombies: {zombies(self.pid)}")
            self._end()
            try:
                code = self.wait()
                if code != 0:
                    found.append(f"exit code {code} after SIGTERM")
            except subprocess.TimeoutExpired:
                found.append("still there after SIGTERM")
                self.process.kill()
                self.process.wait()
        if not _comes_true(lambda: not self.processes()):
            left = self.processes()
            found.append(f"processes left behind: {left}")
            kill_all(left)
            eventually(lambda: not any(alive(pid) for pid in left))
        if "broken invariant" in self.log():
            found.append("a broken invariant: see the log")
        return found

    def _end(self):
        if not self.wrapped:
            return self.signal(signal.SIGTERM)
        try:
            self.post("/v1/stop")
        except OSError:
            self.signal(signal.SIGTERM)

    def remove(self):
        if self.owns_directory:
            shutil.rmtree(self.directory, ignore_errors=True)


def _comes_true(condition, within=10):
    try:
        return eventually(condition, within)
    except AssertionError:
        return False
