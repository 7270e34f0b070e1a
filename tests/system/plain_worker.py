"""A worker that speaks the whole protocol, in Python without a library: docs/worker-protocol.md is
all that it was written from. One thread, one request at a time.

GET /            who answers
GET /slow?N      the same after N milliseconds
GET /stuck?N     the same, having asked for twice the time
GET /health      200, or 500 while the file named by FLAG_UNHEALTHY exists
GET /count       how often each path was asked for, private requests included, as JSON
GET /rubbish     fills the scoreboard with 0xff, answers, and leaves it at that
GET /exit        answers, and ends with 0
GET /babble      sends a malformed message on the channel, then answers
"""

import json
import mmap
import os
import select
import signal
import socket
import struct
import sys
import threading
import time

MESSAGE = struct.Struct("=IIQ")
HELLO, AWAKE, RECYCLE = 1, 2, 3
ROOM, RETURN, NOT_TAKEN = 4, 5, 7
CONNECTION, ACCEPT, DISPATCH, DRAIN = 101, 102, 103, 104
BATCH = 64
PRIVATE = 1
SYNC = 1


def now():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


class Scoreboard:
    FIELDS = {"worker_class": (16, "=I"), "capacity": (20, "=I"), "awake": (24, "=Q"),
              "beat": (32, "=Q"), "requests": (40, "=Q"), "accepted": (48, "=Q"),
              "connections": (56, "=Q"), "active": (64, "=Q"), "busy_since": (72, "=Q"),
              "taken": (80, "=Q"), "concurrency": (88, "=Q"), "wanted": (96, "=Q"),
              "not_taken": (104, "=Q"),
              "start": (256, "=Q"), "progress": (768, "=Q"), "until": (1280, "=Q"),
              "thread": (1792, "=I")}
    TEXT = 2048

    def __init__(self, descriptor):
        self.page = mmap.mmap(descriptor, 4096)
        os.close(descriptor)
        assert self.page[:8] == b"OSTLERS1"
        assert struct.unpack_from("=II", self.page, 8) == (1, 4096)

    def __getitem__(self, field):
        offset, kind = self.FIELDS[field]
        return struct.unpack_from(kind, self.page, offset)[0]

    def __setitem__(self, field, value):
        offset, kind = self.FIELDS[field]
        struct.pack_into(kind, self.page, offset, value)

    def text(self, text):
        self.page[self.TEXT:self.TEXT + 32] = text.encode()[:32].ljust(32, b"\0")


class Worker:
    def __init__(self):
        take = os.environ.pop
        self.channel = socket.socket(fileno=int(take("OSTLER_CHANNEL_FD")))
        self.channel.set_inheritable(False)
        self.board = Scoreboard(int(take("OSTLER_SCOREBOARD_FD")))
        self.recycle_after = int(take("OSTLER_RECYCLE_REQUESTS", 0))
        self.accepting = take("OSTLER_WARMUP", "") != "1"
        self.heartbeat = int(os.environ.get("WATCHDOG_USEC", 20_000_000)) / 1e6 / 4
        dispatched = take("OSTLER_ACCEPT", "") == "dispatch"
        self.listener = None if dispatched else socket.socket(fileno=3)
        self.draining = False
        self.counts = {}
        self.requests = self.accepted = 0
        self.active_since_beat = False
        self.stopping = False
        self.silent = False  # tells nothing any more
        signal.signal(signal.SIGTERM, self.stop)
        self.wakeup, self.waker = socket.socketpair()
        self.waker.setblocking(False)
        signal.set_wakeup_fd(self.waker.fileno())
        self.board["worker_class"] = SYNC
        self.board["capacity"] = self.board["concurrency"] = 1
        self.say(HELLO, value=1)

    def stop(self, *_):
        self.stopping = True

    def say(self, kind, count=0, value=0):
        self.channel.send(MESSAGE.pack(kind, count, value))

    def ready(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.connect(os.environ["NOTIFY_SOCKET"])
            notify.send(b"READY=1")

    def beat(self):
        """Called a few times within each heartbeat limit; None: not again."""
        if self.board["active"] == 0 and not self.active_since_beat:
            self.board["awake"] = 0
            return None
        self.active_since_beat = False
        self.board["beat"] = now()
        return self.heartbeat

    def begin(self, text):
        self.active_since_beat = True
        self.board["active"] = 1
        self.board["busy_since"] = now()
        if not self.board["awake"]:
            self.board["beat"] = now()
            self.board["awake"] = 1
            self.say(AWAKE)
        self.board.text(text)
        self.board["thread"] = threading.get_native_id()
        self.board["progress"] = now()
        self.board["until"] = 0
        self.board["start"] = now()

    def end(self, private):
        if self.silent:
            return
        self.board["start"] = 0
        self.board["active"] = 0
        self.board["busy_since"] = 0
        if private:
            return
        self.requests += 1
        self.board["requests"] = self.requests
        if self.requests == self.recycle_after:
            self.say(RECYCLE)

    def answer(self, target):
        path, _, query = target.partition("?")
        if path == "/slow":
            time.sleep(int(query) / 1000)
        elif path == "/stuck":
            self.board["until"] = now() + 2 * int(query) * 1_000_000
            time.sleep(int(query) / 1000)
        elif path == "/health" and os.path.exists(os.environ.get("FLAG_UNHEALTHY", "")):
            return 500, "ill"
        elif path == "/count":
            return 200, json.dumps(self.counts)
        elif path == "/rubbish":
            self.board.page[:] = b"\xff" * 4096
            self.silent = True
        elif path == "/babble":
            self.channel.send(b"rubbish")
        return 200, f"{os.environ['OSTLER_POOL']}.{os.environ['OSTLER_SLOT']} {os.getpid()}"

    def serve(self, connection, private=False):
        if not private:
            self.accepted += 1
            self.board["accepted"] = self.accepted
            self.board["connections"] = 1
        try:
            self.converse(connection, private)
        except OSError:
            pass  # the client did not wait
        if not private and not self.silent:
            self.board["connections"] = 0
            self.offer_room()

    def offer_room(self):
        with threading.Lock():  # the store before is seen before the load
            pass
        if self.board["wanted"] and not self.stopping:
            self.board["wanted"] = 0
            self.say(ROOM)

    def converse(self, connection, private):
        with connection:
            head = b""
            while b"\r\n\r\n" not in head:
                part = connection.recv(65536)
                if not part:
                    break
                head += part
            else:
                method, target, _ = head.decode().split(" ", 2)
                self.counts[target] = self.counts.get(target, 0) + 1
                self.begin(f"{method} {target.partition('?')[0]}")
                status, text = self.answer(target)
                self.end(private)
                connection.sendall((f"HTTP/1.1 {status} Status\r\nContent-Length: {len(text)}\r\n"
                                    f"Connection: close\r\n\r\n{text}").encode())
                if target == "/exit":
                    os._exit(0)
            connection.shutdown(socket.SHUT_RDWR)  # the manager may have it open, too

    def hear(self):
        data, descriptors, _, _ = socket.recv_fds(self.channel, MESSAGE.size, BATCH)
        if not data:
            return False
        kind, count, listener = MESSAGE.unpack(data)
        if kind == DISPATCH:
            missing = count - len(descriptors)
            if missing > 0:
                self.say(NOT_TAKEN, missing, self.board["taken"] + len(descriptors))
                self.board["not_taken"] += missing
            self.board["taken"] += count
            if self.draining:
                socket.send_fds(self.channel, [MESSAGE.pack(RETURN, len(descriptors), listener)],
                                descriptors)
                for each in descriptors:
                    os.close(each)
            else:
                for each in descriptors:
                    connection = socket.socket(fileno=each)
                    connection.setblocking(True)
                    self.serve(connection)
        elif kind == DRAIN:
            self.draining = True
        elif kind == CONNECTION:
            self.serve(socket.socket(fileno=descriptors[0]), count == PRIVATE)
        elif kind == ACCEPT:
            self.accepting = True
        return True

    def run(self):
        if self.listener:
            self.listener.setblocking(False)  # several wait for it
        self.ready()
        listening = True
        deadline = None
        while not self.stopping:
            waiting = [self.wakeup, *([self.listener] if self.accepting and self.listener else []),
                       *([self.channel] if listening else [])]
            timeout = None if deadline is None else max(0, deadline - time.monotonic())
            readable, _, _ = select.select(waiting, [], [], timeout)
            if self.channel in readable:
                listening = self.hear()
            if self.listener and self.listener in readable:
                try:
                    connection, _ = self.listener.accept()
                except BlockingIOError:
                    continue
                connection.setblocking(True)
                self.serve(connection)
            if self.board["awake"] and (deadline is None or time.monotonic() >= deadline):
                again = self.beat() if deadline is not None else self.heartbeat
                deadline = None if again is None else time.monotonic() + again
        # What was sent before the stop signal: served, or after DRAIN handed back.
        while listening and select.select([self.channel], [], [], 0)[0]:
            listening = self.hear()


if __name__ == "__main__":
    sys.exit(Worker().run())
