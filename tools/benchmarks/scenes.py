"""Suite scenes: seams of blended windows; a belt round the globe against a plain rasterio loop.

Needs the extra [geo]. Each turn of a contender is a separate process.
"""

import datetime
import json
import math
import os
import tempfile
import time

import numpy as np
import rasterio.windows
import tensorflow as tf
from absl import flags
from benchmarks import DATA, Ratio, image_paths, peak_megabytes, print_table, show, take_turns

from clouds_tf.data.preprocessing import decode_image, resize_image
from clouds_tf.dataset import CLOUDS
from clouds_tf.geo.earth import RADIUS as EARTH_RADIUS
from clouds_tf.geo.extent import Extent
from clouds_tf.keras import keras
from clouds_tf.prediction.ensemble import mean_prediction
from clouds_tf.prediction.metadata import Metadata
from clouds_tf.prediction.predictor import Predictor
from clouds_tf.scenes.jobs import Job, Options
from clouds_tf.scenes.network import Network
from clouds_tf.scenes.predict import predict_scenes
from clouds_tf.scenes.read import Scene
from clouds_tf.scenes.tiles import Tile
from clouds_tf.training import workdir as workdirs

flags.DEFINE_string(
    "images_dir", str(DATA / "clouds_small" / "train_images"), "Images; drawn ones if absent."
)
flags.DEFINE_string("workdir", None, "Trained run; random weights without, whose seams say little.")
flags.DEFINE_list("image_size", ["320", "480"], "Height and width of the network's input.")
flags.DEFINE_list("belt", ["3000", "36000"], "Height and width of the belt, in pixels.")
flags.DEFINE_integer("batch_size", 16, "Windows in a batch.", lower_bound=1)
flags.DEFINE_integer("mosaic", 3, "Images along a side of the mosaic.", lower_bound=1)
flags.DEFINE_integer("repeats", 3, "Turns of each.", lower_bound=1)
flags.DEFINE_string("contender", None, "Of a child process: which one it is.")
flags.DEFINE_string("folder", None, "Of a child process: where everything is.")
FLAGS = flags.FLAGS

OVERLAPS = (0, 0.25, 0.5)
CONTENDERS = ("network alone", "plain loop", "ours, overlap 0", "ours")
PIXEL = 0.01  # degrees
PIXELS = (1400, 2100)  # of a frame


def read_images(folder, count):
    """Images as uint8 [count, 350, 525, 3]."""
    paths = image_paths(FLAGS.images_dir, folder)
    return [
        decode_image(paths[i % len(paths)].read_bytes(), CLOUDS.submission_size).numpy()
        for i in range(count)
    ]


def print_seams(model, saved_model, images):
    """Compares blended windows with one pass of the network over a whole mosaic."""
    side, (height, width) = FLAGS.mosaic, CLOUDS.submission_size
    rows = [np.concatenate(images[i * side : (i + 1) * side], axis=1) for i in range(side)]
    mosaic = np.concatenate(rows)
    image_size = [int(length) * side for length in FLAGS.image_size]
    whole = resize_image(mosaic[np.newaxis], image_size)
    call = tf.function(lambda image: model(image, training=False))
    once, _ = mean_prediction([call], [whole], mosaic.shape[:2])
    pixels = np.dstack([mosaic, np.full(mosaic.shape[:2], 255, np.uint8)])
    scene = Scene(
        "mosaic",
        Extent(0, 0, side * width * 0.04, side * height * 0.04),
        mosaic.shape[:2],
        datetime.datetime(2020, 1, 1),
        "",
        lambda start, stop: pixels[start:stop].copy(),
    )
    network = Network(Predictor.open(saved_model), FLAGS.batch_size)
    table = [("overlap", "windows", "mean difference", "99th percentile", "at seams, mean")]
    # Cells within 16 of the edges of windows without overlap.
    seams = np.zeros(mosaic.shape[:2], bool)
    for i in range(1, side):
        seams[i * height - 16 : i * height + 16] = True
        seams[:, i * width - 16 : i * width + 16] = True
    for overlap in OVERLAPS:
        job = Job(scene, network, Options(overlap=overlap))
        parts = list(job.parts())
        for start in range(0, len(parts), FLAGS.batch_size):
            some = parts[start : start + FLAGS.batch_size]
            answers = network.predict_tiles(some)
            found = answers.probabilities, answers.masks, answers.likeness
            for part, *answer in zip(some, *found):
                job.add(part, *answer)
        found = np.moveaxis(job.finish().probabilities, 0, -1)
        difference = abs(found - once[0].numpy())
        table.append(
            (f"{overlap:g}", str(len(parts)), f"{difference.mean():.4f}")
            + (f"{np.quantile(difference, 0.99):.4f}", f"{difference[seams].mean():.4f}")
        )
    print(f"Blended windows against one pass over a mosaic of {side} x {side} images:")
    print_table(table)


def write_belt(path, images):
    """Writes a tiled GeoTIFF of repeated images, in the middle of the globe."""
    height, width = map(int, FLAGS.belt)
    large = [np.kron(image, np.ones((4, 4, 1), np.uint8)) for image in images[:4]]
    transform = rasterio.transform.from_origin(-180, height * PIXEL / 2, PIXEL, PIXEL)
    tiled = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
    with rasterio.open(
        path, "w", "GTiff", width, height, 3, "EPSG:4326", transform, np.uint8, **tiled
    ) as file:
        for i, (row, column) in enumerate(windows(height, width)):
            image = large[i % len(large)][: height - row, : width - column]
            window = rasterio.windows.Window(column, row, image.shape[1], image.shape[0])
            file.write(np.moveaxis(image, -1, 0), window=window)


def windows(height, width):
    """Upper left corners of frames side by side."""
    return [(y, x) for y in range(0, height, PIXELS[0]) for x in range(0, width, PIXELS[1])]


def plain_loop(saved_model, belt, output):
    """The usual loop: reads, predicts and writes windows without overlap."""
    module = tf.saved_model.load(saved_model)
    predict = module.signatures["from_pixels"]
    with rasterio.open(belt) as source:
        transform = source.transform * source.transform.scale(4, 4)
        shape = math.ceil(source.width / 4), math.ceil(source.height / 4)
        with rasterio.open(
            output, "w", "GTiff", *shape, 4, source.crs, transform, np.uint8, compress="deflate"
        ) as file:
            corners = windows(*source.shape)
            for start in range(0, len(corners), FLAGS.batch_size):
                some = corners[start : start + FLAGS.batch_size]
                images = [
                    source.read(
                        window=rasterio.windows.Window(x, y, PIXELS[1], PIXELS[0]),
                        boundless=True,
                        fill_value=0,
                    )
                    for y, x in some
                ]
                images = np.moveaxis(np.stack(images), 1, -1)
                found = predict(images=tf.constant(images))["probabilities"].numpy()
                for (y, x), probabilities in zip(some, found):
                    part = np.rint(probabilities * 250).astype(np.uint8)
                    part = part[: shape[1] - y // 4, : shape[0] - x // 4]
                    window = rasterio.windows.Window(x // 4, y // 4, part.shape[1], part.shape[0])
                    file.write(np.moveaxis(part, -1, 0), window=window)
    return len(corners)


def run_child(contender, folder):
    """Runs one contender once, and prints its seconds, windows and megabytes as JSON."""
    saved_model, belt = os.path.join(folder, "E", "1"), os.path.join(folder, "belt_20200101.tif")
    options = Options(
        overlap=0 if contender.endswith("0") else Options.overlap,
        formats=("netcdf",),
        batch_size=FLAGS.batch_size,
    )
    if contender != "plain loop":
        network = Network(Predictor.open(saved_model), FLAGS.batch_size)
        pixels = np.random.default_rng(0).integers(0, 255, (*network.window, 3)).astype(np.uint8)
        tile = Tile(0, 0, pixels)
        network.predict_tiles([tile] * FLAGS.batch_size)
    before = peak_megabytes()
    start = time.perf_counter()
    if contender == "plain loop":
        count = plain_loop(saved_model, belt, os.path.join(folder, "plain.tif"))
    elif contender == "network alone":
        count = 5 * FLAGS.batch_size
        for _ in range(5):
            network.predict_tiles([tile] * FLAGS.batch_size)
    else:
        with tempfile.TemporaryDirectory() as output:
            count = predict_scenes(saved_model, belt, output, options).num_windows
    seconds = time.perf_counter() - start
    megabytes = {"megabytes": peak_megabytes(), "above": peak_megabytes() - before}
    print(json.dumps({"seconds": seconds, "windows": count, **megabytes}))


def print_rates(folder):
    """Runs all contenders in turns and prints their rates."""
    settings = {"batch_size": FLAGS.batch_size}
    found = take_turns("scenes", folder, CONTENDERS, FLAGS.repeats, settings)
    height, width = (int(length) * PIXEL for length in FLAGS.belt)
    zone = 2 * math.sin(math.radians(height / 2)) * math.radians(width) * EARTH_RADIUS**2
    alone = found["network alone"]["windows"] / found["network alone"]["seconds"]
    head = ["contender", "windows", "windows/s", "seconds"]
    table = [(*head, "1,000 km2/s", "peak MB", "above the model, MB")]
    ratios = []
    for name, one in found.items():
        seconds = one["seconds"]
        rate = one["windows"] / seconds
        is_belt = name != "network alone"
        table.append(
            (name, f"{one['windows']:.0f}", f"{rate:.2f}", f"{seconds:.1f}")
            + (f"{zone / seconds / 1e3:.0f}" if is_belt else "", f"{one['megabytes']:.0f}")
            + (f"{one['above']:.0f}" if name.startswith("ours") else "",)
        )
        if is_belt:
            task, aim = f"a belt, {name}", 0.8 if name.startswith("ours") else None
            ratios.append(Ratio(task, "network alone", rate, alone, "windows/s", aim, "rate"))
    print(f"\nA belt of {FLAGS.belt[0]} x {FLAGS.belt[1]} pixels, median of {FLAGS.repeats} turns:")
    print_table(table)
    show(ratios)


def main() -> None:
    from clouds_tf.models.unet import unet
    from clouds_tf.serving.cloud_model import CloudModel, write_version

    if FLAGS.contender:
        run_child(FLAGS.contender, FLAGS.folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        if FLAGS.workdir:
            model = workdirs.Run.open(FLAGS.workdir).load_model()
            size = workdirs.Run.open(FLAGS.workdir).recipe.image_size
            FLAGS["image_size"].value = list(map(str, size))
        else:
            keras.utils.set_random_seed(0)
            model = unet()
        height, width = map(int, FLAGS.image_size)
        metadata = Metadata(CLOUDS, ((height, width),))
        saved = write_version(CloudModel([model], metadata), os.path.join(folder, "E"))
        images = read_images(folder, max(4, FLAGS.mosaic**2))
        print_seams(model, saved, images)
        write_belt(os.path.join(folder, "belt_20200101.tif"), images)
        print_rates(folder)
