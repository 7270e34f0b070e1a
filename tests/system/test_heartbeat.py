"""What workers say on the notify socket: readiness, heartbeats, status; and who may say it."""

import re
import signal
import socket
import time

import pytest

from ostler import program, scripted
from processes import alive, eventually

PYTHON = "/usr/bin/python3"
NOTIFY = """
import os, signal, socket, sys, time
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sock.connect(os.environ["NOTIFY_SOCKET"])
def notify(text, fds=()):
    socket.send_fds(sock, [text.encode()], fds)
"""


def python(one, text):
    """A command that runs Python with `notify(text)` at hand."""
    path = one.directory / "worker.py"
    path.write_text(NOTIFY + text)
    path.chmod(0o755)
    return [PYTHON, "-I", "-S", "-u", str(path)]


def test_a_worker_that_falls_silent_is_aborted_and_replaced(manager):
    one = manager({"web": scripted("--heartbeat-ms", 50, "--stop-heartbeat-after", 400,
                                   timeouts={"heartbeat": "300ms"})})
    worker = one.pids()[0]
    with one.events() as events:
        stopping = events.wait("worker.stopping", pid=worker)
        assert stopping["cause"] == "fault"
        failed = events.wait("worker.failed", pid=worker)
        assert re.match(r"sent no heartbeat for .*s \(timeouts.heartbeat\)", failed["reason"])
        events.wait("worker.ready")
    eventually(lambda: not alive(worker))


def test_a_hung_worker_that_survives_abort_is_killed_a_second_later(manager):
    command = f"trap '' ABRT; exec {program('ostler-test-worker')} --heartbeat-ms 50 " \
              "--stop-heartbeat-after 400"
    one = manager({"web": {**scripted(timeouts={"heartbeat": "300ms"}),
                           "command": ["/bin/sh", "-c", command]}})
    worker = one.pids()[0]
    with one.events() as events:
        events.wait("worker.stopping", pid=worker)
        begin = time.monotonic()
        assert alive(worker)
        events.wait("worker.failed", pid=worker)
        assert 0.9 < time.monotonic() - begin < 10


@pytest.mark.alone
@pytest.mark.parametrize(("does", "said"), [
    ("while True: pass", r"used 0\.[2-9]\d s of CPU meanwhile, its main thread in no system call"),
    ("signal.pause()", r"used 0\.0\d s of CPU meanwhile, its main thread in the system call \w+")])
def test_the_report_of_a_hung_worker_says_what_it_was_doing(manager, does, said):
    one = manager(start=False)
    command = python(one, f"notify('READY=1'); notify('WATCHDOG=1')\n{does}\n")
    one.write({**one.config, "pools": {"web": {
        "command": command, "timeouts": {"heartbeat": "1s"}}}}).launch()
    eventually(lambda: "sent no heartbeat" in one.log())
    with one.events() as events:
        stopping = events.wait("worker.stopping")
    assert re.fullmatch(said, stopping["doing"]), stopping
    eventually(lambda: stopping["doing"] in one.log(), what="the same in the log")


def test_who_never_sends_a_heartbeat_is_never_killed_for_silence(manager):
    one = manager({"web": scripted(timeouts={"heartbeat": "200ms"})})
    before = one.pids()
    assert one.workers()[0]["heartbeat_age"] is None
    time.sleep(1)
    assert one.pids() == before


def test_heartbeats_keep_a_worker_alive(manager):
    one = manager({"web": scripted("--heartbeat-ms", 50, timeouts={"heartbeat": "1500ms"})})
    before = one.pids()
    time.sleep(2)
    assert one.pids() == before
    assert 0 <= one.workers()[0]["heartbeat_age"] < 1.5


def test_a_worker_may_ask_to_be_treated_as_hung(manager):
    one = manager({"web": scripted("--watchdog-trigger", restart={"backoff": "200ms"})},
                  start=False).launch()
    eventually(lambda: (one.directory / "control.sock").exists())
    with one.events() as events:
        failed = events.wait("worker.failed")
        assert "WATCHDOG=trigger" in failed["reason"]


def test_a_worker_that_is_not_ready_in_time_is_ended(manager):
    one = manager({"web": scripted("--ready", "never", timeouts={"start": "200ms"}),
                   "ok": scripted()}, start=False).launch()
    eventually(lambda: "(timeouts.start)" in one.log(),
               what="a worker that is given up")
    eventually(lambda: one.pool()["state"] == "degraded", what="its end, and a wait")
    assert one.pool()["ready"] == 0
    assert one.status()["state"] == "starting"  # not every pool has reached its target


def test_a_worker_may_ask_for_more_time_to_start(manager):
    one = manager({"web": scripted("--notify", "EXTEND_TIMEOUT_USEC=5000000", "--start-delay",
                                   900, timeouts={"start": "300ms"})})
    assert one.pool()["restarts"] == 0


def test_a_worker_may_ask_for_more_time_to_stop(manager):
    one = manager({"web": {"command": ["/bin/true"], "workers": 1}}, start=False)
    one.config["pools"]["web"] = {
        "workers": 1, "timeouts": {"stop": "300ms"}, "command": python(one, """
def stop(*_):
    notify("EXTEND_TIMEOUT_USEC=5000000")
    time.sleep(0.9)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
notify("READY=1")
while True: signal.pause()
""")}
    one.write().start()
    with one.events() as events:
        one.post("/v1/pools/web/scale", {"workers": 0})
        assert "exited with code 0" in events.wait("worker.exited")["reason"]


def test_a_worker_that_says_it_is_leaving_is_replaced_when_it_is_gone(manager):
    one = manager(start=False)
    one.config["pools"]["web"] = {"workers": 1, "command": python(one, """
notify("READY=1")
time.sleep(0.3)
notify("STOPPING=1\\nSTATUS=done for today")
time.sleep(0.5)
""")}
    one.write().start()
    with one.events() as events:
        leaving = events.wait("worker.stopping")
        assert leaving["cause"] == "itself"
        assert one.pool()["ready"] == 0 or one.pids() != [leaving["pid"]]
        events.wait("worker.ready")


def test_what_a_worker_says_of_itself_is_in_the_status(manager):
    one = manager({"web": scripted("--notify", "STATUS=warming up\\nX_UNKNOWN=1")})
    assert one.workers()[0]["status"] == "warming up"
    assert "warming up" in one.ctl("status").stdout


def test_strangers_are_not_heard(manager):
    one = manager({"web": scripted(), "slow": scripted("--ready", "never")}, start=False).launch()
    eventually(lambda: "web.0" in one.log() and one.pool("web")["ready"] == 1)
    assert one.status()["notify_rejected"] == 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        path = one.notify_socket(one.pids("slow")[0])
        for text in (b"READY=1", b"WATCHDOG=trigger", b"\xff" * 5000, b"=\n=\n"):
            sock.sendto(text, path)
        sock.sendto(b"", path)
    eventually(lambda: one.status()["notify_rejected"] == 4, what="four rejected messages")
    assert one.pool("slow")["ready"] == 0
    assert one.pool("web")["restarts"] == 0


@pytest.mark.parametrize("way", ["", "setsid "], ids=["in its session", "in its own"])
def test_a_child_may_speak_for_its_worker(manager, way):
    one = manager({"web": {**scripted(ready="notify", timeouts={"stop": "1s"}), "command": [
        "/bin/sh", "-c", f"{way}{program('ostler-test-worker')} & trap 'kill $!' TERM; wait; wait"]}})
    assert one.fetch("/pid")[1].strip() != str(one.pids()[0])


def test_a_barrier_is_passed_when_all_before_it_was_heard(manager):
    one = manager(start=False)
    one.config["pools"]["web"] = {"workers": 1, "command": python(one, """
there, here = os.pipe()
notify("READY=1")
notify("BARRIER=1", [here])
os.close(here)
print("barrier", os.read(there, 1), flush=True)
while True: signal.pause()
""")}
    one.write().start()
    eventually(lambda: "barrier b''" in one.log(), what="an end of the barrier")


def test_with_ready_notify_only_the_word_of_the_worker_counts(manager):
    one = manager({"web": scripted("--ready", "mute", ready="notify",
                                   timeouts={"start": "400ms"}, replace={"attempts": 1}),
                   "auto": scripted("--ready", "mute")}, start=False).launch()
    eventually(lambda: "auto.0" in one.log() and one.pool("auto")["ready"] == 1,
               what="a worker seen waiting")
    assert one.pool("web")["ready"] == 0
    eventually(lambda: "timeouts.start" in one.log(), what="a worker that is given up")


def test_with_ready_after_only_time_counts(manager):
    one = manager({"web": scripted(ready={"after": "400ms"})}, start=False).launch()
    eventually(lambda: "has all its 1 workers" in one.log())
    status = one.settle().workers()[0]
    assert status["state"] == "ready" and status["uptime"] >= 0.4


def test_a_pool_without_listeners_is_ready_when_it_has_lived_a_second(manager):
    begin = time.monotonic()
    one = manager({"web": {"command": ["/bin/sleep", "1000"], "workers": 2}})
    assert 1 <= time.monotonic() - begin < 20
    assert one.pool()["ready"] == 2
    one.signal(signal.SIGTERM)
    assert one.wait() == 0


def wake_ups(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status.read(), re.M)[1])


def test_a_worker_that_said_ready_is_not_looked_at_any_more(manager):
    script = ("import os, signal, socket\n"
              "notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
              "notify.sendto(b'READY=1', os.environ['NOTIFY_SOCKET'])\n"
              "signal.pause()  # never waits for a connection\n")
    one = manager({"web": {"command": ["/usr/bin/python3", "-c", script], "workers": 4,
                           "listen": ["tcp://127.0.0.1:0"], "ready": "notify"}})
    before = wake_ups(one.pid)
    time.sleep(1)  # nothing is to happen: that is what is tested
    assert wake_ups(one.pid) - before < 20
