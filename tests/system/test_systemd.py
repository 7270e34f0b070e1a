"""The manager as a service: what it says to systemd, and as process 1 of a container."""

import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest

from ostler import example, scripted, shell
from processes import children, eventually, zombies
from test_rollback import change


class Service:
    """The other end of NOTIFY_SOCKET: every message as a dict, with the moment it came."""

    def __init__(self, path):
        self.messages = []
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(path)
        threading.Thread(target=self._receive, daemon=True).start()

    def _receive(self):
        while text := self._sock.recv(65536):
            fields = dict(line.split("=", 1) for line in text.decode().splitlines())
            self.messages.append((time.monotonic(), fields))

    def named(self, name):
        return [fields for _, fields in list(self.messages) if name in fields]

    def wait(self, name, count=1):
        eventually(lambda: len(self.named(name)) >= count, what=f"{count} × {name}")
        return self.named(name)[count - 1]

    def close(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", self._sock.getsockname())
        self._sock.close()


@pytest.fixture(params=["path", "abstract"])
def service(request, tmp_path):
    """The name for NOTIFY_SOCKET, and who listens there."""
    path = str(tmp_path / "notify") if request.param == "path" else f"\0{tmp_path}"
    made = Service(path)
    made.name = path.replace("\0", "@")
    yield made
    made.close()


def test_ready_is_said_when_every_pool_has_its_workers_and_not_before(manager, service):
    one = manager({"web": scripted("--start-delay", 400, workers=2), "api": scripted()},
                  start=False, env={"NOTIFY_SOCKET": service.name}).launch()
    eventually(lambda: "api has all its 1 workers" in one.log())
    assert not service.named("READY")
    ready = service.wait("READY")
    assert ready["READY"] == "1"
    assert ready["STATUS"] == "3 of 3 workers ready in 2 pools"
    # Meanwhile it was told how far things are: not all at once, and never more than there are.
    told = [fields["STATUS"] for fields in service.named("STATUS")]
    assert told[-2] in ("1 of 3 workers ready in 2 pools", "2 of 3 workers ready in 2 pools")
    assert one.pool("web")["ready"] == 2


def test_a_reload_is_announced_and_its_end_as_well(manager, service):
    one = manager({"web": scripted()}, env={"NOTIFY_SOCKET": service.name})
    service.wait("READY")
    begin = time.monotonic_ns() // 1000
    assert one.reload()["outcome"] == "reloaded"
    reloading = service.wait("RELOADING")
    assert reloading["RELOADING"] == "1"
    assert begin <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    assert "failed" not in service.wait("READY", 2)["STATUS"]
    words = [word for _, fields in service.messages for word in ("READY", "RELOADING")
             if word in fields]
    assert words == ["READY", "RELOADING", "READY"]


def test_a_reload_that_fails_ends_with_ready_and_the_reason(manager, service):
    one = manager({"web": scripted()}, env={"NOTIFY_SOCKET": service.name})
    service.wait("READY")
    change(one, scripted("--exit-code", 9))
    assert one.reload()["outcome"] == "rolled_back"
    status = service.wait("READY", 2)["STATUS"]
    assert status.startswith("1 of 1 workers ready in 1 pool; reload failed: web: ")
    assert "exited with code 9" in status
    one.file.write_text("nothing: here\n")
    assert one.reload().status == 422
    assert "; reload rejected: " in service.wait("READY", 3)["STATUS"]
    # It stays in view whatever comes after, until a reload succeeds.
    one.post("/v1/pools/web/scale", {"workers": 2})
    eventually(lambda: service.named("STATUS")[-1]["STATUS"].startswith(
        "2 of 2 workers ready in 1 pool; reload rejected: "))
    change(one, scripted())
    assert one.reload()["outcome"] == "reloaded"
    assert service.wait("READY", 4)["STATUS"] == "2 of 2 workers ready in 1 pool"


def test_a_pool_that_is_short_of_workers_shows_in_the_status(manager, service):
    one = manager({"web": scripted("--start-delay", 300, workers=2)},
                  env={"NOTIFY_SOCKET": service.name})
    service.wait("READY")
    os.kill(one.pids()[0], signal.SIGKILL)
    eventually(lambda: service.named("STATUS")[-1]["STATUS"] == "1 of 2 workers ready in 1 pool")
    eventually(lambda: service.named("STATUS")[-1]["STATUS"] == "2 of 2 workers ready in 1 pool")


def test_the_end_is_announced_and_how_long_it_may_take(manager, service):
    one = manager({"web": scripted(timeouts={"stop": "40s"}), "api": scripted()},
                  env={"NOTIFY_SOCKET": service.name})
    assert not service.named("STOPPING")
    one.stop()
    stopping = service.wait("STOPPING")
    assert stopping["STOPPING"] == "1"
    # Once for a worker, once for what it leaves behind.
    assert 80_000_000 < int(stopping["EXTEND_TIMEOUT_USEC"]) < 100_000_000


def test_what_goes_to_the_journal_has_a_priority_and_no_time(manager):
    one = manager({"web": scripted("--print", "from the worker")}, start=False)
    one.log_file.touch()
    stream = one.log_file.stat()
    one.env["JOURNAL_STREAM"] = f"{stream.st_dev}:{stream.st_ino}"
    one.start()
    os.kill(one.pids()[0], signal.SIGKILL)
    eventually(lambda: "SIGKILL" in one.log() and one.settled())
    lines = one.log().splitlines()
    assert any(re.match(r"<6>ostlerd \S+ \(pid", line) for line in lines), lines
    assert any(re.match(r"<6>web\.0\[\d+\]: from the worker$", line) for line in lines), lines
    assert any(re.match(r"<3>web\.0\[\d+\] .*SIGKILL", line) for line in lines), lines
    assert all(re.match(r"<\d>\S", line) for line in lines), lines


def test_a_journal_that_is_not_its_stderr_changes_nothing(manager):
    one = manager({"web": scripted()}, env={"JOURNAL_STREAM": "1:1"})
    assert re.match(r"\d{4}-\d\d-\d\dT\S+Z info ostlerd ", one.log())


def test_the_watchdog_is_fed_twice_in_its_time(manager, service):
    one = manager({"web": scripted()}, env={"NOTIFY_SOCKET": service.name,
                                            "WATCHDOG_USEC": "600000"})
    service.wait("WATCHDOG", 6)
    times = [when for when, fields in service.messages if "WATCHDOG" in fields][:6]
    gaps = sorted(late - early for early, late in zip(times, times[1:]))
    assert 0.25 < gaps[2] < 0.45, gaps  # the one in the middle: the machine may be busy
    one.signal(signal.SIGSTOP)
    time.sleep(0.1)
    count = len(service.named("WATCHDOG"))
    time.sleep(0.8)
    assert len(service.named("WATCHDOG")) == count  # it comes from the manager's own loop
    one.signal(signal.SIGCONT)
    service.wait("WATCHDOG", count + 1)


def test_a_watchdog_meant_for_somebody_else_is_not_fed(manager, service):
    manager({"web": scripted()}, env={"NOTIFY_SOCKET": service.name, "WATCHDOG_USEC": "100000",
                                      "WATCHDOG_PID": "1"})
    time.sleep(0.3)
    assert not service.named("WATCHDOG")


def unshare_works():
    try:
        return os.geteuid() == 0 and subprocess.run(
            ["unshare", "--pid", "--fork", "--mount-proc", "true"], capture_output=True,
            check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() == 0 and not unshare_works(), reason="needs a pid namespace")
def test_as_process_one_it_reaps_orphans_and_ends_cleanly(manager):
    orphans = shell("(sleep 0.1 & sleep 0.2 &); setsid sh -c 'sleep 0.1 & sleep 0.2 &'; "
                    "exec sleep 1000", workers=2, ready={"after": "10ms"})
    one = manager({"web": example(workers=2), "messy": orphans},
                  prefix=["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"],
                  wrapped=True)
    inside, = children(one.pid)
    assert one.status()["pid"] == 1
    assert one.fetch()[0] == 200
    eventually(lambda: len(children(inside)) == 4 and not zombies(inside),
               what="nobody but four workers")
    assert one.reload()["outcome"] == "reloaded"
    eventually(lambda: len(children(inside)) == 4 and not zombies(inside),
               what="nobody but four workers")
    assert one.ctl("stop").returncode == 0
    assert one.wait() == 0
