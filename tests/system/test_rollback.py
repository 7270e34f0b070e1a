"""Reloads that cannot succeed: turned back or refused, with the reason, and nobody notices."""

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from control import connect
from ostler import example, program, scripted
from processes import eventually

BROKEN = {
    "that cannot be executed":
        (lambda one: {"command": [script(one, "no program\n")]},
         "Exec format error: it is neither an ELF file nor a script with '#!'", None),
    "that exits at once":
        (lambda one: scripted("--exit-code", 3, "--print", "cannot reach the database"),
         "exited with code 3", "cannot reach the database"),
    "that is killed by a signal":
        (lambda one: scripted("--crash-before-ready"), "was killed by SIGABRT", "giving up"),
    "that never becomes ready":
        (lambda one: {**scripted("--ready", "never", "--print", "still loading"),
                      "timeouts": {"start": "300ms"}},
         "was not ready within ", "still loading"),
    "that dies while it settles":
        (lambda one: {**scripted("--exit-after", 100, "--print", "so far so good"),
                      "replace": {"settle": "20s"}},
         "exited with code 0", "so far so good"),
}


def script(one, text):
    path = one.directory / "worker"
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def change(one, keys, pool="web"):
    keys = {name: value for name, value in keys.items() if name not in ("listen", "workers")}
    one.config["pools"][pool].update(keys)
    return one.write()


@pytest.mark.parametrize("what", BROKEN)
def test_a_reload_to_a_command(manager, load, what):
    broken, reason, line = BROKEN[what]
    one = manager({"web": example(workers=3)})
    clients = load(one.address(), clients=4, pause=0.001)
    before = one.pids()
    change(one, broken(one))

    done = one.ctl("reload")
    assert done.returncode == 1, done
    assert "rolled back" in done.stderr
    assert reason in done.stdout + done.stderr
    assert line is None or line in done.stdout + done.stderr
    answer = one.reload()
    tally = clients.stop()

    assert answer.status == 409
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer["outcome"] == "rolled_back"
    pool = answer["pools"]["web"]
    assert pool["outcome"] == "rolled_back"
    assert pool["generation"] == 1 and pool["replaced"] == 0
    assert reason in pool["reason"]
    assert line is None or any(line in one_line for one_line in pool["output"])
    assert one.pids() == before
    status = one.pool()
    assert status["state"] == "running" and status["generation"] == 1
    assert reason in status["last_error"]["message"]
    assert tally["lost"] == 0 and tally["ok"] > 10, tally


@pytest.mark.parametrize("command, fault", [
    (["/no/such/program"], "does not exist"), (["no-such-program"], "PATH"), (["/etc/passwd"], ""),
    (["./worker"], "names the interpreter '/no/such/interpreter' in its first line, which does")])
def test_a_reload_to_a_command_that_is_not_there_is_rejected(manager, command, fault):
    one = manager({"web": example(workers=2)})
    script(one, "#!/no/such/interpreter\n")
    before = one.pids()
    change(one, {"command": command})
    answer = one.reload()
    assert answer.status == 422 and answer["outcome"] == "rejected"
    assert fault.lower() in answer["errors"][0]["message"].lower()
    assert answer["errors"][0]["key"] == "pools.web.command"
    assert one.pids() == before and one.pool()["generation"] == 1


def test_attempts_says_how_often_a_new_worker_may_fail(manager):
    one = manager({"web": example(workers=2)})
    change(one, {**scripted("--exit-code", 1), "replace": {"attempts": 3},
                 "restart": {"backoff": "10ms"}})
    with one.events() as events:
        assert one.reload()["outcome"] == "rolled_back"
        events.wait("reload.finished")
    failed = events.named("worker.failed", generation=2)
    assert ["retry_in" in event for event in failed] == [True, True, False]
    assert "; not replaced" in one.log()


def test_a_reload_goes_on_if_a_later_attempt_succeeds(manager):
    one = manager({"web": example(workers=2)})
    text = f"#!/bin/sh\nmkdir tried 2>/dev/null && exit 1\nexec {program('ostler-example-http')}\n"
    change(one, {"command": [script(one, text)], "directory": str(one.directory),
                 "replace": {"attempts": 2}, "restart": {"backoff": "10ms"}})
    with one.events() as events:
        assert one.reload()["outcome"] == "reloaded"
        events.wait("reload.finished")
    assert len(events.named("worker.failed", generation=2)) == 1
    assert one.pool()["generation"] == 2


def test_workers_already_replaced_get_the_previous_generation_back(manager, load):
    one = manager({"web": example(workers=4)})
    clients = load(one.address(), clients=4, echo=True, pause=0.001)
    before = set(one.pids())
    text = f"#!/bin/sh\nmkdir first 2>/dev/null || mkdir second 2>/dev/null || exit 9\n" \
           f"exec {program('ostler-example-http')}\n"
    change(one, {"command": [script(one, text)], "directory": str(one.directory)})
    answer = one.reload()
    tally = clients.stop()
    assert answer["outcome"] == "rolled_back"
    assert "exited with code 9" in answer["pools"]["web"]["reason"]
    workers = one.workers()
    assert [worker["generation"] for worker in workers] == [1] * 4
    assert len(before & {worker["pid"] for worker in workers}) == 2
    assert tally["lost"] == 0, tally
    # The next reload is as good as any.
    change(one, {"command": [program("ostler-example-http")]})
    assert one.reload()["outcome"] == "reloaded"


def test_a_faulty_file_is_rejected_with_all_its_faults(manager):
    one = manager({"web": example(workers=2)})
    before = one.pids()
    good = one.file.read_text()
    one.file.write_text(good + "    wrokers: 4\n  api:\n    command: [/no/such/program]\n"
                               "    ready: soon\nlog: {level: loud}\n")
    answer = one.reload()
    assert answer.status == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer["outcome"] == "rejected"
    lines = good.count("\n")
    faults = {fault["key"]: fault for fault in answer["errors"]}
    assert set(faults) == {"pools.web.wrokers", "pools.api.command", "pools.api.ready",
                           "log.level"}
    assert "did you mean 'workers'?" in faults["pools.web.wrokers"]["message"]
    assert (faults["pools.web.wrokers"]["line"], faults["pools.web.wrokers"]["column"]) == \
        (lines + 1, 5)
    assert faults["log.level"]["line"] == lines + 5
    assert {fault["file"] for fault in faults.values()} == {str(one.file)}

    done = one.ctl("reload")
    assert done.returncode == 1
    for fault in faults.values():
        place = f"{fault['file']}:{fault['line']}:{fault['column']}: {fault['key']}"
        assert place in done.stdout + done.stderr
    assert one.pids() == before
    assert one.pool()["generation"] == 1
    assert one.status()["state"] == "running"


@pytest.mark.parametrize("text", [b"\0", b"\xff\xfe", b"pools: [", b"a: &a [x]\nb: *a\n",
                                  b"x" * (1 << 20) + b"yz", b"[" * 5000],
                         ids=["NUL", "not UTF-8", "unfinished", "not a map", "huge", "deep"])
def test_rubbish_in_the_file_is_rejected(manager, text):
    one = manager({"web": example(workers=1)})
    before = one.pids()
    one.file.write_bytes(text)
    answer = one.reload()
    assert answer.status == 422 and answer["errors"], answer
    one.file.unlink()
    assert one.reload().status == 422
    assert one.pids() == before


def test_pools_are_added_and_removed(manager):
    one = manager({"web": example(workers=1), "old": example(workers=1)})
    old_address = one.address("old")
    del one.config["pools"]["old"]
    one.config["pools"]["new"] = example(workers=2)
    answer = one.write().reload()
    assert answer["outcome"] == "reloaded"
    assert set(answer["pools"]) == {"web", "old", "new"}
    assert set(one.status()["pools"]) == {"web", "new"}
    assert one.pool("new")["ready"] == 2 and one.pool("new")["generation"] == 1
    assert one.fetch(pool="new")[0] == 200
    with pytest.raises(ConnectionRefusedError):
        connect(old_address)
    assert one.get("/v1/pools/old").status == 404


def test_a_new_pool_that_fails_is_taken_back(manager):
    one = manager({"web": example(workers=1)})
    one.config["pools"]["new"] = scripted("--exit-code", 1, "--print", "no luck")
    answer = one.write().reload()
    assert answer["outcome"] == "rolled_back"
    assert answer["pools"]["new"]["outcome"] == "rolled_back"
    assert "no luck" in answer["pools"]["new"]["output"]
    assert answer["pools"]["web"]["outcome"] == "reloaded"
    assert set(one.status()["pools"]) == {"web"}


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def test_a_changed_listener_is_opened_before_the_old_one_is_closed(manager):
    old, new = f"tcp://127.0.0.1:{free_port()}", f"tcp://127.0.0.1:{free_port()}"
    one = manager({"web": example(workers=2, listen=[old])})
    one.config["pools"]["web"]["listen"] = [new]
    assert one.write().reload()["outcome"] == "reloaded"
    assert one.address() == new and one.fetch()[0] == 200
    with pytest.raises(ConnectionRefusedError):
        connect(old)
    log = one.log()
    assert log.index(f"listening on {new}") < log.index(f"closing {old}")


def test_a_reload_to_an_address_in_use_is_rejected(manager):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = "tcp://127.0.0.1:%d" % taken.getsockname()[1]
        one = manager({"web": example(workers=2)})
        before, old = one.pids(), one.address()
        one.config["pools"]["web"]["listen"] = [address]
        answer = one.write().reload()
        assert answer.status == 422 and answer["outcome"] == "rejected"
        assert address in answer["errors"][0]["message"]
        assert "Address already in use" in answer["errors"][0]["message"]
    assert one.pids() == before and one.address() == old
    assert one.pool()["generation"] == 1
    assert one.fetch()[0] == 200


def test_a_listener_of_a_reload_that_is_rolled_back_is_closed_again(manager):
    new = f"tcp://127.0.0.1:{free_port()}"
    one = manager({"web": example(workers=1)})
    old = one.address()
    change(one, scripted("--exit-code", 1))
    one.config["pools"]["web"]["listen"] = [new]
    assert one.write().reload()["outcome"] == "rolled_back"
    assert one.address() == old and one.fetch()[0] == 200
    with pytest.raises(ConnectionRefusedError):
        connect(new)


def test_a_reload_that_fails_again_while_rolling_back_still_ends(manager):
    """The old command is gone as well by the time it is wanted back."""
    one = manager({"web": example(workers=2)}, start=False)
    link = one.directory / "app"
    link.symlink_to(program("ostler-example-http"))
    one.config["pools"]["web"]["command"] = [str(link)]
    one.config["pools"]["web"]["restart"] = {"backoff": "50ms", "backoff_max": "100ms"}
    one.write().start()
    with one.events() as events, ThreadPoolExecutor() as threads:
        text = "#!/bin/sh\nmkdir first 2>/dev/null || { sleep 0.3; exit 9; }\n" \
               f"exec {program('ostler-example-http')}\n"
        change(one, {"command": [script(one, text)], "directory": str(one.directory)})
        reload = threads.submit(one.reload)
        events.wait("worker.ready", generation=2)
        link.unlink()
        answer = reload.result()
        assert answer["outcome"] == "rolled_back"
        link.symlink_to(program("ostler-example-http"))
        eventually(lambda: {worker["generation"] for worker in one.workers()} == {1})
        one.settle()


@pytest.mark.parametrize("accept", ["shared", "reuseport", "dispatch"])
def test_a_pool_that_is_renamed_stays_until_the_new_one_holds(manager, load, accept):
    address = f"tcp://127.0.0.1:{free_port()}"
    worker = example(workers=2, listen=[address], accept=accept)
    one = manager({"old": worker, "other": example(workers=1)})
    clients = load(one.address(pool="old"), clients=4, pause=0.001)
    before = one.pids("old")

    one.config["pools"]["new"] = {**one.config["pools"].pop("old"), **scripted("--exit-code", 3)}
    one.config["pools"]["new"].update(listen=[address])
    one.write()
    with one.events() as events:
        done = one.ctl("reload")
        events.wait("pool.kept", pool="old")
    assert done.returncode == 1
    assert "old: kept at generation 1: it is no longer in the file, but" in done.stderr
    assert "new: rolled back after" in done.stderr and "taken out again: exited with" in done.stderr
    assert one.pids("old") == before and "new" not in one.status()["pools"]

    one.config["pools"]["new"] = worker
    one.write()
    answer = one.reload()
    assert answer.status == 200 and answer["pools"]["old"]["outcome"] == "removed"
    assert "old" not in one.status()["pools"] and len(one.pids("new")) == 2
    tally = clients.stop()
    assert tally["lost"] == 0 and tally["ok"] > 10, tally
