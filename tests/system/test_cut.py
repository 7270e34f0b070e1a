"""Requests that `timeouts.stop` ended: counted where somebody counts, else not known."""

import signal

import pytest

from control import connect
from ostler import example, scripted
from processes import eventually

SHORT = {"timeouts": {"stop": "300ms"}}
COUNTING = "ostler-example-http"


def pool(kind):
    """Workers that count their requests, or do not."""
    return example(workers=1, **SHORT) if kind == COUNTING else scripted(**SHORT)


def occupy(one, kind):
    """A request that outlasts `timeouts.stop`, once a worker has it."""
    sock = connect(one.address())
    path = "/slow?ms=60000" if kind == COUNTING else "/hang"
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    if kind == COUNTING:
        eventually(lambda: one.workers()[0]["active"] == 1)
    else:
        # One thing at a time: a second client waits for what the first has.
        eventually(lambda: one.pool()["listeners"][0]["backlog"] == 0)
    return sock


@pytest.mark.parametrize("kind, cut, words", [
    (COUNTING, 1, "1 request cut"), ("plain", None, "requests cut: not known")])
def test_a_reload_says_how_many_requests_it_cut_if_that_can_be_known(manager, kind, cut, words):
    one = manager({"web": pool(kind)})
    with occupy(one, kind):
        assert one.reload()["pools"]["web"]["cut"] == cut
    with occupy(one, kind):
        assert words in one.ctl("reload").stdout
    killed = [line for line in one.log().splitlines() if "timeouts.stop" in line]
    assert len(killed) == 2 and all(" warning web.0[" in line for line in killed), killed
    assert all(line.endswith("requests cut: " + ("1" if cut else "not known")) for line in killed)


def test_nothing_is_cut_where_those_who_count_were_idle(manager):
    one = manager({"web": pool(COUNTING)})
    assert one.reload()["pools"]["web"]["cut"] == 0
    assert "0 requests cut" in one.ctl("reload").stdout


def test_what_workers_cut_that_do_not_count_is_not_known_though_none_was_killed(manager):
    one = manager({"web": pool("plain")})
    one.config["pools"]["web"] = pool(COUNTING)
    assert one.write().reload()["pools"]["web"]["cut"] is None  # its predecessor did not count
    assert one.reload()["pools"]["web"]["cut"] == 0


def test_a_reload_that_told_nobody_to_go_who_served_has_cut_nothing(manager):
    one = manager({"web": pool("plain")})
    one.config["pools"]["web"]["command"] += ["--exit-code", "3"]
    answer = one.write().reload()
    assert answer["outcome"] == "rolled_back" and answer["pools"]["web"]["cut"] == 0


@pytest.mark.parametrize("how", ["scale", "stop"])
def test_a_cut_is_a_warning_in_a_scale_down_and_a_stop(manager, how):
    one = manager({"web": pool(COUNTING)})
    with occupy(one, COUNTING):
        if how == "scale":
            assert one.ctl("scale", "web", 0).returncode == 0
            eventually(lambda: not one.workers())
        else:
            one.signal(signal.SIGTERM)
            assert one.wait() == 0
    line = next(line for line in one.log().splitlines() if "timeouts.stop" in line)
    assert " warning web.0[" in line and line.endswith("requests cut: 1")
