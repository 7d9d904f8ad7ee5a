"""Suite scaling: tools/train.py on one core, and as two workers with a core each.

Each worker gets as many images per step as the single one, so what the pair takes longer is the
cost of summing gradients and batch-norm statistics over workers.
"""

import csv
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile

import cli

from absl import flags
from benchmarks import Ratio, print_table, show

from clouds_tf.data import sample_data, shards
from clouds_tf.dataset import CLOUDS

flags.DEFINE_string(
    "records_dir", None, "Folder of records from make_tfrecords; default: synthetic images."
)
flags.DEFINE_list("batch_sizes", ["8", "16"], "Images per worker and step.")
flags.DEFINE_integer("num_images", 320, "Number of drawn images per epoch.", lower_bound=8)
flags.DEFINE_integer(
    "epochs", 2, "Number of epochs; the first one, which traces, is not measured.", lower_bound=2
)
flags.DEFINE_float(
    "width", 1.0, "Factor on the number of channels of every layer.", lower_bound=0.05
)
flags.DEFINE_enum(
    "precision", "float32", ["float32", "bfloat16"], "Numeric precision of the computation."
)
cli.DEFINE_size("image_size", (320, 480), "Size of the network's input, in pixels: height,width.")
FLAGS = flags.FLAGS

AIM = 0.85
TRAIN = str(pathlib.Path(__file__).parent.parent / "train.py")


def start(core, workdir, records_dir, batch_size, environment=None):
    """Starts a training on one core."""
    arguments = {"workdir": workdir, "records_dir": records_dir, "batch_size": batch_size}
    arguments["image_size"] = "{},{}".format(*FLAGS.image_size)
    arguments.update({name: FLAGS[name].value for name in ("epochs", "width", "precision")})
    if environment:
        arguments["distribute"] = "multi_worker"
    return subprocess.Popen(
        [sys.executable, TRAIN, *(f"--{name}={value}" for name, value in arguments.items())],
        env={**os.environ, **(environment or {})},
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )


def clusters(count):
    """Yields the environment of each worker, all on this machine."""
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    workers = [f"localhost:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    for index in range(count):
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        yield {"TF_CONFIG": json.dumps(task)}


def measure(num_workers, batch_size, folder, records_dir):
    """Mean images per second and fraction of input wait, over all epochs but the first."""
    workdir = os.path.join(folder, f"{num_workers}_{batch_size}")
    environments = list(clusters(num_workers)) if num_workers > 1 else [None]
    cores = sorted(os.sched_getaffinity(0))
    workers = [
        start(core, workdir, records_dir, batch_size * num_workers, environment)
        for core, environment in zip(cores, environments)
    ]
    if any([worker.wait() for worker in workers]):
        raise ValueError(f"{TRAIN}: ended with an error, which stands above")
    with open(os.path.join(workdir, "history.csv")) as file:
        rows = list(csv.DictReader(file))[1:]
    return [
        sum(float(row[name]) for row in rows) / len(rows)
        for name in ("images_per_second", "input_wait")
    ]


def main() -> None:
    cli.refuse_unused(("num_images", "drawn images, without --records_dir", not FLAGS.records_dir))
    if len(os.sched_getaffinity(0)) < 2:
        raise ValueError("scaling: got 1 core, expected at least 2")
    rows = [("images per worker", "workers", "s/step", "images/s", "input wait")]
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        records_dir = FLAGS.records_dir or os.path.join(folder, "records")
        if not FLAGS.records_dir:
            data_dir = os.path.join(folder, "data")
            # A fifth is held out.
            num_train = FLAGS.num_images * 5 // 4
            sample_data.write_sample_data(data_dir, num_train, 1, CLOUDS.submission_size)
            shards.write_records(data_dir, records_dir, CLOUDS)
        for batch_size in map(int, FLAGS.batch_sizes):
            rates = []
            for num_workers in (1, 2):
                rate, wait = measure(num_workers, batch_size, folder, records_dir)
                rates.append(rate)
                seconds = f"{batch_size * num_workers / rate:.2f}"
                numbers = str(batch_size), str(num_workers), seconds, f"{rate:.2f}", f"{wait:.1%}"
                rows.append(numbers)
            task = f"training, {batch_size} images a worker, 2 workers with a core each"
            one, two = rates
            ratios.append(Ratio(task, "twice one", two, 2 * one, "images/s", AIM, "rate"))
    print_table(rows)
    show(ratios)
