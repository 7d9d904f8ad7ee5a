"""Suite predict: images to submission, compared with the usual loop on segmentation_models.

Needs the extra [parity]. All contenders have the same weights, and every turn runs in a separate
process. With the extra [openvino], --engine=openvino is measured, too. With --saved_model, it
compares the CPU time of a model's `predict`, or `predict_scenes`, with that of its networks alone;
that of `predict` also with the usual loops on the same network and on segmentation_models.
"""

import functools
import importlib.util
import json
import os
import pathlib
import sys
import tempfile
import time

import cv2
import numpy as np
import pandas as pd
import tensorflow as tf
from absl import flags
from benchmarks import (
    DATA,
    Ratio,
    image_paths,
    measure,
    numpy_encode,
    peak_megabytes,
    peer_unet,
    print_table,
    show,
    take_turns,
)
from benchmarks._unets import PRECISIONS, SIZE, network, of_ours, write_models

from clouds_tf import rle, scenes, serving
from clouds_tf.data import annotations
from clouds_tf.dataset import CLOUDS
from clouds_tf.prediction.ensemble import views_of
from clouds_tf.prediction.predictor import Predictor
from clouds_tf.training import distribution

flags.DEFINE_string("saved_model", None, "SavedModel to compare with its networks, such as E/1.")
flags.DEFINE_string("scenes", None, "With --saved_model: scenes to predict instead of images.")
flags.DEFINE_string(
    "images_dir", str(DATA / "clouds_native" / "train_images"), "Images; drawn ones if absent."
)
flags.DEFINE_integer("num_images", 500, "Images to predict; fewer files are repeated.")
flags.DEFINE_integer("num_requests", 1000, "Requests of one image, for the latency.")
flags.DEFINE_integer("batch_size", 4, "Images in a batch of ours.", lower_bound=1)
flags.DEFINE_integer("chunk", 500, "Images that the peer holds in memory.", lower_bound=1)
flags.DEFINE_integer("repeats", 3, "Turns of each.", lower_bound=1)
flags.DEFINE_string("contender", None, "Of a child process: which one it is.")
flags.DEFINE_string("folder", None, "Of a child process: where everything is.")
FLAGS = flags.FLAGS

PEER = "loop on segmentation_models"
SAME = "loop on the same network"
AIMS_OF_MODEL = {"its networks": 0.9, SAME: 1.3, PEER: 4}
AIMS = {"float32": 1.3, "bfloat16": 2, "openvino": 3}


def peer_loop(predict, size, images_dir, output):
    """Reads some hundred images, predicts them, resizes, cuts and encodes; and so on.

    `predict` makes probabilities [N, *size, C] from float32 [N, *size, 3].
    """
    names = sorted(os.listdir(images_dir))
    labels, cells = [], []
    for start in range(0, len(names), FLAGS.chunk):
        some = names[start : start + FLAGS.chunk]
        batch = np.empty((len(some), *size, 3), np.float32)
        for i, name in enumerate(some):
            image = cv2.cvtColor(cv2.imread(os.path.join(images_dir, name)), cv2.COLOR_BGR2RGB)
            batch[i] = cv2.resize(image, size[::-1])
        for name, probabilities in zip(some, predict(batch)):
            probabilities = cv2.resize(probabilities, CLOUDS.submission_size[::-1])
            for i, class_name in enumerate(CLOUDS.class_names):
                labels.append(f"{name}_{class_name}")
                cells.append(numpy_encode((probabilities[:, :, i] > 0.5).astype(np.uint8)))
    table = pd.DataFrame({CLOUDS.label_columns[0]: labels, CLOUDS.rle_column: cells})
    table.to_csv(output, index=False)


def run_child(contender, folder):
    """Predicts the folder once, and prints seconds and megabytes as JSON."""
    images_dir, output = os.path.join(folder, "images"), os.path.join(folder, f"{contender}.csv")
    if contender == "peer":
        model = peer_unet("sigmoid")
        model.load_weights(os.path.join(folder, "peer.h5"))
        model.predict(np.zeros([1, *SIZE, 3], np.float32), verbose=0)
        of_batch = functools.partial(model.predict, batch_size=32, verbose=0)
        predict = functools.partial(peer_loop, of_batch, SIZE, images_dir, output)
    else:
        precision, engine = of_ours(contender)
        ours = Predictor.open(os.path.join(folder, precision, "1"), engine)
        if ours.warning:  # TensorFlow would be measured instead
            sys.exit(ours.warning)
        first = os.path.join(images_dir, min(os.listdir(images_dir)))
        ours(tf.stack([tf.io.read_file(first)]))
        predict = functools.partial(
            serving.predict, ours, images_dir, output, batch_size=FLAGS.batch_size
        )
    start = time.perf_counter()
    predict()
    found = {"seconds": time.perf_counter() - start}
    print(json.dumps({**found, "megabytes": peak_megabytes()}))


def compare_with_networks(folder, engine):
    """CPU seconds per image, or window of scenes, of all, its networks, and loops on images."""
    ours = Predictor.open(FLAGS.saved_model, engine)
    if ours.warning:  # TensorFlow would be measured instead
        sys.exit(ours.warning)
    metadata, networks = ours.metadata, ours.load_stages().networks
    shapes = [(FLAGS.batch_size, *size, 3) for size in metadata.image_sizes]
    batches = [tf.cast(tf.random.uniform(shape, 0, 255), tf.uint8) for shape in shapes]
    if FLAGS.scenes:
        predict = functools.partial(predict_all_scenes, ours, folder)
    else:
        predict = functools.partial(predict_images, ours, folder)
    number = predict()
    num_batches = -(-number // FLAGS.batch_size)

    def run_networks():
        for _ in views_of(metadata.test_time_augmentation) * num_batches:
            for run, batch in zip(networks, batches):
                run(batch)["logits"].numpy()

    contenders = {"all": predict, "its networks": run_networks}
    if not FLAGS.scenes and len(networks) == 1:
        views = [axes for _, axes in views_of(metadata.test_time_augmentation)]
        of_batch = functools.partial(mean_of_views, networks[0], views)
        loop = functools.partial(peer_loop, images_dir=f"{folder}/images", output=f"{folder}/p.csv")
        contenders[SAME] = functools.partial(loop, of_batch, metadata.image_sizes[0])
        if importlib.util.find_spec("segmentation_models"):
            of_batch = functools.partial(peer_unet("sigmoid").predict, batch_size=32, verbose=0)
            contenders[PEER] = functools.partial(loop, of_batch, SIZE)
    found = measure(contenders, FLAGS.repeats, time.process_time)
    alone = {"its networks": num_batches * FLAGS.batch_size}
    return {name: seconds / alone.get(name, number) for name, seconds in found.items()}


def mean_of_views(network, views, batch):
    """The mean probabilities of flipped views of float32 [N, h, w, 3], 32 images at a time."""
    found = []
    for some in np.split(batch, range(32, len(batch), 32)):
        logits = [
            np.flip(network(tf.cast(np.flip(some, axes), tf.uint8))["logits"].numpy(), axes)
            for axes in views
        ]
        found.append(np.mean(1 / (1 + np.exp(-np.array(logits))), axis=0))
    return np.concatenate(found)


def predict_images(predictor, folder):
    """Predicts the images of a folder; returns how many."""
    images_dir, output = os.path.join(folder, "images"), os.path.join(folder, "ours.csv")
    settings = {"batch_size": FLAGS.batch_size, "progress": False}
    return serving.predict(predictor, images_dir, output, **settings).num_images


def predict_all_scenes(predictor, folder):
    """Predicts the scenes; returns the number of windows."""
    options = scenes.Options(batch_size=FLAGS.batch_size)
    with tempfile.TemporaryDirectory(dir=folder) as output:
        found = scenes.predict_scenes(predictor, FLAGS.scenes, output, options, progress=False)
        return found.num_windows


def print_shares(folder, engines):
    """Prints the share of the networks in all CPU time for each engine."""
    ratios = []
    inputs, unit = (
        ("scenes to files", "window") if FLAGS.scenes else ("images to submission", "image")
    )
    for engine in engines:
        found = {n: 1e3 * seconds for n, seconds in compare_with_networks(folder, engine).items()}
        task, ours = f"{inputs}, this model, {engine}", found.pop("all")
        for peer, theirs in found.items():
            aim = AIMS_OF_MODEL[peer]
            ratios.append(Ratio(task, peer, ours, theirs, f"CPU ms/{unit}", aim))
    show(ratios)


def print_latency(folder):
    """Sends single images to each SavedModel in this process."""
    paths = sorted(pathlib.Path(folder, "images").iterdir())
    contents = [tf.constant([path.read_bytes()]) for path in paths[:50]]
    rows = [("precision", "requests", "p50, ms", "p99, ms")]
    for precision in PRECISIONS:
        predict = Predictor.open(os.path.join(folder, precision, "1"))
        seconds = []
        for i in range(FLAGS.num_requests + 5):
            start = time.perf_counter()
            predict(contents[i % len(contents)])["encoded_pixels"].numpy()
            seconds.append(time.perf_counter() - start)
        p50, p99 = np.percentile(seconds[5:], [50, 99]) * 1e3  # the first ones are slower
        rows.append((precision, str(FLAGS.num_requests), f"{p50:.0f}", f"{p99:.0f}"))
    print_table(rows)


def agreement(folder):
    """The mean Dice between the masks of the peer and those of ours in float32."""
    strings = [
        [row[2] for row in annotations.iterate_rows(os.path.join(folder, f"{name}.csv"), CLOUDS)]
        for name in ("peer", "float32")
    ]
    return float(tf.reduce_mean(rle.dice(*strings)))


def main() -> None:
    if FLAGS.contender:
        run_child(FLAGS.contender, FLAGS.folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        paths = image_paths(FLAGS.images_dir, folder)
        os.makedirs(f"{folder}/images")
        for i in range(FLAGS.num_images):
            os.symlink(paths[i % len(paths)], f"{folder}/images/{i:04d}.jpg")
        engines = ["openvino"] if importlib.util.find_spec("openvino") else []
        if FLAGS.saved_model:
            print_shares(folder, ["tensorflow", *engines])
            return
        image = cv2.imread(str(paths[0]))
        assert image is not None, paths[0]
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        write_models(folder, cv2.resize(image, SIZE[::-1]))

        ours = [*PRECISIONS, *engines]
        settings = {"batch_size": FLAGS.batch_size, "chunk": FLAGS.chunk}
        found = take_turns("predict", folder, ["peer", *ours], FLAGS.repeats, settings)
        rate = {name: FLAGS.num_images / one["seconds"] for name, one in found.items()}
        memory = {name: one["megabytes"] for name, one in found.items()}
        networks = {name: network(folder, name, FLAGS.batch_size) for name in ours}
        distribution.set_precision("float32")
        alone = {n: FLAGS.batch_size / s for n, s in measure(networks, 9).items()}

        rows = [("contender", "images/s", "network alone, images/s", "peak MB")]
        ratios = []
        for name in found:
            of_network = f"{alone[name]:.1f}" if name in ours else ""
            rows.append((name, f"{rate[name]:.1f}", of_network, f"{memory[name]:.0f}"))
        for name in ours:
            task, unit = f"images to submission, {name}", "images/s"
            ratios += [
                Ratio(task, PEER, rate[name], rate["peer"], unit, AIMS[name], "rate"),
                Ratio(task, "its network", rate[name], alone[name], unit, 0.9, "rate"),
                Ratio(task, PEER, memory[name], memory["peer"], "MB", kind="cost"),
            ]
        print_table(rows)
        show(ratios)
        print(
            f"{FLAGS.num_images} images, median of {FLAGS.repeats} turns; Dice between the masks "
            f"of peer and float32, which shrink images differently: {agreement(folder):.4f}\n"
        )
        print_latency(folder)
