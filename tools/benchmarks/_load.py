"""Load on a server: clients in many threads, and the status and latency of their requests."""

import base64
import concurrent.futures
import contextlib
import http.client
import json
import os
import pathlib
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request

import numpy as np
from benchmarks._mutations import mutate

PATH = "/v1/models/clouds:predict"
_TIMEOUT = 300
_TOOLS = pathlib.Path(__file__).resolve().parent.parent


def body(content):
    """The body of a request for one image."""
    encoded = base64.b64encode(content).decode()
    return json.dumps({"instances": [{"image_bytes": {"b64": encoded}}]}).encode()


def ours(saved_model, *more):
    """The command line of our server."""
    flags = [f"--saved_model={saved_model}", "--port=0", "--noaccess_log", *more]
    return [str(_TOOLS / "serve.py"), *flags]


def peer(contender, folder):
    """The command line of a peer's server, which is `serve_peer` of the suite serve."""
    flags = [f"--contender={contender}", f"--folder={folder}"]
    return [str(_TOOLS / "benchmark.py"), "serve", *flags]


@contextlib.contextmanager
def started(arguments):
    """A server in a process of its own, which prints its address; gives (process, address)."""
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        address = None
        for line in process.stdout:
            if " on http://" in line:
                parts = urllib.parse.urlsplit(line.split(" on ")[1].strip())
                address = parts.hostname, parts.port
                break
        if address is None:
            sys.exit(f"{' '.join(arguments)} did not start")
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield process, address
    finally:
        process.kill()
        process.wait()


class Client:
    """A connection that is opened anew when it has been closed."""

    def __init__(self, address):
        self._connection = http.client.HTTPConnection(*address, timeout=_TIMEOUT)

    def post(self, content, path=PATH):
        """Gives (status, answer): of a refused connection 0, of one that breaks off -1."""
        try:
            if self._connection.sock is None:
                self._connection.connect()
        except ConnectionRefusedError:
            return 0, b""
        try:
            headers = {"Content-Type": "application/json"}
            self._connection.request("POST", path, content, headers)
            response = self._connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException):
            self.close()
            return -1, b""
        return response.status, answer

    def close(self):
        """Ends the connection."""
        self._connection.close()


def closed_loop(address, bodies, clients, seconds, keep_on=None, path=PATH):
    """Clients that send a request as soon as the last one was answered.

    Args:
        address: (host, port).
        bodies: taken by turns.
        clients: number of clients.
        seconds: no request begins later.
        keep_on: called with (status, answer) of each; a client ends when it is false.
        path: of the requests.

    Returns:
        Answers a second, and an array of rows (status, seconds).
    """
    start = time.perf_counter()
    found = [[] for _ in range(clients)]

    def run(number):
        client, i = Client(address), number
        while time.perf_counter() - start < seconds:
            begin = time.perf_counter()
            status, answer = client.post(bodies[i % len(bodies)], path)
            found[number].append((status, time.perf_counter() - begin))
            i += clients
            if keep_on and not keep_on(status, answer):
                break
        client.close()

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        list(pool.map(run, range(clients)))
    elapsed = time.perf_counter() - start
    rows = np.array([row for rows in found for row in rows])
    return np.count_nonzero(rows[:, 0] == 200) / elapsed, rows


def open_loop(address, bodies, rate, number):
    """Requests at random times, on average `rate` a second: seconds from then to each answer."""
    times = np.cumsum(np.random.default_rng(0).exponential(1 / rate, number))
    start = time.perf_counter()

    def run(i):
        delay = times[i] - (time.perf_counter() - start)
        if delay > 0:
            time.sleep(delay)
        client = Client(address)
        status, _ = client.post(bodies[i % len(bodies)])
        client.close()
        assert status == 200, status
        return time.perf_counter() - start - times[i]

    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        return np.array(list(pool.map(run, range(number))))


def cpu_seconds(pid):
    """The CPU seconds that a process has used."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def metric(address, name):
    """The value of a metric without labels."""
    with urllib.request.urlopen("http://{}:{}/metrics".format(*address), timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.split()[0] == name)


def hostile(rng, contents):
    """A request that nobody should send: bytes for a connection, and whether it is a whole one."""
    content = body(mutate(contents, rng))
    length, kind = len(content), rng.integers(6)
    if kind == 0:  # damaged JSON
        place = rng.integers(length)
        content = content[:place] + rng.bytes(1) + content[place + 1 :]
    elif kind == 1:
        content = b'{"instances": ' + b"[" * int(rng.integers(1, 5000))
        length = len(content)
    elif kind == 2:  # it goes away halfway
        content = content[: length // 2]
    elif kind == 3:  # a length that is not true
        length = 10 ** int(rng.integers(6, 30))
    head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n".encode()
    if kind == 4:  # not HTTP
        head = rng.bytes(int(rng.integers(1, 500)))
    return head + content, kind in (0, 1, 5)  # 5 is a damaged image
