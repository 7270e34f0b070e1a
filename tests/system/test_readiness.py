"""When a worker is ready: what it says, what is seen of it, and both."""

import os
import shutil
import time

import pytest

from ostler import ANY_PORT
from processes import eventually

# Says READY=1 and then, when the file "go" is there, waits for connections: what an arbiter does.
WORKER = """
import ctypes, os, signal, socket, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
if "mute" not in sys.argv:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
if "hidden" in sys.argv:
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE
while "idle" in sys.argv and not os.path.exists("go"):
    time.sleep(0.02)
listener = socket.socket(fileno=3)
while True:
    client, _ = listener.accept()
    client.recv(65536)
    client.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\nok")
    client.close()
"""
SLOW = """
import os, time
time.sleep(1.5)
open(f"loaded-{os.getppid()}", "w").close()
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "3")])
    return [b"ok\\n"]
"""
QUICK = SLOW.replace("time.sleep(1.5)", "")
BROKEN = SLOW.replace("open(", "raise RuntimeError('no database')\nopen(")
without_ptrace = ["setpriv", "--bounding-set", "-sys_ptrace"]
needs_root = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None,
                                reason="needs root and setpriv")
needs_gunicorn = pytest.mark.skipif(shutil.which("gunicorn") is None, reason="needs gunicorn")


def pool_of(one, *flags, **keys):
    path = one.directory / "worker.py"
    path.write_text(WORKER)
    path.chmod(0o644)
    return {"command": ["/usr/bin/python3", str(path), *flags], "listen": [ANY_PORT], "workers": 1,
            "directory": str(one.directory), **keys}


def test_one_that_says_ready_before_it_waits_is_ready_when_it_waits(manager):
    one = manager(start=False)
    one.config["pools"]["web"] = pool_of(one, "idle")
    one.write().launch()
    said = "it said READY=1, but neither it nor a descendant is seen"
    def told():
        try:
            return any(str(worker["not_ready"]).startswith(said) for worker in one.workers())
        except OSError:  # it has not opened its socket yet
            return False
    eventually(told)
    worker = one.workers()[0]
    assert worker["state"] == "starting"
    assert "it said READY=1, but neither" in one.ctl("status").stdout
    (one.directory / "go").touch()
    one.settle()
    assert one.workers()[0]["not_ready"] is None
    assert one.pids() == [worker["pid"]]


def test_one_that_says_ready_and_never_waits_is_not_ready_and_told_why(manager):
    one = manager(start=False)
    one.config["pools"]["web"] = pool_of(one)
    one.write().start()
    one.config["pools"]["web"] = pool_of(one, "idle", timeouts={"start": "1s"})
    answer = one.write().reload()
    assert answer.status == 409
    assert answer["pools"]["web"]["reason"].endswith(
        "was not ready within 1s (timeouts.start): it said READY=1, but neither it nor a descendant "
        "is seen waiting for connections on its listener; `ready: notify` believes READY=1 alone")
    one.config["pools"]["web"]["ready"] = "notify"
    assert one.write().reload()["outcome"] == "reloaded"


def test_listening_ignores_what_is_said(manager):
    one = manager(start=False)
    one.config["pools"]["web"] = pool_of(one, "mute", ready="listening")
    one.write().start()
    one.config["pools"]["web"] = pool_of(one, "idle", ready="listening", timeouts={"start": "1s"})
    answer = one.write().reload()
    assert answer.status == 409
    assert answer["pools"]["web"]["reason"].endswith(
        "(timeouts.start): neither it nor a descendant is seen waiting for connections on its "
        "listener")
    (one.directory / "go").touch()
    assert one.write().reload()["outcome"] == "reloaded"


@needs_gunicorn
def test_gunicorn_is_ready_when_its_application_is_loaded(manager):
    one = manager(start=False)
    application = one.directory / "app.py"
    application.write_text(QUICK)
    one.config["pools"]["web"] = {
        "command": ["/usr/bin/python3", "-m", "gunicorn", "app:app"], "listen": [ANY_PORT],
        "workers": 1, "directory": str(one.directory), "env": {"PYTHONDONTWRITEBYTECODE": "1"}}
    one.write().start()
    before = one.pids()
    application.write_text(SLOW)
    with one.events() as events:
        begin = time.monotonic()
        assert one.reload()["outcome"] == "reloaded"
        assert time.monotonic() - begin > 1.5
        ready = events.named("worker.ready")[-1]
    assert (one.directory / f"loaded-{ready['pid']}").exists()
    assert one.fetch() == (200, "ok\n")
    assert one.pids() == [ready["pid"]] != before
    # And one whose application cannot be loaded never is.
    application.write_text(BROKEN)
    answer = one.reload()
    assert answer.status == 409 and answer["outcome"] == "rolled_back", answer
    assert one.pids() == [ready["pid"]]
    assert one.fetch() == (200, "ok\n")


@needs_root
def test_a_silent_worker_of_another_user_is_seen_without_the_capability_to_look(manager):
    one = manager(start=False, prefix=without_ptrace)
    one.config["pools"]["web"] = pool_of(one, "mute", user="nobody")
    one.write().start()
    assert one.fetch() == (200, "ok")
    status = (f"/proc/{one.pid}/status", f"/proc/{one.pids()[0]}/status")
    manager_caps, worker_uids = (
        next(line for line in open(path, encoding="utf-8") if line.startswith(name))
        for path, name in zip(status, ("CapEff", "Uid")))
    assert int(manager_caps.split()[1], 16) >> 19 & 1 == 0  # CAP_SYS_PTRACE
    assert "65534" in worker_uids


@needs_root
def test_where_looks_are_refused_it_is_told_what_is_missing(manager):
    one = manager(start=False, prefix=without_ptrace)
    one.config["pools"]["web"] = pool_of(one, "hidden", user="nobody")
    one.write().start()  # what it says is believed
    one.config["pools"]["web"] = pool_of(one, "hidden", "mute", user="nobody",
                                         timeouts={"start": "2s"})
    with one.events() as events:
        answer = one.write().reload()
        pid = events.named("worker.starting")[0]["pid"]
    assert answer.status == 409
    assert (f"whether it waits for connections cannot be seen: /proc/{pid}/fd: Permission denied "
            "(CAP_SYS_PTRACE, or its own user and group, is needed); it did not say READY=1, and "
            "`ready: {after: 2s}` needs neither") in answer["pools"]["web"]["reason"]
