"""Workers that write more than the log takes, and a log that nobody reads."""

import os
import re
import select
import subprocess
import threading
import time

import pytest

from ostler import program, shell
from processes import eventually

FLOODS = {"line breaks": r"b'\n' * 65536",
          "long lines": "b'x' * 65536",
          "control characters": r"(b'\1' * 8191 + b'\n') * 8"}


def flooding(kind, workers):
    script = f"import os\nwhile True: os.write(1, {FLOODS[kind]})"
    return {"command": ["/usr/bin/python3", "-c", script], "workers": workers,
            "ready": {"after": "10ms"}, "timeouts": {"stop": "1s"}}


def ticking(**keys):
    return shell("i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.02; done",
                 ready={"after": "50ms"}, timeouts={"stop": "1s"}, **keys)


def launch_into(one, stderr):
    """Starts ostlerd with a log that is `stderr`."""
    one.process = subprocess.Popen(
        [program("ostlerd"), "--config", str(one.file)], stdin=subprocess.DEVNULL, stdout=stderr,
        stderr=stderr, env=one.env, cwd=one.directory)


def longest_answer(one, times=20):
    longest = 0
    for _ in range(times):
        begin = time.monotonic()
        assert one.get("/v1/status").status == 200
        longest = max(longest, time.monotonic() - begin)
    return longest


@pytest.mark.alone
@pytest.mark.parametrize("kind", FLOODS)
def test_a_worker_that_floods_its_output_erases_nothing(manager, kind):
    one = manager({"flood": flooding(kind, 4), "web": ticking()}, start=False)
    # The log is read by a program that keeps all but the flood.
    with open(one.log_file, "wb") as log, subprocess.Popen(
            ["grep", "-a", "--line-buffered", "-v", r"flood\.[0-9]*\[[0-9]*\]: "],
            stdin=subprocess.PIPE, stdout=log) as reader:
        launch_into(one, reader.stdin)
        reader.stdin.close()
        eventually(one.settled)
        for _ in range(10):
            assert one.post("/v1/pools/flood/scale", {"workers": 4}).status == 200
        assert longest_answer(one) < 1  # a few milliseconds, on a machine that has the time
        eventually(lambda: one.log().count("control: scale") == 10, what="ten lines of audit")
        before = one.log().count("tick")
        eventually(lambda: one.log().count("tick") > before + 10, what="lines of another worker")
        assert one.stop() == 0
    ticks = [int(number) for number in re.findall(r"\]: tick (\d+)\n", one.log())]
    assert ticks == list(range(1, len(ticks) + 1))
    assert "dropped" not in one.log()


@pytest.mark.parametrize("to", ["the log", "a file"])
def test_no_line_is_lost_of_many_that_are_written_at_once(manager, to):
    one = manager(start=False)
    path = one.directory / "web.log"
    keys = {"output": str(path)} if to == "a file" else {}
    one.config["pools"]["web"] = shell("seq 1 50000; echo end; exec sleep 1000",
                                       ready={"after": "50ms"}, **keys)
    one.write().start()
    log = path if keys else one.log_file
    eventually(lambda: re.search(r"(^|: )end$", log.read_text(), re.M))
    numbers = [int(number) for number in re.findall(r"(?:^|\]: )(\d+)$", log.read_text(), re.M)]
    assert numbers == list(range(1, 50001))


def test_what_a_worker_writes_last_is_in_the_log_when_the_manager_ends(manager):
    one = manager({"web": shell("trap 'seq 1 10000; exit' TERM; sleep 1000 & wait",
                                ready={"after": "50ms"})}, start=False)
    reading, writing = os.pipe()
    launch_into(one, writing)
    os.close(writing)
    read = bytearray()

    def take():
        while chunk := os.read(reading, 4096):
            read.extend(chunk)
            time.sleep(0.001)  # NOLINT(sleep): a log that is slower than the worker

    reader = threading.Thread(target=take)
    reader.start()
    try:
        eventually(one.settled)
    finally:
        assert one.stop() == 0
        reader.join()
        os.close(reading)
    numbers = re.findall(rb"web\.0\[\d+\]: (\d+)\n", read)
    assert numbers == [b"%d" % number for number in range(1, 10001)]
    assert b"exit code 0" in read


@pytest.mark.parametrize("blocking", [True, False])  # who else has the pipe may decide
def test_what_a_log_that_stands_still_did_not_take_is_counted_and_said(manager, blocking):
    one = manager({"web": shell("seq 1 100000; : >written; exec sleep 1000",
                                ready={"after": "50ms"})}, start=False)
    one.config["pools"]["web"]["directory"] = str(one.directory)
    one.write()
    reading, writing = os.pipe()
    os.set_blocking(writing, blocking)
    launch_into(one, writing)
    os.close(writing)
    read = bytearray()

    def take():
        while chunk := os.read(reading, 65536):
            read.extend(chunk)

    reader = threading.Thread(target=take)
    try:
        eventually(lambda: select.select([reading], [], [], 0)[0])
        eventually((one.directory / "written").exists, what="a worker that is not held up")
        eventually(one.settled)
        assert longest_answer(one) < 1
        for _ in range(10):
            assert one.post("/v1/pools/web/scale", {"workers": 1}).status == 200
        reader.start()

        def accounted_for():
            lines = re.findall(rb"web\.0\[\d+\]: \d+\n", read)
            said = re.findall(rb" warning (\d+) lines of web\.0\[\d+\] were dropped: "
                              rb"the log was not read\n", read)
            return said and len(lines) + sum(map(int, said)) == 100_000

        eventually(accounted_for, what="each line, or the number of those that were dropped")
        assert read.count(b"control: scale") == 10
    finally:
        one.process.terminate()
        if not reader.ident:
            reader.start()
        one.process.wait(30)
        reader.join()
        os.close(reading)
