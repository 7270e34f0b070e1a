"""Sockets: every kind, who may use them, and what happens when nobody accepts."""

import os
import signal
import socket
import stat
import threading

import pytest

from control import connect, fetch
from ostler import ANY_PORT, example, program, scripted
from processes import eventually
from test_rollback import free_port

# Puts socket 3 (and 4) where systemd puts them, with this process's pid, and becomes ostlerd.
ACTIVATE = """
import os, sys
numbers = [int(n) for n in sys.argv[1].split(",")]
high = [os.dup2(n, 100 + n) for n in numbers]
for place, number in enumerate(high): os.dup2(number, 3 + place)
for number in high: os.close(number)
for number in numbers:
    if number >= 3 + len(numbers): os.close(number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(numbers)),
                  LISTEN_FDNAMES=sys.argv[2])
os.execv(sys.argv[3], sys.argv[3:])
"""


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
        return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="needs IPv6 on the loopback")
def test_ipv6(manager, load):
    one = manager({"web": example(listen=["tcp://[::1]:0"])})
    assert one.address().startswith("tcp://[::1]:")
    clients = load(one.address(), clients=2)
    assert one.reload()["outcome"] == "reloaded"
    assert clients.stop()["lost"] == 0


@pytest.mark.skipif(not has_ipv6(), reason="needs IPv6 on the loopback")
@pytest.mark.parametrize("only", [True, False])
def test_v6only(manager, only):
    one = manager({"web": scripted(listen=[{"address": "tcp://[::]:0", "v6only": only}])})
    port = one.address().rsplit(":", 1)[1]
    assert fetch(f"tcp://[::1]:{port}")[0] == 200
    if only:
        with pytest.raises(ConnectionRefusedError):
            connect(f"tcp://127.0.0.1:{port}")
    else:
        assert fetch(f"tcp://127.0.0.1:{port}")[0] == 200


def test_a_unix_socket_with_a_mode(manager):
    one = manager(start=False)
    path = one.directory / "web.sock"
    one.config["pools"]["web"] = scripted(listen=[{"address": f"unix://{path}", "mode": "0640"}])
    one.write().start()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert one.fetch()[0] == 200
    assert one.stop() == 0
    assert not path.exists()


@pytest.mark.root
def test_a_unix_socket_with_an_owner(manager):
    one = manager(start=False)
    path = one.directory / "web.sock"
    one.config["pools"]["web"] = scripted(
        listen=[{"address": f"unix://{path}", "user": "nobody", "group": "tty", "mode": "0600"}])
    one.write().start()
    assert path.owner() == "nobody" and path.group() == "tty"


def test_a_stale_unix_socket_is_replaced_and_a_living_one_is_not(manager):
    one = manager(start=False)
    path = one.directory / "web.sock"
    one.config["pools"]["web"] = scripted(listen=[f"unix://{path}"])
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    one.write().start()
    assert one.fetch()[0] == 200
    two = manager({"web": scripted(listen=[f"unix://{path}"])}, start=False).launch()
    assert two.wait() == 3
    assert one.fetch()[0] == 200


def test_an_abstract_socket(manager):
    one = manager(start=False)
    name = f"unix:@{one.directory.name}"
    one.config["pools"]["web"] = scripted(listen=[name])
    one.write().start()
    assert one.address() == name
    assert one.fetch()[0] == 200


def test_sockets_that_systemd_handed_over_are_found_by_name(manager):
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen(5)
        unix.bind(b"\0ostler-test-%d" % os.getpid())
        unix.listen(5)
        one = manager(
            {"web": scripted(listen=["inherit:public", {"address": ANY_PORT, "name": "extra"}]),
             "admin": scripted(listen=[{"address": "inherit:admin", "name": "renamed"}])},
            prefix=["/usr/bin/python3", "-I", "-S", "-c", ACTIVATE,
                    f"{unix.fileno()},{tcp.fileno()}", "admin:public"],
            pass_fds=(tcp.fileno(), unix.fileno()))
        port = tcp.getsockname()[1]
    assert fetch(f"tcp://127.0.0.1:{port}", "/pid")[1].strip() == str(one.pids("web")[0])
    admin = fetch(f"unix:@ostler-test-{os.getpid()}", "/env")[1]
    assert '"LISTEN_FDNAMES":"renamed"' in admin
    assert one.reload()["outcome"] == "reloaded"
    assert fetch(f"tcp://127.0.0.1:{port}")[0] == 200


def test_sockets_that_were_handed_over_to_another_process_are_spoken_of(manager):
    one = manager({"web": scripted(listen=["inherit:http"])}, start=False,
                  env={"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}).launch()
    assert one.wait() == 3
    assert (f"warning sockets were handed over to process {os.getpid()} (LISTEN_PID), "
            f"but this is process {one.pid}") in one.log()


def test_a_socket_that_systemd_did_not_hand_over_is_missed(manager):
    one = manager({"web": scripted(listen=["inherit:nothing"])}, start=False).launch()
    assert one.wait() == 3
    last = one.log().splitlines()[-1]
    assert " error giving up: a socket could not be opened: " in last
    assert "inherit:nothing" in last and last.endswith("(exit code 3)")


def test_an_address_in_use_ends_the_start_with_code_three(manager):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = "tcp://127.0.0.1:%d" % taken.getsockname()[1]
        one = manager({"web": scripted(listen=[address])}, start=False).launch()
        assert one.wait() == 3
    assert address in one.log() and "Address already in use" in one.log()


def test_who_connects_while_no_worker_is_ready_waits_and_is_answered(manager):
    port = free_port()
    one = manager({"web": scripted("--start-delay", 600, listen=[f"tcp://127.0.0.1:{port}"])},
                  start=False).launch()
    eventually(lambda: "listening on" in one.log())
    assert fetch(f"tcp://127.0.0.1:{port}")[0] == 200
    assert one.pool()["restarts"] == 0


def test_who_connects_to_a_pool_scaled_to_zero_waits_for_the_next_worker(manager):
    one = manager({"web": example(workers=0)})
    answers = []
    clients = [threading.Thread(target=lambda: answers.append(one.fetch()[0])) for _ in range(5)]
    for client in clients:
        client.start()
    eventually(lambda: one.pool()["listeners"][0]["backlog"] == 5, what="five in the queue")
    assert not answers
    assert one.post("/v1/pools/web/scale", {"workers": 1}).status == 200
    for client in clients:
        client.join(10)
    assert answers == [200] * 5


def test_a_name_is_resolved(manager):
    one = manager({"web": scripted(listen=["tcp://localhost:0"])})
    assert one.fetch()[0] == 200


def test_the_backlog_is_as_configured(manager):
    one = manager({"web": scripted(listen=[{"address": ANY_PORT, "backlog": 7}])})
    assert one.pool()["listeners"][0]["backlog_limit"] == 7


def test_a_pool_may_have_many_listeners(manager):
    one = manager({"web": {**scripted(), "command": [program("ostler-example-http")],
                           "listen": [ANY_PORT] * 20}})
    addresses = {listener["address"] for listener in one.pool()["listeners"]}
    assert len(addresses) == 20
    assert {fetch(address)[0] for address in addresses} == {200}


def handed_over(manager, names, count, **pools):
    """A manager that was given `count` sockets of these names; their ports."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        numbers = ",".join(str(one.fileno()) for one in sockets)
        one = manager(pools, prefix=["/usr/bin/python3", "-I", "-S", "-c", ACTIVATE, numbers, names],
                      pass_fds=[one.fileno() for one in sockets])
        return one, [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


@pytest.mark.parametrize("accept", ["shared", "dispatch"])
def test_all_sockets_of_one_name_are_served(manager, accept):
    one, ports = handed_over(manager, "http:http", 2,
                             web=example(accept=accept, listen=["inherit:http"]))
    for _ in range(2):
        assert [fetch(f"tcp://127.0.0.1:{port}")[0] for port in ports] == [200, 200]
        addresses = [listener["address"] for listener in one.pool()["listeners"]]
        assert addresses == [f"tcp://127.0.0.1:{port}" for port in ports]
        assert one.reload()["outcome"] == "reloaded"


def test_a_worker_is_told_the_name_of_each_of_them(manager):
    one, ports = handed_over(manager, "a:b:a", 3,
                             web=scripted(listen=["inherit:b", "inherit:a"]))
    del ports
    view = one.fetch("/env")[1]
    assert '"LISTEN_FDS":"3"' in view and '"LISTEN_FDNAMES":"http:http1:http1"' in view


def test_a_socket_that_no_pool_has_is_told_and_closed(manager):
    one, ports = handed_over(manager, "http:admin", 2, web=scripted(listen=["inherit:http"]))
    assert "named 'admin'" in one.log() and "named 'http'" not in one.log()
    assert fetch(f"tcp://127.0.0.1:{ports[0]}")[0] == 200
    with pytest.raises(ConnectionRefusedError):
        connect(f"tcp://127.0.0.1:{ports[1]}")


def test_two_sockets_of_one_name_are_too_many_for_fastcgi(manager):
    with socket.create_server(("127.0.0.1", 0)) as a, socket.create_server(("127.0.0.1", 0)) as b:
        one = manager({"web": scripted(listen=["inherit:http"], socket_protocol="fastcgi")},
                      prefix=["/usr/bin/python3", "-I", "-S", "-c", ACTIVATE,
                              f"{a.fileno()},{b.fileno()}", "http:http"],
                      pass_fds=[a.fileno(), b.fileno()], start=False).launch()
        assert one.wait() == 3
    assert "2 sockets of that name" in one.log()


def unix_pool(manager, make=scripted, **keys):
    one = manager(start=False)
    path = one.directory / "web.sock"
    one.config["pools"]["web"] = make(listen=[{"address": f"unix://{path}", "mode": "0640"}], **keys)
    return one.write().start(), path


@pytest.mark.parametrize("accept", ["shared", "dispatch"])
@pytest.mark.parametrize("replaced", [False, True])
def test_a_reload_binds_a_unix_path_anew_that_was_removed_or_replaced(manager, replaced, accept):
    one, path = unix_pool(manager, example, accept=accept)
    path.unlink()
    assert "was removed or replaced" in one.pool()["last_error"]["message"]
    assert one.pool()["last_error"]["generation"] is None
    if replaced:
        path.write_text("")
        answer = one.reload()
        assert answer.status == 422 and "something else" in answer.json["errors"][0]["message"]
        path.unlink()
    assert one.reload()["outcome"] == "reloaded"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert {one.fetch()[0] for _ in range(4)} == {200}
    assert one.pool()["last_error"] is None and "bound anew" in one.log()
    assert one.stop() == 0 and not path.exists()


def test_a_unix_path_that_was_removed_is_bound_anew_when_a_worker_is_replaced(manager):
    one, path = unix_pool(manager, workers=3)
    path.unlink()
    before = one.pids()
    os.kill(before[0], signal.SIGKILL)
    eventually(path.exists, what="the socket")
    eventually(lambda: one.settled() and not set(before) & set(one.pids()))
    assert all(one.fetch()[0] == 200 for _ in range(6))


def test_a_unix_listener_whose_folder_is_gone_is_a_fault_of_the_reload(manager):
    one = manager(start=False)
    folder = one.directory / "run"
    folder.mkdir()
    one.config["pools"]["web"] = scripted(listen=[f"unix://{folder}/web.sock"])
    one.write().start()
    pids = one.pids()
    (folder / "web.sock").unlink()
    folder.rmdir()
    answer = one.reload()
    assert answer.status == 422 and one.pids() == pids
    folder.mkdir()
    assert one.reload()["outcome"] == "reloaded" and one.fetch()[0] == 200


# Shuts its socket down when it is told to, and ends; serves otherwise.
SHUTTER = """
import os, signal, socket
listener = socket.socket(fileno=3)
def shut(*_):
    listener.shutdown(socket.SHUT_RDWR)
    os._exit(0)
signal.signal(signal.SIGUSR2, shut)
while True:
    try:
        connection, _ = listener.accept()
        connection.recv(4096)
        connection.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n")
        connection.close()
    except OSError:
        signal.pause()
"""


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_listener_that_a_worker_shut_down_is_mended(manager, kind):
    one = manager(start=False)
    (one.directory / "app.py").write_text(SHUTTER)
    address = f"tcp://127.0.0.1:{free_port()}" if kind == "tcp" else f"unix://{one.directory}/web.sock"
    one.write({**one.config, "pools": {"web": {
        "command": ["/usr/bin/python3", "-S", "app.py"], "directory": str(one.directory),
        "listen": [address], "workers": 2}}}).start()
    address = one.address()
    assert fetch(address)[0] == 200
    before = one.pids()
    os.kill(before[0], signal.SIGUSR2)
    eventually(lambda: "had been shut down by a process that has it" in one.log())
    # The other one has a socket to which nobody can connect, or has stopped accepting.
    eventually(lambda: one.settled() and not set(before) & set(one.pids()))
    assert one.pool()["generation"] == 1
    assert all(fetch(address)[0] == 200 for _ in range(6))


def test_a_listener_that_was_shut_down_is_told_in_status_until_it_is_mended(manager):
    one = manager(start=False)
    script = SHUTTER.replace("os._exit(0)", "return")
    (one.directory / "app.py").write_text(script)
    one.write({**one.config, "pools": {"web": {
        "command": ["/usr/bin/python3", "-S", "app.py"], "directory": str(one.directory),
        "listen": [ANY_PORT], "workers": 1}}}).start()
    assert fetch(one.address())[0] == 200
    os.kill(one.pids()[0], signal.SIGUSR2)
    eventually(lambda: "was shut down by a process that has it: nobody can connect" in
               (one.pool()["last_error"] or {}).get("message", ""))
    assert one.reload()["outcome"] == "reloaded"
    assert one.pool()["last_error"] is None
    assert fetch(one.address())[0] == 200
