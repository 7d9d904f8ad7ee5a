"""Suite serve: tools/serve.py under load and faults, compared with Keras models behind FastAPI.

Needs the extras [parity, serve]. Networks have the same weights as in the suite `predict`.
"""

import os
import socket
import sys
import tempfile
import time

import cv2
import numpy as np
import tensorflow as tf
from absl import flags
from benchmarks import DATA, Ratio
from benchmarks import _faults as faults
from benchmarks import _load as load
from benchmarks import image_paths, measure, numpy_encode, peer_unet, print_table, show
from benchmarks._unets import SIZE, network, of_ours, write_models

from clouds_tf.data.preprocessing import image_size
from clouds_tf.dataset import CLOUDS
from clouds_tf.prediction.predictor import Predictor
from clouds_tf.server import protocols

flags.DEFINE_string(
    "images_dir", str(DATA / "clouds_native" / "train_images"), "Images; drawn ones if absent."
)
flags.DEFINE_integer("batch_size", 8, "Most images in a batch of ours.", lower_bound=1)
flags.DEFINE_string("contender", None, "Of a child process: which one it is.")
flags.DEFINE_string("folder", None, "Of a child process: where everything is.")
PARTS = ("throughput", "stages", "memory", "hostile", "switch", "drain", "slow")
flags.DEFINE_list("parts", list(PARTS), f"What is measured: {', '.join(PARTS)}.")
flags.DEFINE_list("clients", ["1", "8", "64"], "Numbers of clients that send at a time.")
flags.DEFINE_list(
    "contenders", ["float32", "bfloat16", "openvino", "keras", "segmentation_models"], "Servers."
)
flags.DEFINE_float("seconds", 15, "Seconds of load for each number of clients.")
flags.DEFINE_integer("num_latencies", 150, "Requests at half of the capacity.")
FLAGS = flags.FLAGS

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
    model.predict(np.zeros([1, *SIZE, 3], np.float32), verbose=0)  # before there are threads
    app = fastapi.FastAPI()

    def answer(encoded):
        image = cv2.imdecode(np.frombuffer(base64.b64decode(encoded), np.uint8), 1)
        batch = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), SIZE[::-1])
        batch = batch[np.newaxis].astype(np.float32)
        found = model.predict(batch, verbose=0)  # in many threads: a lock would cost a third
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
        return load.peer(contender, folder)
    precision, engine = of_ours(contender)
    flags = [f"--engine={engine}", f"--max_batch={FLAGS.batch_size}"]
    return load.ours(os.path.join(folder, precision), *flags)


def put_under_load(process, address, bodies, clients):
    """Answers a second of a server under load, and CPU seconds of server and clients for one."""
    before = load.cpu_seconds(process.pid), time.process_time()
    rate, found = load.closed_loop(address, bodies, clients, FLAGS.seconds)
    assert np.all(found[:, 0] == 200), found
    after = load.cpu_seconds(process.pid), time.process_time()
    return (rate, *np.subtract(after, before) / len(found))


def print_throughput(folder, bodies):
    """Each contender's server beside its network alone, and ours at half of its capacity."""
    rows = [("server", "clients", "images/s", "CPU ms", "CPU ms of the clients")]
    latencies, costs, ratios = [("server", "requests/s", "p50, ms", "p99, ms")], {}, []
    for name in sorted(FLAGS.contenders, key=lambda name: name not in PEERS):
        call = None if name in PEERS else network(folder, name, FLAGS.batch_size)
        with load.started(arguments(name, folder)) as (process, address):
            load.closed_loop(address, bodies, 2, 2)
            for clients in map(int, FLAGS.clients):
                alone = [cost(call)]
                rate, cpu, of_clients = put_under_load(process, address, bodies, clients)
                alone.append(cost(call))
                wall, cpu_alone = np.mean(alone, axis=0)
                costs[name, clients] = rate, cpu
                milliseconds = f"{cpu * 1e3:.0f}", f"{of_clients * 1e3:.1f}"
                rows.append((name, str(clients), f"{rate:.1f}", *milliseconds))
                print(*rows[-1], file=sys.stderr, flush=True)  # it takes minutes
                if call:
                    task, unit = f"server, {name}, {clients} clients", "images/s"
                    ratios += [
                        Ratio(task, "its network", rate, 1 / wall, unit, 0.85, "rate"),
                        Ratio(task, "its network", 1e3 * cpu, 1e3 * cpu_alone, "CPU ms/image"),
                    ]
                    for peer in PEERS:
                        if (peer, clients) in costs:
                            other, other_cpu = costs[peer, clients]
                            ratios += [
                                Ratio(task, peer, rate, other, unit, 3, "rate"),
                                Ratio(task, peer, 1e3 * cpu, 1e3 * other_cpu, "CPU ms/image"),
                            ]
            if call:
                half = costs[name, int(FLAGS.clients[-1])][0] / 2
                found = load.open_loop(address, bodies, half, FLAGS.num_latencies)
                p50, p99 = np.percentile(found, [50, 99]) * 1e3
                latencies.append((name, f"{half:.1f}", f"{p50:.0f}", f"{p99:.0f}"))
    print_table(rows)
    show(ratios)
    print(
        f"\nAt half of the capacity, {FLAGS.num_latencies} requests of one image at random times:"
    )
    print_table(latencies)


def print_stages(folder, bodies):
    """CPU time of an image in each stage of our servers, all on the same images in one run."""
    rows = [("stage", *(name for name in FLAGS.contenders if name not in PEERS))]
    columns = []
    for name in rows[0][1:]:
        found = {k: v * 1e3 for k, v in stages(folder, name, bodies).items()}
        with load.started(arguments(name, folder)) as (process, address):
            load.closed_loop(address, bodies, 2, 2)
            _, cpu, _ = put_under_load(process, address, bodies, int(FLAGS.clients[0]))
        found["HTTP, threads, waiting"] = cpu * 1e3 - sum(found.values())
        found[f"server of {FLAGS.clients[0]} clients"] = cpu * 1e3
        columns.append(found)
    rows += [(stage, *(f"{column[stage]:.1f}" for column in columns)) for stage in columns[0]]
    print("CPU ms an image")
    print_table(rows)


def stages(folder, name, bodies):
    """CPU seconds of an image in each stage that can be called alone."""
    precision, engine = of_ours(name)
    predictor = Predictor.open(os.path.join(folder, precision, "1"), engine)
    found = predictor.load_stages()
    queries = [protocols.parse_v1(body) for body in bodies]
    contents = [tf.constant(query.images) for query in queries]
    # As many as the server has in a batch: half of those in progress.
    size = min(FLAGS.batch_size, -(-int(FLAGS.clients[0]) // 2))
    images, likeness = found.read_bytes(tf.concat((contents * size)[:size], 0))
    predicted = (*found.run_networks(images), likeness)
    call = network(folder, name, size)

    def answer():
        return {key: value.numpy() for key, value in found.answer(*predicted).items()}

    outputs = answer()
    rows = [{key: value[i] for key, value in outputs.items()} for i in range(size)]
    functions = {
        "JSON and Base64 of the request": lambda: list(map(protocols.parse_v1, bodies)),
        "header of the image": lambda: [image_size(x.images[0]) for x in queries],
        "decoding and resizing": lambda: [found.read_bytes(x)[0][0].numpy() for x in contents],
        "network": call,
        "with resizing of probabilities": lambda: found.run_networks(images)[0].numpy(),
        "post-processing and RLE": answer,
        "JSON of the answer": lambda: queries[0].answer(rows, 1, predictor.metadata),
    }
    seconds = measure(functions, 7, time.process_time)
    of_bodies = list(functions)[:3]
    each = {k: v / (len(bodies) if k in of_bodies else size) for k, v in seconds.items()}
    whole = each.pop("with resizing of probabilities")
    return {**each, "resizing of probabilities": whole - each["network"]}


def cost(call):
    """Wall and CPU seconds for an image of the network alone; zeros for no network."""
    if call is None:
        return 0.0, 0.0
    clocks = time.perf_counter, time.process_time
    return [measure({"network": call}, 5, clock)["network"] / FLAGS.batch_size for clock in clocks]


def main() -> None:
    if FLAGS.contender:
        serve_peer(FLAGS.contender, FLAGS.folder)
        return
    if unknown := set(FLAGS.parts) - set(PARTS):
        sys.exit(f"--parts: got {', '.join(unknown)}, expected some of {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory() as folder:
        small = os.path.join(folder, "small")
        faults.small_model(small)
        bodies = []
        if {"throughput", "stages", "switch", "slow"} & set(FLAGS.parts):
            paths = image_paths(FLAGS.images_dir, folder)
            bodies = [load.body(path.read_bytes()) for path in paths[:8]]
            image = tf.io.decode_jpeg(paths[0].read_bytes(), channels=3).numpy()
            write_models(folder, cv2.resize(image, SIZE[::-1]))
        actions = {
            "throughput": lambda: print_throughput(folder, bodies),
            "stages": lambda: print_stages(folder, bodies),
            "memory": lambda: faults.print_memory(small),
            "hostile": lambda: faults.print_hostile(small),
            "switch": lambda: faults.print_switch(folder, bodies),
            "drain": lambda: faults.print_drain(small),
            "slow": lambda: faults.print_slow(folder, bodies),
        }
        for part in FLAGS.parts:
            print(f"\n{part}")
            actions[part]()
