"""More and fewer workers, and one worker at a time."""

import os
import signal

from ostler import example, scripted
from processes import alive, eventually


def scale(one, workers, pool="web"):
    answer = one.post(f"/v1/pools/{pool}/scale", {"workers": workers})
    assert answer.status == 200, answer
    return answer.json


def test_scaling_up_and_down_changes_the_target_at_once(manager):
    one = manager({"web": example(workers=2)})
    assert scale(one, 5)["target"] == 5
    one.settle()
    assert [worker["slot"] for worker in one.workers()] == [0, 1, 2, 3, 4]
    assert scale(one, "+2")["target"] == 7
    assert scale(one, "-4")["target"] == 3
    assert scale(one, "-100")["target"] == 0
    one.settle()
    assert not one.pids()
    assert scale(one, "reset")["target"] == 2
    one.settle()
    cpus = len(os.sched_getaffinity(0))
    assert 3 <= scale(one, "auto")["target"] <= 2 * cpus + 1
    one.settle()


def test_ostlerctl_scales(manager):
    one = manager({"web": example(workers=1)})
    for word, target in (("3", 3), ("+1", 4), ("-2", 2), ("reset", 1)):
        done = one.ctl("scale", "web", word)
        assert done.returncode == 0 and f"target {target}" in done.stdout, done


def test_scaling_down_stops_those_up_longest(manager):
    one = manager({"web": scripted(workers=2)})
    oldest = set(one.pids())
    scale(one, 4)
    one.settle()
    scale(one, 2)
    one.settle()
    assert not set(one.pids()) & oldest


def test_scaling_down_stops_those_that_are_not_ready_first(manager):
    one = manager(start=False)
    slow = one.directory / "slow"
    one.config["pools"]["web"] = {**scripted(workers=2), "command": [
        "/bin/sh", "-c", f"test -e {slow} && exec sleep 1000; exec {scripted()['command'][0]}"]}
    ready = one.write().start().pids()
    slow.touch()
    scale(one, 4)
    eventually(lambda: len(one.pids()) == 4 and len(one.pids(state="starting")) == 2)
    scale(one, 2)
    eventually(lambda: one.pids() == ready, what="the two that are ready")


def test_a_scale_holds_until_the_file_says_otherwise(manager):
    one = manager({"web": example(workers=2)})
    scale(one, 4)
    assert one.reload()["outcome"] == "reloaded"
    assert one.pool()["target"] == 4 and one.pool()["scaled"]
    one.config["pools"]["web"]["workers"] = 3
    assert one.write().reload()["outcome"] == "reloaded"
    assert one.pool()["target"] == 3 and not one.pool()["scaled"]


def test_ttin_and_ttou_are_one_more_and_one_fewer_in_every_pool(manager):
    one = manager({"web": example(workers=1), "api": example(workers=2)})
    one.signal(signal.SIGTTIN)
    eventually(lambda: (one.pool("web")["ready"], one.pool("api")["ready"]) == (2, 3))
    one.signal(signal.SIGTTOU)
    eventually(lambda: (one.pool("web")["target"], one.pool("api")["target"]) == (1, 2))
    one.settle()


def test_a_pool_may_have_no_workers(manager):
    one = manager({"web": example(workers=0)})
    assert one.pool()["state"] == "running" and not one.pids()
    scale(one, 1)
    assert one.fetch()[0] == 200


def test_scaling_loses_nothing(manager, load):
    one = manager({"web": example(workers=1)})
    clients = [load(one.address(), clients=2, keepalive=keepalive, echo=True, pause=0.0005)
               for keepalive in (False, True)]
    for target in (4, 1, 5, 2, 6, 1):
        scale(one, target)
        one.settle()
    for client in clients:
        tally = client.stop()
        assert tally["lost"] == 0, tally


def test_recycling_puts_the_successor_first_and_loses_nothing(manager, load):
    one = manager({"web": example(workers=2)})
    clients = load(one.address(), clients=4, keepalive=True, echo=True, pause=0.0005)
    for _ in range(5):
        old = one.pids()
        with one.events() as events:
            done = one.ctl("recycle", "web.1")
            assert done.returncode == 0, done
            gone = events.wait("worker.exited", pid=old[1])
        assert gone["cause"] == "replaced"
        names = [(event["event"], event["pid"] == old[1]) for event in events.seen]
        assert names.index(("worker.ready", False)) < names.index(("worker.stopping", True))
        assert one.pids()[0] == old[0] and one.pids()[1] != old[1]
        assert one.pool()["generation"] == 1
    tally = clients.stop()
    assert tally["lost"] == 0, tally


def test_a_recycle_whose_successor_fails_leaves_the_worker_alone(manager):
    one = manager(start=False)
    broken = one.directory / "broken"
    one.config["pools"]["web"] = {**scripted(), "command": [
        "/bin/sh", "-c", f"test -e {broken} && echo no luck && exit 5; "
                         f"exec {scripted()['command'][0]}"]}
    one.write().start()
    before = one.pids()
    broken.touch()
    answer = one.post(f"/v1/workers/{before[0]}/recycle")
    assert answer.status == 409
    assert "exited with code 5" in answer["reason"] and answer["output"] == ["no luck"]
    assert one.pids() == before
    assert one.ctl("recycle", "web.0").returncode == 1


def test_stopping_a_worker_drains_it_and_another_takes_its_place(manager):
    one = manager({"web": example(workers=2)})
    pid = one.pids()[0]
    with one.events() as events:
        answer = one.post(f"/v1/workers/{pid}/stop")
        assert answer.status == 200 and answer["outcome"] == "stopped"
        assert "exited with code 0" in events.wait("worker.exited", pid=pid)["reason"]
    one.settle()
    assert len(one.pids()) == 2 and pid not in one.pids()
    assert one.pool()["restarts"] == 0  # that was no failure


def test_a_worker_that_somebody_else_asks_to_stop_loses_nothing(manager, load):
    one = manager({"web": example(workers=2, restart={"burst": 100})})
    clients = load(one.address(), clients=4, keepalive=True, echo=True, pause=0.0005)
    with one.events() as events:
        for count in range(1, 6):
            pid = one.pids(state="ready")[0]
            os.kill(pid, signal.SIGTERM)
            assert events.wait("worker.stopping", pid=pid)["cause"] == "itself"
            events.wait("worker.ready", count=count)
            one.settle()
    tally = clients.stop()
    assert tally["lost"] == 0, tally


def test_killing_a_worker_kills_it_and_another_takes_its_place(manager):
    one = manager({"web": scripted("--ignore-term", workers=2, timeouts={"stop": "200ms"})})
    pid = one.pids()[0]
    done = one.ctl("kill", str(pid))
    assert done.returncode == 0 and "killed" in done.stdout
    assert not alive(pid)
    one.settle()
    assert len(one.pids()) == 2


def test_the_stop_signal_is_as_configured(manager):
    one = manager({"web": scripted("--ignore-term", stop_signal="USR1"),
                   "quit": scripted(stop_signal="QUIT")})
    with one.events() as events:
        scale(one, 0, "quit")
        assert "exited with code 0" in events.wait("worker.exited", pool="quit")["reason"]
        # Nobody catches USR1 here, so it gets TERM, which it ignores.
        scale(one, 0, "web")
        events.wait("worker.stopping", pool="web")
        assert one.post(f"/v1/workers/{one.pids()[0]}/kill").status == 200
        assert "SIGKILL" in events.wait("worker.exited", pool="web")["reason"]


def test_a_signal_other_than_term_reaches_those_who_catch_it(manager):
    one = manager(start=False)
    script = "trap 'echo caught; exit 0' USR2; while :; do sleep 0.05; done"
    one.config["pools"]["web"] = {"command": ["/bin/sh", "-c", script], "workers": 1,
                                  "ready": {"after": "200ms"}, "stop_signal": "USR2"}
    one.write().start()
    scale(one, 0)
    one.settle()
    eventually(lambda: "caught" in one.log())
