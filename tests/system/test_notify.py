"""The workers' notify sockets: who reaches them, who is believed, and who waits for whom."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest

from ostler import example, program, scripted
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


# ---- what is removed under a living manager


@pytest.fixture(params=["control.sock", "control.sock.lock", "control.sock.notify", "."],
                ids=["the socket", "the lock", "the notify sockets", "all with their folder"])
def removed(request):
    return request.param


def answers(one):
    try:
        return one.status()["state"] == "running"
    except OSError:
        return False


def in_folder(manager, pools, name="run"):
    """A manager whose control socket lies in a folder that can be removed."""
    one = manager(pools, start=False)
    folder = one.directory / name
    folder.mkdir(parents=True)
    one.socket = str(folder / "control.sock")
    one.config["control"]["socket"] = one.socket
    return one.write().start(), folder


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_sockets_that_are_removed_come_back(manager, removed):
    """By themselves: nobody has to ask for it, and workers become ready again."""
    one, folder = in_folder(manager, {
        "web": example(workers=1), "plain": worker("send('READY=1')\nsignal.pause()")})
    remove(folder / removed)
    plain = one.notify_socket
    eventually(lambda: answers(one) and os.path.exists(one.socket + ".lock")
               and os.path.exists(one.socket + ".notify"), what="the files of before")
    assert os.stat(one.socket).st_mode & 0o777 == (0o660 if os.geteuid() == 0 else 0o600)
    for pool in ("web", "plain"):
        eventually(lambda pool=pool: os.path.exists(plain(one.pids(pool)[0])),
                   what=f"the notify socket of {pool}")
        os.kill(one.pids(pool)[0], signal.SIGKILL)
    one.settle()
    assert ": made again" in one.log()
    second = subprocess.run([program("ostlerd"), "--config", one.file], capture_output=True,
                            text=True, timeout=20, check=False)
    assert second.returncode == 3 and f"(pid {one.pid})" in second.stderr


def test_a_running_worker_gets_its_socket_back_at_the_same_path(manager):
    one = manager({"web": worker("""
send("READY=1")
said = 0
while True:
    said += 1
    try: send(f"STATUS={said}")
    except OSError: print("nobody", flush=True)
    time.sleep(0.02)
""")})
    path = one.notify_socket(one.pids()[0])
    os.unlink(path)
    eventually(lambda: ": nobody" in one.log() or os.path.exists(path))
    eventually(lambda: os.path.exists(path), what="the socket of before")
    before = one.workers()[0]["status"]
    eventually(lambda: one.workers()[0]["status"] != before, what="a worker that is heard")
    assert one.pool()["restarts"] == 0


def test_where_the_folder_above_is_gone_it_is_said_once_and_tried_again(manager):
    one, folder = in_folder(manager, {"web": example(workers=1)}, "up/run")
    address = one.address()
    shutil.rmtree(folder.parent)
    eventually(lambda: "not made again" in one.log(), what="a line that says so")
    host, port = address.removeprefix("tcp://").rsplit(":", 1)
    worker_pid = int(http_pid(host, int(port)))
    os.kill(worker_pid, signal.SIGKILL)  # one that speaks the channel needs no notify socket

    def is_served():
        try:
            return int(http_pid(host, int(port))) != worker_pid
        except (OSError, ValueError):
            return False
    eventually(is_served, what="a worker that took its place")
    one.signal(signal.SIGUSR1)
    eventually(lambda: "reopened" in one.log())
    assert one.log().count("not made again") == 1
    folder.parent.mkdir()
    one.signal(signal.SIGHUP)
    eventually(lambda: answers(one), what="a control socket")


def http_pid(host, port):
    """Who answers: the example says it in a header."""
    with socket.create_connection((host, port), timeout=2) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        text = b"".join(iter(lambda: client.recv(4096), b"")).decode()
    return re.search(r"pid (\d+)", text)[1]


# ---- sockets that are meant for another process


def test_a_worker_that_a_script_starts_without_exec_says_why_it_has_no_listeners(manager):
    command = f"{program('ostler-example-http')}; true"
    one = manager({"web": {**example(workers=1), "command": ["/bin/sh", "-c", command]}},
                  start=False).launch()
    eventually(lambda: "LISTEN_PID says that they are for process" in one.log())
    line = next(each for each in one.log().splitlines() if "LISTEN_PID" in each)
    assert "(sh)" in line and "with exec" in line
