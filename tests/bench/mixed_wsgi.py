"""What mixed.cpp serves, as a WSGI application for the peers."""

import os
import time

SECONDS = {"/short": 0.001, "/long": 0.05, "/pid": 0}


def app(environ, start):
    path = environ["PATH_INFO"]
    time.sleep(SECONDS.get(path, 0))
    body = b"%d\n" % os.getpid()
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
    if "HTTP_X_REQUEST_ID" in environ:
        headers.append(("X-Request-Id", environ["HTTP_X_REQUEST_ID"]))
    start("200 OK" if path in SECONDS else "404 Not Found", headers)
    return [body]
