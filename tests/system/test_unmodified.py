"""Programs that know nothing of ostler: uvicorn, gunicorn, node and php-cgi as they are."""

import re
import shutil
import struct
import threading
import time
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from control import connect
from ostler import ANY_PORT
from processes import eventually

ASGI = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-length", b"3"), (b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"ok\\n"})
"""
WSGI = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "3"), ("Content-Type", "text/plain")])
    return [b"ok\\n"]
"""
NODE = """
const server = require("http").createServer((request, response) => response.end("ok\\n"));
server.listen({fd: 3}, () => console.log("listening"));
process.on("SIGTERM", () => server.close(() => process.exit(0)));
"""
PHP = "<?php header('X-Pid: ' . getmypid()); echo \"ok\\n\";"

# name: the program it needs, a file, and the pool's keys
PROGRAMS = {
    "uvicorn": ("uvicorn", "app.py", ASGI, {
        "command": ["/usr/bin/python3", "-m", "uvicorn", "--fd", "{fd}", "--no-access-log",
                    "app:app"]}),
    "gunicorn by LISTEN_FDS": ("gunicorn", "app.py", WSGI, {
        "command": ["/usr/bin/python3", "-m", "gunicorn", "app:app"]}),
    # Told of a socket twice, by LISTEN_FDS and by -b, Gunicorn closes it twice and exits.
    "gunicorn by number": ("gunicorn", "app.py", WSGI, {
        "command": ["/usr/bin/env", "-u", "LISTEN_FDS", "/usr/bin/python3", "-m", "gunicorn",
                    "-b", "fd://{fd}", "app:app"]}),
    "node": ("node", "app.js", NODE, {"command": ["node", "app.js"]}),
    "php-cgi": ("php-cgi", "app.php", PHP, {
        "command": ["php-cgi"], "socket_protocol": "fastcgi",
        "env": {"PHP_FCGI_CHILDREN": "0", "PHP_FCGI_MAX_REQUESTS": "0"}}),
}
WEB = [name for name in PROGRAMS if name != "php-cgi"]


def start(manager, name, workers=2):
    needs, file, text, keys = PROGRAMS[name]
    if shutil.which(needs) is None:
        pytest.skip(f"needs {needs}")
    one = manager(start=False)
    (one.directory / file).write_text(text)
    (one.directory / file).chmod(0o644)
    one.config["pools"]["web"] = {"listen": [ANY_PORT], "workers": workers,
                                  "directory": str(one.directory), **keys}
    return one.write().start(within=40)


EXAMPLES = {
    "uvicorn": ("shop.py", ASGI),
    "gunicorn": ("shop/wsgi.py", WSGI.replace("def app", "def application")),
    "node": ("server.js", NODE.replace("3}", "Number(process.env.LISTEN_FD)}")),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_serve(manager, name):
    if shutil.which(name) is None:
        pytest.skip(f"needs {name}")
    one = manager(start=False)
    file, text = EXAMPLES[name]
    (one.directory / file).parent.mkdir(exist_ok=True)
    (one.directory / file).write_text(text)
    examples = Path(__file__).resolve().parents[2] / "config" / "examples"
    one.config["pools"] = yaml.safe_load((examples / f"{name}.yaml").read_text())["pools"]
    one.config["pools"]["web"] |= {"directory": str(one.directory), "listen": [ANY_PORT]}
    one.write().start()
    assert one.fetch() in ((200, "ok"), (200, "ok\n"))
    assert one.reload()["outcome"] == "reloaded"
    assert one.pool()["restarts"] == 0


def moment_of(one, worker, text):
    """When the log had such a line of that worker; None: not yet."""
    for line in one.log().splitlines():
        if worker in line and text in line:
            return datetime.fromisoformat(line.split(" ", 1)[0].rstrip("Z")).timestamp()
    return None


@pytest.mark.alone
@pytest.mark.parametrize("name, sign", [("uvicorn", "Uvicorn running on"), ("node", "listening")])
def test_it_is_known_to_be_ready_a_tenth_of_a_second_after_it_listens(manager, name, sign):
    one = start(manager, name, workers=1)
    delays = []
    for _ in range(3):
        pid = one.pids()[0]
        listens, ready = (eventually(lambda text=text: moment_of(one, f"web.0[{pid}]", text))
                          for text in (sign, " ready, generation"))
        delays.append(ready - listens)
        assert one.reload()["outcome"] == "reloaded"
    assert min(delays) < 0.1, delays  # the best of them: the machine may be busy


def waits(pid):
    """Whether a gunicorn's own workers wait for connections. One that is asked to stop while they
    start loses the request and takes its 30 s: the signal reaches handlers that are not theirs."""
    children = [child for task in Path(f"/proc/{pid}/task").iterdir()
                for child in (task / "children").read_text().split()]
    in_select = {"23", "270"}  # select, pselect6
    return bool(children) and all(
        Path(f"/proc/{child}/syscall").read_text().split()[0] in in_select for child in children)


@pytest.mark.parametrize("name", WEB)
def test_it_serves_and_is_scaled(manager, name):
    one = start(manager, name, workers=1)
    assert one.fetch() == (200, "ok\n")
    assert one.post("/v1/pools/web/scale", {"workers": 3}).status == 200
    one.settle(40)
    assert one.fetch() == (200, "ok\n")
    if name.startswith("gunicorn"):
        eventually(lambda: all(waits(pid) for pid in one.pids()))
    assert one.post("/v1/pools/web/scale", {"workers": 1}).status == 200
    one.settle(40)
    assert one.fetch() == (200, "ok\n")
    assert one.pool()["restarts"] == 0
    assert one.stop() == 0
    assert not [line for line in one.log().splitlines() if "timeouts.stop" in line]


# What a program drops when it gets TERM is its own: connections it had accepted and not yet read.
# None may be refused or left waiting, whatever the program.
@pytest.mark.alone
@pytest.mark.parametrize("name, reloads", [
    pytest.param("uvicorn", 4, marks=pytest.mark.alone), ("gunicorn by LISTEN_FDS", 2), ("node", 4)])
def test_reloads_under_load_without_keepalive(manager, load, name, reloads):
    one = start(manager, name)
    clients = load(one.address(), clients=8)
    begin = time.monotonic()
    for _ in range(reloads):
        before = set(one.pids(state="ready"))
        answer = one.reload()
        assert answer["outcome"] == "reloaded", answer
        assert answer["pools"]["web"]["replaced"] == 2
        assert not before & set(one.pids())
    if name == "uvicorn":  # a rate needs a time: 4 reloads in 30 s are many
        time.sleep(max(0, begin + 30 - time.monotonic()))
    tally = clients.stop()
    print(name, tally)
    assert set(tally["failed"]) <= {"closed", "reset"}, tally
    assert tally["sent"] > 200
    if name == "uvicorn":
        assert tally["lost"] * 2000 < max(tally["sent"], 4000), tally
    else:
        assert tally["lost"] <= 2 * reloads, tally  # one for each worker that was replaced


def record(kind, content, request=1):
    return struct.pack("!BBHHBx", 1, kind, request, len(content), 0) + content


def pair(name, value):
    return bytes([len(name), len(value)]) + name.encode() + value.encode()


def fastcgi(address, script):
    """What a FastCGI program writes to its standard output for one request."""
    params = {"REQUEST_METHOD": "GET", "SCRIPT_FILENAME": str(script), "SCRIPT_NAME": "/app.php",
              "QUERY_STRING": "", "REQUEST_URI": "/", "REDIRECT_STATUS": "200",
              "GATEWAY_INTERFACE": "CGI/1.1", "SERVER_PROTOCOL": "HTTP/1.1"}
    with connect(address) as sock, sock.makefile("rb") as stream:
        sock.sendall(record(1, struct.pack("!HB5x", 1, 0)) +
                     record(4, b"".join(pair(*item) for item in params.items())) +
                     record(4, b"") + record(5, b""))
        output = b""
        while header := stream.read(8):
            _, kind, _, length, padding = struct.unpack("!BBHHBx", header)
            content = stream.read(length + padding)[:length]
            if kind == 6:
                output += content
            if kind == 3:
                return output.decode()
    raise ConnectionResetError("closed without an end of the request")


def test_php_cgi_serves_on_descriptor_zero_and_is_reloaded(manager):
    one = start(manager, "php-cgi")
    script, address = one.directory / "app.php", one.address()
    assert fastcgi(address, script).endswith("\r\n\r\nok\n")
    assert int(re.search(r"X-Pid: (\d+)", fastcgi(address, script))[1]) in one.pids()
    stopping, answers, lost = threading.Event(), [], []

    def client():
        while not stopping.is_set():
            try:
                assert fastcgi(address, script).endswith("\r\n\r\nok\n")
                answers.append(1)
            except OSError as error:
                lost.append(error)

    clients = [threading.Thread(target=client) for _ in range(4)]
    for thread in clients:
        thread.start()
    took = 0
    for _ in range(4):
        before = set(one.pids())
        outcome = one.reload()["pools"]["web"]
        assert outcome["replaced"] == 2
        took += outcome["took"]
        assert not before & set(one.pids())
    stopping.set()
    for thread in clients:
        thread.join(20)
    print("php-cgi", len(answers), lost)
    assert len(answers) > 50
    assert took < 4  # it is known to be ready though it is never caught waiting: it is too busy
    assert all(isinstance(error, ConnectionResetError) for error in lost), lost
    assert len(lost) <= 8  # at most the request that each of the eight workers had in hand


def test_gunicorn_whose_new_application_does_not_import_keeps_serving(manager, load):
    """The comparison to win: Gunicorn alone exits, all its workers with it, on such a reload.

    It says READY=1 before it has loaded the application: that is not believed."""
    one = start(manager, "gunicorn by LISTEN_FDS")
    before = one.pids()
    clients = load(one.address(), clients=2, pause=0.001)
    one.config["pools"]["web"]["command"][-1] = "gone:app"
    answer = one.write().reload()
    tally = clients.stop()
    assert answer["outcome"] == "rolled_back", answer
    assert any("gone" in line for line in answer["pools"]["web"]["output"])
    assert one.pids() == before and tally["lost"] == 0, tally


def test_a_killed_uvicorn_is_replaced(manager):
    one = start(manager, "uvicorn", workers=2)
    before = one.pids()
    begin = time.monotonic()
    assert one.post(f"/v1/workers/{before[0]}/kill").status == 200
    eventually(lambda: one.settled() and before[0] not in one.pids())
    assert time.monotonic() - begin < 10
    assert one.fetch() == (200, "ok\n")
