"""Closed-loop clients in a process of their own, that count what is lost."""

import json
import select
import signal
import subprocess

from ostler import program


class Load:
    """ostler-load. Made when every client has had its first answer; `stop()` gives the tally:
    {"sent", "ok", "lost", "failed": {kind: count}, "first", "milliseconds": {p50, p99, max}}."""

    def __init__(self, address, clients=8, keepalive=False, path="/", echo=False, timeout=10,
                 pause=0.0, wait=True):
        command = [program("ostler-load"), "--address", address, "--clients", str(clients),
                   "--path", path, "--timeout", str(int(timeout * 1000)),
                   "--pause", str(int(pause * 1e6))]
        command += ["--keepalive"] if keepalive else []
        command += ["--echo"] if echo else []
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        if wait:
            self.wait_running()

    def wait_running(self, within=15):
        readable, _, _ = select.select([self.process.stdout], [], [], within)
        assert readable, "the clients had no answer"
        assert self.process.stdout.readline() == "running\n"

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        text, _ = self.process.communicate(timeout=60)
        return json.loads(text.splitlines()[-1])

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
