"""Suite rle: the RLE library against numpy, OpenCV, pycocotools and plain TensorFlow."""

import csv
import pathlib

import cv2
import numpy as np
import tensorflow as tf
from absl import flags
from benchmarks import DATA, compare, numpy_decode, numpy_encode
from pycocotools import mask as coco

from clouds_tf import rle
from clouds_tf.dataset import CLOUDS, TRAIN_CSV

flags.DEFINE_string(
    "data_dir", str(DATA / "clouds_small"), "Folder of train.csv; sample masks where it is absent."
)
flags.DEFINE_integer("repeats", 21, "How often each function is measured.", lower_bound=1)
flags.DEFINE_integer("threads", 1, "Threads of each library.", lower_bound=1)

FULL, SMALL = CLOUDS.mask_size, CLOUDS.submission_size
NUM_IMAGES = 16


def read_rows(data_dir):
    """The strings of the first images of train.csv, or of sample masks: a list of lists of four."""
    path = pathlib.Path(data_dir) / TRAIN_CSV
    if path.exists():
        with open(path, newline="") as file:
            table = csv.DictReader(file)
            rows = [row[CLOUDS.rle_column] for row, _ in zip(table, range(4 * NUM_IMAGES))]
        print(f"{len(rows)} rows of {path}")
    else:
        rng = np.random.default_rng(0)
        rows = [numpy_encode(sample_mask(rng)) if i % 2 else "" for i in range(4 * NUM_IMAGES)]
        print(f"{path} is absent: {len(rows)} sample rows, half of them blank")
    return [rows[i : i + 4] for i in range(0, len(rows), 4)]


def sample_mask(rng):
    """The union of three rectangles, with holes of one pixel, at full size."""
    mask = np.zeros(FULL, np.uint8)
    for _ in range(3):
        (top, bottom), (left, right) = (np.sort(rng.integers(0, side, 2)) for side in FULL)
        mask[top:bottom, left:right] = 1
    mask[rng.integers(0, FULL[0], 300), rng.integers(0, FULL[1], 300)] = 0
    return mask


def numpy_remove_small(mask, min_area):
    count, labels = cv2.connectedComponents(mask)
    kept = np.zeros_like(mask)
    for label in range(1, count):
        component = labels == label
        if component.sum() >= min_area:
            kept[component] = 1
    return kept


def numpy_is_well_formed(string):
    numbers = np.asarray(string.split(), dtype=int)
    start, end = numbers[::2], numbers[::2] + numbers[1::2]
    sorted_ = (start[1:] >= end[:-1]).all() and (end > start).all()
    return bool(sorted_ and (not len(start) or (start[0] > 0 and end[-1] <= FULL[0] * FULL[1] + 1)))


def numpy_dice(a, b):
    total = a.sum() + b.sum()
    return 2.0 * (a & b).sum() / total if total else 1.0


def plain_decode(strings, size=FULL):
    """Scatter and cumsum at full size, one string after the other, then tf.image.resize."""

    def decode_one(string):
        numbers = tf.strings.to_number(tf.strings.split(string), tf.int32)
        start, end = numbers[::2] - 1, numbers[::2] - 1 + numbers[1::2]
        steps = tf.concat([tf.ones_like(start), -tf.ones_like(end)], axis=0)
        places = tf.concat([start, end], axis=0)[:, tf.newaxis]
        steps = tf.scatter_nd(places, steps, [FULL[0] * FULL[1] + 1])
        mask = tf.reshape(tf.cumsum(steps)[:-1], FULL[::-1])
        mask = tf.cast(tf.transpose(mask), tf.uint8)[..., tf.newaxis]
        return mask[..., 0] if size == FULL else tf.image.resize(mask, size, "nearest")[..., 0]

    return tf.map_fn(decode_one, strings, fn_output_signature=tf.TensorSpec(size, tf.uint8))


def check_equal(functions):
    """Checks that all contenders give the same results."""
    ours, *others = (np.asarray(function()) for function in functions.values())
    for name, other in zip(list(functions)[1:], others):
        if ours.dtype.kind == "f":
            np.testing.assert_allclose(ours, other, atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(ours, other, err_msg=name)


def main() -> None:
    cv2.setNumThreads(flags.FLAGS.threads)
    tf.config.threading.set_intra_op_parallelism_threads(flags.FLAGS.threads)
    tf.config.threading.set_inter_op_parallelism_threads(flags.FLAGS.threads)
    images = read_rows(flags.FLAGS.data_dir)
    strings = [string for image in images for string in image]
    some = next(image for image in images if sum(map(bool, image)) == 2)
    four, batch = tf.constant(some), tf.constant(strings)
    masks = rle.decode(batch, FULL, SMALL)
    pixels = masks.numpy()
    small = rle.encode(masks)
    others = tf.roll(small, 1, axis=0)
    small_pixels = np.roll(pixels, 1, axis=0)
    in_coco = [{"size": FULL, "counts": c} for c in rle.to_coco_string(four, FULL).numpy()]

    decode = tf.function(lambda x: rle.decode(x, FULL, SMALL))
    decode_full = tf.function(lambda x: rle.decode(x, FULL, FULL))
    plain = tf.function(lambda x: plain_decode(x, SMALL))
    plain_full = tf.function(plain_decode)
    coverage = tf.function(lambda x: rle.coverage(x, FULL, SMALL))
    encode = tf.function(rle.encode)
    remove_small = tf.function(lambda x: rle.remove_small(x, 10000))
    highest = tf.function(lambda x: tf.reduce_max(rle.components(x), axis=[1, 2]))
    count = tf.function(lambda x: rle.component_areas(x, FULL).row_lengths())
    is_well_formed = tf.function(lambda x: tf.equal(rle.faults(x, FULL), ""))
    dice = tf.function(rle.dice)
    to_coco = tf.function(lambda x: rle.to_coco_string(rle.encode(x), SMALL))

    def shrunk(string):
        mask = numpy_decode(string)
        return cv2.resize(mask, SMALL[::-1], interpolation=cv2.INTER_NEAREST_EXACT)

    def area_average(string):
        return cv2.resize(
            numpy_decode(string).astype(np.float32), SMALL[::-1], interpolation=cv2.INTER_AREA
        )

    def coco_encode(mask):
        return coco.encode(np.asfortranarray(mask))["counts"]

    tasks = [
        (
            "decode 4 to 350x525",
            {
                "ours": lambda: decode(four),
                "numpy + OpenCV": lambda: [shrunk(x) for x in some],
                "plain TensorFlow": lambda: plain(four),
            },
            {"numpy + OpenCV": 2.5, "plain TensorFlow": 20},
        ),
        (
            "decode 4 to 1400x2100",
            {
                "ours": lambda: decode_full(four),
                "numpy": lambda: [numpy_decode(x) for x in some],
                "plain TensorFlow": lambda: plain_full(four),
                "pycocotools, its own strings": lambda: [coco.decode(x) for x in in_coco],
            },
            {"plain TensorFlow": 2},
        ),
        (
            "coverage 4 to 350x525",
            {
                "ours": lambda: coverage(four),
                "numpy + OpenCV area": lambda: [area_average(x) for x in some],
            },
            {},
        ),
        (
            "encode 64 of 350x525",
            {
                "ours": lambda: encode(masks),
                "numpy": lambda: np.array([numpy_encode(x) for x in pixels], "S"),
            },
            {"numpy": 1},
        ),
        (
            "encode 64 as COCO strings",
            {
                "ours": lambda: to_coco(masks),
                "pycocotools": lambda: np.array([coco_encode(x) for x in pixels], "O"),
            },
            {},
        ),
        (
            "dice 64 of 350x525",
            {
                "ours": lambda: dice(small, others),
                "numpy on masks": lambda: [numpy_dice(a, b) for a, b in zip(pixels, small_pixels)],
            },
            {},
        ),
        (
            "check 64 rows of 1400x2100",
            {
                "ours": lambda: is_well_formed(batch),
                "numpy": lambda: [numpy_is_well_formed(x) for x in strings],
            },
            {},
        ),
        (
            "count components, 64 of 1400x2100",
            {
                "ours": lambda: count(batch),
                "numpy + OpenCV": lambda: [
                    cv2.connectedComponents(numpy_decode(x))[0] - 1 for x in strings
                ],
            },
            {},
        ),
        (
            "label components, 64 of 350x525",
            {
                "ours": lambda: highest(masks),
                "OpenCV": lambda: [cv2.connectedComponents(x)[0] - 1 for x in pixels],
            },
            {},
        ),
        (
            "remove_small 64 of 350x525",
            {
                "ours": lambda: remove_small(masks),
                "OpenCV + numpy": lambda: [numpy_remove_small(x, 10000) for x in pixels],
            },
            {"OpenCV + numpy": 0.5},
        ),
    ]
    for _, functions, _ in tasks:
        check_equal(functions)
    compare(tasks, flags.FLAGS.repeats)
    print(f"{flags.FLAGS.threads} thread(s) each, median of {flags.FLAGS.repeats} by turns")
