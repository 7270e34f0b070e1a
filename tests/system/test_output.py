"""What workers write, and where it goes; the manager's own log."""

import json
import os
import pwd
import select
import signal
import subprocess
import time

import pytest
import yaml

from ostler import example, program, scripted, shell
from processes import eventually


def lines_of(one, text):
    return [line for line in one.log().splitlines() if text in line]


def test_each_line_is_in_the_log_with_pool_slot_and_pid(manager):
    one = manager({"web": scripted("--print", "hello", workers=2)})
    eventually(lambda: len(lines_of(one, ": hello")) == 2)
    said = {line.split(" ", 1)[1] for line in lines_of(one, ": hello")}
    assert said == {f"info web.{worker['slot']}[{worker['pid']}]: hello"
                    for worker in one.workers()}


def test_each_line_is_a_json_object_if_asked_for(manager):
    one = manager({"web": scripted("--print", 'say "hi"')}, log={"format": "json"})
    eventually(lambda: lines_of(one, "hi"))
    records = [json.loads(line) for line in one.log().splitlines()]
    said, = [record for record in records if "hi" in record["message"]]
    worker = one.workers()[0]
    assert said["message"] == 'say "hi"' and said["level"] == "info"
    assert {name: said[name] for name in ("pool", "worker", "slot", "pid", "generation")} == {
        "pool": "web", "worker": "web.0", "slot": 0, "pid": worker["pid"], "generation": 1}
    assert "event" not in said
    assert all(record["time"].endswith("Z") for record in records)


def about(record):
    return {name: record[name] for name in ("pool", "worker", "slot", "pid", "generation", "reason")
            if name in record}


def test_json_lines_about_a_worker_or_a_pool_bear_the_members_of_the_event(manager):
    one = manager({"web": scripted()}, log={"format": "json", "level": "debug"})
    pid, = one.pids()
    assert one.ctl("kill", "web.0").returncode == 0
    one.settle()
    assert one.post("/v1/pools/web/scale", {"workers": 2}).status == 200
    one.settle()
    assert one.reload()["outcome"] == "reloaded"
    one.config["pools"]["web"] = scripted("--exit-code", 3, "--print", "hello", workers=2)
    assert one.write().reload()["outcome"] == "rolled_back"
    one.settle()
    assert one.stop() == 0
    records = [json.loads(line) for line in one.log().splitlines()]
    told = {}
    for record in records:
        if "event" in record:
            told.setdefault(record["event"], []).append(record)
            assert record["message"]
    first = {"pool": "web", "worker": "web.0", "slot": 0, "pid": pid, "generation": 1}
    assert about(told["worker.starting"][0]) == about(told["worker.ready"][0]) == first
    killed = about(told["worker.exited"][0])
    assert killed.pop("reason").startswith("was killed by SIGKILL") and killed == first
    scaled = told["pool.scaled"][0]
    assert about(scaled) == {"pool": "web", "generation": 1} and scaled["target"] == 2
    assert told["reload.started"][0]["message"] == "reload started"
    done, back = told["reload.finished"][:2]
    assert about(done) == {"pool": "web", "generation": 2} and done["outcome"] == "reloaded"
    assert back["outcome"] == "rolled_back" and back["reason"].startswith("exited with code 3")
    failed = told["worker.failed"][0]
    assert failed["generation"] == 3 and failed["worker"] in ("web.0", "web.1")
    assert failed["reason"] == back["reason"] and failed["reason"] in failed["message"]
    stopping = [about(record) for record in told["worker.stopping"] if record["cause"] == "stop"]
    assert sorted(worker["slot"] for worker in stopping) == [0, 1]
    assert {"manager.ready", "manager.stopping", "pool.ready", "reload.failing"} <= told.keys()


def test_json_lines_say_what_the_events_say(manager):
    one = manager({"web": scripted()}, log={"format": "json", "level": "debug"})
    assert one.reload()["outcome"] == "reloaded"
    with one.events("/v1/events?follow=false") as stream:
        eventually(lambda: stream.ended)
        events = stream.seen
    assert len(events) > 5
    for event in events:
        del event["time"]
        event.pop("output", None)
    eventually(lambda: one.log().count('"event"') >= len(events))
    said = [json.loads(line) for line in one.log().splitlines() if '"event"' in line]
    for record in said:
        del record["time"], record["level"], record["message"]
    assert said[:len(events)] == events


def test_an_output_file_that_is_the_log_bears_the_fields_too(manager):
    one = manager(start=False)
    path = one.directory / "manager.log"
    one.config["log"] = {"output": str(path), "format": "json"}
    one.config["pools"]["web"] = scripted("--print", "hello", output=str(path))
    one.write().start()
    eventually(lambda: "hello" in path.read_text())
    said, = [record for record in map(json.loads, path.read_text().splitlines())
             if record["message"] == "hello"]
    assert (said["worker"], said["pid"]) == ("web.0", one.pids()[0])


def test_both_stdout_and_stderr_are_forwarded_even_without_a_line_end(manager):
    one = manager({"web": shell("echo out; echo err >&2; printf unfinished; exec sleep 1000",
                                ready={"after": "50ms"})})
    eventually(lambda: lines_of(one, "]: out") and lines_of(one, "]: err"))
    one.ctl("kill", "web.0")
    eventually(lambda: lines_of(one, "]: unfinished"))


def test_control_bytes_are_escaped(manager):
    one = manager({"web": shell(r"printf 'a\033[31mb\001\tc\rd\r\n\377\n'; exec sleep 1000",
                                ready={"after": "50ms"})})
    eventually(lambda: lines_of(one, "]: a"))
    assert lines_of(one, r"]: a\x1b[31mb\x01" + "\tc" + r"\x0dd")
    text = one.log_file.read_bytes()
    assert b"\x1b" not in text and b"\x01" not in text and b"\r" not in text


@pytest.mark.parametrize("log", ["text", "json"])
def test_very_long_lines_are_cut_into_several(manager, log):
    script = "head -c 100000 /dev/zero | tr '\\0' x; echo; exec sleep 1000"
    one = manager({"web": shell(script, ready={"after": "50ms"})}, log={"format": log})
    eventually(lambda: sum(line.count("x") for line in lines_of(one, "xxx")) >= 100_000)
    assert all(len(line) < 8192 + 200 for line in one.log().splitlines())
    assert sum(line.count("x") for line in lines_of(one, "xxx")) == 100_000


@pytest.mark.alone
def test_a_worker_that_floods_does_not_stop_the_others(manager):
    flood = {"command": ["yes", "y" * 200], "workers": 2, "ready": {"after": "10ms"}}
    one = manager({"flood": flood, "web": example(workers=1)})
    times = []
    for _ in range(30):
        begin = time.monotonic()
        assert one.get("/v1/status").status == 200
        assert one.fetch()[0] == 200
        times.append(time.monotonic() - begin)
    assert sorted(times)[15] < 0.2, times  # the one in the middle: three processes are busy
    assert one.reload("web")["outcome"] == "reloaded"


def test_the_last_lines_of_a_worker_are_kept_for_the_report(manager):
    one = manager({"web": scripted()})
    one.config["pools"]["web"]["command"] = [
        "/bin/sh", "-c", "for i in $(seq 100); do echo line $i; done; exit 1"]
    answer = one.write().reload()
    output = answer["pools"]["web"]["output"]
    assert output[-1] == "line 100" and 10 <= len(output) <= 50
    assert output == [f"line {n}" for n in range(101 - len(output), 101)]


def ticking(**keys):
    return shell("i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.02; done",
                 ready={"after": "50ms"}, timeouts={"stop": "1s"}, **keys)


def rotated(one, path, reopen):
    """Moves the file away, and has it made anew."""
    eventually(lambda: path.exists() and path.stat().st_size > 0)
    path.rename(str(path) + ".1")
    reopen(one)
    eventually(lambda: path.exists() and path.stat().st_size > 0, what="a new file")


REOPEN = {"USR1": lambda one: one.signal(signal.SIGUSR1),
          "ostlerctl": lambda one: one.ctl("reopen")}


@pytest.mark.parametrize("how", REOPEN)
def test_output_to_a_file_that_is_opened_anew(manager, how):
    one = manager(start=False)
    path = one.directory / "app.log"
    one.config["pools"]["web"] = ticking(output=str(path))
    one.write().start()
    rotated(one, path, REOPEN[how])
    assert path.read_text().startswith("tick ")
    assert not lines_of(one, "]: tick")


@pytest.mark.parametrize("how", REOPEN)
def test_the_log_may_be_a_file_that_is_opened_anew(manager, how):
    one = manager({"web": ticking()}, start=False)
    path = one.directory / "manager.log"
    one.config["log"] = {"output": str(path), "level": "debug"}
    one.write().start()
    assert "ostlerd" in path.read_text()
    rotated(one, path, REOPEN[how])
    eventually(lambda: "]: tick" in path.read_text())


def test_a_log_that_cannot_be_reopened_is_an_error_and_the_old_file_stays_in_use(manager):
    one = manager(start=False)
    logs = one.directory / "logs"
    logs.mkdir()
    path = logs / "web.log"
    one.config["pools"]["web"] = ticking(output=str(path))
    one.write().start()
    eventually(path.exists)
    with open(path, encoding="utf-8") as old:
        path.unlink()
        logs.rmdir()
        reason = f"open {path}: No such file or directory"
        done = one.ctl("reopen")
        assert done.returncode == 1 and reason in done.stderr and done.stdout == ""
        answer = one.post("/v1/reopen")
        assert answer.status == 409 and answer["reopened"] == 0 and answer["errors"] == [
            {"file": str(path), "operation": "open", "reason": "No such file or directory"}]
        eventually(lambda: len(lines_of(one, " error reopen: ")) == 2)
        assert reason in lines_of(one, " error reopen: ")[0]
        one.signal(signal.SIGUSR1)
        eventually(lambda: len(lines_of(one, " error reopen: ")) == 3)
        assert reason in one.status()["last_error"]["message"]
        assert f"last error: reopen: {reason}" in one.ctl("status").stdout
        old.read()
        eventually(old.read, what="lines that still go to the old file")
    logs.mkdir()
    assert one.post("/v1/reopen").status == 200
    assert one.status()["last_error"] is None
    eventually(lambda: path.exists() and path.stat().st_size > 0)


def put(kind, path):
    """Puts something there that is no log of the manager's; a descriptor that keeps it alive."""
    victim = path.with_name("victim")
    victim.write_text("precious")
    if kind == "named pipe":
        os.mkfifo(path)
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if kind == "folder":
        path.mkdir()
    elif kind == "symbolic link":
        path.symlink_to(victim)
    elif kind == "hard link":
        path.hardlink_to(victim)
    else:
        path.write_text("precious")
        os.chown(path, NOBODY, -1)
        path.chmod(0o666)
    return os.open(victim, os.O_RDONLY)


NOBODY = pwd.getpwnam("nobody").pw_uid
NO_LOGS = [("named pipe", "is a named pipe"), ("folder", "is a folder"),
           ("symbolic link", "is a symbolic link"), ("hard link", "has "),
           pytest.param("another's file", "belongs to 'nobody', not to 'root'",
                        marks=pytest.mark.root)]


@pytest.mark.parametrize("kind, why", NO_LOGS)
def test_what_is_no_file_of_its_own_is_not_opened_as_a_log(manager, kind, why):
    one = manager(start=False)
    path = one.directory / "web.log"
    one.config["pools"]["web"] = ticking(output=str(path))
    one.write().start()
    eventually(path.exists)
    with open(path, encoding="utf-8") as old:
        path.unlink()
        handle = put(kind, path)
        try:
            done = one.ctl("reopen")
            assert done.returncode == 1 and f"open {path}: it {why}" in done.stderr
            old.read()
            eventually(old.read, what="lines that still go to the old file")
            # By a name that is not known before the start; any other is refused with the file.
            second = one.directory / "second.2.log"
            os.close(put(kind, second))
            one.config["pools"]["web"]["output"] = str(one.directory / "second.{generation}.log")
            answer = one.write().reload()
            assert answer["outcome"] == "rolled_back"
            assert f"open {second}: it {why}" in answer["pools"]["web"]["reason"]
        finally:
            os.close(handle)
    assert (one.directory / "victim").read_text() == "precious"
    if kind == "another's file":
        assert path.read_text() == second.read_text() == "precious"


@pytest.mark.parametrize("key", ["log", "output"])
@pytest.mark.parametrize("kind, why", NO_LOGS)
def test_the_start_and_check_refuse_what_is_no_file_of_its_own(manager, key, kind, why):
    one = manager({"web": scripted()}, start=False)
    path = one.directory / "web.log"
    (one.config["pools"]["web"] if key == "output" else one.config.setdefault("log", {}))[
        "output"] = str(path)
    os.close(put(kind, path))
    one.write().launch()
    assert one.wait() == 2
    where = "pools.web.output" if key == "output" else "log.output"
    assert f"{where}: '{path}' {why}" in one.log()
    checked = subprocess.run([program("ostlerd"), "--check", "--config", one.file],
                             capture_output=True, text=True, check=False)
    assert checked.returncode == 2 and checked.stderr == one.log()
    assert (one.directory / "victim").read_text() == "precious"


def test_the_null_device_may_be_a_log_and_others_may_not(manager):
    one = manager({"web": scripted(output="/dev/null")}, log={"output": "/dev/null"})
    assert one.ctl("reopen").returncode == 0
    for path in ("/dev/full", "/dev/stdout", "/proc/self/mem"):
        one.config["pools"]["web"]["output"] = path
        assert one.write().reload()["outcome"] == "rejected", path


def test_the_level_of_the_log_can_change_with_a_reload(manager):
    one = manager({"web": scripted()}, log={"level": "error"})
    assert "listening" not in one.log()
    one.config["log"] = {"level": "debug", "format": "json"}
    assert one.write().reload()["outcome"] == "reloaded"
    assert one.reload()["outcome"] == "reloaded"
    eventually(lambda: any(json.loads(line)["level"] == "debug"
                           for line in one.log().splitlines() if line.startswith("{")))


def test_an_output_file_that_cannot_be_opened_fails_the_reload_and_nothing_else(manager):
    one = manager({"web": example(workers=1)})
    pids = one.pids()
    pool = one.config["pools"]["web"]
    pool["output"] = str(one.directory / "missing" / "web.log")
    one.write()
    reply = one.reload()
    assert reply["outcome"] == "rejected"
    fault, = reply["errors"]
    assert fault["key"] == "pools.web.output"
    assert f"the folder '{one.directory}/missing' does not exist" in fault["message"]
    # Which generation it will be, is not known when the file is read.
    pool["output"] = str(one.directory / "{generation}" / "web.log")
    one.write()
    reply = one.reload()
    assert reply["outcome"] == "rolled_back"
    assert "/2/web.log: No such file or directory" in reply["pools"]["web"]["reason"]
    assert one.pids() == pids and one.fetch()[0] == 200


def test_tokens_in_the_name_of_the_output_are_replaced(manager):
    one = manager(start=False)
    written = str(one.directory / "{pool}.{slot}.{generation}.log")
    one.config["pools"]["web"] = {**ticking(output=written), "workers": 2}
    one.write().start()
    files = [one.directory / f"web.{slot}.1.log" for slot in (0, 1)]
    for path in files:
        rotated(one, path, REOPEN["USR1"])
    assert one.reload()["outcome"] == "reloaded"
    for slot in (0, 1):
        eventually((one.directory / f"web.{slot}.2.log").exists)
    shown = subprocess.run([program("ostlerd"), "--print-config", "--config", one.file],
                           capture_output=True, text=True, check=True).stdout
    assert yaml.safe_load(shown)["pools"]["web"]["output"] == written
    assert not list(one.directory.glob("*{*"))


def test_what_a_wrapper_leaves_behind_may_write_while_it_drains(manager):
    script = ("import signal, sys, time\n"
              "def stop(*_):\n"
              "    time.sleep(0.2)  # by then its wrapper is gone\n"
              "    print('goodbye', flush=True)\n"
              "    open('drained', 'w').close()\n"
              "    sys.exit()\n"
              "signal.signal(signal.SIGTERM, stop)\n"
              "print('serving', flush=True)\n"
              "while True: signal.pause()\n")
    one = manager(start=False)
    (one.directory / "app.py").write_text(script)
    one.write({**one.config, "pools": {"web": {
        **shell("/usr/bin/python3 app.py & wait", ready={"after": "50ms"}),
        "directory": str(one.directory)}}}).start()
    eventually(lambda: lines_of(one, "]: serving"))
    assert one.stop() == 0
    assert (one.directory / "drained").exists()
    assert lines_of(one, "]: goodbye")


def test_a_log_that_nobody_reads_holds_up_neither_a_reload_nor_the_end(manager):
    one = manager({"web": example(workers=1),
                   "flood": shell("yes", ready={"after": "10ms"})}, start=False)
    reading, writing = os.pipe()
    try:
        with open(os.devnull, "rb") as null:
            one.process = subprocess.Popen(
                [program("ostlerd"), "--config", str(one.file)], stdin=null, stdout=writing,
                stderr=writing, env=one.env, cwd=one.directory)
        eventually(one.settled)
        eventually(lambda: not select.select([], [writing], [], 0)[1], what="a full pipe")
        assert one.reload()["outcome"] == "reloaded"
        assert one.fetch()[0] == 200
        one.signal(signal.SIGTERM)
        assert one.wait() == 0
    finally:
        os.close(reading)
        os.close(writing)
