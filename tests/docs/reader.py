"""Somebody who reads a page and does what it says: types the commands into a terminal, in a
directory of his own, and opens another terminal for what goes on until it is stopped.

Two things differ from what is written. Ports are free ones, the same for the same number
throughout a page; and what lies under /run, /srv, /etc/ostler and the like lies under the scratch
directory. Both are mapped back in what is compared. Nothing else is changed.
"""

import fcntl
import os
import pty
import re
import select
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import termios
import threading
import time
import uuid
from pathlib import Path

import yaml

import page as pages
from control import ask
from ostler import BIN
from processes import alive, eventually, kill_all, marked

PLACES = ("/run", "/srv", "/etc/ostler", "/etc/nginx", "/var/log", "/var/lib", "/var/www", "/opt")
PLACE = re.compile(rf"(?<![\w.])(?:{'|'.join(PLACES)})(?=/|\b(?![-\w.]))")
PORT = re.compile(r"(?P<host>127\.0\.0\.1|localhost|\[::1?\]|0\.0\.0\.0|\*)"
                  r":(?P<port>[1-9]\d{1,4})\b")

# What goes on until it is stopped. Everything else is waited for.
MANAGER = re.compile(r"^ostlerd\b(?!.*\s(?:--check|--print-config|--help|--version)\b)(?!.*&$)")
IN_BACKGROUND = re.compile(r"^ostlerd\b.*&$")
FOLLOWER = re.compile(r"^(?:ostlerctl\b.*\bevents\b.*\s(?:--follow|-f)\b|(?:api|curl)\b.*\s-N\b)")
# What only looks is done again if it does not show yet what it should, as a reader would.
LOOK = re.compile(r"^(?:ostlerctl\s+(?:--json\s+)?(?:status|events)\b"
                  r"|(?:curl|api)\b(?!.*\s-[Xd]\b))")

COMMAND_TIME = 240  # compiling a worker takes the longest
LOOK_TIME = 20


class Terminal:
    """A pseudo-terminal; all that is written to it is in `text`."""

    def __init__(self):
        self.master, slave = pty.openpty()
        self.name = os.ttyname(slave)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
        self.slave = slave  # kept open, so that the master never sees an end
        self.pieces = []
        self.wake, self.stop_pipe = os.pipe()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        while True:
            ready, _, _ = select.select([self.master, self.wake], [], [])
            if self.master not in ready:
                return
            self.pieces.append(os.read(self.master, 65536))

    @property
    def text(self):
        return b"".join(self.pieces).decode(errors="replace")

    def close(self):
        os.close(self.stop_pipe)
        self.thread.join(5)
        for descriptor in (self.wake, self.master, self.slave):
            os.close(descriptor)


class Job:
    """A command in a terminal of its own, which Ctrl-C ends."""

    def __init__(self, command, terminal, pid, status_file):
        self.command, self.terminal, self.pid, self.status_file = (command, terminal, pid,
                                                                   status_file)

    @property
    def status(self):
        """Its exit status; None while it runs."""
        try:
            return int(self.status_file.read_text())
        except (FileNotFoundError, ValueError):
            return None if alive(self.pid) else 128

    def interrupt(self):
        try:
            os.killpg(self.pid, signal.SIGINT)
        except ProcessLookupError:
            pass


class Reader:
    terminal_kind = "dumb"  # TERM

    def __init__(self, page):
        self.page = page
        self.root = Path(tempfile.mkdtemp(prefix="docs-"))
        self.root.chmod(0o755)
        self.home = self.root / "home"
        for place in PLACES:
            (self.root / place[1:]).mkdir(parents=True, exist_ok=True)
        (self.root / "run/ostler").mkdir()
        self.home.mkdir()
        self.socket = str(self.root / "run/ostler/control.sock")
        self.ports = {}
        self.marker = f"TEST_OF_OSTLER={uuid.uuid4().hex}"
        self.env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(self.home),
                    "LC_ALL": "C.UTF-8", "TERM": self.terminal_kind, "OSTLER_SOCKET": self.socket,
                    "RUNTIME_DIRECTORY": str(self.root / "run/ostler"),
                    "PYTHONDONTWRITEBYTECODE": "1", **dict([self.marker.split("=")])}
        for name in ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "MAKEFLAGS"):
            self.env.pop(name, None)
        self._install_sdk()
        self.status = 0  # of the last command, for `echo $?`
        self.manager = None
        self.manager_socket = None
        self.followers = []
        self.jobs = []
        self.terminal = Terminal()
        self.shell = subprocess.Popen(
            ["/bin/bash", "--norc", "--noprofile"], stdin=subprocess.PIPE, cwd=self.home,
            stdout=self.terminal.slave, stderr=self.terminal.slave, env=self.env, text=True,
            start_new_session=True)
        self._tell("shopt -s expand_aliases; umask 022\n")

    def _install_sdk(self):
        """For a page that builds a worker: the SDK as it is after `cmake --install`."""
        if not self.page.builds:
            return
        prefix = self.root / "usr"
        subprocess.run(["cmake", "--install", BIN.parent, "--prefix", prefix], check=True,
                       stdout=subprocess.DEVNULL, timeout=120)
        libraries = next(prefix.glob("lib*/**/libostler-worker.so")).parent
        self.env |= {"CMAKE_PREFIX_PATH": str(prefix), "LD_LIBRARY_PATH": str(libraries),
                     "PKG_CONFIG_PATH": str(libraries / "pkgconfig")}

    # ---- what is written, and what is done

    def here(self, text):
        """The text with the ports and places of this run."""
        text = PLACE.sub(lambda match: f"{self.root}{match[0]}", text)
        return PORT.sub(lambda match: f"{match['host']}:{self._port(match['port'])}", text)

    def _port(self, number):
        if number not in self.ports:
            with socket.create_server(("127.0.0.1", 0)) as free:
                self.ports[number] = free.getsockname()[1]
        return self.ports[number]

    def written(self, output):
        """Output as it would be on a machine of one's own."""
        output = output.replace(str(self.home), "~").replace(str(self.root), "")
        # Pages are for those who do not run this as root.
        output = re.sub(r"^.*warning:? pool '.*': its workers run as root.*\n", "", output,
                        flags=re.MULTILINE)
        for shown, used in self.ports.items():
            output = output.replace(f":{used}", f":{shown}")
        return output

    # ---- reading

    def read(self, leave_out=()):
        for block in self.page.blocks:
            if block.not_run is not None or block in leave_out:
                continue
            if block.kind == "console":
                self.type(block)
            elif block.name:
                self.save(block)
        for follower, command in self.followers:
            self._see(follower, command)

    def save(self, block):
        path = self.home / self.here(block.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.here(block.text) + "\n")
        path.chmod(0o755 if block.text.startswith("#!") else 0o644)

    def type(self, block):
        commands = block.commands
        for number, command in enumerate(commands):
            following = commands[number + 1].text if number + 1 < len(commands) else ""
            may_fail = following.startswith("echo $?")
            self.settle()
            if MANAGER.match(command.text):
                self.start_manager(command, may_fail)
            elif FOLLOWER.match(command.text):
                job = self._another_terminal(command)
                self.followers.append((job, command))
                eventually(lambda job=job: job.status is not None or self._connected(job), 20)
            else:
                if IN_BACKGROUND.match(command.text):
                    self.end_manager()
                self.run(command, may_fail)

    def run(self, command, may_fail):
        deadline = time.monotonic() + (LOOK_TIME if LOOK.match(command.text) else 0)
        before = self.status
        while True:
            status, output = self._tell(f"(exit {before})\n. {self._script(command)} </dev/null\n")
            fault = self._fault(command, status, self.written(output), may_fail)
            if fault is None or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        assert fault is None, fault
        self.status = status
        if command.text.rstrip().endswith("&"):
            for match in PORT.finditer(self.here(command.text)):
                self._answers(int(match["port"]))

    def end_manager(self):
        if self.manager and self.manager.status is None:
            self.manager.interrupt()
            eventually(lambda: self.manager.status is not None, 40, "the end of the last ostlerd")

    def start_manager(self, command, may_fail):
        self.end_manager()
        self.manager_socket = self._control_socket(command)
        self.manager = job = self._another_terminal(command)
        eventually(lambda: job.status is not None or self._calm(), 60,
                   f"{self._place(command)}: a manager with its workers")
        if job.status is None:
            self._see(job, command)
            return
        fault = self._fault(command, job.status, self.written(job.terminal.text), may_fail)
        assert fault is None, fault
        self.status = job.status

    def settle(self, within=15):
        """Nobody types while a scale or a reload is going on; but a pool may stay degraded."""
        deadline = time.monotonic() + within
        while (self.manager and self.manager.status is None and not self._calm()
               and time.monotonic() < deadline):
            time.sleep(0.05)

    # ---- the end

    def close(self):
        """Ends all that the page started, and returns what was not as it must be."""
        faults = []
        for follower, _ in self.followers:
            follower.interrupt()
        if self.manager:
            if self.manager.status is None:
                self.manager.interrupt()
            try:
                eventually(lambda: self.manager.status is not None, 40)
            except AssertionError:
                faults.append("ostlerd does not end at Ctrl-C")
        self.shell.stdin.close()
        try:
            eventually(lambda: self.shell.poll() is not None, 10)
        except AssertionError:
            self.shell.kill()
        self.shell.wait()
        # What a page started with `&` is its reader's to end; a manager's workers are not.
        left = [pid for pid in marked(self.marker)]
        kill_all(left, signal.SIGTERM)
        try:
            eventually(lambda: not marked(self.marker), 10)
        except AssertionError:
            faults.append(f"left behind: {marked(self.marker)}")
            kill_all(marked(self.marker))
        for terminal in [self.terminal, *(job.terminal for job in self.jobs)]:
            terminal.close()
        return faults

    def remove(self):
        shutil.rmtree(self.root, ignore_errors=True)

    def report(self):
        parts = [f"kept: {self.root}"]
        for job in self.jobs:
            last = job.terminal.text.splitlines()[-30:]
            parts.append("\n".join([f"--- {job.command.text}", *last]))
        return "\n".join(parts)

    # ---- how

    def _place(self, command):
        return f"{self.page.path.name}:{command.line}: `{command.text}`"

    def _fault(self, command, status, output, may_fail):
        if status != 0 and not may_fail:
            return f"{self._place(command)}: exit status {status}\n{output}"
        if command.shown and not pages.matches(command.shown, output):
            return (f"{self._place(command)}: the output is not as shown\n--- shown\n" +
                    "\n".join(command.shown) + f"\n--- seen\n{output}")
        return None

    def _see(self, job, command):
        if command.shown:
            try:
                eventually(lambda: pages.contains(command.shown, self.written(job.terminal.text)),
                           LOOK_TIME)
            except AssertionError:
                raise AssertionError(
                    f"{self._place(command)}: the output is not as shown\n--- shown\n" +
                    "\n".join(command.shown) +
                    f"\n--- seen\n{self.written(job.terminal.text)}") from None

    def _script(self, command):
        script = self.root / "command.sh"
        script.write_text(self.here(command.text) + "\n")
        return shlex.quote(str(script))

    def _tell(self, lines):
        """Has the shell do it, to the end; its exit status and output."""
        end = uuid.uuid4().hex
        begin = len(self.terminal.text)
        self.shell.stdin.write(f"{lines}printf '\\n%s %d\\n' {end} $?\n")
        self.shell.stdin.flush()

        def ended():
            assert self.shell.poll() is None, "the shell has ended"
            return re.search(rf"\r?\n{end} (\d+)\r?\n", self.terminal.text[begin:])

        match = eventually(ended, COMMAND_TIME, lines)
        return int(match[1]), self.terminal.text[begin:begin + match.start()]

    def _another_terminal(self, command):
        """Begins it with the shell's directory, variables and aliases; Ctrl-C can end it."""
        terminal = Terminal()
        number = len(self.jobs)
        script, pid, status = (self.root / f"job{number}.{kind}"
                               for kind in ("sh", "pid", "status"))
        script.write_text(self.here(command.text) + "\n")
        self._tell(f"(set -m; {{ . {script}; echo $? >{status}; }}"
                   f" </dev/null >{terminal.name} 2>&1 & echo $! >{pid})\n")
        job = Job(command, terminal, int(pid.read_text()), status)
        self.jobs.append(job)
        return job

    def _control_socket(self, command):
        """Where the manager that a command starts will answer."""
        asked = re.sub(r"^ostlerd\b", "ostlerd --print-config", command.text)
        status, output = self._tell(f". {self._script(pages.Command(asked, 0))} </dev/null\n")
        try:
            found = yaml.safe_load(pages.plain(output)) if status == 0 else {}
            return (found.get("control") or {}).get("socket") or self.socket
        except (yaml.YAMLError, AttributeError):
            return self.socket

    def _calm(self):
        try:
            status = ask(self.manager_socket, "GET", "/v1/status", timeout=10).json
        except (OSError, ValueError):
            return False
        return status["state"] in ("starting", "running") and all(
            pool["backing_off"] is not None
            or pool["ready"] == pool["target"] and not pool["starting"] and not pool["draining"]
            for pool in status["pools"].values())

    def _connected(self, job):
        """Whether a follower follows: it, or what it started, has a stream socket open."""
        pids = [job.pid, *(pid for pid in marked(self.marker)
                           if _group(pid) == job.pid)]
        return any(_has_socket(pid) for pid in pids)

    def _answers(self, port):
        def connects():
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return True
            except OSError:
                return False
        eventually(connects, 20, f"an answer on port {port}")


def _group(pid):
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def _has_socket(pid):
    try:
        names = [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return False
    return any(name.startswith("socket:") for name in names)
