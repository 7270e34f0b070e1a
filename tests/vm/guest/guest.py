"""What the cases need of the machine: the service, its processes, its journal, requests to it."""

import http.client
import json
import os
import shutil
import socket
import subprocess
import threading
from functools import partial
from pathlib import Path

import processes as kernel

HOME = Path(__file__).parent
PORT = 8080
CONFIG = Path("/etc/ostler/ostler.yaml")
INSTALLED = CONFIG.read_text(encoding="utf-8")
DROP_INS = Path("/run/systemd/system")
HTTP = str(HOME / "ostler-example-http")
SCRIPTED = str(HOME / "ostler-test-worker")


def report(text):  # pylint: disable=unused-argument
    """Replaced by run.py."""


# The processor is emulated.
eventually = partial(kernel.eventually, within=60.0)


# ---- the service

def run(*command, check=True):
    done = subprocess.run(command, capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL)
    report(f"$ {' '.join(command)}   -> {done.returncode}")
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: exit status {done.returncode}\n"
                             f"{done.stdout}{done.stderr}")
    return done


def systemctl(*arguments, check=True):
    return run("systemctl", *arguments, check=check)


def show(name, unit="ostler.service"):
    """A property of a unit."""
    done = subprocess.run(["systemctl", "show", "--value", "-p", name, unit], capture_output=True,
                          text=True, check=True)
    return done.stdout.strip()


def pool(*command, **keys):
    """The configuration of a pool `web` on PORT, which keys change."""
    return {"web": {"command": list(command), "listen": [f"tcp://127.0.0.1:{PORT}"], "workers": 2,
                    "user": "ostler-worker", **keys}}


def example(*flags, **keys):
    return pool(HTTP, *map(str, flags), **keys)


def configure(pools, file=CONFIG, **sections):
    # JSON is YAML.
    Path(file).write_text(json.dumps({**sections, "pools": pools}), encoding="utf-8")


def drop_in(text, unit="ostler.service"):
    folder = DROP_INS / f"{unit}.d"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "test.conf").write_text(text, encoding="utf-8")
    systemctl("daemon-reload")


def start(pools, **sections):
    configure(pools, **sections)
    systemctl("start", "ostler")


def processes(unit="ostler.service"):
    """The pids in the unit's cgroup: ostlerd, and all that came of it."""
    group = show("ControlGroup", unit) or "/none"
    try:
        text = Path(f"/sys/fs/cgroup{group}/cgroup.procs").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(pid) for pid in text.split()]


def main_pid(unit="ostler.service"):
    return int(show("MainPID", unit))


def command_name(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""  # it has ended


def workers(unit="ostler.service"):
    """All but ostlerd and its watcher."""
    manager = main_pid(unit)
    return sorted(pid for pid in processes(unit)
                  if pid != manager and command_name(pid) != "ostler-watcher")


def uid(pid):
    return os.stat(f"/proc/{pid}").st_uid


def running(*names):
    """Whose program is one of these, in the whole machine."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and os.path.basename(os.readlink(f"/proc/{entry}/exe")) in names:
                found.append(int(entry))
        except OSError:
            pass
    return found


def ours():
    return running("ostlerd", "ostler-example-http", "ostler-test-worker")


# ---- requests

def fetch(path="/", port=PORT, timeout=60):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


class Background:
    """Runs `work` in a thread; `result()` is what it came to."""

    def __init__(self, work):
        self._value = self._error = None
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work):
        try:
            self._value = work()
        except Exception as error:  # pylint: disable=broad-except
            self._error = error

    def over(self):
        return not self._thread.is_alive()

    def result(self, within=90):
        self._thread.join(within)
        assert self.over(), "a request without an answer"
        if self._error:
            raise self._error
        return self._value


def slow_request(milliseconds, port=PORT):
    """A request that is being served once this returns, for so long."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.settimeout(90)
    connection.sendall(f"GET /slow?ms={milliseconds} HTTP/1.0\r\n\r\n".encode())

    def active():
        status = control()
        return any(worker["active"] for worker in status["pools"]["web"]["workers"])

    eventually(active, what="a request in flight")

    def answer():
        with connection:
            text = b""
            try:
                while part := connection.recv(65536):
                    text += part
            except ConnectionResetError:
                pass
            return text.decode()
    return Background(answer)


class Clients:
    """Asks without a pause until it is stopped; what went wrong is in `failures`."""

    def __init__(self, port=PORT, threads=2):
        self.count = 0
        self.failures = []
        self._over = threading.Event()
        self._work = [Background(lambda: self._run(port)) for _ in range(threads)]
        eventually(lambda: self.count >= 2 or self.failures, what="an answer")

    def _run(self, port):
        while not self._over.is_set():
            try:
                status, _ = fetch(port=port)
                if status != 200:
                    self.failures.append(f"status {status}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
            self.count += 1

    def stop(self):
        self._over.set()
        for work in self._work:
            work.result()
        report(f"{self.count} requests, failures: {self.failures}")
        return self.failures


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("ostler", timeout=60)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def control(path="/v1/status", directory="/run/ostler"):
    connection = UnixConnection(f"{directory}/control.sock")
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


# ---- the journal

_cursor = None


def journal(unit="ostler.service"):
    """The unit's entries since this case began."""
    since = [f"--after-cursor={_cursor}"] if _cursor else []
    done = subprocess.run(["journalctl", "-u", unit, "-o", "json", "--no-pager", *since],
                          capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def logged(words, unit="ostler.service"):
    return [entry for entry in journal(unit) if words in str(entry.get("MESSAGE"))]


# ---- between cases

def clean():
    """As after the installation, with nothing running."""
    global _cursor
    systemctl("stop", "ostler.socket", "ostler.service", "ostler@*.service", check=False)
    for pid in ours():
        report(f"left over: {pid}")
        os.kill(pid, 9)
    for file in CONFIG.parent.glob("*.yaml"):
        file.unlink()
    CONFIG.write_text(INSTALLED, encoding="utf-8")
    drop_ins = list(DROP_INS.glob("*.d"))
    for folder in drop_ins:
        shutil.rmtree(folder)
    if drop_ins:
        systemctl("daemon-reload")
    systemctl("reset-failed", check=False)
    shown = subprocess.run(["journalctl", "-n", "0", "--show-cursor", "-o", "cat"],
                           capture_output=True, text=True, check=False).stdout
    _cursor = shown.partition("-- cursor: ")[2].strip() or None


def picture():
    """How things stand, for the report of a case that failed."""
    commands = (["systemctl", "status", "--no-pager", "-l", "-n", "0", "ostler*"],
                ["journalctl", "--no-pager", "-n", "40", "-o", "short-monotonic"],
                ["ls", "-l", "/run/ostler"])
    return "\n".join(f"--- {' '.join(command)}\n" + subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout
        for command in commands)
