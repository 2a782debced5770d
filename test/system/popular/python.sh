#!/usr/bin/python3
"""A day's work of a script: data, text, files, a data base, threads, processes and a server of its own."""
import collections
import contextlib
import csv
import dataclasses
import datetime
import decimal
import fractions
import functools
import heapq
import io
import itertools
import json
import math
import os
import pathlib
import queue
import random
import re
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import urllib.request
import zlib
from http.server import BaseHTTPRequestHandler, HTTPServer


def numbers():
    assert 2**200 % 1_000_007 == pow(2, 200, 1_000_007)
    assert math.isqrt(10**40) == 10**20
    assert decimal.Decimal("0.1") * 3 == decimal.Decimal("0.3")
    assert sum(fractions.Fraction(1, n) for n in range(1, 11)) == fractions.Fraction(7381, 2520)
    sieve = bytearray([1]) * 10_000
    sieve[0:2] = b"\0\0"
    for n in range(2, 100):
        if sieve[n]:
            sieve[n * n :: n] = bytes(len(range(n * n, 10_000, n)))
    assert sum(sieve) == 1229
    assert struct.unpack("<Qd", struct.pack("<Qd", 1 << 63, 0.5)) == (1 << 63, 0.5)


@dataclasses.dataclass(order=True)
class Task:
    priority: int
    name: str = dataclasses.field(compare=False)


def collections_of_things():
    heap = [Task(5, "five"), Task(1, "one"), Task(3, "three")]
    heapq.heapify(heap)
    assert [heapq.heappop(heap).name for _ in range(3)] == ["one", "three", "five"]
    words = "the cat and the dog and the bird".split()
    assert collections.Counter(words).most_common(2) == [("the", 3), ("and", 2)]
    groups = {k: len(list(g)) for k, g in itertools.groupby(sorted(words), key=len)}
    assert sum(groups.values()) >= 3
    assert list(itertools.accumulate(range(1, 6), lambda a, b: a * b)) == [1, 2, 6, 24, 120]


@functools.lru_cache(maxsize=None)
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


def functions():
    assert fibonacci(90) == 2880067194370816120
    assert fibonacci.cache_info().misses == 91

    def countdown(n):
        while n:
            sent = yield n
            n = sent if sent is not None else n - 1

    generator = countdown(5)
    assert next(generator) == 5 and generator.send(2) == 2 and list(generator) == [1]
    try:
        try:
            raise ValueError("first")
        except ValueError as error:
            raise KeyError("second") from error
    except KeyError as error:
        assert str(error.__cause__) == "first"


def text():
    pattern = re.compile(r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)")
    found = pattern.search("written on 2024-02-29, a Thursday")
    day = datetime.date(*(int(part) for part in found.groups()))
    assert day.strftime("%A") == "Thursday" and (day + datetime.timedelta(days=366)).day == 1
    assert "straße".upper() == "STRASSE" and "日本".encode("utf-8") == b"\xe6\x97\xa5\xe6\x9c\xac"
    rows = [["name", "size"], ["a, b", "1"], ['say "hi"', "2"]]
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    assert list(csv.reader(io.StringIO(out.getvalue()))) == rows
    value = {"list": [1, 2.5, None, True], "nested": {"ü": "\n"}}
    assert json.loads(json.dumps(value)) == value


def files():
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name)
        for n in range(50):
            (root / f"{n:02}.txt").write_text("x" * n)
        assert sum(path.stat().st_size for path in root.glob("*.txt")) == 1225
        (root / "link").symlink_to("49.txt")
        assert (root / "link").read_text() == "x" * 49
        os.rename(root / "00.txt", root / "zero")
        assert not (root / "00.txt").exists()
    assert not root.exists()
    random.seed(7)
    data = bytes(random.randrange(4) for _ in range(50_000))
    packed = zlib.compress(data)
    assert len(packed) < 20_000 and zlib.decompress(packed) == data


def database():
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t(a INTEGER, b TEXT)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", ((n, str(n)) for n in range(300)))
        connection.commit()
        with contextlib.suppress(RuntimeError), connection:
            connection.execute("DELETE FROM t")
            raise RuntimeError("taken back")
        assert connection.execute("SELECT count(*), sum(a) FROM t").fetchone() == (300, 44850)


def threads():
    tasks, results = queue.Queue(), []
    lock = threading.Lock()

    def work():
        while (n := tasks.get()) is not None:
            with lock:
                results.append(n * n)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for n in range(100):
        tasks.put(n)
    for _ in workers:
        tasks.put(None)
    for worker in workers:
        worker.join()
    assert sum(results) == 328350


def processes():
    done = subprocess.run(["sh", "-c", "cat; exit 3"], input=b"to a child", capture_output=True)
    assert (done.returncode, done.stdout) == (3, b"to a child")
    caught = []
    signal.signal(signal.SIGUSR1, lambda number, _: caught.append(number))
    os.kill(os.getpid(), signal.SIGUSR1)
    assert caught == [signal.SIGUSR1]
    left, right = socket.socketpair()
    with left, right:
        left.sendall(b"over a socket")
        assert right.recv(100) == b"over a socket"


class Hello(BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"you asked for {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def server():
    with HTTPServer(("127.0.0.1", 0), Hello) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{serving.server_port}"
        for n in range(10):
            with urllib.request.urlopen(f"{url}/{n}") as answer:
                assert answer.read() == f"you asked for /{n}".encode()
        serving.shutdown()


assert sys.version_info >= (3, 11)
for part in (numbers, collections_of_things, functions, text, files, database, threads, processes, server):
    part()
print("ok")
