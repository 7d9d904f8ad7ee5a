"""Parts of the suite serve: memory, hostile requests, a new version, the end, and slow clients."""

import concurrent.futures
import dataclasses
import json
import os
import shutil
import signal
import socket
import tempfile
import threading
import time

import numpy as np
import tensorflow as tf
from absl import flags
from benchmarks import Ratio
from benchmarks import _load as load
from benchmarks import show
from benchmarks._mutations import seeds
from benchmarks._unets import write_small_model

from clouds_tf.data import sample_data
from clouds_tf.dataset import CLOUDS

flags.DEFINE_integer("num_small", 20000, "Requests of the part memory.")
flags.DEFINE_integer("num_hostile", 2000, "Requests of the part hostile.")
FLAGS = flags.FLAGS

SMALL = (32, 48)
SMALL_CLOUDS = dataclasses.replace(CLOUDS, mask_size=SMALL, submission_size=SMALL)


def small_model(folder):
    """Writes a version of a network of one layer, whose time is that of the server."""
    write_small_model(folder, SMALL, SMALL_CLOUDS)


def small_bodies():
    """Bodies of requests for small images."""
    images, _ = sample_data.render_images(8, SMALL)
    return [load.body(tf.io.encode_jpeg(image).numpy()) for image in images]


def print_memory(folder):
    """Memory of the server after every tenth of many requests."""
    bodies, counts = small_bodies(), [FLAGS.num_small // 10] * 10
    sizes, start = [], time.perf_counter()
    with load.started(load.ours(folder)) as (_, address):
        for count in counts:
            left = iter(range(count - 8))  # each of eight clients sends one more
            keep_on = lambda status, _: status == 200 and next(left, None) is not None  # noqa: E731
            _, found = load.closed_loop(address, bodies, 8, 600, keep_on)
            assert np.all(found[:, 0] == 200)
            sizes.append(load.metric(address, "process_resident_memory_bytes") / 1e6)
    rate = sum(counts) / (time.perf_counter() - start)
    print(
        f"{sum(counts):,} requests of a small image by 8 clients, {rate:.0f} a second; MB resident"
    )
    print(f"after every {counts[0]:,}: " + ", ".join(f"{size:.0f}" for size in sizes))
    task, peer = f"server after {sum(counts):,} requests", f"after {counts[0]:,}"
    show([Ratio(task, peer, sizes[-1], sizes[0], "MB", 1.2, "cost")])


def print_hostile(folder):
    """Hostile requests among good ones, whose answers must stay as they were."""
    contents, bodies = seeds(), small_bodies()
    outcomes, stop = {}, threading.Event()
    with load.started(load.ours(folder)) as (process, address):
        client = load.Client(address)
        expected = {body: client.post(body) for body in bodies}
        good = []

        def send_good():
            mine = load.Client(address)
            while not stop.is_set():
                for body in bodies:
                    good.append(mine.post(body) == expected[body])

        thread = threading.Thread(target=send_good)
        thread.start()
        for i in range(FLAGS.num_hostile):
            with socket.create_connection(address, 60) as connection:
                content, is_whole = load.hostile(np.random.default_rng(i), contents)
                connection.settimeout(60 if is_whole else 0.05)
                try:
                    connection.sendall(content)
                    outcome = connection.recv(12)[9:12].decode("latin-1") or "closed"
                except TimeoutError:
                    outcome = "abandoned"
                except OSError:
                    outcome = "closed"
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
        stop.set()
        thread.join()
        assert process.poll() is None and client.post(bodies[0]) == expected[bodies[0]]
    kinds = ", ".join(f"{outcome} {count:,}" for outcome, count in sorted(outcomes.items()))
    print(f"{FLAGS.num_hostile:,} hostile requests: {kinds}; of {len(good):,} good ones among them")
    print(f"{sum(good):,} had the right answer")
    task = f"server, good requests among {FLAGS.num_hostile:,} hostile ones, right answers"
    show([Ratio(task, "sent", sum(good), len(good), "requests", 1, "rate")])


def print_switch(folder, bodies):
    """A new version under load: requests that fail, and the latency before and meanwhile."""
    source = os.path.join(folder, "bfloat16", "1")
    versions = []

    def note(status, answer):
        versions.append(json.loads(answer)["model_version"] if status == 200 else None)
        return True

    def v2(body):
        data = [x["image_bytes"]["b64"] for x in json.loads(body)["instances"]]
        tensor = {"name": "image_bytes", "datatype": "BYTES", "shape": [len(data)], "data": data}
        return json.dumps({"inputs": [tensor]}).encode()

    with tempfile.TemporaryDirectory() as served:
        shutil.copytree(source, os.path.join(served, "1"))
        with load.started(load.ours(served, "--poll_seconds=1")) as (_, address):
            path, some = "/v2/models/clouds/infer", [v2(body) for body in bodies]
            _, before = load.closed_loop(address, some, 4, FLAGS.seconds, note, path)
            timer = threading.Timer(2, shutil.copytree, (source, os.path.join(served, "2")))
            timer.start()
            _, found = load.closed_loop(address, some, 4, 3 * FLAGS.seconds, note, path)
    counts = [versions.count(name) for name in ("1", "2", None)]
    p99 = [f"{np.percentile(x[:, 1], 99) * 1e3:.0f}" for x in (before, found)]
    print(
        "A new version under 4 clients: {} answers by version 1, {} by 2, {} lost;".format(*counts)
    )
    print(f"p99 {p99[0]} ms before, {p99[1]} ms from then on")


def print_drain(folder):
    """SIGTERM under load: every request is answered, or its connection was refused."""
    with load.started(load.ours(folder, "--drain_seconds=1")) as (process, address):
        timer = threading.Timer(2, process.send_signal, (signal.SIGTERM,))
        timer.start()
        bodies = small_bodies()
        _, found = load.closed_loop(address, bodies, 8, 60, lambda status, _: status == 200)
        process.wait(60)
    counts = {int(s): int(np.count_nonzero(found[:, 0] == s)) for s in np.unique(found[:, 0])}
    print(f"SIGTERM under 8 clients: status {counts} (0: refused connection, -1: lost), ", end="")
    print(f"exit status {process.returncode}")
    lost, total = counts.get(-1, 0), sum(counts.values())
    show([Ratio("server, lost at SIGTERM", "sent", lost, total, "requests", 0, "cost")])


def print_slow(folder, bodies):
    """Throughput with clients that send a byte a second, and that go away, and without."""
    stop, rates = threading.Event(), {}
    head = b"POST /v1/models/clouds:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n"

    def trickle(address, whole_head):
        while not stop.is_set():
            with socket.create_connection(address) as connection:
                try:
                    connection.sendall(head if whole_head else b"")
                    for i in range(1000):
                        connection.sendall(head[i : i + 1])
                        if stop.wait(1):
                            return
                except OSError:
                    continue  # the server has closed it

    def go_away(address):
        while not stop.wait(1):
            with socket.create_connection(address) as connection:
                content = bodies[0]
                connection.sendall(head.replace(b"900000", str(len(content)).encode()) + content)

    limits = ["--head_seconds=5", "--body_seconds=5"]
    with load.started(load.ours(os.path.join(folder, "bfloat16"), *limits)) as (_, address):
        load.closed_loop(address, bodies, 2, 2)
        rates["without"], _ = load.closed_loop(address, bodies, 8, FLAGS.seconds)
        with concurrent.futures.ThreadPoolExecutor(110) as pool:
            for i in range(100):
                pool.submit(trickle, address, i % 2)
            pool.submit(go_away, address)
            rates["with"], found = load.closed_loop(address, bodies, 8, FLAGS.seconds)
            stop.set()
        rates["without again"], _ = load.closed_loop(address, bodies, 8, FLAGS.seconds)
    assert np.all(found[:, 0] == 200)
    text = ", ".join(f"{rate:.1f} {name}" for name, rate in rates.items())
    print(
        f"8 clients beside 100 that send a byte a second and one that goes away: {text} (images/s)"
    )
