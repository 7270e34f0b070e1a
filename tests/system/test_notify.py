"""The workers' notify sockets: who reaches them, who is believed, and who waits for whom."""

import os
import shutil
import signal
import socket
import time

import pytest

from ostler import program, scripted
from processes import eventually

PYTHON = ["/usr/bin/python3", "-I", "-S", "-u", "-c"]
SEND = """
import os, signal, socket, sys, time
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
own = os.environ["NOTIFY_SOCKET"]
def send(text, path=own):
    sock.sendto(text.encode(), path)
def wait_for(path):
    while not os.path.exists(path): time.sleep(0.01)
"""


def worker(text, **keys):
    return {"command": [*PYTHON, SEND + text], "workers": 1, "ready": "notify", **keys}


def test_a_sender_that_is_gone_when_it_is_heard_is_believed(manager):
    """The manager stands still until the sender has ended and its parent has waited for it."""
    one = manager(start=False)
    go, done = one.directory / "go", one.directory / "done"
    one.config["pools"]["web"] = worker(f"""
print("up", flush=True)
wait_for("{go}")
if os.fork() == 0:
    send("READY=1")
    os._exit(0)
os.wait()
print("said", file=open("{done}", "w"))
signal.pause()
""", timeouts={"start": "20s"})
    one.write().launch()
    eventually(lambda: ": up" in one.log(), what="a worker that runs")
    one.signal(signal.SIGSTOP)
    go.touch()
    eventually(done.exists, what="a sender that has ended")
    one.signal(signal.SIGCONT)
    eventually(one.settled, what="a worker that is ready")
    assert one.status()["notify_rejected"] == 0


@pytest.mark.skipif(not shutil.which("systemd-notify"), reason="systemd-notify is not installed")
@pytest.mark.parametrize("flags", ["", "--no-block"])
def test_a_shell_script_may_say_ready_with_systemd_notify(manager, flags):
    one = manager({"web": {"command": ["/bin/sh", "-c",
                                       f"systemd-notify {flags} --ready; exec sleep 1000"],
                           "workers": 3, "ready": "notify"}})
    assert one.status()["notify_rejected"] == 0


def test_a_living_worker_cannot_speak_for_another(manager):
    one = manager(start=False)
    target = one.directory / "target"
    one.config["pools"] = {
        "evil": worker(f"""
send("READY=1")
wait_for("{target}")
for _ in range(3): send("READY=1", open("{target}").read())
signal.pause()
"""),
        "slow": worker("signal.pause()", timeouts={"start": "3s"})}
    one.write().launch()
    eventually(lambda: "evil.0" in one.log() and one.pids("slow"), what="two workers")
    target.with_suffix(".new").write_text(one.notify_socket(one.pids("slow")[0]))
    target.with_suffix(".new").rename(target)
    said = f"3 notifications were refused: the last came from pid {one.pids('evil')[0]}, which " \
           "belongs to evil.0"
    eventually(lambda: "was not ready within 3s (timeouts.start)" in one.log(), 20)
    line = next(each for each in one.log().splitlines() if "was not ready" in each)
    assert said in line
    assert one.status()["notify_rejected"] == 3


def test_each_worker_has_a_folder_that_only_its_user_may_enter(manager):
    keys = {"user": "nobody"} if os.geteuid() == 0 else {}
    one = manager({"web": scripted(workers=2, **keys)})
    folders = {os.path.dirname(one.notify_socket(pid)) for pid in one.pids()}
    assert len(folders) == 2
    for folder in folders:
        status = os.stat(folder)
        assert os.path.dirname(folder) == one.socket + ".notify"
        assert status.st_mode & 0o7777 == 0o700
        assert status.st_uid == os.stat(f"/proc/{one.pids()[0]}").st_uid
    gone = one.pids()[0]
    left = os.path.dirname(one.notify_socket(gone))
    os.kill(gone, signal.SIGKILL)
    eventually(lambda: not os.path.exists(left), what="a folder that goes with its worker")


def test_what_a_killed_manager_left_is_gone_with_the_next(manager):
    one = manager({"web": scripted(workers=2)})
    left = os.path.dirname(one.notify_socket(one.pids()[0]))
    one.process.kill()
    one.process.wait()
    assert os.path.exists(left)
    one.start()
    assert len(os.listdir(one.socket + ".notify")) == 2
    one.signal(signal.SIGTERM)
    one.wait()
    assert not os.path.exists(one.socket + ".notify")


def test_a_worker_that_shouts_drops_nobodys_heartbeat(manager):
    flood = """
send("READY=1")
end = time.monotonic() + 2.5
while time.monotonic() < end: send("WATCHDOG=1")
send("STATUS=hoarse")
signal.pause()
"""
    one = manager({"loud": worker(flood), "web": scripted(
        "--heartbeat-ms", 100, timeouts={"heartbeat": "1s"})})
    slowest = 0.0
    while one.workers("loud")[0].get("status") != "hoarse":
        begin = time.monotonic()
        assert one.pool("web")["restarts"] == 0
        slowest = max(slowest, time.monotonic() - begin)
    assert slowest < 1  # a busy machine, not the flood


def test_a_descriptor_that_does_not_close_holds_up_nobody(manager):
    """SO_LINGER with data that the peer does not read: close(2) waits for so long."""
    one = manager({"web": worker("""
import struct
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
peer = listener.accept()[0]
client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 30))
client.setblocking(False)
try:
    while True: client.send(b"x" * 65536)
except BlockingIOError:
    client.setblocking(True)
sock.connect(own)
socket.send_fds(sock, [b"READY=1"], [client.fileno()])
os.close(client.detach())
signal.pause()
"""), "other": scripted()})
    assert one.status()["state"] == "running"
    one.signal(signal.SIGTERM)
    assert one.wait(within=10) == 0


def test_managers_run_side_by_side_in_one_folder(manager):
    first = manager({"web": scripted()})
    second = manager({"web": scripted()}, directory=first.directory, start=False)
    second.socket = str(first.directory / "second.sock")
    second.file = first.directory / "second.yaml"
    second.config["control"]["socket"] = second.socket
    second.write().start()
    assert second.notify_socket(second.pids()[0]).startswith(second.socket + ".notify/")
    second.stop()
    assert os.path.exists(first.notify_socket(first.pids()[0]))
