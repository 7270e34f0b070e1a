"""HTTP over any stream socket: the control API, and what workers serve."""

import http.client
import json
import socket
import threading

from processes import eventually


def connect(address, timeout=10):
    """A connected socket for tcp://IP:PORT, tcp://[IP]:PORT, unix:///PATH or unix:@NAME."""
    if address.startswith("tcp://"):
        host, port = address[len("tcp://"):].rsplit(":", 1)
        return socket.create_connection((host.strip("[]"), int(port)), timeout)
    path = address[len("unix:"):]
    path = "\0" + path[1:] if path.startswith("@") else path[len("//"):]
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(timeout)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


class Connection(http.client.HTTPConnection):
    """http.client over whatever `connect` connects to."""

    def __init__(self, address, timeout=10):
        super().__init__("ostler", timeout=timeout)
        self.address = address

    def connect(self):
        self.sock = connect(self.address, self.timeout)


def fetch(address, path="/", timeout=10, method="GET", body=None):
    """Status and text of one answer."""
    connection = Connection(address, timeout)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


class Answer:
    """An answer of the control API: `status`, `headers`, `text` and, if it is JSON, `json`."""

    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.text = response.read().decode(errors="replace")
        kind = response.headers.get("Content-Type", "")
        self.json = json.loads(self.text) if "json" in kind and self.text else None

    def __getitem__(self, name):
        return self.json[name]

    def __repr__(self):
        return f"<{self.status} {self.text.strip()}>"


def ask(socket_path, method, path, body=None, timeout=60):
    connection = Connection(f"unix://{socket_path}", timeout)
    try:
        text = json.dumps(body) if body is not None else None
        connection.request(method, path, text)
        return Answer(connection.getresponse())
    finally:
        connection.close()


class Events:
    """Follows /v1/events from the moment it was made; `seen` grows until `close()`."""

    def __init__(self, socket_path, path="/v1/events"):
        self.seen = []
        self.ended = False
        self._connection = Connection(f"unix://{socket_path}", timeout=None)
        self._connection.request("GET", path)
        self._sock = self._connection.sock  # http.client lets go of it if no other request follows
        self._response = self._connection.getresponse()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self):
        try:
            for line in self._response:
                if line.strip():
                    self.seen.append(json.loads(line))
        except (OSError, ValueError, http.client.HTTPException, AttributeError):
            pass  # closed, by either side
        self.ended = True

    def named(self, event, **fields):
        return [one for one in list(self.seen) if one["event"] == event
                and all(one.get(name) == value for name, value in fields.items())]

    def wait(self, event, count=1, within=20, **fields):
        """The events of that name with those fields, once there are `count`; the last one."""
        eventually(lambda: len(self.named(event, **fields)) >= count, within,
                   f"{count} × {event} {fields or ''}")
        return self.named(event, **fields)[-1]

    def close(self):
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the manager was faster
        self._thread.join(5)
        self._connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
