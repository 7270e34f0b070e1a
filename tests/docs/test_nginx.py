"""nginx as docs/nginx.md configures it, before a program that drops connections when it drains."""

import re
import shutil
import socket
import subprocess

import pytest

import page as pages
from load import Load
from ostler import Manager
from processes import eventually

# A name that comes twice on the page: the first.
BLOCKS = {block.name: block.text
          for block in reversed(pages.read(pages.ROOT / "docs/nginx.md").blocks) if block.name}
APP = BLOCKS["app.py"].replace("scope['client'][0]", "scope['path']")


@pytest.fixture
def nginx(tmp_path):
    """`nginx(socket)` runs the page's configuration before that socket; its address."""
    running = []

    def run(path):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        text = BLOCKS["nginx.conf"].replace("/run/shop/web.sock", str(path))
        text = re.sub(r"127\.0\.0\.1:8080", f"127.0.0.1:{port}", text)
        text = text.replace("error_log stderr", "error_log error.log")
        (tmp_path / "nginx.conf").write_text(text)
        running.append(subprocess.Popen(["nginx", "-p", tmp_path, "-c", "nginx.conf",
                                         "-g", "daemon off;"], stderr=subprocess.PIPE, text=True))

        def answers():
            assert running[-1].poll() is None, running[-1].stderr.read()
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", port)) == 0
        eventually(answers)
        return f"tcp://127.0.0.1:{port}"

    yield run
    for one in running:
        one.terminate()
        one.wait(20)
        one.stderr.close()


@pytest.mark.parametrize("keepalive", [True, False])
def test_nginx_hides_what_uvicorn_drops_in_a_reload(nginx, tmp_path, keepalive):
    missing = [name for name in ("nginx", "uvicorn") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    one = Manager()
    path = one.directory / "web.sock"
    (one.directory / "app.py").write_text(APP)
    one.config["pools"]["web"] = {
        "command": "uvicorn --fd {fd} --no-access-log app:app", "directory": str(one.directory),
        "listen": [{"address": f"unix://{path}", "mode": "0666"}], "workers": 2}
    try:
        one.write().start()
        clients = Load(nginx(path), clients=8, keepalive=keepalive)
        for _ in range(4):
            assert one.reload()["outcome"] == "reloaded"
        tally = clients.stop()
        print(tally)
        dropped = len(re.findall(r" while (?:reading response header from|sending request to) upstream",
                                 (tmp_path / "error.log").read_text()))
        print(f"uvicorn dropped {dropped}")
        # A request is lost only if each of its four attempts was dropped.
        assert tally["lost"] * 4 <= dropped, tally
        assert tally["sent"] > 200 and tally["lost"] * 10000 <= tally["sent"], tally
    finally:
        faults = one.faults()
    assert not faults, faults
    one.remove()
