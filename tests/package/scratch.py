"""A scratch system in a folder: commands run in it, and an ostlerd that serves from it while requests
are counted."""

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

DEADLINE = 60
UNIT = "/usr/lib/systemd/system/ostler.service"
CHANGED = "# changed by the administrator\n"


def wait_until(what, condition, deadline=DEADLINE):
    end = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end, f"not within {deadline} s: {what}"
        time.sleep(0.02)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Root:
    """The mounts live in a namespace that a process of ours holds: they end with it, whatever comes."""

    def __init__(self, folder):
        self.folder = Path(folder)
        mounts = ('mount -t proc proc "$0/proc"; mount -t tmpfs tmpfs "$0/tmp"; '
                  'mount --rbind /dev "$0/dev"; echo mounted; exec cat')
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-ec", mounts, self.folder],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout.readline() == "mounted\n"

    def close(self):
        self._holder.stdin.close()
        self._holder.wait(DEADLINE)
        self._holder.stdout.close()
        shutil.rmtree(self.folder)

    def command(self, *words):
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "chroot", str(self.folder),
                *[str(word) for word in words]]

    def run(self, *words, check=True, **options):
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8",
               "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(self.command(*words), text=True, capture_output=True, check=False,
                              env=env, timeout=600, **options)
        assert not check or done.returncode == 0, f"{words}:\n{done.stdout}{done.stderr}"
        return done

    def apt(self, *words):
        done = self.run("apt-get", "-y", "--no-install-recommends", *words)
        return done.stdout + done.stderr

    def put(self, source, place="/srv"):
        """Copies a file into it; the path that it has inside."""
        shutil.copy(source, self.folder / place.lstrip("/"))
        return f"{place}/{Path(source).name}"

    def path(self, inside):
        return self.folder / inside.lstrip("/")

    def files(self):
        """Everything that lasts, by path."""
        found = set()
        for place, folders, names in os.walk(self.folder):
            inside = Path("/") / Path(place).relative_to(self.folder)
            if str(inside) in ("/proc", "/dev", "/tmp"):
                folders.clear()
                continue
            found |= {str(inside / name) for name in [*folders, *names]}
        return found


class Service:
    """The service as systemd would start it: ExecStart of the installed unit."""

    def __init__(self, root):
        text = root.path(UNIT).read_text()
        words = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE).group(1).split()
        self.root = root
        # What systemd does for RuntimeDirectory=.
        root.path("/run/ostler").mkdir(mode=0o755, exist_ok=True)
        self.log = open(root.folder.parent / "ostlerd.log", "a+", encoding="utf-8")
        self.process = subprocess.Popen(root.command("/usr/bin/env", "RUNTIME_DIRECTORY=/run/ostler",
                                                     *words),
                                        stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def status(self):
        done = self.root.run("ostlerctl", "--json", "status", check=False)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def wait_ready(self, pool, ready):
        def is_ready():
            assert self.process.poll() is None, self.text()
            status = self.status()
            return status is not None and status["pools"][pool]["ready"] == ready
        wait_until(f"{ready} workers of {pool} ready", is_ready)

    def text(self):
        self.log.seek(0)
        return self.log.read()

    def stop(self):
        """Asks it to stop, and waits until it has."""
        self.process.terminate()
        try:
            return self.process.wait(DEADLINE)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.log.close()


def serve(machine, worker):
    """Has the administrator configure a pool, and change what came with the package."""
    program = machine.root.put(worker)
    machine.root.path("/etc/ostler/conf.d/web.yaml").write_text(
        f'pools:\n  web:\n    command: {program}\n    user: nobody\n'
        f'    listen: ["tcp://127.0.0.1:{machine.port}"]\n    workers: 2\n')
    with open(machine.root.path("/etc/ostler/ostler.yaml"), "a", encoding="utf-8") as file:
        file.write(CHANGED)
    machine.service = Service(machine.root)
    machine.service.wait_ready("web", 2)


def ask(port, path="/"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path)
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


class Clients:
    """Requests without a pause, each on a connection of its own, every loss noted."""

    def __init__(self, port, count=4):
        self.answered, self.lost, self._port = 0, [], port
        self._end, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]

    def _ask(self):
        while not self._end.is_set():
            try:
                status, _ = ask(self._port)
                problem = None if status == 200 else f"status {status}"
            except (OSError, http.client.HTTPException) as error:
                problem = repr(error)
            with self._lock:
                if problem is None:
                    self.answered += 1
                else:
                    self.lost.append(problem)

    def wait_for_more(self, count=200):
        goal = self.answered + count
        wait_until(f"{count} more answers", lambda: self.answered >= goal or self.lost)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        for thread in self._threads:
            thread.join()
