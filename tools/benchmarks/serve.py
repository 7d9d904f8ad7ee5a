"""Suite serve: tools/serve.py under load, beside Keras models behind FastAPI, and under faults.

Needs the extras [parity, serve]. Networks have the same weights as in the suite `predict`.
"""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time

import cv2
import numpy as np
import tensorflow as tf
from absl import flags
from benchmarks import DATA, Ratio
from benchmarks import _load as load
from benchmarks import image_paths, measure, numpy_encode, peer_unet, print_table, show
from benchmarks._mutations import seeds
from benchmarks._unets import SIZE, network, of_ours, write_models, write_small_model

from clouds_tf.data import sample_data
from clouds_tf.dataset import CLOUDS

flags.DEFINE_string(
    "images_dir", str(DATA / "clouds_native" / "train_images"), "Images; drawn ones if absent."
)
flags.DEFINE_integer("batch_size", 8, "Most images in a batch of ours.", lower_bound=1)
flags.DEFINE_string("contender", None, "Of a child process: which one it is.")
flags.DEFINE_string("folder", None, "Of a child process: where everything is.")
PARTS = ("throughput", "memory", "hostile", "switch", "drain", "slow")
flags.DEFINE_list("parts", list(PARTS), f"What is measured: {', '.join(PARTS)}.")
flags.DEFINE_list("clients", ["1", "8", "64"], "Numbers of clients that send at a time.")
flags.DEFINE_list(
    "contenders", ["float32", "bfloat16", "openvino", "keras", "segmentation_models"], "Servers."
)
flags.DEFINE_float("seconds", 15, "Seconds of load for each number of clients.")
flags.DEFINE_integer("num_latencies", 150, "Requests at half of the capacity.")
flags.DEFINE_integer("num_small", 20000, "Requests of the part memory.")
flags.DEFINE_integer("num_hostile", 2000, "Requests of the part hostile.")
FLAGS = flags.FLAGS

SMALL = (32, 48)
TOOLS = pathlib.Path(__file__).resolve().parent.parent
PEERS = ("keras", "segmentation_models")


def serve_peer(contender, folder):
    """A Keras model behind FastAPI, as tutorials do it, in the same dialect of JSON."""
    import base64

    import fastapi
    import uvicorn

    from clouds_tf.models.unet import unet

    if contender == "keras":
        model = unet(encoder="resnet34_preactivation")
        model.load_weights(os.path.join(folder, "ours.h5"))
    else:
        model = peer_unet("sigmoid")
        model.load_weights(os.path.join(folder, "peer.h5"))
    app, lock = fastapi.FastAPI(), threading.Lock()

    def answer(encoded):
        image = cv2.imdecode(np.frombuffer(base64.b64decode(encoded), np.uint8), 1)
        batch = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), SIZE[::-1])
        batch = batch[np.newaxis].astype(np.float32)
        with lock:  # Keras has no promise about threads
            found = model.predict(batch, verbose=0)
        if contender == "keras":
            found = 1 / (1 + np.exp(-found["logits"]))
        probabilities = cv2.resize(found[0], CLOUDS.submission_size[::-1])
        masks = (probabilities > 0.5).astype(np.uint8)
        return {
            "encoded_pixels": [numpy_encode(masks[..., i]) for i in range(4)],
            "presence": probabilities.max(axis=(0, 1)).tolist(),
        }

    @app.post(load.PATH)
    def post(body: dict) -> dict:
        return {"predictions": [answer(x["image_bytes"]["b64"]) for x in body["instances"]]}

    with socket.create_server(("127.0.0.1", 0)) as listener:
        print("Serving on http://{}:{}".format(*listener.getsockname()), flush=True)
        config = uvicorn.Config(app, log_level="error")
        uvicorn.Server(config).run(sockets=[listener])


def arguments(contender, folder):
    """The command line of a contender's server."""
    if contender in PEERS:
        benchmark = str(TOOLS / "benchmark.py")
        return [benchmark, "serve", f"--contender={contender}", f"--folder={folder}"]
    precision, engine = of_ours(contender)
    return ours(os.path.join(folder, precision), f"--engine={engine}")


def ours(saved_model, *more):
    """The command line of our server."""
    tool = str(TOOLS / "serve.py")
    return [
        tool,
        f"--saved_model={saved_model}",
        "--port=0",
        "--noaccess_log",
        f"--max_batch={FLAGS.batch_size}",
        *more,
    ]


def print_throughput(folder, bodies):
    """Each contender's server beside its network alone, and ours at half of its capacity."""
    rows = [("server", "clients", "images/s", "CPU ms")]
    latencies, rates, ratios = [("server", "requests/s", "p50, ms", "p99, ms")], {}, []
    for name in sorted(FLAGS.contenders, key=lambda name: name not in PEERS):
        call = None if name in PEERS else network(folder, name, FLAGS.batch_size)
        with load.started(arguments(name, folder)) as (process, address):
            load.closed_loop(address, bodies, 2, 2)
            for clients in map(int, FLAGS.clients):
                alone = [cost(call)]
                cpu = load.cpu_seconds(process.pid)
                rate, found = load.closed_loop(address, bodies, clients, FLAGS.seconds)
                assert np.all(found[:, 0] == 200), found
                cpu = (load.cpu_seconds(process.pid) - cpu) / len(found) * 1e3
                alone.append(cost(call))
                wall, cpu_alone = np.mean(alone, axis=0) * 1e3
                rates[name, clients] = rate
                rows.append((name, str(clients), f"{rate:.1f}", f"{cpu:.0f}"))
                print(*rows[-1], file=sys.stderr, flush=True)  # it takes minutes
                if call:
                    task, unit = f"server, {name}, {clients} clients", "images/s"
                    ratios += [
                        Ratio(task, "its network", rate, 1e3 / wall, unit, 0.85, "rate"),
                        Ratio(task, "its network", cpu, cpu_alone, "CPU ms/image"),
                    ]
                    for peer in PEERS:
                        if other := rates.get((peer, clients)):
                            ratios.append(Ratio(task, peer, rate, other, unit, 3, "rate"))
            if call:
                half = rates[name, int(FLAGS.clients[-1])] / 2
                found = load.open_loop(address, bodies, half, FLAGS.num_latencies)
                p50, p99 = np.percentile(found, [50, 99]) * 1e3
                latencies.append((name, f"{half:.1f}", f"{p50:.0f}", f"{p99:.0f}"))
    print_table(rows)
    show(ratios)
    print(
        f"\nAt half of the capacity, {FLAGS.num_latencies} requests of one image at random times:"
    )
    print_table(latencies)


def cost(call):
    """Wall and CPU seconds for an image of the network alone; zeros for no network."""
    if call is None:
        return 0.0, 0.0
    clocks = time.perf_counter, time.process_time
    return [measure({"network": call}, 5, clock)["network"] / FLAGS.batch_size for clock in clocks]


def small_bodies():
    """Bodies of requests for small images."""
    images, _ = sample_data.render_images(8, SMALL)
    return [load.body(tf.io.encode_jpeg(image).numpy()) for image in images]


def print_memory(folder):
    """Memory of the server after every tenth of many requests."""
    bodies, counts = small_bodies(), [FLAGS.num_small // 10] * 10
    sizes, start = [], time.perf_counter()
    with load.started(ours(folder)) as (_, address):
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
    with load.started(ours(folder)) as (process, address):
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
        with load.started(ours(served, "--poll_seconds=1")) as (_, address):
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
    with load.started(ours(folder, "--drain_seconds=1")) as (process, address):
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
    with load.started(ours(os.path.join(folder, "bfloat16"), *limits)) as (_, address):
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


def main() -> None:
    if FLAGS.contender:
        serve_peer(FLAGS.contender, FLAGS.folder)
        return
    if unknown := set(FLAGS.parts) - set(PARTS):
        sys.exit(f"--parts: got {', '.join(unknown)}, expected some of {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory() as folder:
        small = os.path.join(folder, "small")
        tiny = dataclasses.replace(CLOUDS, mask_size=SMALL, submission_size=SMALL)
        write_small_model(small, SMALL, tiny)
        bodies = []
        if {"throughput", "switch", "slow"} & set(FLAGS.parts):
            paths = image_paths(FLAGS.images_dir, folder)
            bodies = [load.body(path.read_bytes()) for path in paths[:8]]
            image = tf.io.decode_jpeg(paths[0].read_bytes(), channels=3).numpy()
            write_models(folder, cv2.resize(image, SIZE[::-1]))
        actions = {
            "throughput": lambda: print_throughput(folder, bodies),
            "memory": lambda: print_memory(small),
            "hostile": lambda: print_hostile(small),
            "switch": lambda: print_switch(folder, bodies),
            "drain": lambda: print_drain(small),
            "slow": lambda: print_slow(folder, bodies),
        }
        for part in FLAGS.parts:
            print(f"\n{part}")
            actions[part]()
