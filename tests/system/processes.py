"""What the kernel says of processes, and waiting with a deadline."""

import os
import signal
import time


def eventually(condition, within=20.0, what="it"):
    """Asks again and again until `condition()` is true, and returns what it said.

    The wait between two questions is short; the deadline alone decides about failure."""
    deadline = time.monotonic() + within
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come about within {within} s; last: {answer!r}")
        time.sleep(0.01)


def read(pid, name):
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""


def stat(pid):
    """The fields of /proc/PID/stat after the name, state first; [] if there is no such process."""
    text = read(pid, "stat").decode(errors="replace")
    return text[text.rfind(")") + 2:].split()


def state(pid):
    return (stat(pid) or [""])[0]


def alive(pid):
    return state(pid) not in ("", "Z", "X")


def all_pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def marked(marker):
    """The processes that have `marker` (NAME=VALUE) in their environment."""
    return [pid for pid in all_pids()
            if marker.encode() in read(pid, "environ").split(b"\0") and alive(pid)]


def halt(pid):
    """SIGSTOP, and until every thread stands still: one that the signal meets in accept may still take
    a connection that comes at the same time."""
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: all(state(f"{pid}/task/{thread}") == "T"
                           for thread in os.listdir(f"/proc/{pid}/task")),
               what="that it stands still")


def children(pid, zombies=False):
    return [child for child in all_pids()
            if (fields := stat(child)) and int(fields[1]) == pid
            and (fields[0] == "Z") == zombies]


def zombies(pid):
    return children(pid, zombies=True)


def cpu_seconds(pid):
    fields = stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def descriptors(pid):
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except PermissionError:  # the manager of another identity
        return None


def kill_all(pids, number=signal.SIGKILL):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
