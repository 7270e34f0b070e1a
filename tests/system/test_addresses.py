"""An address that changes on the same port, or is one socket by another name, is taken over; one
that somebody else has is refused, and it is said who."""

import os
import socket

import pytest

from control import fetch
from ostler import example, scripted
from test_listeners import has_ipv6
from test_rollback import free_port

CHANGES = [("127.0.0.1", "0.0.0.0"), ("127.0.0.1", "*"), ("127.0.0.1", "[::]"),
           ("0.0.0.0", "127.0.0.1"), ("*", "127.0.0.1"), ("0.0.0.0", "*"), ("*", "0.0.0.0")]


def change(one, host, port, pool="web"):
    one.config["pools"][pool]["listen"] = [f"tcp://{host}:{port}"]
    one.write()


@pytest.mark.parametrize("old,new", CHANGES)
def test_a_wider_or_narrower_address_takes_over_without_a_gap(manager, load, old, new):
    if ("*" in (old, new) or "[::]" in (old, new)) and not has_ipv6():
        pytest.skip("needs IPv6")
    port = free_port()
    one = manager({"web": example(workers=2, listen=[f"tcp://{old}:{port}"])})
    clients = load(f"tcp://127.0.0.1:{port}", clients=4)
    change(one, new, port)
    assert one.reload()["outcome"] == "reloaded"
    assert fetch(f"tcp://127.0.0.1:{port}")[0] == 200
    change(one, old, port)
    assert one.reload()["outcome"] == "reloaded"
    tally = clients.stop()
    assert tally["ok"] > 0 and tally["lost"] == 0, tally
    assert "cut" not in one.log()


@pytest.mark.parametrize("accept", ["reuseport", "dispatch"])
def test_it_takes_over_in_each_way_of_sharing(manager, load, accept):
    port = free_port()
    one = manager({"web": example(workers=2, accept=accept, listen=[f"tcp://127.0.0.1:{port}"])})
    clients = load(f"tcp://127.0.0.1:{port}", clients=4)
    for host in ("0.0.0.0", "127.0.0.1"):
        change(one, host, port)
        assert one.reload()["outcome"] == "reloaded"
    tally = clients.stop()
    assert tally["ok"] > 0 and tally["lost"] == 0, tally


@pytest.mark.parametrize("old,new", [("127.0.0.1", "0.0.0.0"), ("127.0.0.1", "*")])
def test_a_rollback_gives_the_old_address_back(manager, load, old, new):
    port = free_port()
    one = manager({"web": example(workers=2, listen=[f"tcp://{old}:{port}"])})
    clients = load(f"tcp://127.0.0.1:{port}", clients=4)
    good = one.config["pools"]["web"]["command"]
    change(one, new, port)
    one.config["pools"]["web"]["command"] = scripted("--exit-code", 3)["command"]
    one.write()
    assert one.reload()["outcome"] == "rolled_back"
    one.config["pools"]["web"]["command"] = good
    one.write()
    assert one.reload()["outcome"] == "reloaded"
    tally = clients.stop()
    assert tally["ok"] > 0 and tally["lost"] == 0, tally


def test_a_moved_port_serves_what_waits_at_the_old_one(manager, load):
    one = manager({"web": example(workers=2)})
    old = one.address()
    clients = load(old, clients=4)
    change(one, "127.0.0.1", free_port())
    assert one.reload()["outcome"] == "reloaded"
    tally = clients.stop()
    assert set(tally["failed"]) <= {"refused"}, tally
    assert "cut" not in one.log()
    assert one.address() != old and one.fetch()[0] == 200


def test_a_unix_path_by_another_name_is_the_same_socket(manager, load):
    one = manager(start=False)
    folder = one.directory / "run"
    folder.mkdir()
    (one.directory / "link").symlink_to(folder)
    one.config["pools"]["web"] = example(workers=2, listen=[f"unix://{folder}/web.sock"])
    one.write().start()
    inode = (folder / "web.sock").stat().st_ino
    clients = load(f"unix://{folder}/web.sock", clients=2)
    for name in (one.directory / "link", folder / ".." / "run", folder):
        one.config["pools"]["web"]["listen"] = [f"unix://{name}/web.sock"]
        one.write()
        assert one.reload()["outcome"] == "reloaded"
        assert (folder / "web.sock").stat().st_ino == inode
    assert clients.stop()["lost"] == 0


def holder(port=0, path=None):
    """A socket of this process, which is somebody else to the manager."""
    sock = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
    sock.bind(str(path) if path else ("127.0.0.1", port))
    sock.listen()
    return sock


def held_by_us():
    with open("/proc/self/comm", encoding="utf-8") as comm:
        return f"held by {comm.read().strip()}, pid {os.getpid()}"


def test_an_address_in_use_is_reported_with_its_holder(manager):
    with holder() as taken:
        port = taken.getsockname()[1]
        one = manager({"web": scripted(listen=[f"tcp://127.0.0.1:{port}"])}, start=False).launch()
        assert one.wait() == 3
    assert f"bind tcp://127.0.0.1:{port}: Address already in use ({held_by_us()})" in one.log()


def test_a_reload_that_wants_an_address_in_use_is_told_who_has_it(manager):
    one = manager({"web": scripted()})
    with holder() as taken:
        port = taken.getsockname()[1]
        for host in ("127.0.0.1", "0.0.0.0"):
            change(one, host, port)
            answer = one.reload()
            assert answer.status == 422 and held_by_us() in answer.json["errors"][0]["message"]
    one.config["pools"]["web"]["listen"] = [f"unix://{one.directory}/x.sock"]
    one.write()
    with holder(path=one.directory / "x.sock"):
        answer = one.reload()
        assert answer.status == 422 and held_by_us() in answer.json["errors"][0]["message"]
    assert one.pool()["ready"] == 1


def test_an_address_that_no_interface_has_is_told_what_to_do(manager):
    one = manager({"web": scripted(listen=["tcp://192.0.2.1:8080"])}, start=False).launch()
    assert one.wait() == 3
    assert "no interface of this machine has that address" in one.log()


@pytest.mark.skipif(os.geteuid() == 0, reason="needs to be an ordinary user")
def test_a_port_that_is_reserved_is_told_what_to_do(manager):
    limit = int(open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii").read())
    if limit < 100:
        pytest.skip("needs reserved ports")
    one = manager({"web": scripted(listen=["tcp://127.0.0.1:99"])}, start=False).launch()
    assert one.wait() == 3
    assert "CAP_NET_BIND_SERVICE" in one.log()
