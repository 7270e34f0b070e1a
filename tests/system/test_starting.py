"""Between clone and exec: a process that is held up there holds up nobody else."""

import fcntl
import os
import signal

import pytest

from ostler import scripted
from processes import alive, eventually, kill_all


class Lease:
    """Whoever opens the file, to execute it, too, waits until the lease is given up (fcntl(2))."""

    def __init__(self, path):
        signal.signal(signal.SIGIO, signal.SIG_IGN)  # says that somebody waits
        self.file = open(path, "rb")  # what is open for writing is not executed
        fcntl.fcntl(self.file, fcntl.F_SETLEASE, fcntl.F_WRLCK)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


@pytest.fixture(name="held")
def a_pool_whose_program_can_be_held(manager):
    one = manager({"web": scripted()}, start=False)
    program = one.directory / "program"
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o755)
    one.config["pools"]["held"] = {"command": [str(program)], "ready": {"after": "10ms"}}
    one.config["pools"]["held"]["workers"] = 1
    one.write().start()
    return one, program


def test_a_program_that_cannot_be_opened_yet_holds_up_nobody(held):
    one, program = held
    with Lease(program):
        kill_all(one.pids("held"))
        eventually(lambda: one.workers("held", state="starting"))
        before = one.pids("web")
        kill_all(before)  # one that dies is replaced, and a request answered
        eventually(lambda: one.pids("web", state="ready") not in ([], before))
        assert one.fetch()[0] == 200
        assert one.workers("held", state="starting")
        assert one.pool("held")["ready"] == 0
    eventually(one.settled)


def test_a_process_that_does_not_come_to_its_exec_is_killed_and_said(held):
    one, program = held
    with Lease(program):
        kill_all(one.pids("held"))
        eventually(lambda: one.workers("held", state="starting"))
        stuck = one.pids("held")[0]
        said = "it did not execute its program within 5s; its last step: exec"
        eventually(lambda: said in str(one.pool("held")["last_error"]))
        assert not alive(stuck)
        assert f"held.0[{stuck}] is killed: {said}" in one.log()
        assert one.stop() == 0


@pytest.mark.root
def test_a_user_that_stops_its_own_new_processes_holds_up_nobody(manager):
    """Some of them are caught when they are that user's already, and not at their exec yet."""
    stopper = ("import os, signal, time\n"
               "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
               "end = time.monotonic() + 2\n"
               "while time.monotonic() < end:\n"
               "    os.kill(-1, signal.SIGSTOP)\n"
               "os.kill(-1, signal.SIGCONT)\n")
    user = {"user": 61235, "group": 61235}
    one = manager({"web": scripted(), "mean": {
        "command": ["/usr/bin/python3", "-c", "import time; time.sleep(1000)"],
        "workers": 2, "ready": {"after": "10ms"}, "timeouts": {"stop": "1s"}, **user}})
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(61235, 61235, 61235)
            os.setresuid(61235, 61235, 61235)
            os.execv("/usr/bin/python3", ["python3", "-c", stopper])
        finally:
            os._exit(1)
    count = 2
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        count = 5 - count
        assert one.post("/v1/pools/mean/scale", {"workers": count}).status == 200
        assert one.fetch()[0] == 200
    assert one.stop() == 0
