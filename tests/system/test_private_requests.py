"""Health and warm-up requests to applications that look at more than the path: Django, which serves
only the hosts that it knows, and one that writes down what it was asked."""

import importlib.util
import json
import shutil

import pytest

from ostler import ANY_PORT

DJANGO = """
import django
from django.conf import settings
from django.http import HttpResponse
from django.urls import path

settings.configure(ALLOWED_HOSTS=["shop.test"], ROOT_URLCONF=__name__, SECRET_KEY="x",
                   MIDDLEWARE=["django.middleware.common.CommonMiddleware"])
urlpatterns = [path("", lambda request: HttpResponse("ok"))]
django.setup()

from django.core.asgi import get_asgi_application
app = get_asgi_application()
"""
RECORDER = """
import json
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    with open("seen", "a") as file:
        file.write(json.dumps([scope["path"], [[name.decode(), value.decode()]
                               for name, value in scope["headers"]]]) + "\\n")
    status = int(scope["path"].strip("/") or 200)
    await send({"type": "http.response.start", "status": status,
                "headers": [(b"content-length", b"3")]})
    await send({"type": "http.response.body", "body": b"ok\\n"})
"""
needs_uvicorn = pytest.mark.skipif(shutil.which("uvicorn") is None, reason="needs uvicorn")
needs_django = pytest.mark.skipif(importlib.util.find_spec("django") is None, reason="needs django")


def served(manager, text, **keys):
    """A manager that is not started yet, of one pool of an ASGI application in uvicorn."""
    one = manager(start=False)
    (one.directory / "app.py").write_text(text)
    (one.directory / "app.py").chmod(0o644)
    one.config["pools"]["web"] = {
        "command": ["/usr/bin/python3", "-m", "uvicorn", "--fd", "{fd}", "--no-access-log",
                    "app:app"],
        "listen": [ANY_PORT], "workers": 1, "directory": str(one.directory),
        "accept": "reuseport", **keys}
    return one.write()


@needs_uvicorn
@needs_django
def test_an_application_with_hosts_of_its_own_is_warmed_up_and_checked_by_one_of_them(manager):
    one = served(manager, DJANGO).start()
    pool = one.config["pools"]["web"]
    pool["warmup"] = ["GET /"]
    answer = one.write().reload()
    assert answer.status == 409, answer
    assert answer["pools"]["web"]["reason"].endswith(
        "failed its warm-up: GET / was answered with 400, not 200-399 (Host: localhost); set `host` "
        "if the application accepts only its own names")
    pool["warmup"] = [{"request": "GET /", "host": "shop.test"}]
    pool["health"] = {"request": "GET /", "host": "shop.test", "interval": "1s",
                      "timeout": "1s", "failures": 3}
    assert one.write().reload()["outcome"] == "reloaded"
    # One that asks as a stranger is told so.
    pool["health"]["host"] = "elsewhere.test"
    with one.events() as events:
        answer = one.write().reload()
        assert answer.status == 409 and answer["outcome"] == "rolled_back", answer
        failed = events.wait("health.failed")
        assert "was answered with 400, not 200-399 (Host: elsewhere.test); set `host`" in \
            failed["reason"]
        assert not [each for each in events.named("health.failed")
                    if "elsewhere.test" not in each["reason"]]


@needs_uvicorn
def test_a_request_bears_its_headers_and_expects_its_statuses(manager):
    one = served(manager, RECORDER, warmup=[
        "GET /204",
        {"request": "GET /401", "expect": [200, 401], "host": "shop.test:80",
         "headers": {"X-Forwarded-Proto": "https", "User-Agent": "warmer"}}]).start()
    first, second = [json.loads(line) for line in (one.directory / "seen").read_text().splitlines()]
    assert first[0] == "/204" and ["host", "localhost"] in first[1]
    assert second[0] == "/401"
    headers = dict(second[1])
    assert len(headers) == len(second[1])
    assert headers == {"host": "shop.test:80", "x-forwarded-proto": "https",
                       "user-agent": "warmer", "connection": "close"}
    pool = one.config["pools"]["web"]
    for status, expect, outcome in ((404, None, "rolled_back"), (302, None, "reloaded"),
                                    (302, "200-299", "rolled_back"), (503, 503, "reloaded")):
        pool["warmup"] = [{"request": f"GET /{status}", **({"expect": expect} if expect else {})}]
        answer = one.write().reload()
        assert answer["outcome"] == outcome, (status, expect, answer)
        if outcome == "rolled_back":
            assert f"GET /{status} was answered with {status}, not {expect or '200-399'}" in \
                answer["pools"]["web"]["reason"]


@needs_uvicorn
def test_the_values_of_headers_are_nobodys_business(manager):
    one = served(manager, RECORDER, warmup=[{"request": "GET /", "headers": {"X-Key": "s3cret"}}],
                 health={"request": "GET /", "headers": {"X-Key": "s3cret"}}).start()
    shown = one.get("/v1/config").text
    assert "s3cret" not in shown and "X-Key" in shown
