"""Reloads that succeed: every worker replaced, and no request lost."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from ostler import example, scripted
from test_rollback import free_port


@pytest.mark.parametrize("listen", ["tcp", "unix"])
@pytest.mark.parametrize("keepalive", [False, True], ids=["close", "keepalive"])
def test_four_reloads_under_load_replace_every_worker_and_lose_nothing(
        manager, load, listen, keepalive):
    one = manager({"web": example(workers=3)}, start=False)
    if listen == "unix":
        one.config["pools"]["web"]["listen"] = [f"unix://{one.directory}/web.sock"]
        one.write()
    one.start()
    clients = load(one.address(), clients=8, keepalive=keepalive, echo=True)
    for generation in range(2, 6):
        before = set(one.pids(state="ready"))
        answer = one.reload()
        assert answer.status == 200, answer
        assert answer["outcome"] == "reloaded"
        assert answer["pools"]["web"]["replaced"] == 3
        assert answer["pools"]["web"]["generation"] == generation
        after = one.workers()
        assert not before & {worker["pid"] for worker in after}
        assert [worker["generation"] for worker in after] == [generation] * 3
    tally = clients.stop()
    assert tally["lost"] == 0, tally
    assert tally["ok"] == tally["sent"] > 100


def test_a_reload_says_what_it_does_while_it_does_it(manager):
    one = manager({"web": example(workers=2)})
    with one.events() as events:
        done = one.ctl("reload")
        events.wait("reload.finished")
    assert done.returncode == 0, done.stderr
    assert "web" in done.stdout and "reloaded" in done.stdout
    names = [event["event"] for event in events.seen]
    assert names[0] == "reload.started"
    assert names.count("worker.ready") == names.count("worker.exited") == 2
    finished = events.named("reload.finished", pool="web")[0]
    assert finished["outcome"] == "reloaded"
    assert finished["generation"] == 2
    assert finished["replaced"] == 2


@pytest.mark.parametrize("surge, workers, most", [(1, 3, 4), ("50%", 4, 6)])
def test_ready_workers_never_fall_below_the_target_nor_rise_above_the_surge(
        manager, surge, workers, most):
    one = manager({"web": scripted("--start-delay", 50, workers=workers,
                                   replace={"surge": surge})})
    with one.events() as events:
        assert one.reload().status == 200
        events.wait("reload.finished")
    ready, present, highest = workers, workers, workers
    for event in events.seen:
        ready += {"worker.ready": 1, "worker.stopping": -1}.get(event["event"], 0)
        present += {"worker.starting": 1, "worker.exited": -1}.get(event["event"], 0)
        highest = max(highest, present)
        assert ready >= workers, events.seen
        assert present <= most, events.seen
    assert highest == most


def test_a_reload_of_one_pool_leaves_the_others_alone(manager):
    one = manager({"web": example(), "api": example()})
    web, api = one.pids("web"), one.pids("api")
    answer = one.reload("api")
    assert answer["outcome"] == "reloaded" and list(answer["pools"]) == ["api"]
    assert one.pids("web") == web
    assert not set(one.pids("api")) & set(api)


def at(port, **keys):
    return example(listen=[f"tcp://127.0.0.1:{port}"], **keys)


def test_an_address_moves_from_one_pool_to_another_and_nothing_is_lost(manager, load):
    address = free_port()
    one = manager({"web": example(), "api": at(address)})
    clients = load(one.address("api"))
    one.config["pools"] = {"web": at(address), "api": at(free_port())}
    assert one.write().reload()["outcome"] == "reloaded"
    assert clients.stop()["lost"] == 0
    assert one.address("web") == f"tcp://127.0.0.1:{address}"
    assert int(one.fetch("/pid")[1]) in one.pids("web")


def test_a_reload_of_one_pool_is_refused_the_address_of_another(manager):
    address = free_port()
    one = manager({"web": example(), "api": at(address)})
    one.config["pools"] = {"web": at(address), "api": at(free_port())}
    before = one.pids("web") + one.pids("api")
    answer = one.write().reload("web")
    assert answer["outcome"] == "rejected"
    assert "reload 'api' before" in answer["errors"][0]["message"]
    assert one.pids("web") + one.pids("api") == before
    assert one.reload("api")["outcome"] == one.reload("web")["outcome"] == "reloaded"
    assert int(one.fetch("/pid")[1]) in one.pids("web")


def test_a_pool_gets_another_name_and_keeps_its_address(manager, load):
    one = manager({"web": at(free_port())})
    clients = load(one.address())
    one.config["pools"]["shop"] = one.config["pools"].pop("web")
    assert one.write().reload()["outcome"] == "reloaded"
    assert clients.stop()["lost"] == 0
    assert int(one.fetch("/pid", "shop")[1]) in one.pids("shop")


def test_a_reload_replaces_the_workers_of_pools_that_did_not_change(manager):
    one = manager({"web": example(), "api": example()})
    before = one.pids("web") + one.pids("api")
    assert one.reload()["outcome"] == "reloaded"
    assert not set(one.pids("web") + one.pids("api")) & set(before)


def test_a_restart_does_not_read_the_file(manager):
    one = manager({"web": example()})
    before = one.pids()
    one.file.write_text("no: configuration\n")
    done = one.ctl("restart", "web")
    assert done.returncode == 0, done.stderr
    assert not set(one.pids()) & set(before)
    assert one.pool()["generation"] == 2
    assert one.post("/v1/restart")["outcome"] == "reloaded"


def test_a_reload_on_hup(manager):
    one = manager({"web": example(workers=1)})
    with one.events() as events:
        one.signal(signal.SIGHUP)
        assert events.wait("reload.finished", pool="web")["outcome"] == "reloaded"
    assert one.pool()["generation"] == 2


def test_a_reload_that_nobody_waits_for_is_answered_at_once(manager):
    one = manager({"web": scripted("--start-delay", 200)})
    with one.events() as events:
        answer = one.post("/v1/reload?wait=false")
        assert answer.status == 202
        assert not events.named("reload.finished")
        events.wait("reload.finished", pool="web")


def test_a_stop_ends_a_reload(manager):
    one = manager({"web": scripted("--start-delay", 100)})
    one.config["pools"]["web"]["command"] += ["--ready", "never"]
    one.write()
    with one.events() as events, ThreadPoolExecutor() as threads:
        reload = threads.submit(one.reload)
        events.wait("worker.starting")
        one.signal(signal.SIGTERM)
        answer = reload.result()
    assert answer.status == 503, answer
    assert one.wait() == 0


def test_a_scale_and_a_crash_in_the_middle_of_a_reload(manager, load):
    one = manager({"web": example(workers=3, flags=["--start-delay", 100],
                                  replace={"attempts": 2})})
    clients = load(one.address(), echo=True, pause=0.001)
    with one.events() as events, ThreadPoolExecutor() as threads:
        reload = threads.submit(one.reload)
        events.wait("worker.ready", generation=2)
        assert one.post("/v1/pools/web/scale", {"workers": 5}).status == 200
        assert reload.result()["outcome"] == "reloaded"
        reload = threads.submit(one.reload)
        new = events.wait("worker.ready", generation=3)
        tally = clients.stop()
        os.kill(new["pid"], signal.SIGKILL)
        assert reload.result()["outcome"] == "reloaded"
    one.settle()
    assert {worker["generation"] for worker in one.workers()} == {3}
    assert len(one.workers()) == 5
    assert tally["lost"] == 0, tally


def test_the_number_of_workers_can_change_with_a_reload(manager):
    one = manager({"web": example(workers=2)})
    one.config["pools"]["web"]["workers"] = 5
    assert one.write().reload()["outcome"] == "reloaded"
    assert one.pool()["ready"] == 5
    one.config["pools"]["web"]["workers"] = 1
    assert one.write().reload()["outcome"] == "reloaded"
    assert one.pool()["ready"] == 1
    assert one.pool()["generation"] == 3


def test_the_socket_outlives_the_reload(manager):
    one = manager({"web": example(workers=1)})
    address = one.address()
    one.config["pools"]["web"]["env"] = {"CHANGED": "yes"}
    assert one.write().reload()["outcome"] == "reloaded"
    assert one.address() == address
    assert "closing" not in one.log()
