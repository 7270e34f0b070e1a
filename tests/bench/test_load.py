"""The generator measured: what it says of servers whose faults are known beforehand.

usage: test_load.py LOAD MIXED

LOAD and MIXED are the programs ostler-bench-load and ostler-bench-mixed. Times are only ever
compared with what they cannot be below.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest

DEADLINE = 60
PROGRAMS = []


def ok(headers=b"", body=b"hello"):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), headers, body)


class Server:
    """Asks `answer(number, id)` what to say to each request; None closes without a word. One
    connection after the other, or with `at_once` all of them."""

    def __init__(self, answer, at_once=False, path=None):
        self.answer = answer
        self.at_once = at_once
        self.ids = []
        self.clients = []
        self.ended = threading.Semaphore(0)  # once for each client that has closed
        self.lock = threading.Lock()
        self.listener = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        self.listener.bind(path or ("127.0.0.1", 0))
        self.listener.listen(1000)
        self.address = (f"unix://{path}" if path else
                        f"tcp://127.0.0.1:{self.listener.getsockname()[1]}")
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.clients.append(client)
            if self.at_once:
                threading.Thread(target=self.serve, args=(client,), daemon=True).start()
            else:
                self.serve(client)

    def serve(self, client):
        with client, contextlib.suppress(OSError):
            while request := self.read(client):
                with self.lock:
                    number = len(self.ids)
                    self.ids.append(int(re.search(rb"(?:X-Request-Id: |[?&]id=)(\d+)",
                                                  request).group(1)))
                reply = self.answer(number, self.ids[number])
                if reply is None:
                    break
                client.sendall(reply)
        self.ended.release()

    @staticmethod
    def read(client):
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            piece = client.recv(4096)
            if not piece:
                return None
            request += piece
        return request

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def start(address, *options):
    return subprocess.Popen([PROGRAMS[0], "--address", address, *map(str, options)], text=True,
                            stdout=subprocess.PIPE)


def load(address, *options):
    process = start(address, *options)
    out, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    return json.loads(out.splitlines()[-1])


STEADY = ("--arrivals", "constant", "--rate", 200)


class Losses(unittest.TestCase):
    def test_closed_without_an_answer_is_lost_and_told_by_id(self):
        closed = []

        def answer(number, request):
            if number % 10 != 9:
                return ok()
            closed.append(request)
            return None

        with Server(answer) as server:
            result = load(server.address, *STEADY, "--seconds", 0.5)
        self.assertEqual((result["sent"], result["answered"], result["lost"]), (100, 90, 10))
        self.assertEqual(result["failures"], {"closed": 10})
        self.assertEqual([one["id"] for one in result["first_lost"]], closed)

    def test_half_an_answer_is_none(self):
        with Server(lambda *_: ok()[:-2]) as server:
            result = load(server.address, *STEADY, "--seconds", 0.02, "--timeout", 0.2)
        self.assertEqual(result["answered"], 0)
        self.assertEqual(sum(result["failures"].values()), result["sent"])

    def test_another_status_is_lost(self):
        with Server(lambda *_: ok().replace(b"200 OK", b"503 Busy"), at_once=True) as server:
            result = load(server.address, *STEADY, "--seconds", 0.1)
        self.assertEqual(result["failures"], {"status": 20})
        self.assertEqual(result["first_lost"][0]["why"], "status 503")

    def test_the_answer_to_another_is_lost(self):
        with Server(lambda _, id: ok(b"X-Request-Id: %d\r\n" % (id + (id == 7))),
                    at_once=True) as server:
            result = load(server.address, *STEADY, "--seconds", 0.1)
        self.assertEqual(result["failures"], {"wrong": 1})
        self.assertEqual(result["first_lost"][0]["id"], 7)

    def test_no_http_is_lost(self):
        with Server(lambda *_: b"220 mail.example ESMTP\r\n", at_once=True) as server:
            result = load(server.address, *STEADY, "--seconds", 0.1)
        self.assertEqual(result["failures"], {"malformed": 20})

    def test_nobody_listens(self):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            result = load(f"tcp://127.0.0.1:{port}", *STEADY, "--seconds", 0.1)
        self.assertEqual(result["failures"], {"refused": 20})
        self.assertEqual(load("unix:@nobody-is-here", *STEADY, "--seconds", 0.1)["failures"],
                         {"refused": 20})

    def test_an_answer_that_never_comes(self):
        hang = threading.Event()
        with Server(lambda *_: hang.wait(DEADLINE) and None, at_once=True) as server:
            result = load(server.address, *STEADY, "--seconds", 0.1, "--timeout", 0.3)
            hang.set()
        self.assertEqual(result["failures"], {"timeout": 20})
        for one in result["first_lost"]:
            self.assertGreaterEqual(one["lost_s"] - one["planned_s"], 0.3)

    def test_the_queue_of_a_unix_socket_is_full(self):
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(folder + "/full")
            listener.listen(0)
            result = load(f"unix://{folder}/full", *STEADY, "--seconds", 0.1, "--timeout", 0.3)
        self.assertEqual(result["failures"], {"timeout": 20})


class Latencies(unittest.TestCase):
    def test_a_stall_is_seen_by_all_who_were_planned_in_it(self):
        stall = threading.Event()

        def answer(number, _):
            if number == 50:
                stall.wait(0.3)
            return ok()

        with Server(answer) as server:
            result = load(server.address, *STEADY, "--seconds", 1.5)
        # 60 of the 300 were planned meanwhile; the worst 30 of these waited for half of it.
        self.assertEqual((result["sent"], result["answered"]), (300, 300))
        self.assertGreaterEqual(result["targets"]["/"]["p90_ms"], 145)
        self.assertGreaterEqual(result["targets"]["/"]["max_ms"], 300)
        self.assertGreaterEqual(result["longest_gap"]["ms"], 290)

    def test_waiting_for_a_kept_connection_counts(self):
        pause = threading.Event()

        def answer(*_):
            pause.wait(0.05)
            return ok()

        with Server(answer, at_once=True) as server:
            result = load(server.address, *STEADY, "--seconds", 0.1, "--keepalive", 2)
        # Ten turns of two: the last are planned within 0.1 s and answered after half a second.
        self.assertEqual((result["answered"], len(server.clients)), (20, 2))
        self.assertGreaterEqual(result["targets"]["/"]["max_ms"], 400)

    def test_answers_after_a_second_are_a_cluster(self):
        pause = threading.Event()

        def answer(number, _):
            if number % 5 == 0:
                pause.wait(1.0)
            return ok()

        with Server(answer, at_once=True) as server:
            result = load(server.address, *STEADY, "--seconds", 0.1)
        self.assertEqual(result["clusters"]["1.0"]["count"], 4)


class Plans(unittest.TestCase):
    def test_the_seed_decides(self):
        options = ("--target", "/a:3", "--target", "/b:1", "--rate", 1000, "--seconds", 0.4)
        with Server(lambda *_: ok(), at_once=True) as server:
            first, again, other = (load(server.address, *options, "--seed", seed)
                                   for seed in (1, 1, 2))
        counts = [[result["sent"], result["targets"]["/a"]["answered"],
                   result["targets"]["/b"]["answered"]] for result in (first, again, other)]
        self.assertEqual(counts[0], counts[1])
        self.assertNotEqual(counts[0], counts[2])
        self.assertTrue(2 < counts[0][1] / counts[0][2] < 4, counts)

    def test_threads_share_the_plan_and_no_id(self):
        with Server(lambda *_: ok(), at_once=True) as server:
            result = load(server.address, *STEADY, "--seconds", 0.5, "--threads", 3, "--id",
                          "query", "--target", "/a?b=c")
        self.assertEqual(result["answered"], 100)
        self.assertEqual(sorted(server.ids), list(range(100)))

    def test_a_signal_ends_it(self):
        asked = threading.Event()
        with Server(lambda *_: asked.set() or ok(), at_once=True) as server:
            process = start(server.address, *STEADY, "--seconds", 1000)
            self.assertTrue(asked.wait(DEADLINE))
            process.send_signal(signal.SIGTERM)
            result = json.loads(process.communicate(timeout=DEADLINE)[0])
        self.assertEqual(result["sent"], result["answered"])


class Kept(unittest.TestCase):
    def test_a_server_may_close_after_each_answer(self):
        with Server(lambda number, _: ok(b"Connection: close\r\n"), at_once=True) as server:
            result = load(server.address, *STEADY, "--seconds", 0.2, "--keepalive", 4)
        self.assertEqual((result["answered"], result["lost"], len(server.clients)), (40, 0, 40))

    def test_a_body_without_a_length(self):
        with tempfile.TemporaryDirectory() as folder:
            chunks = (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                      b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
            with Server(lambda *_: chunks, at_once=True, path=folder + "/s") as server:
                result = load(server.address, *STEADY, "--seconds", 0.1, "--keepalive", 3)
        self.assertEqual((result["answered"], len(server.clients)), (20, 3))


class Held(unittest.TestCase):
    def hold(self, server, *options):
        process = start(server.address, "--hold", 20, "--rate", 1000, *options)
        self.assertEqual(process.stdout.readline(), "holding\n")
        return process

    def test_they_are_served_and_held_until_a_signal(self):
        with Server(lambda *_: ok(), at_once=True) as server:
            process = self.hold(server, "--seconds", 1000)
            self.assertEqual((len(server.ids), len(server.clients)), (20, 20))
            process.send_signal(signal.SIGTERM)
            result = json.loads(process.communicate(timeout=DEADLINE)[0])
        self.assertEqual((result["answered"], result["closed_while_held"]), (20, 0))

    def test_those_that_the_server_closes_are_counted(self):
        with Server(lambda *_: ok(), at_once=True) as server:
            process = self.hold(server, "--seconds", 1000)
            for client in server.clients[:4]:
                client.shutdown(socket.SHUT_WR)
            for _ in range(4):
                self.assertTrue(server.ended.acquire(timeout=DEADLINE))
            process.send_signal(signal.SIGTERM)
            result = json.loads(process.communicate(timeout=DEADLINE)[0])
        self.assertEqual((result["answered"], result["closed_while_held"]), (20, 4))


class Mixed(unittest.TestCase):
    def test_it_answers_in_every_class(self):
        for kind in ("sync", "threads", "async"):
            worker = subprocess.Popen(
                [PROGRAMS[1], "--listen", "tcp://127.0.0.1:0"], stdout=subprocess.PIPE, text=True,
                env={**os.environ, "OSTLER_WORKER_OPTIONS": f"class={kind}"})
            with self.subTest(kind), worker:
                port = worker.stdout.readline().split()[-1]  # "listening on port N"
                result = load(f"tcp://127.0.0.1:{port}", "--rate", 100, "--seconds", 0.3,
                              "--target", "/short", "--target", "/long", "--target", "/pid")
                worker.terminate()
                self.assertEqual(result["failures"], {})
                self.assertGreaterEqual(result["targets"]["/short"]["p50_ms"], 1)
                self.assertGreaterEqual(result["targets"]["/long"]["p50_ms"], 50)


if __name__ == "__main__":
    PROGRAMS[:] = sys.argv[1:3]
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
