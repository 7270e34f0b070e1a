"""A worker that takes long to be looked at: the manager and all others go on meanwhile."""

import re
import time

import pytest

from ostler import scripted
from processes import eventually

NOTIFY = """
import mmap, os, signal, socket, time
def notify(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])
"""
# Maps the same memory again and again, until it takes a second to add up what it uses.
LARGE = NOTIFY + """
size = 64 << 20
file = os.memfd_create("shared")
os.ftruncate(file, size)
maps = []
took = 0
while took < 1:
    maps += [mmap.mmap(file, size, flags=mmap.MAP_SHARED | 0x8000) for _ in range(20)]
    begin = time.monotonic()
    with open("/proc/self/smaps_rollup") as rollup:
        rollup.read()
    took = time.monotonic() - begin
notify("READY=1")
signal.pause()
"""


def pool_of(one, text, *flags, **keys):
    path = one.directory / "worker.py"
    path.write_text(text)
    return {"command": ["/usr/bin/python3", "-I", "-S", "-u", str(path), *flags], "workers": 1,
            "directory": str(one.directory), "ready": "notify", "timeouts": {"start": "100s"}, **keys}


def with_others(manager, text, *flags, **keys):
    one = manager(start=False)
    one.config["pools"] = {"web": pool_of(one, text, *flags, **keys),
                           "other": scripted(workers=3)}
    return one.write()


def slowest_status(one, seconds):
    slowest = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        begin = time.monotonic()
        one.status()
        slowest = max(slowest, time.monotonic() - begin)
        time.sleep(0.05)  # NOLINT(sleep): between two looks at something
    return slowest


def known_of_others(one):
    return all(worker["memory"] and worker["cpu"] is not None for worker in one.workers("other"))


@pytest.mark.alone
def test_who_takes_long_to_measure_holds_nobody_up_and_is_recycled_by_memory_late(manager):
    one = with_others(manager, LARGE, recycle={"memory": "32MiB"}).start(within=100)
    worker = one.pids()[0]
    with one.events() as events:
        assert slowest_status(one, 5) < 0.5
        assert one.status()["loop_turn_max"] < 0.5
        eventually(lambda: known_of_others(one))
        recycling = events.wait("worker.recycling", pid=worker, within=60)
        assert recycling["why"] == "memory" and recycling["memory"] > 32 << 20
    said = re.findall(rf"what web.0\[{worker}\] uses is not known: measuring it has not come back "
                      r"within 250ms; until it is, recycle.memory does not replace it", one.log())
    assert len(said) == 1
