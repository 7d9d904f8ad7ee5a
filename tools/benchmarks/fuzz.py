"""Suite fuzz: time and errors of a SavedModel for mutated JPEGs and PNGs."""

import collections
import resource
import tempfile
import time

import numpy as np
import tensorflow as tf
from absl import flags
from benchmarks import print_table
from benchmarks._mutations import mutate, seeds
from tqdm import tqdm

from clouds_tf.dataset import CLOUDS
from clouds_tf.prediction.metadata import Metadata
from clouds_tf.prediction.predictor import Predictor

flags.DEFINE_integer("num_inputs", 100000, "Number of mutated inputs, one per request.")
flags.DEFINE_integer("seed", 0, "Input i follows from this seed and i.")
FLAGS = flags.FLAGS

MODEL_SIZE = (32, 48)


def main() -> None:
    from clouds_tf.models.unet import unet
    from clouds_tf.serving.cloud_model import CloudModel, write_version

    contents = seeds()
    with tempfile.TemporaryDirectory() as folder:
        metadata = Metadata(CLOUDS, (MODEL_SIZE,))
        path = write_version(CloudModel([unet(width=0.125)], metadata), folder)
        predict = Predictor.open(path)
    healthy = tf.constant([content for content in contents if not content.startswith(b"GIF")])
    before = predict(healthy)["encoded_pixels"].numpy()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes: collections.Counter = collections.Counter()
    slowest: dict = collections.defaultdict(float)
    for i in tqdm(range(FLAGS.num_inputs), unit="input", disable=None):
        content = mutate(contents, np.random.default_rng([FLAGS.seed, i]))
        start = time.perf_counter()
        try:
            predict(tf.constant([content]))
            outcome = "answered"
        except tf.errors.InvalidArgumentError:
            outcome = "refused"
        outcomes[outcome] += 1
        slowest[outcome] = max(slowest[outcome], time.perf_counter() - start)
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    np.testing.assert_array_equal(predict(healthy)["encoded_pixels"].numpy(), before)
    rows = [("outcome", "inputs", "slowest, ms")]
    rows += [(name, str(outcomes[name]), f"{slowest[name] * 1e3:.0f}") for name in outcomes]
    print_table(rows)
    print(
        f"{FLAGS.num_inputs} inputs; peak memory grew by {growth:.0f} MB; still answers as before"
    )
